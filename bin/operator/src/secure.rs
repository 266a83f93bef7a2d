//! The metrics port: HTTPS, for clients that the API server knows and allows to read `/metrics`.

use std::{
    fs, io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::SystemTime,
};

use http::{HeaderMap, StatusCode, header};
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, UserInfo},
    authorization::v1::{NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, Client, api::PostParams};
use mesh_kube::error::Explained;
use mesh_render::TlsProfile;
use mesh_runtime::{
    http::{Response, Router, Transport, text},
    stats,
};
use openssl::{
    asn1::Asn1Time,
    bn::{BigNum, MsbOption},
    ec::{EcGroup, EcKey},
    error::ErrorStack,
    hash::MessageDigest,
    nid::Nid,
    pkey::{PKey, Private},
    ssl::{Ssl, SslAcceptor, SslMethod, SslVersion},
    x509::{X509, X509NameBuilder},
};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::{net::TcpStream, sync::Semaphore};
use tokio_openssl::SslStream;

/// Why the port cannot speak TLS.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the certificate cannot be read. Whoever mounts it is at fault.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The certificate, its key or the cluster's TLS profile cannot be used.
    #[error("prepare TLS for the metrics port")]
    Tls(#[from] ErrorStack),
}

/// Handshakes of the metrics port.
#[derive(Clone)]
pub(crate) struct Tls {
    directory: Option<PathBuf>,
    profile: Arc<dyn Fn() -> Option<TlsProfile> + Send + Sync>,
    own: Arc<Identity>,
    held: Arc<Mutex<Option<Held>>>,
}

/// A certificate that nobody else has signed.
struct Identity {
    certificate: X509,
    key: PKey<Private>,
}

/// What was built, and from what.
struct Held {
    acceptor: SslAcceptor,
    source: Source,
}

/// What an acceptor is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Source {
    profile: Option<TlsProfile>,
    /// When the certificate's file was written.
    written: Option<SystemTime>,
}

/// Asks the API server who scrapes.
#[derive(Clone)]
struct Gate {
    client: Client,
    /// Questions at a time: anybody may send a token.
    questions: Arc<Semaphore>,
}

/// Questions to the API server at a time.
const QUESTIONS: usize = 4;

/// Days that a self-signed certificate lasts. Each start makes a new one.
const DAYS: u32 = 3650;

/// The routes of the port.
pub(crate) fn routes(registry: Arc<Registry>, client: Client) -> Router {
    let gate = Gate {
        client,
        questions: Arc::new(Semaphore::new(QUESTIONS)),
    };
    Router::new().get("/metrics", "metrics for Prometheus", move |request| {
        let (gate, registry) = (gate.clone(), Arc::clone(&registry));
        let headers = request.into_parts().0.headers;
        async move {
            match gate.admit(&headers).await {
                Ok(()) => stats::scrape(registry, headers).await,
                Err((status, reason)) => refused(status, reason),
            }
        }
    })
}

fn refused(status: StatusCode, reason: &'static str) -> Response {
    text(status, format!("{reason}\n"))
}

// === impl Gate ===

impl Gate {
    async fn admit(&self, headers: &HeaderMap) -> Result<(), (StatusCode, &'static str)> {
        let unknown = (
            StatusCode::UNAUTHORIZED,
            "a bearer token of the cluster is needed",
        );
        let token = headers.get(header::AUTHORIZATION);
        let token = token.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let token = token.map(str::trim).filter(|token| !token.is_empty());
        let token = token.ok_or(unknown)?;
        let down = (
            StatusCode::INTERNAL_SERVER_ERROR,
            "the API server cannot be asked who you are",
        );
        let _question = self.questions.acquire().await.map_err(|_closed| down)?;
        let user = self.review(token).await.map_err(|error| {
            tracing::warn!(error = %Explained(&error), "cannot review the token of a scrape");
            down
        })?;
        let user = user.ok_or(unknown)?;
        match self.may_read(user).await {
            Ok(true) => Ok(()),
            Ok(false) => Err((
                StatusCode::FORBIDDEN,
                "you need the permission to get the non-resource URL /metrics",
            )),
            Err(error) => {
                tracing::warn!(error = %Explained(&error), "cannot review the rights of a scrape");
                Err(down)
            }
        }
    }

    async fn review(&self, token: &str) -> Result<Option<UserInfo>, kube::Error> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                ..TokenReviewSpec::default()
            },
            ..TokenReview::default()
        };
        let api = Api::<TokenReview>::all(self.client.clone());
        let status = api.create(&PostParams::default(), &review).await?.status;
        let known = status.filter(|status| status.authenticated == Some(true));
        Ok(known.and_then(|status| status.user))
    }

    async fn may_read(&self, user: UserInfo) -> Result<bool, kube::Error> {
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: user.username,
                uid: user.uid,
                groups: user.groups,
                extra: user.extra,
                non_resource_attributes: Some(NonResourceAttributes {
                    path: Some("/metrics".to_owned()),
                    verb: Some("get".to_owned()),
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let api = Api::<SubjectAccessReview>::all(self.client.clone());
        let status = api.create(&PostParams::default(), &review).await?.status;
        Ok(status.is_some_and(|status| status.allowed))
    }
}

// === impl Tls ===

impl Tls {
    /// Speaks with the certificate of `directory`, or with one of our own, as `profile` then says.
    pub(crate) fn new(
        directory: Option<PathBuf>,
        profile: impl Fn() -> Option<TlsProfile> + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let tls = Self {
            directory,
            profile: Arc::new(profile),
            own: Arc::new(Identity::generate()?),
            held: Arc::default(),
        };
        tls.acceptor()?;
        Ok(tls)
    }

    /// What accepts connections now: the certificate's file and the cluster's TLS profile may have
    /// changed.
    fn acceptor(&self) -> Result<SslAcceptor, Error> {
        let source = Source {
            profile: (self.profile)(),
            written: self.directory.as_deref().and_then(written),
        };
        let mut held = self.held.lock();
        if let Some(held) = held.as_ref().filter(|held| held.source == source) {
            return Ok(held.acceptor.clone());
        }
        let acceptor = self.build(source.profile.as_ref())?;
        *held = Some(Held {
            acceptor: acceptor.clone(),
            source,
        });
        Ok(acceptor)
    }

    fn build(&self, profile: Option<&TlsProfile>) -> Result<SslAcceptor, Error> {
        let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
        match &self.directory {
            None => {
                builder.set_certificate(&self.own.certificate)?;
                builder.set_private_key(&self.own.key)?;
            }
            Some(directory) => {
                let mut chain = X509::stack_from_pem(&read(&directory.join("tls.crt"))?)?;
                let rest = chain.split_off(chain.len().min(1));
                for certificate in &chain {
                    builder.set_certificate(certificate)?;
                }
                for certificate in rest {
                    builder.add_extra_chain_cert(certificate)?;
                }
                let key = PKey::private_key_from_pem(&read(&directory.join("tls.key"))?)?;
                builder.set_private_key(&key)?;
            }
        }
        builder.check_private_key()?;
        if let Some(profile) = profile {
            if profile.min_version == "TLSV1_3" {
                builder.set_min_proto_version(Some(SslVersion::TLS1_3))?;
            } else if !profile.ciphers.is_empty() {
                builder.set_cipher_list(&profile.ciphers.join(":"))?;
            }
        }
        Ok(builder.build())
    }
}

impl Transport for Tls {
    type Stream = SslStream<TcpStream>;

    async fn open(&self, stream: TcpStream) -> io::Result<Self::Stream> {
        let acceptor = self.acceptor().map_err(|error| {
            tracing::error!(error = %Explained(&error), "the metrics port cannot speak TLS");
            io::Error::other(error)
        })?;
        let ssl = Ssl::new(acceptor.context())?;
        let mut stream = SslStream::new(ssl, stream)?;
        let accepted = Pin::new(&mut stream).accept().await;
        accepted.map_err(io::Error::other)?;
        Ok(stream)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })
}

fn written(directory: &Path) -> Option<SystemTime> {
    fs::metadata(directory.join("tls.crt"))
        .ok()?
        .modified()
        .ok()
}

// === impl Identity ===

impl Identity {
    fn generate() -> Result<Self, ErrorStack> {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
        let key = PKey::from_ec_key(EcKey::generate(&group)?)?;
        let mut name = X509NameBuilder::new()?;
        name.append_entry_by_nid(Nid::COMMONNAME, "lateen-operator-metrics")?;
        let name = name.build();
        let mut serial = BigNum::new()?;
        serial.rand(127, MsbOption::MAYBE_ZERO, false)?;
        let mut builder = X509::builder()?;
        builder.set_version(2)?;
        builder.set_serial_number(&*serial.to_asn1_integer()?)?;
        builder.set_subject_name(&name)?;
        builder.set_issuer_name(&name)?;
        builder.set_pubkey(&key)?;
        builder.set_not_before(&*Asn1Time::days_from_now(0)?)?;
        builder.set_not_after(&*Asn1Time::days_from_now(DAYS)?)?;
        builder.sign(&key, MessageDigest::sha256())?;
        Ok(Self {
            certificate: builder.build(),
            key,
        })
    }
}

//! Certificates from the control plane: the client of `istio.v1.auth.IstioCertificateService`.

use std::{collections::BTreeMap, error::Error as _, fmt, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use mesh_core::identity::Identity;
use mesh_proto::ca::{
    IstioCertificateRequest, istio_certificate_service_client::IstioCertificateServiceClient,
};
use parking_lot::Mutex;
use prost_types::{Struct, Value, value::Kind};
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, AsciiMetadataKey, AsciiMetadataValue, MetadataKey, MetadataValue},
    transport::Channel,
};

use crate::{
    ca::{self, CertificateAuthority, DEFAULT_TTL, IMPERSONATED_IDENTITY},
    control::{
        self, Target,
        roots::{self, Roots},
    },
    token,
};

/// How the control plane is asked for certificates.
#[derive(Clone)]
pub struct Config {
    /// Where it is, and what makes us believe it.
    pub target: Target,
    /// What proves us to it.
    pub token: token::Source,
    /// The name of our cluster, by which a control plane of several clusters picks the API server that
    /// can check our token.
    pub cluster_id: String,
    /// The life to ask for. Upstream's `SECRET_TTL`, 24 h by default.
    pub ttl: Duration,
    /// Whether to ask on behalf of workloads, as a node's proxy does; otherwise the control plane gives
    /// us the certificate of our own service account, whatever identity we name.
    pub impersonate: bool,
    /// Further headers of each request (`CA_HEADER_*`).
    pub headers: Vec<(String, String)>,
}

/// Asks the control plane for certificates.
///
/// The connection is kept between requests, and replaced when the roots by which the control plane is
/// verified have changed, or when a request was given up for want of an answer: a firewall may have
/// forgotten the connection. The token is read for each request.
pub struct Client {
    config: Config,
    headers: Vec<(MetadataKey<Ascii>, MetadataValue<Ascii>)>,
    authority: Arc<str>,
    connection: Mutex<Option<(Roots, Channel)>>,
}

/// A call that failed, in plain words: a status' own text shows what stands behind it in Rust's form.
#[derive(Debug)]
struct Call(Status);

/// A request under way. If it is dropped without an answer the connection is not used again.
struct Asking<'a> {
    client: &'a Client,
    answered: bool,
}

/// Why there is no client, or no request could be sent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address or a name in it is unusable. The configuration is at fault.
    #[error("the control plane's address cannot be used")]
    Target(#[source] control::Error),
    /// A header cannot be sent. The configuration is at fault.
    #[error("the header `{0}` cannot be sent: its name or value is not allowed in HTTP")]
    Header(String),
    /// There are no roots to verify the control plane by. Retrying helps once they are there.
    #[error("the control plane cannot be verified")]
    Roots(#[source] roots::Error),
    /// There is no token. Retrying helps once it is there.
    #[error("there is no token to prove ourselves with")]
    Token(#[source] token::Error),
}

/// Largest answer that is read: that of [`Answer`](crate::answer::Answer) and some.
const MAX_MESSAGE: usize = 2 << 20;

/// Longest piece of the server's words that we keep.
const MAX_REASON: usize = 512;

// === impl Config ===

impl Config {
    /// A configuration with the defaults of a node's proxy.
    pub fn new(target: Target, token: token::Source) -> Self {
        Self {
            target,
            token,
            cluster_id: "Kubernetes".into(),
            ttl: DEFAULT_TTL,
            impersonate: true,
            headers: Vec::new(),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Extra headers often hold credentials.
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Config")
            .field("target", &self.target)
            .field("token", &self.token)
            .field("cluster_id", &self.cluster_id)
            .field("ttl", &self.ttl)
            .field("impersonate", &self.impersonate)
            .field("headers", &names)
            .finish()
    }
}

// === impl Client ===

impl Client {
    /// A client that connects at its first request.
    ///
    /// # Errors
    /// If the configuration makes no sense; nothing is sent or read yet.
    pub fn try_new(config: Config) -> Result<Self, Error> {
        let mut headers = vec![header("clusterid", &config.cluster_id)?];
        for (name, value) in &config.headers {
            headers.push(header(name, value)?);
        }
        config.target.check().map_err(Error::Target)?;
        Ok(Self {
            headers,
            authority: config.target.address.as_str().into(),
            config,
            connection: Mutex::new(None),
        })
    }

    async fn request(
        &self,
        identity: &Identity,
        csr: &str,
    ) -> Result<Request<IstioCertificateRequest>, Error> {
        let mut request = Request::new(IstioCertificateRequest {
            csr: csr.to_owned(),
            validity_duration: i64::try_from(self.config.ttl.as_secs()).unwrap_or(i64::MAX),
            metadata: self.config.impersonate.then(|| impersonating(identity)),
        });
        let metadata = request.metadata_mut();
        for (name, value) in &self.headers {
            metadata.insert(name.clone(), value.clone());
        }
        if let Some(token) = self.config.token.token().await.map_err(Error::Token)? {
            let (name, mut value) = header("authorization", &format!("Bearer {token}"))?;
            value.set_sensitive(true);
            metadata.insert(name, value);
        }
        Ok(request)
    }

    /// The present connection, or a new one if the roots have changed since it was made.
    async fn channel(&self) -> Result<Channel, Error> {
        let roots = self.config.target.roots.load().await;
        let roots = roots.map_err(Error::Roots)?;
        let mut connection = self.connection.lock();
        if let Some((known, channel)) = &*connection
            && *known == roots
        {
            return Ok(channel.clone());
        }
        if connection.is_some() {
            tracing::info!(authority = %self.authority, "the roots have changed, connecting anew");
        }
        let channel = self.config.target.channel().map_err(Error::Target)?;
        *connection = Some((roots, channel.clone()));
        Ok(channel)
    }

    async fn ask(&self, identity: &Identity, csr: &str) -> Result<Vec<String>, ca::Error> {
        let prepared = futures::try_join!(self.channel(), self.request(identity, csr));
        let (channel, request) = prepared.map_err(|e| self.unreachable(e))?;
        let mut asking = Asking {
            client: self,
            answered: false,
        };
        let answer = IstioCertificateServiceClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE)
            .create_certificate(request)
            .await;
        asking.answered = true;
        drop(asking);
        let answer = answer.map_err(|status| self.failure(status))?;
        Ok(answer.into_inner().cert_chain)
    }

    fn failure(&self, status: Status) -> ca::Error {
        match status.code() {
            Code::Unavailable | Code::DeadlineExceeded => self.unreachable(Call(status)),
            code => {
                let words: String = status.message().chars().take(MAX_REASON).collect();
                ca::Error::Refused {
                    authority: Arc::clone(&self.authority),
                    reason: format!("{code:?}: {words}").into(),
                }
            }
        }
    }

    fn unreachable(&self, source: impl std::error::Error + Send + Sync + 'static) -> ca::Error {
        ca::Error::Unreachable {
            authority: Arc::clone(&self.authority),
            source: Arc::new(source),
        }
    }
}

impl std::error::Error for Call {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.source().is_some() {
            return f.write_str("no call can be made");
        }
        let words: String = self.0.message().chars().take(MAX_REASON).collect();
        write!(f, "{:?}: {words}", self.0.code())
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if !self.answered && self.client.connection.lock().take().is_some() {
            let authority = &self.client.authority;
            tracing::info!(%authority, "no answer was given in time, connecting anew");
        }
    }
}

impl CertificateAuthority for Client {
    fn sign<'a>(
        &'a self,
        identity: &'a Identity,
        request: &'a str,
    ) -> BoxFuture<'a, Result<Vec<String>, ca::Error>> {
        Box::pin(self.ask(identity, request))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

fn header(name: &str, value: &str) -> Result<(AsciiMetadataKey, AsciiMetadataValue), Error> {
    let invalid = || Error::Header(name.to_owned());
    let key = AsciiMetadataKey::from_bytes(name.as_bytes()).ok();
    let value = AsciiMetadataValue::try_from(value).ok();
    key.zip(value).ok_or_else(invalid)
}

fn impersonating(identity: &Identity) -> Struct {
    let value = Value {
        kind: Some(Kind::StringValue(identity.to_string())),
    };
    Struct {
        fields: BTreeMap::from([(IMPERSONATED_IDENTITY.to_owned(), value)]),
    }
}

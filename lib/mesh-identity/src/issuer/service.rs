//! The issuer over gRPC: `istio.v1.auth.IstioCertificateService`.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use mesh_core::identity::Identity;
use mesh_proto::ca::{
    IstioCertificateRequest, IstioCertificateResponse,
    istio_certificate_service_server::{IstioCertificateService, IstioCertificateServiceServer},
};
use prost_types::{Struct, value::Kind};
use tokio::sync::{Semaphore, oneshot};
use tonic::{Request, Response, Status, metadata::MetadataMap};

use super::{Current, Error};
use crate::{
    ca::{DEFAULT_TTL, IMPERSONATED_IDENTITY},
    chain::chain,
    control::Peer,
};

/// Answers certificate requests: asks an [`Authorizer`] who the caller is, and signs for that identity.
pub struct Service<A> {
    issuer: Current,
    authorizer: A,
    default_ttl: Duration,
    bench: Option<Bench>,
    observer: Option<Arc<dyn Observe>>,
}

/// Who calls, and what it claims. Nothing here is verified but the address and the peer.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// The request's headers, bearer token included.
    pub metadata: &'a MetadataMap,
    /// Where the connection comes from, if it came by [`control::incoming`](crate::control::incoming).
    pub address: Option<SocketAddr>,
    /// Whom the caller's verified client certificate names, if it has one.
    pub peer: Option<&'a Identity>,
    /// For whom a node's proxy asks; `None` if the caller asks for itself.
    pub impersonated: Option<&'a Identity>,
    /// How long the certificate is to live. Not yet compared with what is granted.
    pub lifetime: Duration,
}

/// Hears what becomes of each request, for metrics. Called on the threads that serve, so it must not
/// block.
pub trait Observe: Send + Sync + 'static {
    /// A request came to this point: first [`Event::Received`], then one of the others.
    fn observe(&self, event: Event<'_>);
}

/// What can become of a request.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// It came. A caller that goes away causes no further event.
    Received,
    /// The certificate was signed.
    Signed,
    /// It names an identity that is none.
    Malformed,
    /// The authorizer said no.
    Denied(&'a Denied),
    /// The issuer said no.
    Refused(&'a Error),
}

/// A piece of computation of about a millisecond, such as one signature.
pub type Job = Box<dyn FnOnce() + Send>;

/// Runs jobs elsewhere than on the threads that carry I/O. A job may be dropped when the process ends.
///
/// Any function that takes a [`Job`] will do.
pub trait Offload: Send + Sync + 'static {
    /// Runs the job, now or soon, and does not wait for it.
    fn run(&self, job: Job);
}

/// Where signing is done, and by how many at a time.
struct Bench {
    offload: Box<dyn Offload>,
    places: Semaphore,
}

/// Decides which identity a caller gets a certificate for.
///
/// Any function from a [`Caller`] to a boxed future will do.
pub trait Authorizer: Send + Sync + 'static {
    /// The identity to sign for. With an impersonated identity it should be that one or nothing.
    fn authorize<'a>(&'a self, caller: Caller<'a>) -> BoxFuture<'a, Result<Identity, Denied>>;
}

/// Why a caller gets no certificate. The text is for our log: the caller learns only the kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The caller has not proved who it is. It should renew its token.
    #[error("unauthenticated: {0}")]
    Unauthenticated(String),
    /// The caller may not have this identity's certificate. Retrying helps if we learn of a pod late.
    #[error("not permitted: {0}")]
    Forbidden(String),
    /// It could not be found out, for example because the API server does not answer. Retry.
    #[error("not decidable now: {0}")]
    Unavailable(String),
}

/// Largest request in bytes: a CSR of 16 KiB at most, and a few names.
const MAX_MESSAGE: usize = 64 * 1024;

// === impl Service ===

impl<A: Authorizer> Service<A> {
    /// A service that signs with `issuer` for whom `authorizer` admits, on the thread that serves.
    pub fn new(issuer: impl Into<Current>, authorizer: A) -> Self {
        Self {
            issuer: issuer.into(),
            authorizer,
            default_ttl: DEFAULT_TTL,
            bench: None,
            observer: None,
        }
    }

    /// Grants this life to who asks for none in particular, instead of [`DEFAULT_TTL`].
    #[must_use]
    pub fn with_default_ttl(mut self, ttl: Duration) -> Self {
        self.default_ttl = ttl;
        self
    }

    /// Signs where `offload` runs it, at most `at_a_time` together; further requests wait. When a whole
    /// cluster asks at once, the other work of the process goes on.
    #[must_use]
    pub fn signing_on(mut self, offload: impl Offload, at_a_time: usize) -> Self {
        self.bench = Some(Bench {
            offload: Box::new(offload),
            places: Semaphore::new(at_a_time.max(1)),
        });
        self
    }

    /// Tells `observer` what becomes of requests.
    #[must_use]
    pub fn observed_by(mut self, observer: Arc<dyn Observe>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// The service as tonic's router takes it, with bounds on the size of messages.
    pub fn into_server(self) -> IstioCertificateServiceServer<Self> {
        IstioCertificateServiceServer::new(self).max_decoding_message_size(MAX_MESSAGE)
    }

    async fn identify(
        &self,
        request: &Request<IstioCertificateRequest>,
        lifetime: Duration,
    ) -> Result<Identity, Status> {
        let impersonated = impersonated(request.get_ref().metadata.as_ref());
        let impersonated = impersonated.inspect_err(|_| self.observe(Event::Malformed))?;
        let peer = request.extensions().get::<Peer>();
        let caller = Caller {
            metadata: request.metadata(),
            address: peer.map(|peer| peer.address),
            peer: peer.and_then(|peer| peer.identity.as_ref()),
            impersonated: impersonated.as_ref(),
            lifetime,
        };
        self.authorizer.authorize(caller).await.map_err(|denied| {
            tracing::warn!(
                address = ?caller.address,
                impersonated = ?caller.impersonated.map(ToString::to_string),
                reason = %denied,
                "certificate request denied"
            );
            self.observe(Event::Denied(&denied));
            denied.status()
        })
    }

    async fn sign(
        &self,
        csr: String,
        identity: &Identity,
        ttl: Duration,
    ) -> Result<Vec<String>, Status> {
        let Some(bench) = &self.bench else {
            let signed = self.issuer.get().sign(&csr, identity, ttl);
            return self.outcome(identity, signed);
        };
        let ended = |_| Status::unavailable("the certificate authority is shutting down");
        let place = bench.places.acquire().await;
        let _place = place.map_err(|_closed| Status::internal("nothing is signed"))?;
        let (done, result) = oneshot::channel();
        let (issuer, name) = (self.issuer.get(), identity.clone());
        bench.offload.run(Box::new(move || {
            // The caller may be gone, and its certificate with it.
            drop(done.send(issuer.sign(&csr, &name, ttl)));
        }));
        self.outcome(identity, result.await.map_err(ended)?)
    }

    fn outcome(
        &self,
        identity: &Identity,
        signed: Result<Vec<String>, Error>,
    ) -> Result<Vec<String>, Status> {
        match signed {
            Ok(chain) => {
                self.observe(Event::Signed);
                tracing::debug!(%identity, "certificate signed");
                Ok(chain)
            }
            Err(error) => {
                self.observe(Event::Refused(&error));
                tracing::warn!(%identity, error = %chain(&error), "certificate request refused");
                Err(status(&error))
            }
        }
    }

    fn observe(&self, event: Event<'_>) {
        if let Some(observer) = &self.observer {
            observer.observe(event);
        }
    }
}

#[tonic::async_trait]
impl<A: Authorizer> IstioCertificateService for Service<A> {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        self.observe(Event::Received);
        let ttl = self.lifetime(request.get_ref().validity_duration);
        let identity = self.identify(&request, ttl).await?;
        let csr = request.into_inner().csr;
        let cert_chain = self.sign(csr, &identity, ttl).await?;
        Ok(Response::new(IstioCertificateResponse { cert_chain }))
    }
}

impl<A> Service<A> {
    /// Zero and less mean that the caller leaves it to us.
    fn lifetime(&self, seconds: i64) -> Duration {
        match u64::try_from(seconds) {
            Ok(seconds) if seconds > 0 => Duration::from_secs(seconds),
            _ => self.default_ttl,
        }
    }
}

impl<A: fmt::Debug> fmt::Debug for Service<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("issuer", &self.issuer)
            .field("authorizer", &self.authorizer)
            .field("default_ttl", &self.default_ttl)
            .finish_non_exhaustive()
    }
}

impl<F: Fn(Job) + Send + Sync + 'static> Offload for F {
    fn run(&self, job: Job) {
        self(job);
    }
}

// === impl Denied ===

impl Denied {
    fn status(&self) -> Status {
        match self {
            Self::Unauthenticated(_) => Status::unauthenticated("request authenticate failure"),
            Self::Forbidden(_) => Status::permission_denied("the identity is not granted"),
            Self::Unavailable(_) => Status::unavailable("the caller cannot be checked now"),
        }
    }
}

impl<F> Authorizer for F
where
    F: for<'a> Fn(Caller<'a>) -> BoxFuture<'a, Result<Identity, Denied>> + Send + Sync + 'static,
{
    fn authorize<'a>(&'a self, caller: Caller<'a>) -> BoxFuture<'a, Result<Identity, Denied>> {
        self(caller)
    }
}

fn impersonated(metadata: Option<&Struct>) -> Result<Option<Identity>, Status> {
    let Some(value) = metadata.and_then(|m| m.fields.get(IMPERSONATED_IDENTITY)) else {
        return Ok(None);
    };
    let malformed =
        |reason: &str| Status::invalid_argument(format!("{IMPERSONATED_IDENTITY}: {reason}"));
    match &value.kind {
        Some(Kind::StringValue(text)) => {
            let identity = text.parse::<Identity>();
            identity.map(Some).map_err(|e| malformed(&e.to_string()))
        }
        _ => Err(malformed("not a text")),
    }
}

/// What the caller is told: its own mistakes in full, ours not at all.
fn status(error: &Error) -> Status {
    match error {
        Error::TooLarge(_)
        | Error::Unreadable(_)
        | Error::NotSigned
        | Error::WeakKey { .. }
        | Error::Lifetime { .. } => Status::invalid_argument(error.to_string()),
        _ => Status::internal("the certificate cannot be signed"),
    }
}

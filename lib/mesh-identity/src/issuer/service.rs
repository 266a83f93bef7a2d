//! The issuer over gRPC: `istio.v1.auth.IstioCertificateService`.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use mesh_core::identity::Identity;
use mesh_proto::ca::{
    IstioCertificateRequest, IstioCertificateResponse,
    istio_certificate_service_server::{IstioCertificateService, IstioCertificateServiceServer},
};
use prost_types::{Struct, value::Kind};
use tonic::{Request, Response, Status, metadata::MetadataMap};

use super::{Error, Issuer};
use crate::{
    ca::{DEFAULT_TTL, IMPERSONATED_IDENTITY},
    chain::chain,
    control::Peer,
};

/// Answers certificate requests: asks an [`Authorizer`] who the caller is, and signs for that identity.
#[derive(Debug)]
pub struct Service<A> {
    issuer: Arc<Issuer>,
    authorizer: A,
}

/// Who calls, and what it claims. Nothing here is verified but the address.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// The request's headers, bearer token included.
    pub metadata: &'a MetadataMap,
    /// Where the connection comes from, if it came by [`control::incoming`](crate::control::incoming).
    pub address: Option<SocketAddr>,
    /// For whom a node's proxy asks; `None` if the caller asks for itself.
    pub impersonated: Option<&'a Identity>,
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
    /// A service that signs with `issuer` for whom `authorizer` admits.
    pub fn new(issuer: Arc<Issuer>, authorizer: A) -> Self {
        Self { issuer, authorizer }
    }

    /// The service as tonic's router takes it, with bounds on the size of messages.
    pub fn into_server(self) -> IstioCertificateServiceServer<Self> {
        IstioCertificateServiceServer::new(self).max_decoding_message_size(MAX_MESSAGE)
    }

    async fn identify(
        &self,
        request: &Request<IstioCertificateRequest>,
    ) -> Result<Identity, Status> {
        let impersonated = impersonated(request.get_ref().metadata.as_ref())?;
        let caller = Caller {
            metadata: request.metadata(),
            address: request.extensions().get::<Peer>().map(|peer| peer.address),
            impersonated: impersonated.as_ref(),
        };
        self.authorizer.authorize(caller).await.map_err(|denied| {
            tracing::warn!(
                address = ?caller.address,
                impersonated = ?caller.impersonated.map(ToString::to_string),
                reason = %denied,
                "certificate request denied"
            );
            denied.status()
        })
    }
}

#[tonic::async_trait]
impl<A: Authorizer> IstioCertificateService for Service<A> {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let identity = self.identify(&request).await?;
        let request = request.into_inner();
        let ttl = lifetime(request.validity_duration);
        let cert_chain = self
            .issuer
            .sign(&request.csr, &identity, ttl)
            .map_err(|error| {
                tracing::warn!(%identity, error = %chain(&error), "certificate request refused");
                status(&error)
            })?;
        tracing::debug!(%identity, "certificate signed");
        Ok(Response::new(IstioCertificateResponse { cert_chain }))
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

/// Zero and less mean that the caller leaves it to us.
fn lifetime(seconds: i64) -> Duration {
    match u64::try_from(seconds) {
        Ok(seconds) if seconds > 0 => Duration::from_secs(seconds),
        _ => DEFAULT_TTL,
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

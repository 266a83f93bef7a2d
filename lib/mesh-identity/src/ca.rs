//! What signs certificates, as the rest of the crate sees it.

use std::{fmt, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use mesh_core::identity::Identity;

/// Signs certificate requests for workloads: the control plane over gRPC
/// ([`Client`](crate::ca_client::Client)) or an issuer in this process
/// ([`Local`](crate::issuer::Local)).
pub trait CertificateAuthority: Send + Sync + fmt::Debug + 'static {
    /// Asks for a certificate for `identity`; `request` is the request in PEM.
    ///
    /// The answer is the raw chain (see [`Answer`](crate::answer::Answer)); the caller verifies it. The
    /// future may be dropped at any time and then has no effect on this side.
    fn sign<'a>(
        &'a self,
        identity: &'a Identity,
        request: &'a str,
    ) -> BoxFuture<'a, Result<Vec<String>, Error>>;
}

/// Longest life of a certificate that an issuer grants; upstream's `MAX_WORKLOAD_CERT_TTL`.
pub const MAX_TTL: Duration = Duration::from_secs(90 * 24 * 3600);
/// Life of a certificate if nothing else is asked for; upstream's `DEFAULT_WORKLOAD_CERT_TTL` and
/// `SECRET_TTL`.
pub const DEFAULT_TTL: Duration = Duration::from_secs(24 * 3600);

/// The key in a request's metadata under which a node's proxy names the workload it asks for.
pub(crate) const IMPERSONATED_IDENTITY: &str = "ImpersonatedIdentity";

/// Why there is no certificate. Cheap to clone: several waiters may be told the same.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The authority cannot be asked: its address, trust root or our token cannot be used, or nobody
    /// answers. The cluster or its configuration is at fault; retrying helps once that is repaired.
    #[error("the certificate authority {authority} cannot be reached")]
    Unreachable {
        /// Which one: an address, or `in-process`.
        authority: Arc<str>,
        /// Why not.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The authority answered no: it does not know us, or does not believe that the workload runs here.
    /// Retrying helps when it learns of a new pod later than we do.
    #[error("the certificate authority {authority} refuses: {reason}")]
    Refused {
        /// Which one.
        authority: Arc<str>,
        /// What it said: status and message.
        reason: Arc<str>,
    },
}

//! Certificates as the proxies ask for them.

use std::sync::Arc;

use futures::future::BoxFuture;
use mesh_core::identity::Identity;
use mesh_identity::{CertManager, WorkloadCertificate};
use mesh_proxy::discover::{CertificateError, Certs};

/// The certificates of this node's workloads.
#[derive(Debug)]
pub(crate) struct Managed(pub(crate) CertManager);

impl Certs for Managed {
    fn certificate<'a>(
        &'a self,
        identity: &'a Identity,
    ) -> BoxFuture<'a, Result<Arc<WorkloadCertificate>, CertificateError>> {
        Box::pin(async move {
            self.0
                .certificate(identity)
                .await
                .map_err(|source| CertificateError {
                    identity: identity.clone(),
                    source: source.into(),
                })
        })
    }
}

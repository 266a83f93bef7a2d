//! One attempt to obtain a certificate.

use std::{sync::Arc, time::Duration};

use mesh_core::identity::Identity;
use tokio::time::timeout;

use crate::{
    WorkloadCertificate,
    answer::{self, Answer},
    ca::{self, CertificateAuthority},
    certificate,
    key::{self, PrivateKey},
    tls,
};

/// Why an attempt gave no certificate. All of them are retried with back-off. Cheap to clone: several
/// waiters are told the same.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No key or request could be made. The host is at fault.
    #[error("no certificate request can be made")]
    Request(#[source] key::Error),
    /// The authority cannot be reached or refuses.
    #[error("the certificate authority does not sign")]
    Authority(#[source] ca::Error),
    /// The authority does not answer in time. It is overloaded, or a firewall drops our packets.
    #[error("the certificate authority does not answer within {0:?}")]
    Timeout(Duration),
    /// The authority answers with something else than certificates.
    #[error("the answer of the certificate authority cannot be read")]
    Answer(#[source] answer::Error),
    /// The certificate is not what was asked for, or not valid. It is not used.
    #[error("the certificate that was received cannot be used")]
    Certificate(#[source] certificate::Error),
}

/// How certificates are fetched; the same for all identities.
#[derive(Clone, Debug)]
pub(super) struct Fetcher {
    pub(super) authority: Arc<dyn CertificateAuthority>,
    pub(super) tls: tls::Settings,
    pub(super) timeout: Duration,
}

// === impl Fetcher ===

impl Fetcher {
    /// Asks for a certificate, with a new key, and verifies the answer.
    pub(super) async fn fetch(&self, identity: &Identity) -> Result<WorkloadCertificate, Error> {
        let key = PrivateKey::generate().map_err(Error::Request)?;
        let request = key.certificate_request(identity).map_err(Error::Request)?;
        let answer = timeout(self.timeout, self.authority.sign(identity, &request)).await;
        let Ok(answer) = answer else {
            return Err(Error::Timeout(self.timeout));
        };
        let answer = Answer::parse(&answer.map_err(Error::Authority)?).map_err(Error::Answer)?;
        WorkloadCertificate::try_new(identity.clone(), &key, answer, &self.tls)
            .map_err(Error::Certificate)
    }
}

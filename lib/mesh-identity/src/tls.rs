//! Mutual TLS between workloads: what is accepted and how its failures read.
//!
//! The handshakes themselves are [`WorkloadCertificate::connect`] and [`WorkloadCertificate::accept`].
//! Both sides verify inside the handshake, so a peer that is not wanted learns it by a TLS alert and
//! before it has seen our certificate (client side) or sent a byte of its own (server side). How the
//! client's verifier learns whom *this* connection expects while its configuration is shared by all is
//! told in `tls/verify.rs`.
//!
//! [`WorkloadCertificate::connect`]: crate::WorkloadCertificate::connect
//! [`WorkloadCertificate::accept`]: crate::WorkloadCertificate::accept

pub(crate) mod verify;

use std::{io, sync::Arc, time::Duration};

use mesh_core::identity::Identity;
use rustls::CertificateError;
pub use tokio_rustls::{client, server};

use crate::{provider::Versions, svid};

/// Longest time for one handshake. A peer that stalls costs a socket for this long and nothing more;
/// callers may set a shorter deadline around the call. The value is that of upstream's proxy.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The protocol of the mesh's tunnels, offered and accepted by ALPN.
pub const ALPN: &[u8] = b"h2";

/// How the workloads of this process speak TLS; the same for all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// TLS 1.3 alone unless asked.
    pub versions: Versions,
    /// Trust domains whose clients are accepted besides the workload's own, such as the former name of
    /// a cluster that is being renamed. Normally empty.
    pub trust_domain_aliases: Vec<Arc<str>>,
}

/// Why there is no connection. Nothing has been sent or delivered when one of these is returned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller names nobody whom it would accept: an endpoint without an identity cannot be reached
    /// over mutual TLS. The control plane's data is at fault.
    #[error("no identity is expected of the peer, so none can be accepted")]
    NobodyExpected,
    /// The peer stalls. It is overloaded or does not speak TLS; retrying may help.
    #[error("the TLS handshake does not finish within {0:?}")]
    Timeout(Duration),
    /// The connection breaks off. Retrying may help.
    #[error("the connection breaks during the TLS handshake")]
    Io(#[source] io::Error),
    /// The peer does not speak our TLS, or refuses us by an alert. Look at the peer's log for its
    /// reason.
    #[error("the TLS handshake fails")]
    Protocol(#[source] rustls::Error),
    /// The peer's certificate is not to be believed: other root, expired, not yet valid or not meant
    /// for this use. Look at the peer's certificate and at both clocks.
    #[error("the certificate of the peer is not valid here")]
    Untrusted(#[source] rustls::Error),
    /// The certificate is genuine but belongs to somebody else.
    #[error("the identity of the peer is refused")]
    Refused(#[source] Refusal),
}

/// Why a peer with a genuine certificate is turned away. It is in the wrong place, or the control
/// plane's data is out of date; retrying helps only in the latter case.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The certificate names no workload.
    #[error("its certificate names no workload")]
    Nameless(#[source] svid::Error),
    /// Somebody else answers at that address.
    #[error("it is {presented}, expected {}", list(.expected))]
    Unexpected {
        /// Who answers.
        presented: Identity,
        /// Who was expected.
        expected: Vec<Identity>,
    },
    /// The client comes from a trust domain that is not ours.
    #[error("it is {presented}, but only the trust domains {accepted:?} are accepted")]
    ForeignTrustDomain {
        /// Who it is.
        presented: Identity,
        /// What would have been accepted.
        accepted: Vec<Arc<str>>,
    },
    /// The handshake asked for no verification at all. That is our defect; the connection is refused.
    #[error("it was not verified")]
    Unverified,
}

// === impl Error ===

impl Error {
    /// Sorts the failure of a handshake by what is at fault.
    pub(crate) fn from_handshake(error: io::Error) -> Self {
        let tls = error.get_ref().and_then(|e| e.downcast_ref());
        match tls {
            None => Self::Io(error),
            Some(rustls::Error::InvalidCertificate(certificate)) => match refusal(certificate) {
                Some(refusal) => Self::Refused(refusal.clone()),
                None => Self::Untrusted(rustls::Error::InvalidCertificate(certificate.clone())),
            },
            Some(error @ rustls::Error::NoCertificatesPresented) => Self::Untrusted(error.clone()),
            Some(error) => Self::Protocol(error.clone()),
        }
    }
}

fn refusal(error: &CertificateError) -> Option<&Refusal> {
    match error {
        CertificateError::Other(other) => other.0.downcast_ref(),
        _ => None,
    }
}

/// At most a few names: a service may expect hundreds of identities, a log line does not.
fn list(identities: &[Identity]) -> String {
    const SHOWN: usize = 3;
    let shown = identities.iter().take(SHOWN).map(ToString::to_string);
    let more = identities.len().saturating_sub(SHOWN);
    let more = (more > 0).then(|| format!("{more} others"));
    shown.chain(more).collect::<Vec<_>>().join(" or ")
}

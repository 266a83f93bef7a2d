//! The identity that stands in a certificate (an X.509-SVID in SPIFFE's words).

use mesh_core::identity::{self, Identity};
use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// Why a certificate names no workload. Whoever issued it is at fault; retrying does not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes are not an X.509 v3 certificate. The peer sent something else.
    #[error("the certificate cannot be parsed")]
    Malformed(#[source] webpki::Error),
    /// There is no URI among the subject alternative names: a certificate of another kind of party.
    #[error("the certificate holds no URI name, so it names no workload")]
    NoUri,
    /// There are several. Which one counts would be a matter of taste, so SPIFFE forbids it (X.509-SVID
    /// §2) and so do we: have the authority issue one certificate per identity.
    #[error("the certificate holds several URI names, `{0}` and `{1}` among them")]
    SeveralUris(String, String),
    /// The URI is not the identity of a Kubernetes workload.
    #[error("the URI name of the certificate is not the identity of a workload")]
    NotAWorkload(#[source] identity::Error),
}

/// The identity in `certificate`: its one URI name.
///
/// This reads only. Whether the certificate is to be believed is decided by the chain, which the
/// caller has verified or is about to.
///
/// # Errors
/// A certificate with none or several URI names is refused. Other kinds of names are ignored.
pub fn identity(certificate: &CertificateDer<'_>) -> Result<Identity, Error> {
    let certificate = EndEntityCert::try_from(certificate).map_err(Error::Malformed)?;
    let mut uris = certificate.valid_uri_names();
    let uri = uris.next().ok_or(Error::NoUri)?;
    if let Some(other) = uris.next() {
        return Err(Error::SeveralUris(excerpt(uri), excerpt(other)));
    }
    uri.parse().map_err(Error::NotAWorkload)
}

/// The beginning of a text from outside, short enough for a log line.
fn excerpt(text: &str) -> String {
    text.chars().take(128).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Authority, Leaf};

    const ONE: &str = "spiffe://cluster.local/ns/a/sa/b";

    fn read(leaf: &Leaf<'_>) -> Result<Identity, Error> {
        identity(&Authority::new().sign(leaf).der)
    }

    #[test]
    fn the_identity_is_the_one_uri_whatever_other_names_there_are() {
        let leaf = Leaf {
            dns: &["b.a.svc"],
            ..Leaf::naming(&[ONE])
        };
        assert_eq!(read(&leaf).map(|id| id.to_string()), Ok(ONE.into()));
    }

    #[test]
    fn none_and_several_are_refused() {
        assert_eq!(read(&Leaf::naming(&[])), Err(Error::NoUri));
        let two = read(&Leaf::naming(&[ONE, "https://example.com/"]));
        assert!(matches!(two, Err(Error::SeveralUris(first, _)) if first == ONE));
    }

    #[test]
    fn a_uri_that_names_no_workload_is_refused() {
        for uri in [
            "https://example.com/",
            "spiffe://cluster.local/",
            "spiffe://cluster.local/ns/a/sa/b/c",
            "spiffe://cluster.local/ns/../sa/b",
        ] {
            let read = read(&Leaf::naming(&[uri]));
            assert!(matches!(read, Err(Error::NotAWorkload(_))), "{read:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_certificate_are_refused() {
        let read = identity(&CertificateDer::from(&b"garbage"[..]));
        assert!(matches!(read, Err(Error::Malformed(_))));
    }
}

//! The private key of a workload and the request for its certificate.

use std::fmt;

use mesh_core::identity::Identity;
use openssl::{
    ec::{Asn1Flag, EcGroup, EcKey},
    error::ErrorStack,
    hash::MessageDigest,
    nid::Nid,
    pkey::{PKey, Private},
    stack::Stack,
    x509::{X509Name, X509Req, X509ReqBuilder, extension::SubjectAlternativeName},
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// An EC P-256 private key. It lives in memory only, is made anew for each certificate and is never
/// printed.
#[derive(Clone)]
pub struct PrivateKey(PKey<Private>);

/// OpenSSL refused. It is out of entropy or memory, or its policy forbids P-256 with SHA-256: the host
/// is at fault, and a retry helps only in the former case.
#[derive(Debug, Clone, thiserror::Error)]
#[error("OpenSSL fails to {task}")]
pub struct Error {
    /// What was asked of it.
    task: &'static str,
    /// Its own words.
    #[source]
    source: ErrorStack,
}

// === impl PrivateKey ===

impl PrivateKey {
    /// A new key from the system's randomness.
    pub fn generate() -> Result<Self, Error> {
        let generate = || {
            let mut group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
            group.set_asn1_flag(Asn1Flag::NAMED_CURVE);
            PKey::from_ec_key(EcKey::generate(&group)?)
        };
        generate().map(Self).map_err(failing("generate a key"))
    }

    /// A certificate request for `identity` in PEM: empty subject, the identity as the one URI SAN
    /// (critical, as RFC 5280 asks when the subject is empty), signed with SHA-256.
    pub fn certificate_request(&self, identity: &Identity) -> Result<String, Error> {
        let request = || {
            let mut builder = X509ReqBuilder::new()?;
            builder.set_version(0)?;
            builder.set_subject_name(&X509Name::builder()?.build())?;
            builder.set_pubkey(&self.0)?;
            let san = SubjectAlternativeName::new()
                .critical()
                .uri(&identity.to_string())
                .build(&builder.x509v3_context(None))?;
            let mut extensions = Stack::new()?;
            extensions.push(san)?;
            builder.add_extensions(&extensions)?;
            builder.sign(&self.0, MessageDigest::sha256())?;
            builder.build().to_pem()
        };
        let pem = request().map_err(failing("sign a certificate request"))?;
        // PEM is ASCII by construction.
        Ok(String::from_utf8_lossy(&pem).into_owned())
    }

    /// The key as rustls takes it (PKCS #8).
    pub(crate) fn to_rustls(&self) -> Result<PrivateKeyDer<'static>, Error> {
        let der = self.0.private_key_to_pkcs8();
        let der = der.map_err(failing("encode a key"))?;
        Ok(PrivatePkcs8KeyDer::from(der).into())
    }

    pub(crate) fn as_pkey(&self) -> &PKey<Private> {
        &self.0
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

/// Parses a certificate request in PEM, as an issuer receives it.
pub(crate) fn parse_request(pem: &[u8]) -> Result<X509Req, Error> {
    X509Req::from_pem(pem).map_err(failing("read a certificate request in PEM"))
}

/// Names what OpenSSL was doing when it failed.
pub(crate) fn failing(task: &'static str) -> impl Fn(ErrorStack) -> Error {
    move |source| Error { task, source }
}

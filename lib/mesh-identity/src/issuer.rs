//! The certificate authority itself: signs certificates for workloads and for the control plane.
//!
//! [`Issuer`] signs; who may have which certificate is decided before it is asked. [`Local`] is an
//! authority in the same process, for the proxy's local mode and for tests; [`service::Service`] offers
//! an issuer over gRPC, and [`Current`] lets it sign with another one from some moment on.

mod current;
mod root;
pub mod service;
mod x509;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::future::BoxFuture;
use mesh_core::identity::Identity;
use openssl::{
    nid::Nid,
    pkey::{Id, PKey, PKeyRef, Private, Public},
    x509::X509,
};
use rustls::{RootCertStore, pki_types::UnixTime};

use self::x509::{Names, Validity};
pub use self::{
    current::Current,
    root::{Root, RootKind},
};
use crate::{
    answer::{self, parse_pem},
    ca::{self, CertificateAuthority, MAX_TTL},
    chain::chain,
    control::ServerCertificate,
    facts::{self, Facts},
    key::{self, PrivateKey, failing, parse_request},
    provider::provider,
    tls::verify::ServerVerifier,
};

/// A signing certificate with its key and the roots that verifiers need.
///
/// When built it has proved that what it signs leads to its roots.
pub struct Issuer {
    key: PKey<Private>,
    certificate: X509,
    not_after: SystemTime,
    /// What a leaf is sent with: PEM of the signing certificate and those above it, without the root.
    intermediates: Vec<String>,
    roots: String,
    max_ttl: Duration,
}

/// The files of an authority that was made elsewhere, each PEM.
#[derive(Clone, Copy)]
pub struct Material<'a> {
    /// The signing certificate.
    pub certificate: &'a str,
    /// Its private key, RSA or EC.
    pub key: &'a str,
    /// The certificates that lead from the signing certificate to a root, in order, the signing
    /// certificate first; empty if it is a root itself.
    pub chain: &'a str,
    /// The roots that workloads trust, several while one is being replaced.
    pub roots: &'a str,
}

/// Signs in this process, for whatever identity is asked for: there is nobody else here to deceive.
#[derive(Debug)]
pub struct Local {
    issuer: Arc<Issuer>,
    ttl: Duration,
}

/// Why nothing is signed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The request is larger than 16 KiB, which no honest one is. The requester is at fault.
    #[error("the certificate request of {0} bytes is too large")]
    TooLarge(usize),
    /// The request cannot be read, or its signature cannot be checked. The requester is at fault.
    #[error("the certificate request cannot be read")]
    Unreadable(#[source] key::Error),
    /// The requester does not hold the key that it wants certified.
    #[error("the certificate request is not signed by its own key")]
    NotSigned,
    /// The key is neither EC P-256 (or P-384) nor RSA of 2048 to 8192 bits. The requester has to make
    /// another.
    #[error("a key of kind {kind:?} with {bits} bits is not certified")]
    WeakKey {
        /// OpenSSL's number for the kind.
        kind: Id,
        /// Its length.
        bits: u32,
    },
    /// A longer life was asked for than is granted. The requester is at fault; ask for less.
    #[error("a lifetime of {asked:?} was asked for, at most {limit:?} is granted")]
    Lifetime {
        /// What was asked for.
        asked: Duration,
        /// What is granted.
        limit: Duration,
    },
    /// The signing certificate has run out. Its owner has to replace it.
    #[error("the certificate of the authority is expired")]
    Expired,
    /// OpenSSL does not sign. The host, or the kind of the authority's key, is at fault.
    #[error("the certificate cannot be signed")]
    Signing(#[source] key::Error),
    /// The key or certificate of the authority cannot be read. Whoever made the files is at fault, as in
    /// the next ones.
    #[error("the files of the authority cannot be read")]
    Material(#[source] key::Error),
    /// The files of the authority are not PEM.
    #[error("the {0} of the authority is not PEM")]
    NotPem(&'static str, #[source] answer::PemError),
    /// The files of the authority hold no such thing.
    #[error("the {0} of the authority is missing")]
    Missing(&'static str),
    /// A certificate of the authority cannot be read.
    #[error("the certificate of the authority cannot be read")]
    Facts(#[source] facts::Error),
    /// What is signed would not be believed: the key is another one's, the certificate is not one of an
    /// authority or is expired, or the chain does not lead to the roots.
    #[error("what the authority signs does not lead to its roots")]
    Unbelievable(#[source] rustls::Error),
}

/// Largest request that is read.
const MAX_REQUEST: usize = 16 * 1024;

// === impl Issuer ===

impl Issuer {
    /// A new root of its own, EC P-256, for `organization` (by convention the trust domain).
    pub fn self_signed(organization: &str, ttl: Duration) -> Result<Self, Error> {
        let root = Root::generate(RootKind::EcP256, organization, ttl)?;
        Self::from_pem(Material {
            certificate: &root.certificate,
            key: &root.key,
            chain: "",
            roots: &root.certificate,
        })
    }

    /// An authority that was made elsewhere.
    pub fn from_pem(material: Material<'_>) -> Result<Self, Error> {
        let key = PKey::private_key_from_pem(material.key.as_bytes())
            .map_err(failing("read a private key in PEM"))
            .map_err(Error::Material)?;
        let certificate = X509::from_pem(material.certificate.as_bytes())
            .map_err(failing("read a certificate in PEM"))
            .map_err(Error::Material)?;
        let chain = parse_pem(material.chain).map_err(|e| Error::NotPem("chain", e))?;
        let chain = chain.iter().map(|c| Facts::of(c).map(|facts| facts.pem));
        let chain = chain.collect::<Result<Vec<_>, _>>().map_err(Error::Facts)?;
        Self::proved(key, certificate, chain, material.roots.to_owned())
    }

    /// Grants a shorter life than [`MAX_TTL`] at most.
    #[must_use]
    pub fn with_max_ttl(mut self, max_ttl: Duration) -> Self {
        self.max_ttl = max_ttl;
        self
    }

    /// Signs `request` (PEM) for `identity`.
    ///
    /// Only the key is taken from the request; names and extensions in it are ignored, since only the
    /// caller knows who asks. The certificate ends no later than the authority's own. The result is in
    /// the wire form of an [`Answer`](crate::answer::Answer).
    pub fn sign(
        &self,
        request: &str,
        identity: &Identity,
        ttl: Duration,
    ) -> Result<Vec<String>, Error> {
        let key = check_request(request)?;
        let name = identity.to_string();
        let leaf = self.sign_key(&key, &Names::Uri(&name), ttl)?;
        let mut answer = vec![leaf];
        answer.extend(self.intermediates.iter().cloned());
        answer.push(self.roots.clone());
        Ok(answer)
    }

    /// Makes a key and a certificate for a server of the control plane that is known by these DNS
    /// names.
    pub fn server_certificate(
        &self,
        dns_names: &[&str],
        ttl: Duration,
    ) -> Result<ServerCertificate, Error> {
        let key = PrivateKey::generate().map_err(Error::Signing)?;
        let public = public_half(key.as_pkey())?;
        let leaf = self.sign_key(&public, &Names::Dns(dns_names), ttl)?;
        let chain = std::iter::once(leaf).chain(self.intermediates.iter().cloned());
        Ok(ServerCertificate {
            chain: chain.collect(),
            key,
        })
    }

    /// The roots in PEM, as they are handed to clients of the control plane.
    pub fn roots(&self) -> &str {
        &self.roots
    }

    /// Last moment at which this authority's own certificate is valid; nothing it signs lives longer.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Whether who trusts `roots` (PEM) believes what this authority signs.
    ///
    /// # Errors
    /// If that cannot be found out: `roots` are not PEM or empty, or nothing can be signed.
    pub fn is_trusted_by(&self, roots: &str) -> Result<bool, Error> {
        match self.prove_to(roots) {
            Ok(()) => Ok(true),
            Err(Error::Unbelievable(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn proved(
        key: PKey<Private>,
        certificate: X509,
        intermediates: Vec<String>,
        roots: String,
    ) -> Result<Self, Error> {
        let der = certificate.to_der();
        let der = der.map_err(failing("encode a certificate"));
        let facts = Facts::of(&der.map_err(Error::Signing)?.into()).map_err(Error::Facts)?;
        let issuer = Self {
            key,
            certificate,
            not_after: facts.not_after,
            intermediates,
            roots,
            max_ttl: MAX_TTL,
        };
        issuer.prove_to(&issuer.roots)?;
        Ok(issuer)
    }

    /// Signs for nobody and verifies the result as a peer would that trusts `trusted`.
    fn prove_to(&self, trusted: &str) -> Result<(), Error> {
        let probe = self.server_certificate(&["probe.invalid"], Duration::from_secs(1))?;
        let read = |what, pem| parse_pem(pem).map_err(|e| Error::NotPem(what, e));
        let presented = read("chain", &probe.chain)?;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(read("root bundle", trusted)?);
        if roots.is_empty() {
            return Err(Error::Missing("root bundle"));
        }
        let (leaf, intermediates) = presented.split_first().ok_or(Error::Missing("chain"))?;
        ServerVerifier::new(Arc::new(roots), &provider())
            .verify_chain(leaf, intermediates, UnixTime::now())
            .map_err(Error::Unbelievable)
    }

    fn sign_key(
        &self,
        key: &PKeyRef<Public>,
        names: &Names<'_>,
        ttl: Duration,
    ) -> Result<String, Error> {
        if ttl > self.max_ttl {
            return Err(Error::Lifetime {
                asked: ttl,
                limit: self.max_ttl,
            });
        }
        let left = self.not_after.duration_since(SystemTime::now());
        let left = left.ok().filter(|left| !left.is_zero());
        let ttl = ttl.min(left.ok_or(Error::Expired)?);
        let validity = Validity::starting_now(ttl).map_err(Error::Signing)?;
        let signer = x509::Signer {
            key: &self.key,
            certificate: &self.certificate,
        };
        let leaf = signer.leaf(key, names, &validity);
        leaf.and_then(|leaf| x509::to_pem(&leaf))
            .map_err(Error::Signing)
    }
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issuer")
            .field("certificate", &self.certificate)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Material<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key stays out of logs.
        f.write_str("Material(..)")
    }
}

// === impl Local ===

impl Local {
    /// An authority in this process, with certificates of the given life.
    pub fn new(issuer: Arc<Issuer>, ttl: Duration) -> Self {
        Self { issuer, ttl }
    }
}

impl CertificateAuthority for Local {
    fn sign<'a>(
        &'a self,
        identity: &'a Identity,
        request: &'a str,
    ) -> BoxFuture<'a, Result<Vec<String>, ca::Error>> {
        let answer = self.issuer.sign(request, identity, self.ttl);
        let answer = answer.map_err(|error| ca::Error::Refused {
            authority: Arc::from("in-process"),
            reason: chain(&error).into(),
        });
        Box::pin(std::future::ready(answer))
    }
}

/// The key of a request whose sender holds its private half.
fn check_request(request: &str) -> Result<PKey<Public>, Error> {
    if request.len() > MAX_REQUEST {
        return Err(Error::TooLarge(request.len()));
    }
    let request = parse_request(request.as_bytes()).map_err(Error::Unreadable)?;
    let key = request.public_key();
    let key = key.map_err(failing("read the key of a certificate request"));
    let key = key.map_err(Error::Unreadable)?;
    check_strength(&key)?;
    let signed = request.verify(&key);
    let signed = signed.map_err(failing("verify the signature of a certificate request"));
    if signed.map_err(Error::Unreadable)? {
        Ok(key)
    } else {
        Err(Error::NotSigned)
    }
}

fn check_strength(key: &PKeyRef<Public>) -> Result<(), Error> {
    // The length alone would let in curves that nobody verifies.
    let curve = key.ec_key().ok().and_then(|key| key.group().curve_name());
    match (key.id(), curve, key.bits()) {
        (Id::EC, Some(Nid::X9_62_PRIME256V1 | Nid::SECP384R1), _)
        | (Id::RSA, None, 2048..=8192) => Ok(()),
        (kind, _, bits) => Err(Error::WeakKey { kind, bits }),
    }
}

fn public_half(key: &PKeyRef<Private>) -> Result<PKey<Public>, Error> {
    key.public_key_to_der()
        .and_then(|der| PKey::public_key_from_der(&der))
        .map_err(failing("encode a key"))
        .map_err(Error::Signing)
}

#[cfg(test)]
mod tests;

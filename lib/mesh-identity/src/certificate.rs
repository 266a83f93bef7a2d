//! The certificate of a workload, ready for use: everything that handshakes share is built when it
//! arrives.

use std::{fmt, net::Ipv4Addr, sync::Arc, time::SystemTime};

use mesh_core::identity::Identity;
use openssl::{error::ErrorStack, x509::X509};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::NoServerSessionStorage,
    sign::{CertifiedKey, SingleCertAndKey},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::{
    answer::Answer,
    facts::{self, Facts},
    key::{self, PrivateKey},
    svid,
    tls::{
        self, ALPN, HANDSHAKE_TIMEOUT, Refusal, Settings,
        verify::{ClientVerifier, ServerVerifier, expecting},
    },
};

/// One workload's certificate with its key, its chain, the roots that it trusts, and the TLS
/// configurations of both directions.
///
/// It is verified when built: it bears the identity that was asked for, fits the key, leads to the
/// roots it came with and is valid at that moment. After that it only ages.
pub struct WorkloadCertificate {
    identity: Identity,
    leaf: Facts,
    answer: Answer,
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

/// Why the answer of a certificate authority makes no certificate. Unless said otherwise the authority
/// is at fault and a later attempt may help.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The leaf cannot be read.
    #[error("the dates and serial number of the certificate cannot be read")]
    Unreadable(#[source] facts::Error),
    /// The leaf names no workload.
    #[error("the certificate names no workload")]
    Nameless(#[source] svid::Error),
    /// The leaf names somebody else.
    #[error("the certificate is for {0}, which was not asked for")]
    OtherIdentity(Identity),
    /// The leaf is for another key than that of the request.
    #[error("the certificate does not belong to the key of its request")]
    OtherKey,
    /// The public key in the leaf cannot be read.
    #[error("the public key of the certificate cannot be read")]
    UnreadableKey(#[source] ErrorStack),
    /// None of the roots can be used.
    #[error("none of the {0} roots that came with the certificate can be used")]
    NoRoots(usize),
    /// The chain does not lead to the roots, or is not valid now. Check the authority's intermediate
    /// certificates, and the clocks.
    #[error("the certificate is not valid with the roots that came with it")]
    Invalid(#[source] rustls::Error),
    /// Our cryptography refuses its own key. The host is at fault.
    #[error("the private key cannot be used")]
    Key(#[source] key::Error),
    /// The TLS library refuses the configuration. That is our defect.
    #[error("no TLS configuration can be built")]
    Configuration(#[source] rustls::Error),
}

/// What both directions share while their configurations are built.
struct Ingredients<'a> {
    settings: &'a Settings,
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    own: Arc<SingleCertAndKey>,
}

// === impl WorkloadCertificate ===

impl WorkloadCertificate {
    /// Verifies the `answer` that a certificate authority gave for `identity` and `key`, and builds
    /// what handshakes need.
    pub fn try_new(
        identity: Identity,
        key: &PrivateKey,
        answer: Answer,
        settings: &Settings,
    ) -> Result<Self, Error> {
        check_subject(&identity, key, &answer.leaf)?;
        let leaf = Facts::of(&answer.leaf).map_err(Error::Unreadable)?;
        let provider = settings.versions.provider();
        let ingredients = Ingredients {
            settings,
            roots: Arc::new(root_store(&answer)?),
            own: Arc::new(certified_key(key, &answer, &provider)?.into()),
            provider,
        };
        Ok(Self {
            client: Arc::new(ingredients.client(&answer)?),
            server: Arc::new(ingredients.server(&identity)?),
            identity,
            leaf,
            answer,
        })
    }

    /// Opens a connection of this workload over `io` to a peer that must be one of `expected`.
    ///
    /// The peer's chain, dates and identity are checked inside the handshake, against the roots that
    /// came with this certificate; host names play no part and none is sent. Returns the peer's
    /// identity with the stream. Under TLS 1.3 a server verifies us after we are done, so its refusal
    /// is not seen here but by the first read.
    ///
    /// # Errors
    /// An empty `expected` matches nobody. A handshake is given up after
    /// [`HANDSHAKE_TIMEOUT`]; callers may set a shorter deadline around this
    /// call, and dropping it closes `io`.
    pub async fn connect<IO>(
        &self,
        io: IO,
        expected: &[Identity],
    ) -> Result<(client::TlsStream<IO>, Identity), tls::Error>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        if expected.is_empty() {
            return Err(tls::Error::NobodyExpected);
        }
        // Required by rustls; an address is never sent as SNI, and our verifier does not look at it.
        let no_name = ServerName::from(Ipv4Addr::UNSPECIFIED);
        let handshake = TlsConnector::from(Arc::clone(&self.client)).connect(no_name, io);
        let (outcome, accepted) = expecting(expected, timeout(HANDSHAKE_TIMEOUT, handshake)).await;
        let stream = finished(outcome)?;
        let accepted = accepted.ok_or(tls::Error::Refused(Refusal::Unverified))?;
        Ok((stream, accepted))
    }

    /// Accepts a connection for this workload over `io`.
    ///
    /// The client must present a certificate that leads to our roots, is valid for clients and names a
    /// workload of our trust domain (or an alias of it); all of that is checked inside the handshake.
    /// Returns the client's identity with the stream.
    ///
    /// # Errors
    /// A handshake is given up after [`HANDSHAKE_TIMEOUT`]; callers may set a shorter deadline around
    /// this call, and dropping it closes `io`.
    pub async fn accept<IO>(&self, io: IO) -> Result<(server::TlsStream<IO>, Identity), tls::Error>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let handshake = TlsAcceptor::from(Arc::clone(&self.server)).accept(io);
        let stream = finished(timeout(HANDSHAKE_TIMEOUT, handshake).await)?;
        let client = stream.get_ref().1.peer_certificates();
        let leaf = client.and_then(<[_]>::first);
        let leaf = leaf.ok_or(tls::Error::Refused(Refusal::Unverified))?;
        let identity = svid::identity(leaf);
        let identity = identity.map_err(|e| tls::Error::Refused(Refusal::Nameless(e)))?;
        Ok((stream, identity))
    }

    /// Whose certificate this is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// First moment of validity.
    pub fn not_before(&self) -> SystemTime {
        self.leaf.not_before
    }

    /// Last moment of validity.
    pub fn not_after(&self) -> SystemTime {
        self.leaf.not_after
    }

    /// Whether the certificate has run out at `now`.
    pub fn is_expired(&self, now: SystemTime) -> bool {
        now > self.leaf.not_after
    }

    /// The serial number in decimal.
    pub fn serial(&self) -> &str {
        &self.leaf.serial
    }

    /// The facts of leaf and intermediates, in order, read anew at each call: for dumps.
    pub fn chain(&self) -> Vec<Facts> {
        let intermediates = readable(&self.answer.intermediates);
        std::iter::once(self.leaf.clone())
            .chain(intermediates)
            .collect()
    }

    /// The facts of the roots, read anew at each call: for dumps.
    pub fn roots(&self) -> Vec<Facts> {
        readable(&self.answer.roots).collect()
    }
}

impl fmt::Debug for WorkloadCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkloadCertificate")
            .field("identity", &self.identity)
            .field("serial", &self.leaf.serial)
            .field("not_after", &self.leaf.not_after)
            .finish_non_exhaustive()
    }
}

// === impl Ingredients ===

impl Ingredients<'_> {
    fn client(&self, answer: &Answer) -> Result<ClientConfig, Error> {
        let verifier = ServerVerifier::new(Arc::clone(&self.roots), &self.provider);
        // Our own chain has to pass what our peers will do with it.
        verifier
            .verify_chain(&answer.leaf, &answer.intermediates, UnixTime::now())
            .map_err(Error::Invalid)?;
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(self.settings.versions.protocol())
            .map_err(Error::Configuration)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(self.own.clone());
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.enable_sni = false;
        // A resumed session carries no certificate, hence no check of it.
        config.resumption = Resumption::disabled();
        config.require_ems = self.provider.fips();
        Ok(config)
    }

    fn server(&self, identity: &Identity) -> Result<ServerConfig, Error> {
        let own = std::iter::once(Arc::from(identity.trust_domain()));
        let aliases = self.settings.trust_domain_aliases.iter().cloned();
        let verifier = ClientVerifier::try_new(
            Arc::clone(&self.roots),
            Arc::clone(&self.provider),
            own.chain(aliases).collect(),
        )
        .map_err(|e| Error::Configuration(rustls::Error::General(e.to_string())))?;
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(self.settings.versions.protocol())
            .map_err(Error::Configuration)?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(self.own.clone());
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.require_ems = self.provider.fips();
        Ok(config)
    }
}

/// The leaf names the workload and holds the key that the request was made for.
fn check_subject(
    identity: &Identity,
    key: &PrivateKey,
    leaf: &CertificateDer<'_>,
) -> Result<(), Error> {
    let named = svid::identity(leaf).map_err(Error::Nameless)?;
    if named != *identity {
        return Err(Error::OtherIdentity(named));
    }
    let public = X509::from_der(leaf).and_then(|x509| x509.public_key());
    if public
        .map_err(Error::UnreadableKey)?
        .public_eq(key.as_pkey())
    {
        Ok(())
    } else {
        Err(Error::OtherKey)
    }
}

/// The roots, without those that cannot serve as one: a bundle of many clusters should not fail
/// because of a single one.
fn root_store(answer: &Answer) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    let (usable, ignored) = store.add_parsable_certificates(answer.roots.iter().cloned());
    if ignored > 0 {
        tracing::warn!(
            usable,
            ignored,
            "some roots of the certificate authority cannot be used"
        );
    }
    if usable == 0 {
        return Err(Error::NoRoots(ignored));
    }
    Ok(store)
}

fn certified_key(
    key: &PrivateKey,
    answer: &Answer,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, Error> {
    let key = key.to_rustls().map_err(Error::Key)?;
    let key = provider.key_provider.load_private_key(key);
    let key = key.map_err(Error::Configuration)?;
    Ok(CertifiedKey::new(answer.chain(), key))
}

fn readable(certificates: &[CertificateDer<'_>]) -> impl Iterator<Item = Facts> {
    certificates.iter().filter_map(|c| Facts::of(c).ok())
}

/// The stream of a handshake that ended in time and well.
fn finished<S>(
    outcome: Result<std::io::Result<S>, tokio::time::error::Elapsed>,
) -> Result<S, tls::Error> {
    let Ok(outcome) = outcome else {
        return Err(tls::Error::Timeout(HANDSHAKE_TIMEOUT));
    };
    outcome.map_err(tls::Error::from_handshake)
}

#[cfg(test)]
mod tests;

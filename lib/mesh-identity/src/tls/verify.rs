//! The verifiers of both sides.
//!
//! # How the client knows whom to expect
//!
//! One `ClientConfig`, and with it one verifier, serves every connection of a workload; whom a
//! connection expects differs each time. Three ways were weighed:
//!
//! 1. *Look after the handshake.* Simple, but by then TLS 1.3 has shown our certificate to the wrong
//!    peer and let it count an established connection.
//! 2. *A verifier per connection* in a cloned configuration. Right, but allocates per connection, and
//!    whoever forgets the clone has a client that believes anyone.
//! 3. *An expectation that travels with the handshake.* The handshake future is polled inside
//!    [`expecting`], a task-local scope, and rustls calls the verifier from within that poll.
//!
//! The third is used. It fails closed twice: outside a scope the verifier refuses every peer, and the
//! identity that `connect` returns is the one that the verifier left in the scope, so there is no way
//! to a stream that passes by the check. Resumption is off, so there is a check in each handshake.

use std::{cell::OnceCell, future::Future, pin::pin, sync::Arc};

use mesh_core::identity::Identity;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use super::Refusal;
use crate::svid;

/// Verifies a server by chain and SPIFFE identity. Host names play no part.
#[derive(Debug)]
pub(crate) struct ServerVerifier {
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// Verifies a client by chain and trust domain. A client without a certificate is refused.
#[derive(Debug)]
pub(crate) struct ClientVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    trust_domains: Vec<Arc<str>>,
}

/// Whom one handshake expects, and whom the verifier has accepted in it.
struct Expectation {
    any_of: Vec<Identity>,
    accepted: OnceCell<Identity>,
}

tokio::task_local! {
    static EXPECTATION: Expectation;
}

/// Drives a client's handshake, which may only meet one of `any_of`. The second value is the identity
/// that the verifier has accepted, if it came so far.
pub(crate) async fn expecting<F: Future>(
    any_of: &[Identity],
    handshake: F,
) -> (F::Output, Option<Identity>) {
    let expectation = Expectation {
        any_of: any_of.to_vec(),
        accepted: OnceCell::new(),
    };
    let mut scope = pin!(EXPECTATION.scope(expectation, handshake));
    let output = scope.as_mut().await;
    let accepted = scope.take_value().and_then(|e| e.accepted.into_inner());
    (output, accepted)
}

// === impl ServerVerifier ===

impl ServerVerifier {
    pub(crate) fn new(roots: Arc<RootCertStore>, provider: &CryptoProvider) -> Self {
        Self {
            roots,
            algorithms: provider.signature_verification_algorithms,
        }
    }

    /// Whether `leaf` leads to one of the roots and may serve at `now`.
    pub(crate) fn verify_chain(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(leaf)?,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify_chain(end_entity, intermediates, now)?;
        EXPECTATION
            .try_with(|expectation| expectation.meet(end_entity))
            .unwrap_or(Err(Refusal::Unverified))
            .map_err(refuse)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

// === impl ClientVerifier ===

impl ClientVerifier {
    pub(crate) fn try_new(
        roots: Arc<RootCertStore>,
        provider: Arc<CryptoProvider>,
        trust_domains: Vec<Arc<str>>,
    ) -> Result<Self, VerifierBuilderError> {
        // Without hints: the roots' names tell a client nothing it could choose by.
        let chain = WebPkiClientVerifier::builder_with_provider(roots, provider)
            .clear_root_hint_subjects()
            .build()?;
        Ok(Self {
            chain,
            trust_domains,
        })
    }

    fn admit(&self, leaf: &CertificateDer<'_>) -> Result<(), Refusal> {
        let presented = svid::identity(leaf).map_err(Refusal::Nameless)?;
        let domain = presented.trust_domain();
        if self.trust_domains.iter().any(|own| **own == *domain) {
            return Ok(());
        }
        Err(Refusal::ForeignTrustDomain {
            presented,
            accepted: self.trust_domains.clone(),
        })
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .chain
            .verify_client_cert(end_entity, intermediates, now)?;
        self.admit(end_entity).map_err(refuse)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

// === impl Expectation ===

impl Expectation {
    fn meet(&self, leaf: &CertificateDer<'_>) -> Result<(), Refusal> {
        let presented = svid::identity(leaf).map_err(Refusal::Nameless)?;
        if !self.any_of.contains(&presented) {
            return Err(Refusal::Unexpected {
                presented,
                expected: self.any_of.clone(),
            });
        }
        // A handshake verifies once; were it to do so twice, both must be the same peer.
        if *self.accepted.get_or_init(|| presented.clone()) == presented {
            Ok(())
        } else {
            Err(Refusal::Unverified)
        }
    }
}

fn refuse(refusal: Refusal) -> Error {
    CertificateError::Other(OtherError(Arc::new(refusal))).into()
}

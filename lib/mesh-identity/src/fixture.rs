//! Certificates of every kind for tests, good and bad, and TLS peers that do not behave.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_core::identity::Identity;
use openssl::{
    asn1::Asn1Time,
    bn::BigNum,
    hash::MessageDigest,
    nid::Nid,
    x509::{
        X509, X509Name,
        extension::{BasicConstraints, ExtendedKeyUsage, SubjectAlternativeName},
    },
};
use rustls::{
    ClientConfig, ServerConfig, SupportedProtocolVersion,
    client::{
        WantsClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    version::TLS12,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::{
    WorkloadCertificate, answer::Answer, key::PrivateKey, provider::Versions, tls::Settings,
};

pub(crate) const HOUR: i64 = 3600;

/// A root that signs whatever a test wants.
pub(crate) struct Authority {
    key: PrivateKey,
    certificate: X509,
}

/// What a test wants in a leaf. Dates are seconds from now.
#[derive(Clone, Copy)]
pub(crate) struct Leaf<'a> {
    pub(crate) uris: &'a [&'a str],
    pub(crate) dns: &'a [&'a str],
    pub(crate) from: i64,
    pub(crate) to: i64,
    pub(crate) server: bool,
    pub(crate) client: bool,
}

/// A leaf with its key.
pub(crate) struct Signed {
    pub(crate) der: CertificateDer<'static>,
    pub(crate) pem: String,
    pub(crate) key: PrivateKey,
}

/// Believes any server: for clients that are the test's villain, not its subject.
#[derive(Debug)]
struct Credulous;

pub(crate) fn mk_identity(namespace: &str, account: &str) -> Identity {
    Identity::try_new("cluster.local", namespace, account).unwrap()
}

// === impl Authority ===

impl Authority {
    pub(crate) fn new() -> Self {
        Self::under(None, "test")
    }

    /// An authority whose certificate this one signs.
    pub(crate) fn subordinate(&self) -> Self {
        Self::under(Some(self), "subordinate")
    }

    fn under(parent: Option<&Self>, organization: &str) -> Self {
        let key = PrivateKey::generate().unwrap();
        let mut name = X509Name::builder().unwrap();
        name.append_entry_by_nid(Nid::ORGANIZATIONNAME, organization)
            .unwrap();
        let name = name.build();
        let issuer = parent.map_or(&*name, |p| p.certificate.subject_name());
        let signer = parent.map_or(&key, |p| &p.key);
        let mut builder = X509::builder().unwrap();
        builder.set_version(2).unwrap();
        builder.set_serial_number(&mk_serial()).unwrap();
        builder.set_subject_name(&name).unwrap();
        builder.set_issuer_name(issuer).unwrap();
        builder.set_not_before(&mk_time(-HOUR)).unwrap();
        builder.set_not_after(&mk_time(100 * HOUR)).unwrap();
        builder.set_pubkey(key.as_pkey()).unwrap();
        let ca = BasicConstraints::new().critical().ca().build().unwrap();
        builder.append_extension(ca).unwrap();
        builder
            .sign(signer.as_pkey(), MessageDigest::sha256())
            .unwrap();
        let certificate = builder.build();
        Self { key, certificate }
    }

    pub(crate) fn pem(&self) -> String {
        String::from_utf8(self.certificate.to_pem().unwrap()).unwrap()
    }

    pub(crate) fn key_pem(&self) -> String {
        String::from_utf8(self.key.as_pkey().private_key_to_pem_pkcs8().unwrap()).unwrap()
    }

    pub(crate) fn sign(&self, leaf: &Leaf<'_>) -> Signed {
        self.sign_for(PrivateKey::generate().unwrap(), leaf)
    }

    pub(crate) fn sign_for(&self, key: PrivateKey, leaf: &Leaf<'_>) -> Signed {
        let mut builder = X509::builder().unwrap();
        builder.set_version(2).unwrap();
        builder.set_serial_number(&mk_serial()).unwrap();
        builder
            .set_issuer_name(self.certificate.subject_name())
            .unwrap();
        builder.set_not_before(&mk_time(leaf.from)).unwrap();
        builder.set_not_after(&mk_time(leaf.to)).unwrap();
        builder.set_pubkey(key.as_pkey()).unwrap();
        if leaf.server || leaf.client {
            let mut purpose = ExtendedKeyUsage::new();
            if leaf.server {
                purpose.server_auth();
            }
            if leaf.client {
                purpose.client_auth();
            }
            builder.append_extension(purpose.build().unwrap()).unwrap();
        }
        if !leaf.uris.is_empty() || !leaf.dns.is_empty() {
            let mut names = SubjectAlternativeName::new();
            names.critical();
            for uri in leaf.uris {
                names.uri(uri);
            }
            for dns in leaf.dns {
                names.dns(dns);
            }
            let context = builder.x509v3_context(Some(&self.certificate), None);
            let names = names.build(&context).unwrap();
            builder.append_extension(names).unwrap();
        }
        builder
            .sign(self.key.as_pkey(), MessageDigest::sha256())
            .unwrap();
        let certificate = builder.build();
        Signed {
            der: certificate.to_der().unwrap().into(),
            pem: String::from_utf8(certificate.to_pem().unwrap()).unwrap(),
            key,
        }
    }

    /// A good certificate, built as the manager would.
    pub(crate) fn certify(&self, identity: &Identity, settings: &Settings) -> WorkloadCertificate {
        let name = identity.to_string();
        let signed = self.sign(&Leaf::naming(&[&name]));
        let answer = Answer::parse(&[signed.pem, self.pem()]).unwrap();
        WorkloadCertificate::try_new(identity.clone(), &signed.key, answer, settings).unwrap()
    }
}

// === impl Leaf ===

impl<'a> Leaf<'a> {
    /// Valid in every way, for the given URIs.
    pub(crate) fn naming(uris: &'a [&'a str]) -> Self {
        Self {
            uris,
            dns: &[],
            from: -HOUR,
            to: HOUR,
            server: true,
            client: true,
        }
    }
}

// === impl Signed ===

impl Signed {
    /// A client that presents this certificate and believes any server.
    pub(crate) fn client(&self) -> TlsConnector {
        self.client_speaking(Versions::Tls13.protocol())
    }

    /// The same, but one that has not heard of TLS 1.3.
    pub(crate) fn old_client(&self) -> TlsConnector {
        self.client_speaking(&[&TLS12])
    }

    fn client_speaking(&self, versions: &[&'static SupportedProtocolVersion]) -> TlsConnector {
        let config = mk_credulous(versions)
            .with_client_auth_cert(vec![self.der.clone()], self.key.to_rustls().unwrap())
            .unwrap();
        TlsConnector::from(Arc::new(config))
    }

    /// A server that presents this certificate and asks clients for none.
    pub(crate) fn server(&self) -> TlsAcceptor {
        let config = ServerConfig::builder_with_provider(crate::provider())
            .with_protocol_versions(Versions::Tls13.protocol())
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.der.clone()], self.key.to_rustls().unwrap())
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// A client without a certificate that believes any server.
pub(crate) fn mk_anonymous_client() -> TlsConnector {
    let config = mk_credulous(Versions::Tls13.protocol()).with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

fn mk_credulous(
    versions: &[&'static SupportedProtocolVersion],
) -> rustls::ConfigBuilder<ClientConfig, WantsClientCert> {
    ClientConfig::builder_with_provider(Versions::Tls12AndTls13.provider())
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Credulous))
}

fn mk_serial() -> openssl::asn1::Asn1Integer {
    BigNum::from_u32(4711).unwrap().to_asn1_integer().unwrap()
}

fn mk_time(offset: i64) -> Asn1Time {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = i64::try_from(now.unwrap_or(Duration::ZERO).as_secs()).unwrap();
    Asn1Time::from_unix(now + offset).unwrap()
}

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        crate::provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

//! The certificates of the server and of those users who show one.
//!
//! Everything is EC P-256: RSA keys take as long to make as a whole test. Nothing here is written to disk.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use openssl::{
    asn1::{Asn1Integer, Asn1Time},
    bn::{BigNum, MsbOption},
    ec::{EcGroup, EcKey},
    error::ErrorStack,
    hash::MessageDigest,
    nid::Nid,
    pkey::{PKey, PKeyRef, Private},
    ssl::{
        AlpnError, SslAcceptor, SslAcceptorBuilder, SslMethod, SslOptions, SslSessionCacheMode,
        SslVerifyMode, select_next_proto,
    },
    stack::Stack,
    x509::{
        X509, X509Builder, X509Name, X509NameRef, X509PurposeId, X509Ref, X509StoreContext,
        extension::{
            AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage,
            SubjectAlternativeName, SubjectKeyIdentifier,
        },
        store::{X509Store, X509StoreBuilder},
        verify::X509VerifyParam,
    },
};

use super::{User, user::CREDENTIAL_ID};

/// Signs the server's certificate and those of users.
pub struct Ca {
    key: PKey<Private>,
    certificate: X509,
    pem: String,
    store: X509Store,
}

/// A certificate with its key, both PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

/// OpenSSL refuses. The host's configuration of it is at fault: P-256, SHA-256 and TLS 1.2 must be
/// allowed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot {doing}")]
pub struct Error {
    doing: &'static str,
    source: ErrorStack,
}

/// Why a certificate that was shown is not believed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Unbelievable {
    /// It does not lead to the authority, or is expired.
    #[error("the certificate of the client is not valid: {0}")]
    Invalid(String),
    /// It names nobody.
    #[error("the certificate of the client has no common name")]
    Nameless,
    /// OpenSSL cannot check it.
    #[error("the certificate of the client cannot be checked")]
    Unchecked(#[from] ErrorStack),
}

/// How long certificates are valid: longer than any test or lab.
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// How much older than now a certificate claims to be, for clients whose clock is behind.
const BACKDATE: Duration = Duration::from_secs(3600);

/// Bits of a serial number: the most that fit into RFC 5280's 20 octets as a positive number.
const SERIAL_BITS: i32 = 159;

/// X.509 v3, as the encoding counts.
const V3: i32 = 2;

/// The protocols that are offered, in the wire form of ALPN: HTTP/2, then HTTP/1.1.
const PROTOCOLS: &[u8] = b"\x02h2\x08http/1.1";

/// The names that pods know an API server by.
const SERVICE_NAMES: [&str; 5] = [
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

// === impl Ca ===

impl Ca {
    /// A new authority.
    pub fn new() -> Result<Self, Error> {
        Self::build().map_err(failing("make a certificate authority"))
    }

    /// The certificate of the authority in PEM, for clients to verify the server with.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// TLS for the server, which is reached by these names and addresses besides the usual ones.
    ///
    /// A client may show a certificate. It is not judged during the handshake, so that a bad one gets a
    /// 401 like every other bad credential; [`Ca::identify`] judges it.
    pub fn acceptor(&self, hosts: &[&str]) -> Result<SslAcceptorBuilder, Error> {
        self.build_acceptor(hosts)
            .map_err(failing("prepare the TLS of the server"))
    }

    /// A certificate for a user: the name as its common name, the groups as its organizations. It can
    /// carry neither the uid nor further facts.
    pub fn user_identity(&self, user: &User) -> Result<Identity, Error> {
        self.build_user(user)
            .map_err(failing("sign the certificate of a user"))
    }

    /// Whom a certificate speaks of, when the authority signed it and it is valid now.
    pub fn identify(&self, certificate: &X509Ref) -> Result<User, Unbelievable> {
        self.verify(certificate)?;
        let of = |nid| certificate.subject_name().entries_by_nid(nid);
        let texts = |nid| of(nid).filter_map(|entry| entry.data().to_string().ok());
        let name = texts(Nid::COMMONNAME).next();
        let user = name.filter(|name| !name.is_empty()).map(User::new);
        let user = user.ok_or(Unbelievable::Nameless)?;
        let mut user = texts(Nid::ORGANIZATIONNAME).fold(user, User::member_of);
        let digest = certificate.digest(MessageDigest::sha256())?;
        let id = format!("X509SHA256={}", hex(&digest));
        user.extra.insert(CREDENTIAL_ID.to_owned(), vec![id]);
        Ok(user)
    }

    fn verify(&self, certificate: &X509Ref) -> Result<(), Unbelievable> {
        let chain = Stack::new()?;
        let mut context = X509StoreContext::new()?;
        let (valid, error) = context.init(&self.store, certificate, &chain, |context| {
            Ok((context.verify_cert()?, context.error()))
        })?;
        if valid {
            return Ok(());
        }
        Err(Unbelievable::Invalid(error.error_string().to_owned()))
    }

    fn build() -> Result<Self, ErrorStack> {
        let key = generate()?;
        let name = common_name("kubernetes")?;
        let mut builder = start(&name, &name, &key)?;
        builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
        let usage = KeyUsage::new()
            .critical()
            .key_cert_sign()
            .crl_sign()
            .build()?;
        builder.append_extension(usage)?;
        let own = SubjectKeyIdentifier::new().build(&builder.x509v3_context(None, None))?;
        builder.append_extension(own)?;
        builder.sign(&key, MessageDigest::sha256())?;
        let certificate = builder.build();
        let pem = pem(&certificate.to_pem()?);
        let mut parameters = X509VerifyParam::new()?;
        parameters.set_purpose(X509PurposeId::SSL_CLIENT)?;
        let mut store = X509StoreBuilder::new()?;
        store.add_cert(certificate.clone())?;
        store.set_param(&parameters)?;
        Ok(Self {
            key,
            certificate,
            pem,
            store: store.build(),
        })
    }

    fn build_acceptor(&self, hosts: &[&str]) -> Result<SslAcceptorBuilder, ErrorStack> {
        let key = generate()?;
        let mut names = SubjectAlternativeName::new();
        for name in SERVICE_NAMES
            .iter()
            .chain(["127.0.0.1", "::1"].iter())
            .chain(hosts)
        {
            match name.parse::<IpAddr>() {
                Ok(_) => names.ip(name),
                Err(_) => names.dns(name),
            };
        }
        let purpose = ExtendedKeyUsage::new().server_auth().build()?;
        let subject = common_name("kube-apiserver")?;
        let certificate = self.leaf(&subject, &key, purpose, Some(&names))?;
        let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
        acceptor.set_certificate(&certificate)?;
        acceptor.set_private_key(&key)?;
        acceptor.check_private_key()?;
        // A resumed session would not show the client's certificate again.
        acceptor.set_options(SslOptions::NO_TICKET);
        acceptor.set_session_cache_mode(SslSessionCacheMode::OFF);
        acceptor.add_client_ca(&self.certificate)?;
        acceptor.set_verify_callback(SslVerifyMode::PEER, |_, _| true);
        acceptor.set_alpn_select_callback(|_, offered| {
            select_next_proto(PROTOCOLS, offered).ok_or(AlpnError::NOACK)
        });
        Ok(acceptor)
    }

    fn build_user(&self, user: &User) -> Result<Identity, ErrorStack> {
        let key = generate()?;
        let mut subject = X509Name::builder()?;
        subject.append_entry_by_nid(Nid::COMMONNAME, &user.name)?;
        for group in &user.groups {
            subject.append_entry_by_nid(Nid::ORGANIZATIONNAME, group)?;
        }
        let purpose = ExtendedKeyUsage::new().client_auth().build()?;
        let certificate = self.leaf(&subject.build(), &key, purpose, None)?;
        Ok(Identity {
            certificate: pem(&certificate.to_pem()?),
            key: pem(&key.private_key_to_pem_pkcs8()?),
        })
    }

    fn leaf(
        &self,
        subject: &X509NameRef,
        key: &PKeyRef<Private>,
        purpose: openssl::x509::X509Extension,
        names: Option<&SubjectAlternativeName>,
    ) -> Result<X509, ErrorStack> {
        let mut builder = start(subject, self.certificate.subject_name(), key)?;
        builder.append_extension(BasicConstraints::new().critical().build()?)?;
        builder.append_extension(KeyUsage::new().critical().digital_signature().build()?)?;
        builder.append_extension(purpose)?;
        let context = builder.x509v3_context(Some(&self.certificate), None);
        let authority = AuthorityKeyIdentifier::new().keyid(true).build(&context)?;
        let names = names.map(|names| names.build(&context)).transpose()?;
        for extension in std::iter::once(authority).chain(names) {
            builder.append_extension(extension)?;
        }
        builder.sign(&self.key, MessageDigest::sha256())?;
        Ok(builder.build())
    }
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ca")
            .field("pem", &self.pem)
            .finish_non_exhaustive()
    }
}

// === impl Identity ===

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

/// A key that nobody else has.
pub(super) fn generate() -> Result<PKey<Private>, ErrorStack> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    PKey::from_ec_key(EcKey::generate(&group)?)
}

/// Random bytes as text.
pub(super) fn random_hex(bytes: usize) -> Result<String, Error> {
    let mut random = vec![0; bytes];
    openssl::rand::rand_bytes(&mut random).map_err(failing("draw random numbers"))?;
    Ok(hex(&random))
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    digits
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

/// For `map_err`: says what was tried.
pub(super) fn failing(doing: &'static str) -> impl FnOnce(ErrorStack) -> Error {
    move |source| Error { doing, source }
}

fn start(
    subject: &X509NameRef,
    issuer: &X509NameRef,
    key: &PKeyRef<Private>,
) -> Result<X509Builder, ErrorStack> {
    let mut serial = BigNum::new()?;
    serial.rand(SERIAL_BITS, MsbOption::ONE, false)?;
    let serial: Asn1Integer = serial.to_asn1_integer()?;
    let now = SystemTime::now();
    let mut builder = X509::builder()?;
    builder.set_version(V3)?;
    builder.set_serial_number(&serial)?;
    builder.set_subject_name(subject)?;
    builder.set_issuer_name(issuer)?;
    builder.set_not_before(&*asn1(now - BACKDATE)?)?;
    builder.set_not_after(&*asn1(now + LIFETIME)?)?;
    builder.set_pubkey(key)?;
    Ok(builder)
}

fn common_name(name: &str) -> Result<X509Name, ErrorStack> {
    let mut builder = X509Name::builder()?;
    builder.append_entry_by_nid(Nid::COMMONNAME, name)?;
    Ok(builder.build())
}

fn asn1(time: SystemTime) -> Result<Asn1Time, ErrorStack> {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Asn1Time::from_unix(i64::try_from(seconds.as_secs()).unwrap_or(i64::MAX))
}

/// PEM is ASCII by construction.
fn pem(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(identity: &Identity) -> X509 {
        X509::from_pem(identity.certificate.as_bytes()).unwrap()
    }

    #[test]
    fn a_certificate_speaks_of_its_user() {
        let authority = Ca::new().unwrap();
        let user = User::new("alice").member_of("devs").member_of("ops");
        let identity = authority.user_identity(&user).unwrap();
        let mut identified = authority.identify(&certificate(&identity)).unwrap();
        let id = identified.extra.remove(CREDENTIAL_ID).unwrap();
        assert!(id[0].starts_with("X509SHA256="), "{id:?}");
        assert_eq!(identified, user);
    }

    #[test]
    fn a_certificate_of_another_authority_is_not_believed() {
        let other = Ca::new().unwrap().user_identity(&User::admin());
        let believed = Ca::new().unwrap().identify(&certificate(&other.unwrap()));
        assert!(matches!(believed, Err(Unbelievable::Invalid(_))));
    }

    #[test]
    fn the_authority_is_no_user() {
        let authority = Ca::new().unwrap();
        let believed = authority.identify(&authority.certificate);
        assert!(believed.is_err(), "{believed:?}");
    }

    #[test]
    fn a_long_name_fits_where_x509_allows_it() {
        let authority = Ca::new().unwrap();
        // X.520 ends common names at 64 characters.
        let user = User::service_account("a-namespace-of-some-length", &"x".repeat(60));
        assert!(authority.user_identity(&user).is_err());
    }
}

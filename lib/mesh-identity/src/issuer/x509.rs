//! The X.509 that the issuer writes, and nothing about who may have it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openssl::{
    asn1::{Asn1Integer, Asn1Time},
    bn::{BigNum, MsbOption},
    error::ErrorStack,
    hash::MessageDigest,
    nid::Nid,
    pkey::{PKeyRef, Private, Public},
    x509::{
        X509, X509Builder, X509Name, X509NameRef, X509Ref,
        extension::{
            AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage,
            SubjectAlternativeName, SubjectKeyIdentifier,
        },
    },
};

use crate::key::{self, failing};

/// The one name, or the several DNS names, of a leaf.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Names<'a> {
    Uri(&'a str),
    Dns(&'a [&'a str]),
}

/// From when to when a certificate is valid.
pub(crate) struct Validity {
    not_before: Asn1Time,
    not_after: Asn1Time,
}

/// What signs leaves.
pub(crate) struct Signer<'a> {
    pub(crate) key: &'a PKeyRef<Private>,
    pub(crate) certificate: &'a X509Ref,
}

/// Certificates are valid from a little before they are signed, since clocks differ. Upstream's value.
const BACKDATE: Duration = Duration::from_secs(120);

/// Bits of a serial number: the most that fit into RFC 5280's 20 octets as a positive number.
const SERIAL_BITS: i32 = 159;

/// X.509 v3, as the encoding counts.
const V3: i32 = 2;

// === impl Validity ===

impl Validity {
    /// Valid for `ttl` from now.
    pub(crate) fn starting_now(ttl: Duration) -> Result<Self, key::Error> {
        let now = SystemTime::now();
        Self::between(now - BACKDATE, now + ttl).map_err(failing("write a date"))
    }

    pub(crate) fn between(from: SystemTime, to: SystemTime) -> Result<Self, ErrorStack> {
        Ok(Self {
            not_before: asn1_time(from)?,
            not_after: asn1_time(to)?,
        })
    }
}

// === impl Signer ===

impl Signer<'_> {
    /// A certificate for both ends of a TLS connection, in upstream's form: empty subject, critical
    /// names.
    pub(crate) fn leaf(
        &self,
        key: &PKeyRef<Public>,
        names: &Names<'_>,
        validity: &Validity,
    ) -> Result<X509, key::Error> {
        self.build_leaf(key, names, validity)
            .map_err(failing("sign a certificate"))
    }

    fn build_leaf(
        &self,
        key: &PKeyRef<Public>,
        names: &Names<'_>,
        validity: &Validity,
    ) -> Result<X509, ErrorStack> {
        let nobody = X509Name::builder()?.build();
        let issuer = self.certificate.subject_name();
        let mut builder = start(&nobody, issuer, validity)?;
        builder.set_pubkey(key)?;
        builder.append_extension(BasicConstraints::new().critical().build()?)?;
        let usage = KeyUsage::new()
            .critical()
            .digital_signature()
            .key_encipherment()
            .build()?;
        builder.append_extension(usage)?;
        let purpose = ExtendedKeyUsage::new()
            .server_auth()
            .client_auth()
            .build()?;
        builder.append_extension(purpose)?;
        let context = builder.x509v3_context(Some(self.certificate), None);
        let own = SubjectKeyIdentifier::new().build(&context)?;
        let names = names.extension().build(&context)?;
        // An authority made by hand may lack the identifier that this one refers to.
        let authority = match self.certificate.subject_key_id() {
            Some(_) => Some(AuthorityKeyIdentifier::new().keyid(true).build(&context)?),
            None => None,
        };
        for extension in [own, names].into_iter().chain(authority) {
            builder.append_extension(extension)?;
        }
        builder.sign(self.key, MessageDigest::sha256())?;
        Ok(builder.build())
    }
}

// === impl Names ===

impl Names<'_> {
    fn extension(&self) -> SubjectAlternativeName {
        let mut extension = SubjectAlternativeName::new();
        extension.critical();
        match self {
            Self::Uri(uri) => {
                extension.uri(uri);
            }
            Self::Dns(names) => {
                for name in *names {
                    extension.dns(name);
                }
            }
        }
        extension
    }
}

/// A root that signs leaves itself, hence path length 0.
pub(crate) fn root(
    key: &PKeyRef<Private>,
    organization: &str,
    validity: &Validity,
) -> Result<X509, key::Error> {
    build_root(key, organization, validity).map_err(failing("sign a root certificate"))
}

pub(crate) fn to_pem(certificate: &X509Ref) -> Result<String, key::Error> {
    let pem = certificate.to_pem();
    // PEM is ASCII by construction.
    pem.map(|pem| String::from_utf8_lossy(&pem).into_owned())
        .map_err(failing("encode a certificate"))
}

fn build_root(
    key: &PKeyRef<Private>,
    organization: &str,
    validity: &Validity,
) -> Result<X509, ErrorStack> {
    let mut name = X509Name::builder()?;
    name.append_entry_by_nid(Nid::ORGANIZATIONNAME, organization)?;
    let name = name.build();
    let mut builder = start(&name, &name, validity)?;
    builder.set_pubkey(key)?;
    let constraints = BasicConstraints::new().critical().ca().pathlen(0).build()?;
    builder.append_extension(constraints)?;
    let usage = KeyUsage::new()
        .critical()
        .key_cert_sign()
        .crl_sign()
        .build()?;
    builder.append_extension(usage)?;
    let context = builder.x509v3_context(None, None);
    let own = SubjectKeyIdentifier::new().build(&context)?;
    builder.append_extension(own)?;
    builder.sign(key, MessageDigest::sha256())?;
    Ok(builder.build())
}

fn start(
    subject: &X509NameRef,
    issuer: &X509NameRef,
    validity: &Validity,
) -> Result<X509Builder, ErrorStack> {
    let mut builder = X509::builder()?;
    builder.set_version(V3)?;
    builder.set_serial_number(&*serial()?)?;
    builder.set_subject_name(subject)?;
    builder.set_issuer_name(issuer)?;
    builder.set_not_before(&validity.not_before)?;
    builder.set_not_after(&validity.not_after)?;
    Ok(builder)
}

/// A number that cannot be guessed and will not come twice. The top bit is set, so it is never zero.
fn serial() -> Result<Asn1Integer, ErrorStack> {
    let mut number = BigNum::new()?;
    number.rand(SERIAL_BITS, MsbOption::ONE, false)?;
    number.to_asn1_integer()
}

fn asn1_time(time: SystemTime) -> Result<Asn1Time, ErrorStack> {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Asn1Time::from_unix(i64::try_from(seconds.as_secs()).unwrap_or(i64::MAX))
}

//! What an operator wants to know about a certificate: serial, dates and the PEM itself.

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime},
};

use openssl::{
    asn1::{Asn1Time, Asn1TimeRef},
    error::ErrorStack,
    sha::sha256,
    x509::X509,
};
use rustls::pki_types::CertificateDer;

use crate::answer::{PemError, parse_pem};

/// The facts about one certificate, for `config_dump`, logs and the schedule of renewal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The serial number in decimal, as `istioctl` prints it.
    pub serial: String,
    /// First moment of validity.
    pub not_before: SystemTime,
    /// Last moment of validity.
    pub not_after: SystemTime,
    /// The certificate in PEM.
    pub pem: String,
    /// SHA-256 of the certificate in hexadecimal: what tells it from all others.
    pub fingerprint: String,
}

/// The certificate cannot be read by OpenSSL: whoever issued it is at fault, and retrying does not
/// help.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the certificate cannot be read")]
pub struct Error(#[from] ErrorStack);

/// Why the certificates in a text cannot be read. Whoever wrote the text is at fault.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ListError {
    /// The text is not PEM.
    #[error("the text is not PEM")]
    NotPem(#[source] PemError),
    /// It is PEM of something else.
    #[error("one of the certificates cannot be read")]
    Certificate(#[source] Error),
}

// === impl Facts ===

impl Facts {
    /// Reads the facts from a certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, Error> {
        let x509 = X509::from_der(certificate)?;
        Ok(Self {
            serial: x509.serial_number().to_bn()?.to_dec_str()?.to_string(),
            not_before: system_time(x509.not_before())?,
            not_after: system_time(x509.not_after())?,
            // PEM is ASCII by construction.
            pem: String::from_utf8_lossy(&x509.to_pem()?).into_owned(),
            fingerprint: hex(&sha256(certificate)),
        })
    }

    /// The facts of each certificate in a PEM text, in order. Text around them is ignored.
    ///
    /// # Errors
    /// If one of them is not PEM or no certificate. An empty text is fine.
    pub fn of_pem(text: &str) -> Result<Vec<Self>, ListError> {
        let certificates = parse_pem(text).map_err(ListError::NotPem)?;
        let facts = certificates.iter().map(Self::of);
        facts
            .collect::<Result<_, _>>()
            .map_err(ListError::Certificate)
    }
}

/// X.509 dates are text; OpenSSL compares them by distance. Dates before 1970 become 1970, which is as
/// expired.
fn system_time(time: &Asn1TimeRef) -> Result<SystemTime, ErrorStack> {
    const DAY: i64 = 86_400;
    let distance = Asn1Time::from_unix(0)?.diff(time)?;
    let seconds = i64::from(distance.days) * DAY + i64::from(distance.secs);
    let seconds = u64::try_from(seconds).unwrap_or(0);
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a text cannot fail.
        write!(text, "{byte:02x}").ok();
    }
    text
}

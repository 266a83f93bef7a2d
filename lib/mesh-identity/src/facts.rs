//! What an operator wants to know about a certificate: serial, dates and the PEM itself.

use std::time::{Duration, SystemTime};

use openssl::{
    asn1::{Asn1Time, Asn1TimeRef},
    error::ErrorStack,
    x509::X509,
};
use rustls::pki_types::CertificateDer;

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
}

/// The certificate cannot be read by OpenSSL: whoever issued it is at fault, and retrying does not
/// help.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the certificate cannot be read")]
pub struct Error(#[from] ErrorStack);

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
        })
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

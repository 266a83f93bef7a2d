//! New roots, in the form in which they are kept.

use std::time::Duration;

use openssl::{
    ec::{Asn1Flag, EcGroup, EcKey},
    error::ErrorStack,
    nid::Nid,
    pkey::{PKey, Private},
    rsa::Rsa,
};

use super::{
    Error,
    x509::{self, Validity},
};
use crate::key::failing;

/// What kind of key a new root has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RootKind {
    /// EC P-256: a tenth of the work per signature, and small certificates.
    #[default]
    EcP256,
    /// RSA with this many bits, from 2048 to 8192, for sites whose policy or peers know nothing else.
    Rsa(u32),
}

/// A self-signed root with its key, both PEM. The key is in the traditional form of its kind
/// (`RSA PRIVATE KEY`, `EC PRIVATE KEY`), which every istiod reads.
#[derive(Clone)]
pub struct Root {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

// === impl Root ===

impl Root {
    /// A new root for `organization` (by convention the trust domain), valid for `ttl` from now.
    ///
    /// # Errors
    /// [`Error::WeakKey`] for an RSA key of fewer than 2048 or more than 8192 bits; otherwise the host
    /// is at fault.
    pub fn generate(kind: RootKind, organization: &str, ttl: Duration) -> Result<Self, Error> {
        let key = kind.generate()?;
        let validity = Validity::starting_now(ttl).map_err(Error::Signing)?;
        let certificate = x509::root(&key, organization, &validity).map_err(Error::Signing)?;
        let pem = traditional_pem(&key);
        let pem = pem.map_err(failing("encode a key"));
        Ok(Self {
            certificate: x509::to_pem(&certificate).map_err(Error::Signing)?,
            // PEM is ASCII by construction.
            key: String::from_utf8_lossy(&pem.map_err(Error::Signing)?).into_owned(),
        })
    }
}

impl std::fmt::Debug for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key stays out of logs.
        f.write_str("Root(..)")
    }
}

// === impl RootKind ===

impl RootKind {
    fn generate(self) -> Result<PKey<Private>, Error> {
        let key = match self {
            Self::EcP256 => generate_p256(),
            Self::Rsa(bits @ 2048..=8192) => Rsa::generate(bits).and_then(PKey::from_rsa),
            Self::Rsa(bits) => {
                return Err(Error::WeakKey {
                    kind: openssl::pkey::Id::RSA,
                    bits,
                });
            }
        };
        key.map_err(failing("generate a key"))
            .map_err(Error::Signing)
    }
}

fn generate_p256() -> Result<PKey<Private>, ErrorStack> {
    let mut group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    group.set_asn1_flag(Asn1Flag::NAMED_CURVE);
    PKey::from_ec_key(EcKey::generate(&group)?)
}

fn traditional_pem(key: &PKey<Private>) -> Result<Vec<u8>, ErrorStack> {
    match key.rsa() {
        Ok(rsa) => rsa.private_key_to_pem(),
        Err(_not_rsa) => key.ec_key()?.private_key_to_pem(),
    }
}

//! Signing certificates with everything that belongs to them, checked.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_identity::{
    facts::{self, Facts},
    issuer::{self, Issuer, Material},
};

/// A signing certificate, its key, what is between it and a root, and its roots; all PEM.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Pem {
    /// The signing certificate, possibly with what is above it.
    pub certificate: String,
    /// Its private key.
    pub key: String,
    /// What leads to a root. May begin with the signing certificate and end with the root.
    pub chain: String,
    /// The roots that are to be trusted with it.
    pub roots: String,
}

/// What can sign: it has been tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// Its files, in order: the chain begins with the signing certificate and has no root in it.
    pub pem: Arc<Pem>,
    /// The fingerprint of the signing certificate.
    pub id: String,
    /// The roots that its owner wants trusted.
    pub roots: Vec<Root>,
    /// The fingerprints of those of them to which it leads. Who trusts one of them believes what it
    /// signs.
    pub anchors: Vec<String>,
    /// First moment of its validity.
    pub not_before: SystemTime,
    /// Last moment of its validity.
    pub not_after: SystemTime,
}

/// A root certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// SHA-256 in hexadecimal.
    pub fingerprint: String,
    /// The certificate in PEM.
    pub pem: String,
    /// Last moment of its validity.
    pub not_after: SystemTime,
}

/// Why files cannot be used to sign. Whoever wrote them is at fault.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Certificates cannot be read.
    #[error("the {0} cannot be read")]
    Unreadable(&'static str, #[source] facts::ListError),
    /// There is none.
    #[error("the {0} holds no certificate")]
    Empty(&'static str),
    /// There are more roots than any workload takes.
    #[error("there are {0} root certificates, at most {MAX_ROOTS} can be trusted at a time")]
    TooManyRoots(usize),
    /// The signing certificate has run out. It has to be replaced.
    #[error("the signing certificate expired at {0}")]
    Expired(jiff::Timestamp),
    /// Certificate, key and roots do not belong together, or cannot sign.
    #[error("certificate, key and roots do not make an authority")]
    Unusable(#[source] issuer::Error),
}

/// Most roots at a time; workloads take 256.
const MAX_ROOTS: usize = 128;

// === impl Signer ===

impl Signer {
    /// Checks that `pem` can sign what its own roots believe, now.
    pub fn try_new(pem: Pem, now: SystemTime) -> Result<Self, Error> {
        let roots = Root::all_in("root certificates", &pem.roots)?;
        if roots.is_empty() {
            return Err(Error::Empty("root bundle"));
        }
        if roots.len() > MAX_ROOTS {
            return Err(Error::TooManyRoots(roots.len()));
        }
        let (signing, chain) = sort_chain(&pem, &roots)?;
        if signing.not_after <= now {
            return Err(Error::Expired(timestamp(signing.not_after)));
        }
        let pem = Pem {
            certificate: signing.pem,
            chain,
            roots: bundle(&roots),
            key: pem.key,
        };
        let issuer = pem.issuer(&pem.roots).map_err(Error::Unusable)?;
        Ok(Self {
            id: signing.fingerprint,
            anchors: anchors(&issuer, &roots).map_err(Error::Unusable)?,
            roots,
            not_before: signing.not_before,
            not_after: signing.not_after,
            pem: Arc::new(pem),
        })
    }

    /// What signs with this, for workloads that are to trust `roots`, for `max_ttl` at most.
    pub fn issuer(&self, roots: &str, max_ttl: Duration) -> Result<Issuer, issuer::Error> {
        let issuer = self.pem.issuer(roots)?;
        Ok(issuer.with_max_ttl(max_ttl))
    }
}

// === impl Pem ===

impl Pem {
    fn issuer(&self, roots: &str) -> Result<Issuer, issuer::Error> {
        Issuer::from_pem(Material {
            certificate: &self.certificate,
            key: &self.key,
            chain: &self.chain,
            roots,
        })
    }
}

impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key stays out of logs.
        f.write_str("Pem(..)")
    }
}

// === impl Root ===

impl Root {
    /// The certificates in a PEM text, each once.
    pub fn all_in(what: &'static str, text: &str) -> Result<Vec<Self>, Error> {
        let facts = Facts::of_pem(text).map_err(|e| Error::Unreadable(what, e))?;
        let mut seen = HashSet::new();
        let once = facts
            .into_iter()
            .filter(|f| seen.insert(f.fingerprint.clone()));
        Ok(once.map(Self::from).collect())
    }
}

impl From<Facts> for Root {
    fn from(facts: Facts) -> Self {
        Self {
            fingerprint: facts.fingerprint,
            pem: facts.pem,
            not_after: facts.not_after,
        }
    }
}

/// Roots as one PEM text.
pub fn bundle<'a>(roots: impl IntoIterator<Item = &'a Root>) -> String {
    roots.into_iter().map(|root| root.pem.as_str()).collect()
}

/// A moment as people write it, to the second.
pub(super) fn timestamp(time: SystemTime) -> jiff::Timestamp {
    let time = jiff::Timestamp::try_from(time).unwrap_or(jiff::Timestamp::MAX);
    jiff::Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// The signing certificate, and the chain that is sent along: from the signing certificate up to below
/// the root; empty if a root signs itself. Istio's tools write chains with and without both ends.
fn sort_chain(pem: &Pem, roots: &[Root]) -> Result<(Facts, String), Error> {
    let read = |what, text| Facts::of_pem(text).map_err(|e| Error::Unreadable(what, e));
    let mut own = read("signing certificate", &pem.certificate)?.into_iter();
    let signing = own.next().ok_or(Error::Empty("signing certificate"))?;
    let above = own.chain(read("certificate chain", &pem.chain)?);
    let mut seen: HashSet<String> = roots.iter().map(|r| r.fingerprint.clone()).collect();
    let chain = std::iter::once(signing.clone()).chain(above);
    let chain = chain.filter(|c| seen.insert(c.fingerprint.clone()));
    let chain = chain.map(|c| c.pem).collect();
    Ok((signing, chain))
}

fn anchors(issuer: &Issuer, roots: &[Root]) -> Result<Vec<String>, issuer::Error> {
    let mut anchors = Vec::new();
    for root in roots {
        if issuer.is_trusted_by(&root.pem)? {
            anchors.push(root.fingerprint.clone());
        }
    }
    Ok(anchors)
}

#[cfg(test)]
mod tests;

//! The answer of a certificate authority, decoded: bytes from outside until they have passed here.
//!
//! The wire form is a list of PEM texts: the leaf, then each intermediate, and last the bundle of
//! roots, which alone may hold several certificates by contract.

use rustls::pki_types::{CertificateDer, pem, pem::PemObject as _};

/// A certificate chain with the roots that come with it. Parsed as PEM only: nothing in it has been
/// verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The certificate of the workload.
    pub leaf: CertificateDer<'static>,
    /// What leads from the leaf to a root, in order; empty where a root signs leaves itself.
    pub intermediates: Vec<CertificateDer<'static>>,
    /// What this workload trusts; at least one. Old and new root together while one is being replaced.
    pub roots: Vec<CertificateDer<'static>>,
}

/// Why an answer is of no use. The authority is at fault; a later attempt may help once it is repaired.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Fewer than two elements, so leaf or roots are missing.
    #[error("the answer holds {0} elements where at least a leaf and a root bundle are needed")]
    Incomplete(usize),
    /// Longer than any chain a handshake could carry.
    #[error("the answer is larger than allowed: {what} of {found}, at most {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it is.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// An element is not PEM.
    #[error("element {0} of the answer is not PEM")]
    NotPem(usize, #[source] PemError),
    /// An element is text without a certificate in it.
    #[error("element {0} of the answer holds no certificate")]
    NoCertificate(usize),
}

/// What the PEM decoder said, as a value that can be cloned into several reports.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct PemError(String);

/// Longest chain before the roots: path building gives up earlier anyway.
const MAX_CHAIN: usize = 16;
/// Most roots in a bundle: a mesh of many clusters, each with two roots, stays far below.
const MAX_ROOTS: usize = 256;
/// Largest answer in bytes: the limits above with RSA-4096 certificates of 3 KiB each.
const MAX_BYTES: usize = 1 << 20;

// === impl Answer ===

impl Answer {
    /// Decodes an answer.
    ///
    /// # Errors
    /// Anything but PEM certificates within the bounds, in the order described in this module.
    pub fn parse<S: AsRef<str>>(elements: &[S]) -> Result<Self, Error> {
        let bytes = elements.iter().map(|e| e.as_ref().len()).sum();
        within("bytes", bytes, MAX_BYTES)?;
        within("elements", elements.len(), MAX_CHAIN + 1)?;
        let [chain @ .., bundle] = elements else {
            return Err(Error::Incomplete(0));
        };
        // Some authorities put the intermediates into the leaf's element; the order is the same.
        let mut certificates = Vec::new();
        for (index, element) in chain.iter().enumerate() {
            certificates.extend(parse_element(index, element.as_ref())?);
        }
        within("certificates", certificates.len(), MAX_CHAIN)?;
        let roots = parse_element(chain.len(), bundle.as_ref())?;
        within("roots", roots.len(), MAX_ROOTS)?;

        let mut certificates = certificates.into_iter();
        let leaf = certificates.next().ok_or(Error::Incomplete(1))?;
        Ok(Self {
            leaf,
            intermediates: certificates.collect(),
            roots,
        })
    }

    /// The chain as it goes over the wire in a handshake: leaf first, without roots.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        let leaf = std::iter::once(self.leaf.clone());
        leaf.chain(self.intermediates.iter().cloned()).collect()
    }
}

fn within(what: &'static str, found: usize, limit: usize) -> Result<(), Error> {
    if found > limit {
        return Err(Error::TooLarge { what, found, limit });
    }
    Ok(())
}

fn parse_element(index: usize, text: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates = parse_pem(text).map_err(|e| Error::NotPem(index, e))?;
    if certificates.is_empty() {
        return Err(Error::NoCertificate(index));
    }
    Ok(certificates)
}

/// All certificates in a PEM text; text around them is ignored.
pub(crate) fn parse_pem(text: &str) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let describe = |error: pem::Error| PemError(error.to_string());
    CertificateDer::pem_slice_iter(text.as_bytes())
        .map(|certificate| certificate.map_err(describe))
        .collect()
}

#[cfg(test)]
mod tests;

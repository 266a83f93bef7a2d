//! The issuer in force, which changes while certificates are being signed.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::Issuer;

/// The issuer that signs now. Cheap to clone; all clones see a replacement at once.
///
/// Whoever takes one with [`get`](Self::get) finishes what it does with that one.
#[derive(Clone, Debug)]
pub struct Current(Arc<ArcSwap<Issuer>>);

// === impl Current ===

impl Current {
    /// Begins with `issuer`.
    pub fn new(issuer: Arc<Issuer>) -> Self {
        Self(Arc::new(ArcSwap::new(issuer)))
    }

    /// The issuer in force.
    pub fn get(&self) -> Arc<Issuer> {
        self.0.load_full()
    }

    /// Puts another one in force. What is being signed meanwhile is signed by the former.
    pub fn replace(&self, issuer: Arc<Issuer>) {
        self.0.store(issuer);
    }
}

impl From<Arc<Issuer>> for Current {
    fn from(issuer: Arc<Issuer>) -> Self {
        Self::new(issuer)
    }
}

//! Texts that occur in many resources, each held once.

use std::{collections::HashSet, sync::Arc};

/// Makes equal texts share memory. Namespaces, nodes, trust domains and the like are the same in
/// thousands of workloads, and there are a dozen of them in each.
#[derive(Debug, Default)]
pub struct Interner {
    texts: HashSet<Arc<str>>,
    /// Texts after the last sweep.
    swept: usize,
}

/// Texts below which a sweep is not worth its while.
const FEW: usize = 1024;

// === impl Interner ===

impl Interner {
    /// The shared form of a text.
    pub fn share(&mut self, text: &str) -> Arc<str> {
        if let Some(shared) = self.texts.get(text) {
            return Arc::clone(shared);
        }
        let shared: Arc<str> = text.into();
        self.texts.insert(Arc::clone(&shared));
        shared
    }

    /// Forgets the texts that nobody else holds, once the number of texts has doubled since the last
    /// time. The cost is thereby a constant part of that of `share`.
    pub fn sweep(&mut self) {
        if self.texts.len() > FEW.max(2 * self.swept) {
            self.texts.retain(|text| Arc::strong_count(text) > 1);
            self.texts.shrink_to_fit();
            self.swept = self.texts.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_share_memory() {
        let mut texts = Interner::default();
        let (one, two) = (texts.share("ns"), texts.share("ns"));
        assert!(Arc::ptr_eq(&one, &two));
    }

    #[test]
    fn texts_that_are_no_longer_held_are_forgotten() {
        let mut texts = Interner::default();
        let kept = texts.share("kept");
        for i in 0..10 * FEW {
            drop(texts.share(&i.to_string()));
            texts.sweep();
        }
        assert!(texts.texts.len() <= FEW + 1, "{}", texts.texts.len());
        assert!(Arc::ptr_eq(&texts.share("kept"), &kept));
    }
}

//! Texts and lists that occur in many objects, each held once.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, HashSet},
    hash::Hash,
    sync::Arc,
};

/// The texts, label sets and port lists of an index. Names of namespaces, nodes and accounts are the
/// same in thousands of pods, and so are all labels and ports of the pods of one Deployment.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    strings: HashSet<Arc<str>>,
    labels: HashSet<Labels>,
    ports: HashSet<Arc<[NamedPort]>>,
    /// How many there were after the last sweep.
    swept: usize,
}

/// Labels, sorted by key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Labels(Arc<[(Arc<str>, Arc<str>)]>);

/// A port with a name, of a container or of a service's endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NamedPort {
    /// The name; empty where it may be left out.
    pub(crate) name: Arc<str>,
    /// The number.
    pub(crate) number: u16,
}

/// Values below which a sweep is not worth its while.
const FEW: usize = 1024;

// === impl Texts ===

impl Texts {
    /// The shared form of a text.
    pub(crate) fn share(&mut self, text: &str) -> Arc<str> {
        share(&mut self.strings, text, || text.into())
    }

    /// The shared form of a label set.
    pub(crate) fn labels(&mut self, labels: Option<&BTreeMap<String, String>>) -> Labels {
        let pairs = labels.into_iter().flatten();
        let pairs: Vec<_> = pairs
            .map(|(key, value)| (self.share(key), self.share(value)))
            .collect();
        let labels = Labels(pairs.into());
        share(&mut self.labels, &labels, || labels.clone())
    }

    /// The shared form of a list of ports.
    pub(crate) fn ports(&mut self, ports: Vec<NamedPort>) -> Arc<[NamedPort]> {
        if let Some(shared) = self.ports.get(ports.as_slice()) {
            return Arc::clone(shared);
        }
        let shared: Arc<[NamedPort]> = ports.into();
        self.ports.insert(Arc::clone(&shared));
        shared
    }

    /// Forgets what nobody else holds, once there is twice as much as after the last time. The cost is
    /// thereby a constant part of that of sharing.
    pub(crate) fn sweep(&mut self) {
        if self.len() <= FEW.max(2 * self.swept) {
            return;
        }
        // Lists first: they hold texts.
        self.labels.retain(|set| Arc::strong_count(&set.0) > 1);
        self.ports.retain(|list| Arc::strong_count(list) > 1);
        self.strings.retain(|text| Arc::strong_count(text) > 1);
        self.labels.shrink_to_fit();
        self.ports.shrink_to_fit();
        self.strings.shrink_to_fit();
        self.swept = self.len();
    }

    /// How many values are held.
    pub(crate) fn len(&self) -> usize {
        self.strings.len() + self.labels.len() + self.ports.len()
    }
}

fn share<T, Q>(known: &mut HashSet<T>, value: &Q, make: impl FnOnce() -> T) -> T
where
    T: Borrow<Q> + Clone + Eq + Hash,
    Q: Eq + Hash + ?Sized,
{
    if let Some(shared) = known.get(value) {
        return shared.clone();
    }
    let shared = make();
    known.insert(shared.clone());
    shared
}

// === impl Labels ===

impl Default for Labels {
    fn default() -> Self {
        Self(Arc::new([]))
    }
}

impl Labels {
    /// The value of a label.
    pub(crate) fn get(&self, key: &str) -> Option<&Arc<str>> {
        let at = self.0.binary_search_by(|(known, _)| (**known).cmp(key));
        at.ok().map(|at| &self.0[at].1)
    }

    /// The value of the first of these labels that is there and not empty.
    pub(crate) fn first(&self, keys: &[&str]) -> Option<&Arc<str>> {
        let values = keys.iter().filter_map(|key| self.get(key));
        values.into_iter().find(|value| !value.is_empty())
    }

    /// Keys and values in the order of the keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &(Arc<str>, Arc<str>)> {
        self.0.iter()
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all of `selector` are among these.
    pub(crate) fn include(&self, selector: &Self) -> bool {
        let mut pairs = selector.iter();
        pairs.all(|(key, value)| self.get(key) == Some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> BTreeMap<String, String> {
        let pairs = text.split_whitespace().filter_map(|p| p.split_once('='));
        pairs.map(|(k, v)| (k.into(), v.into())).collect()
    }

    #[test]
    fn equal_values_share_memory() {
        let mut texts = Texts::default();
        assert!(Arc::ptr_eq(&texts.share("ns"), &texts.share("ns")));
        let labels = pairs("app=web version=v1");
        let (one, two) = (texts.labels(Some(&labels)), texts.labels(Some(&labels)));
        assert!(Arc::ptr_eq(&one.0, &two.0));
    }

    #[test]
    fn values_that_are_no_longer_held_are_forgotten() {
        let mut texts = Texts::default();
        let kept = texts.labels(Some(&pairs("kept=yes")));
        for i in 0..10 * FEW {
            drop(texts.labels(Some(&pairs(&format!("app=web-{i}")))));
            texts.sweep();
        }
        assert!(texts.len() <= FEW + 3, "{} values are held", texts.len());
        assert!(Arc::ptr_eq(
            &texts.labels(Some(&pairs("kept=yes"))).0,
            &kept.0
        ));
    }

    #[test]
    fn a_selector_needs_all_its_labels() {
        let mut texts = Texts::default();
        let labels = texts.labels(Some(&pairs("app=web tier=front version=v1")));
        for (selector, included) in [
            ("", true),
            ("app=web", true),
            ("app=web version=v1", true),
            ("app=db", false),
            ("app=web zone=a", false),
        ] {
            let selector = texts.labels(Some(&pairs(selector)));
            assert_eq!(labels.include(&selector), included, "{selector:?}");
        }
    }
}

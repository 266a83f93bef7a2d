//! Label selectors: which of many apply to some labels.

use std::{collections::HashMap, sync::Arc};

use crate::text::Labels;

/// Equality selectors, found by the labels they match.
///
/// Each stands under one of its pairs, so that a lookup looks only at selectors that share a pair with
/// the labels.
#[derive(Debug)]
pub(crate) struct Selectors<T> {
    by_pair: HashMap<Pair, Vec<(Labels, T)>>,
    /// Those without any pair: they match everything.
    everything: Vec<T>,
}

/// A label and its value.
type Pair = (Arc<str>, Arc<str>);

// === impl Selectors ===

impl<T> Default for Selectors<T> {
    fn default() -> Self {
        Self {
            by_pair: HashMap::new(),
            everything: Vec::new(),
        }
    }
}

impl<T: PartialEq> Selectors<T> {
    /// Adds a selector. One without labels matches everything.
    pub(crate) fn insert(&mut self, selector: &Labels, value: T) {
        // The pair that fewest others stand under.
        let held = |pair: &&Pair| self.by_pair.get(*pair).map_or(0, Vec::len);
        match selector.iter().min_by_key(held) {
            Some(pair) => {
                let bucket = self.by_pair.entry(pair.clone()).or_default();
                bucket.push((selector.clone(), value));
            }
            None => self.everything.push(value),
        }
    }

    /// Removes what was added.
    pub(crate) fn remove(&mut self, selector: &Labels, value: &T) {
        if selector.is_empty() {
            self.everything.retain(|known| known != value);
        }
        for pair in selector.iter() {
            let Some(bucket) = self.by_pair.get_mut(pair) else {
                continue;
            };
            bucket.retain(|(_, known)| known != value);
            if bucket.is_empty() {
                self.by_pair.remove(pair);
            }
        }
    }

    /// Those whose selector matches these labels.
    pub(crate) fn matching<'a>(&'a self, labels: &'a Labels) -> impl Iterator<Item = &'a T> {
        let buckets = labels.iter().filter_map(|pair| self.by_pair.get(pair));
        let matching = buckets
            .flatten()
            .filter(|(selector, _)| labels.include(selector));
        self.everything
            .iter()
            .chain(matching.map(|(_, value)| value))
    }
}

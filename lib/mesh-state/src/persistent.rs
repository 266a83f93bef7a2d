//! Persistent collections: a clone is one reference, a change copies one path.

use std::{borrow::Borrow, hash::Hash};

use rpds::{HashTrieMapSync, RedBlackTreeMapSync, RedBlackTreeSetSync};

/// A map whose clones share all entries.
pub(crate) type Map<K, V> = HashTrieMapSync<K, V>;

/// An ordered map whose clones share all entries.
pub(crate) type SortedMap<K, V> = RedBlackTreeMapSync<K, V>;

/// An ordered set whose clones share all entries.
pub(crate) type Set<T> = RedBlackTreeSetSync<T>;

/// A map from a key to an ordered set. A key whose set is empty is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Multimap<K: Eq + Hash, V: Ord>(Map<K, Set<V>>);

// === impl Multimap ===

impl<K: Clone + Eq + Hash, V: Clone + Ord> Multimap<K, V> {
    pub(crate) fn insert(&mut self, key: K, value: V) {
        match self.0.get_mut(&key) {
            Some(set) => set.insert_mut(value),
            None => self.0.insert_mut(key, Set::new_sync().insert(value)),
        }
    }

    pub(crate) fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q, value: &V)
    where
        K: Borrow<Q>,
    {
        let Some(set) = self.0.get_mut(key) else {
            return;
        };
        set.remove_mut(value);
        if set.is_empty() {
            self.0.remove_mut(key);
        }
    }

    /// The values of a key, in their order.
    pub(crate) fn values<'s, Q: Eq + Hash + ?Sized>(
        &'s self,
        key: &Q,
    ) -> impl Iterator<Item = &'s V> + use<'s, K, V, Q>
    where
        K: Borrow<Q>,
    {
        self.0.get(key).into_iter().flatten()
    }

    pub(crate) fn contains_key<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.0.contains_key(key)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.keys()
    }
}

impl<K: Eq + Hash, V: Ord> Default for Multimap<K, V> {
    fn default() -> Self {
        Self(Map::new_sync())
    }
}

//! What is published, and in which order it changed.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hasher as _,
    sync::Arc,
};

use bytes::Bytes;
use twox_hash::XxHash64;

/// Published resources by type. Pure data; [`super::Resources`] shares it.
#[derive(Debug)]
pub struct Catalog {
    tables: HashMap<Box<str>, Table>,
    history: usize,
}

/// The resources of one type.
///
/// Each change gets a number. A stream remembers the last number it has told its client about, and is
/// brought up to date by walking the numbers above it: it costs what changed, and nothing is kept per
/// stream. Each name stands under its latest number only, so the walk is never longer than the table.
#[derive(Debug, Default)]
pub(super) struct Table {
    entries: HashMap<Arc<str>, Entry>,
    changed: BTreeMap<u64, Arc<str>>,
    removed: BTreeMap<u64, Arc<str>>,
    removed_at: HashMap<Arc<str>, u64>,
    latest: u64,
    /// Removals up to this number have been forgotten.
    forgotten: u64,
}

/// One resource.
#[derive(Debug)]
pub(super) struct Entry {
    /// A hash of the content: the same in every replica and after a restart.
    pub(super) version: Arc<str>,
    /// The encoded message, shared by all responses that carry it.
    pub(super) body: Bytes,
    number: u64,
}

/// Removals that are remembered per type unless told otherwise. A stream that lags further behind is
/// closed, and its client returns with the list of what it holds.
const HISTORY: usize = 65_536;

// === impl Catalog ===

impl Default for Catalog {
    fn default() -> Self {
        Self::with_history(HISTORY)
    }
}

impl Catalog {
    /// An empty catalog that remembers that many removals per type.
    pub fn with_history(removals: usize) -> Self {
        Self {
            tables: HashMap::new(),
            history: removals,
        }
    }

    /// Publishes a resource, or withdraws it when there is no content. Says whether that changed
    /// anything: the same content again does not.
    pub fn set(&mut self, type_url: &str, name: Arc<str>, content: Option<Bytes>) -> bool {
        let table = self.tables.entry(type_url.into()).or_default();
        match content {
            Some(content) => table.publish(name, content),
            None => table.withdraw(name, self.history),
        }
    }

    /// How many resources of a type are published.
    pub fn len(&self, type_url: &str) -> usize {
        self.table(type_url).map_or(0, |table| table.entries.len())
    }

    pub(super) fn table(&self, type_url: &str) -> Option<&Table> {
        self.tables.get(type_url)
    }
}

// === impl Table ===

impl Table {
    fn publish(&mut self, name: Arc<str>, body: Bytes) -> bool {
        let version = version(&body);
        let known = self.entries.get(&name);
        if known.is_some_and(|entry| entry.version == version) {
            return false;
        }
        if let Some(entry) = known {
            self.changed.remove(&entry.number);
        }
        if let Some(number) = self.removed_at.remove(&name) {
            self.removed.remove(&number);
        }
        let number = self.next();
        self.changed.insert(number, name.clone());
        let entry = Entry {
            version,
            body,
            number,
        };
        self.entries.insert(name, entry);
        true
    }

    fn withdraw(&mut self, name: Arc<str>, history: usize) -> bool {
        let Some(entry) = self.entries.remove(&name) else {
            return false;
        };
        self.changed.remove(&entry.number);
        let number = self.next();
        self.removed.insert(number, name.clone());
        self.removed_at.insert(name, number);
        while self.removed.len() > history {
            if let Some((number, name)) = self.removed.pop_first() {
                self.removed_at.remove(&name);
                self.forgotten = number;
            }
        }
        true
    }

    fn next(&mut self) -> u64 {
        self.latest += 1;
        self.latest
    }

    /// The number of the latest change.
    pub(super) fn latest(&self) -> u64 {
        self.latest
    }

    pub(super) fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.entries.keys()
    }

    /// Names that were published or withdrawn after `number`; nothing if that is too long ago to tell.
    pub(super) fn since(&self, number: u64) -> Option<impl Iterator<Item = &Arc<str>>> {
        let after = number.saturating_add(1)..;
        (number >= self.forgotten).then(|| {
            let changed = self.changed.range(after.clone());
            changed
                .chain(self.removed.range(after))
                .map(|(_, name)| name)
        })
    }
}

fn version(body: &[u8]) -> Arc<str> {
    let mut hasher = XxHash64::with_seed(0);
    hasher.write(body);
    format!("{:016x}", hasher.finish()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "t";

    fn since(catalog: &Catalog, number: u64) -> Option<Vec<String>> {
        let names = catalog.table(TYPE)?.since(number)?;
        Some(names.map(ToString::to_string).collect())
    }

    #[test]
    fn the_same_content_again_is_no_change() {
        let mut catalog = Catalog::default();
        assert!(catalog.set(TYPE, "a".into(), Some("1".into())));
        assert!(!catalog.set(TYPE, "a".into(), Some("1".into())));
        assert!(catalog.set(TYPE, "a".into(), Some("2".into())));
        assert!(catalog.set(TYPE, "a".into(), None));
        assert!(!catalog.set(TYPE, "a".into(), None));
    }

    #[test]
    fn each_name_stands_under_its_latest_change_only() {
        let mut catalog = Catalog::default();
        for content in ["1", "2", "3"] {
            catalog.set(TYPE, "a".into(), Some(content.into()));
        }
        catalog.set(TYPE, "b".into(), Some("1".into()));
        catalog.set(TYPE, "b".into(), None);
        catalog.set(TYPE, "b".into(), Some("1".into()));
        assert_eq!(since(&catalog, 0).unwrap(), ["a", "b"]);
        assert_eq!(since(&catalog, 3).unwrap(), ["b"]);
        assert_eq!(since(&catalog, 6).unwrap(), [""; 0]);
    }

    #[test]
    fn removals_beyond_the_history_are_forgotten_and_it_says_so() {
        let mut catalog = Catalog::with_history(1);
        for name in ["a", "b"] {
            catalog.set(TYPE, name.into(), Some("1".into()));
            catalog.set(TYPE, name.into(), None);
        }
        assert_eq!(since(&catalog, 1), None);
        assert_eq!(since(&catalog, 2).unwrap(), ["b"]);
        assert_eq!(catalog.len(TYPE), 0);
    }

    #[test]
    fn versions_are_those_of_every_replica() {
        // XXH64 with seed 0, from the algorithm's published test vectors.
        assert_eq!(&*version(b""), "ef46db3751d8e999");
    }
}

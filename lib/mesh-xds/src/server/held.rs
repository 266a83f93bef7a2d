//! What a client holds when it connects.

use std::collections::HashMap;

use super::catalog::Version;

/// Names with their versions. In two pieces of memory, since there may be a hundred thousand, and they are
/// needed once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// One after another.
    names: String,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    /// Where the name ends.
    end: usize,
    /// Nothing if it is none of ours.
    version: Option<Version>,
}

/// The same, to find names in.
pub(super) type Index<'a> = HashMap<&'a str, Option<Version>>;

// === impl Held ===

impl Held {
    pub(super) fn push(&mut self, name: &str, version: Option<Version>) {
        self.names.push_str(name);
        let end = self.names.len();
        self.entries.push(Entry { end, version });
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, Option<Version>)> {
        let mut start = 0;
        self.entries.iter().map(move |entry| {
            let name = self.names.get(start..entry.end).unwrap_or_default();
            start = entry.end;
            (name, entry.version)
        })
    }

    pub(super) fn index(&self) -> Index<'_> {
        self.iter().collect()
    }
}

impl From<HashMap<String, String>> for Held {
    fn from(versions: HashMap<String, String>) -> Self {
        let mut held = Self::default();
        for (name, version) in versions {
            held.push(&name, Version::parse(&version));
        }
        held
    }
}

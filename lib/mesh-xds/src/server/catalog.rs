//! What is published, and in which order it changed.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    hash::Hasher as _,
    sync::Arc,
};

use bytes::Bytes;
use twox_hash::XxHash64;

use self::links::Links;
use super::{Group, Precedence, Resource};

mod links;

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
///
/// Aliases and groups change only along with a resource that has them, so the walk finds those too.
#[derive(Debug, Default)]
pub(super) struct Table {
    entries: HashMap<Arc<str>, Entry>,
    links: Links,
    /// What clients are sent of each resource, by its latest change: side by side in memory, more or less,
    /// since that is the order in which they were made.
    changed: BTreeMap<u64, Arc<Published>>,
    removed: BTreeMap<u64, Arc<str>>,
    removals: HashMap<Arc<str>, Removal>,
    latest: u64,
    /// Removals up to this number have been forgotten.
    forgotten: u64,
}

/// One resource.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) published: Arc<Published>,
    pub(super) groups: Box<[Group]>,
    precedence: Precedence,
    /// The number of its latest change.
    pub(super) number: u64,
    reach: Reach,
    /// The number since which it has this reach.
    since: u64,
    past: Past,
}

/// What clients are sent of a resource: shared by the catalog and all responses that bring it, and the
/// same for as long as any of them needs it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Published {
    pub(super) name: Arc<str>,
    /// A hash of the content: the same in every replica and after a restart.
    pub(super) version: Version,
    /// The encoded message.
    pub(super) body: Bytes,
    pub(super) aliases: Box<[Arc<str>]>,
}

/// Where a policy is in force. Other resources are simply there or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// It does not exist.
    Nowhere,
    /// Where it is named.
    Named,
    /// Wherever its scope reaches.
    Everywhere,
}

/// Reaches that a resource had before, oldest first, with the number since when. Mostly none.
type Past = Vec<(u64, Reach)>;

/// When a resource was withdrawn, and its reaches until then.
#[derive(Debug)]
struct Removal {
    number: u64,
    past: Past,
}

/// A version; prints as it is written on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version(u64);

/// Reaches that are remembered of one name. A client that has not been told of that many is taken for
/// one that never knew the policy.
const MAX_PAST: usize = 16;

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

    /// Publishes a resource, or withdraws it when there is none. Says whether that changed anything:
    /// the same again does not.
    pub fn set(&mut self, type_url: &str, name: Arc<str>, resource: Option<Resource>) -> bool {
        if !self.tables.contains_key(type_url) {
            self.tables.insert(type_url.into(), Table::default());
        }
        let Some(table) = self.tables.get_mut(type_url) else {
            return false;
        };
        match resource {
            Some(resource) => table.publish(name, resource),
            None => table.withdraw(name, self.history),
        }
    }

    /// How many resources of a type are published.
    pub fn len(&self, type_url: &str) -> usize {
        self.table(type_url).map_or(0, Table::len)
    }

    /// The names and encoded messages of a type, in no order.
    pub fn bodies(&self, type_url: &str) -> impl Iterator<Item = (&Arc<str>, &Bytes)> {
        let entries = self.table(type_url).map(|table| table.entries.iter());
        let entries = entries.into_iter().flatten();
        entries.map(|(name, entry)| (name, &entry.published.body))
    }

    pub(super) fn table(&self, type_url: &str) -> Option<&Table> {
        self.tables.get(type_url)
    }
}

// === impl Table ===

impl Table {
    fn publish(&mut self, name: Arc<str>, resource: Resource) -> bool {
        let mut entry = Entry::new(name.clone(), resource);
        entry.share_groups(&self.links);
        let known = self.entries.remove(&name);
        if let Some(known) = known {
            if known.says_the_same_as(&entry) {
                self.entries.insert(name, known);
                return false;
            }
            self.changed.remove(&known.number);
            entry.number = self.next();
            self.unlink(&name, &known, Some(&entry));
            self.link(&name, &entry, Some(&known));
            entry.succeed(known);
        } else {
            entry.number = self.next();
            entry.since = entry.number;
            self.link(&name, &entry, None);
            if let Some(removal) = self.removals.remove(&name) {
                self.removed.remove(&removal.number);
                entry.past = with_reach(removal.past, removal.number, Reach::Nowhere);
            }
        }
        self.changed.insert(entry.number, entry.published.clone());
        self.entries.insert(name, entry);
        true
    }

    fn withdraw(&mut self, name: Arc<str>, history: usize) -> bool {
        let Some(entry) = self.entries.remove(&name) else {
            return false;
        };
        self.unlink(&name, &entry, None);
        self.changed.remove(&entry.number);
        let number = self.next();
        self.removed.insert(number, name.clone());
        let past = with_reach(entry.past, entry.since, entry.reach);
        self.removals.insert(name, Removal { number, past });
        while self.removed.len() > history {
            if let Some((number, name)) = self.removed.pop_first() {
                self.removals.remove(&name);
                self.forgotten = number;
            }
        }
        true
    }

    /// Files what `entry` has and `before` had not.
    fn link(&mut self, name: &Arc<str>, entry: &Entry, before: Option<&Entry>) {
        for alias in entry.aliases() {
            let kept = before.is_some_and(|before| {
                before.precedence == entry.precedence && before.aliases().contains(alias)
            });
            if !kept {
                self.links.claim(alias, name, entry.precedence);
            }
        }
        for group in &entry.groups {
            self.links.join(group, name);
        }
    }

    /// Takes out what `entry` had and `after` has not.
    fn unlink(&mut self, name: &str, entry: &Entry, after: Option<&Entry>) {
        for alias in entry.aliases() {
            let kept = after.is_some_and(|after| {
                after.precedence == entry.precedence && after.aliases().contains(alias)
            });
            if !kept {
                self.links.disclaim(alias, name);
            }
        }
        for group in &entry.groups {
            if !after.is_some_and(|after| after.groups.contains(group)) {
                self.links.leave(group, name);
            }
        }
    }

    fn next(&mut self) -> u64 {
        self.latest += 1;
        self.latest
    }

    /// The number of the latest change.
    pub(super) fn latest(&self) -> u64 {
        self.latest
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// The resource that answers to a name, with its own name: the one that is called so, or else the
    /// one that has it as an alias.
    pub(super) fn find(&self, name: &str) -> Option<(&Arc<str>, &Entry)> {
        let named = self.entries.get_key_value(name);
        named.or_else(|| self.entries.get_key_value(self.links.resolve(name)?))
    }

    /// Where a resource was in force when a change had that number.
    pub(super) fn reach_at(&self, name: &str, number: u64) -> Reach {
        let past = match (self.entries.get(name), self.removals.get(name)) {
            (Some(entry), _) if number >= entry.since => return entry.reach,
            (Some(entry), _) => &entry.past,
            (None, Some(removal)) if number < removal.number => &removal.past,
            (None, _) => return Reach::Nowhere,
        };
        let earlier = past.iter().rfind(|(since, _)| number >= *since);
        earlier.map_or(Reach::Nowhere, |(_, reach)| *reach)
    }

    /// What a group brings.
    pub(super) fn members(&self, group: &Group) -> impl Iterator<Item = &Arc<str>> {
        self.links.members(group)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.entries.keys()
    }

    /// What clients are sent, in the order of the latest changes.
    pub(super) fn published(&self) -> impl Iterator<Item = &Arc<Published>> {
        self.changed.values()
    }

    /// Names that were published or withdrawn after `number`; nothing if that is too long ago to tell.
    pub(super) fn since(&self, number: u64) -> Option<impl Iterator<Item = &Arc<str>>> {
        let after = number.saturating_add(1)..;
        (number >= self.forgotten).then(|| {
            let changed = self.changed.range(after.clone());
            let changed = changed.map(|(_, published)| &published.name);
            let removed = self.removed.range(after);
            changed.chain(removed.map(|(_, name)| name))
        })
    }
}

// === impl Entry ===

impl Entry {
    fn new(name: Arc<str>, resource: Resource) -> Self {
        let published = Published {
            name,
            version: Version::of(&resource.content),
            body: resource.content,
            aliases: resource.aliases.into(),
        };
        Self {
            published: Arc::new(published),
            groups: resource.groups.into(),
            precedence: resource.precedence,
            reach: if resource.by_name_only {
                Reach::Named
            } else {
                Reach::Everywhere
            },
            number: 0,
            since: 0,
            past: Vec::new(),
        }
    }

    fn share_groups(&mut self, links: &Links) {
        for group in &mut self.groups {
            *group = links.share(group.clone());
        }
    }

    fn says_the_same_as(&self, other: &Self) -> bool {
        self.published.version == other.published.version
            && self.published.aliases == other.published.aliases
            && self.groups == other.groups
            && self.precedence == other.precedence
            && self.reach == other.reach
    }

    /// Takes over the past of what was published under the same name.
    fn succeed(&mut self, before: Self) {
        if self.reach == before.reach {
            self.since = before.since;
            self.past = before.past;
        } else {
            self.since = self.number;
            self.past = with_reach(before.past, before.since, before.reach);
        }
    }

    pub(super) fn version(&self) -> Version {
        self.published.version
    }

    pub(super) fn aliases(&self) -> &[Arc<str>] {
        &self.published.aliases
    }

    pub(super) fn by_name_only(&self) -> bool {
        self.reach == Reach::Named
    }
}

// === impl Version ===

impl Version {
    fn of(body: &[u8]) -> Self {
        let mut hasher = XxHash64::with_seed(0);
        hasher.write(body);
        Self(hasher.finish())
    }

    /// The version as it is written on the wire.
    pub(super) fn digits(self) -> [u8; VERSION_LEN] {
        let mut digits = [0; VERSION_LEN];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(self.0.to_be_bytes()) {
            pair.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]]);
        }
        digits
    }

    /// The version that a text of the wire is, if any.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let number = u64::from_str_radix(text, 16).ok();
        number.filter(|_| text.len() == VERSION_LEN).map(Self)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0VERSION_LEN$x}", self.0)
    }
}

fn with_reach(mut past: Past, since: u64, reach: Reach) -> Past {
    if past.len() == MAX_PAST {
        past.remove(0);
    }
    past.push((since, reach));
    past
}

/// Characters of a version: hexadecimal digits.
pub(super) const VERSION_LEN: usize = 16;

const HEX: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests;

//! Objects in memory: what there is, and in which order it changed.
//!
//! One number, the resource version, counts all changes. Each resource remembers its latest changes with
//! what was there before. A watch follows that history, and a list at an older version is the present with
//! the changes since undone, so pages of one list show one moment without a copy of it.

mod history;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use jiff::Timestamp;
use kube::Resource;
use parking_lot::RwLock;
use serde_json::{Map, Value};
use tokio::sync::watch;

pub use history::{Change, Event};

use history::{History, Undo};

/// A resource without its version: objects are stored once, however many versions show them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupResource {
    /// The API group, empty for core.
    pub group: Cow<'static, str>,
    /// The plural name.
    pub resource: Cow<'static, str>,
}

/// Where an object is kept within its resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Empty for cluster-scoped objects.
    pub namespace: Arc<str>,
    /// The object's name.
    pub name: Arc<str>,
}

/// All objects. Access is direct: neither admission nor controllers see it. Shared by reference.
#[derive(Debug)]
pub struct Store {
    state: RwLock<State>,
    remembered: usize,
}

/// What a list asks for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Query<'a> {
    /// One namespace, or all.
    pub namespace: Option<&'a str>,
    /// The moment to show, the present unless given.
    pub at: Option<u64>,
    /// Where the page before ended.
    pub after: Option<&'a Key>,
    /// How many objects at most, all unless given.
    pub limit: Option<usize>,
}

/// A list, or a part of one.
#[derive(Debug)]
pub struct Page {
    /// The moment that is shown.
    pub resource_version: u64,
    /// In the order of namespace and name.
    pub items: Vec<Arc<Value>>,
    /// Where the next page starts after, if there is one.
    pub end: Option<Key>,
    /// How many objects come after this page, whether or not they would be kept.
    pub remaining: usize,
}

/// Why a moment cannot be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It has been forgotten: list again. Answered with 410.
    #[error("too old resource version: {asked} ({oldest})")]
    Expired {
        /// What was asked for.
        asked: u64,
        /// The oldest that is known.
        oldest: u64,
    },
    /// It has not come yet: the caller mixes up servers, or has to wait. Answered with 504.
    #[error("Too large resource version: {asked}, current: {current}")]
    Future {
        /// What was asked for.
        asked: u64,
        /// The present.
        current: u64,
    },
}

#[derive(Debug, Default)]
struct State {
    resource_version: u64,
    /// Changes up to here have been forgotten on request.
    compacted: u64,
    collections: HashMap<GroupResource, Collection>,
    /// Who names an object, by its uid, as owner.
    dependents: HashMap<Box<str>, BTreeSet<(GroupResource, Key)>>,
}

#[derive(Debug)]
struct Collection {
    objects: Objects,
    history: History,
    changed: watch::Sender<u64>,
}

/// By namespace, then by name.
type Objects = BTreeMap<Arc<str>, BTreeMap<Arc<str>, Arc<Value>>>;

/// Changes that are remembered per resource unless told otherwise.
pub const HISTORY: usize = 32_768;

// === impl GroupResource ===

impl GroupResource {
    /// A resource of a group, empty for core.
    pub const fn new(group: &'static str, resource: &'static str) -> Self {
        Self {
            group: Cow::Borrowed(group),
            resource: Cow::Borrowed(resource),
        }
    }

    /// As [`new`](Self::new), for names that are known at run time.
    pub fn named(group: &str, resource: &str) -> Self {
        Self {
            group: Cow::Owned(group.to_owned()),
            resource: Cow::Owned(resource.to_owned()),
        }
    }

    /// The resource of a type.
    pub fn of<K: Resource<DynamicType = ()>>() -> Self {
        Self::named(&K::group(&()), &K::plural(&()))
    }
}

// === impl Key ===

impl Key {
    /// A key; the namespace is empty for cluster-scoped objects.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The key of an object.
    pub fn of(object: &Value) -> Self {
        let metadata = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
        Self::new(metadata("namespace"), metadata("name"))
    }
}

// === impl Store ===

impl Default for Store {
    fn default() -> Self {
        Self::with_history(HISTORY)
    }
}

impl Store {
    /// An empty store that remembers that many changes per resource.
    pub fn with_history(changes: usize) -> Self {
        Self {
            state: RwLock::default(),
            remembered: changes,
        }
    }

    /// Stores an object, new or in place of the one of its name, with a new resource version; a missing uid
    /// and creation time are made up. This is how a test seeds many objects fast: nothing is checked,
    /// and no controller acts on it.
    pub fn put(&self, resource: &GroupResource, mut object: Value) -> Arc<Value> {
        complete(&mut object);
        let key = Key::of(&object);
        let mut state = self.state.write();
        state.resource_version += 1;
        let version = state.resource_version;
        object["metadata"]["resourceVersion"] = version.to_string().into();
        let object = Arc::new(object);
        let collection = state.collection(resource, self.remembered);
        let names = collection.objects.entry(key.namespace.clone()).or_default();
        let previous = names.insert(key.name.clone(), object.clone());
        collection.record(Event {
            resource_version: version,
            key: key.clone(),
            change: if previous.is_some() {
                Change::Modified
            } else {
                Change::Added
            },
            object: object.clone(),
            previous: previous.clone(),
        });
        if let Some(previous) = &previous {
            state.disown(resource, &key, previous);
        }
        state.own(resource, &key, &object);
        object
    }

    /// Removes an object and returns its last state, with the resource version of the removal.
    pub fn remove(
        &self,
        resource: &GroupResource,
        namespace: &str,
        name: &str,
    ) -> Option<Arc<Value>> {
        let mut guard = self.state.write();
        let state = &mut *guard;
        let collection = state.collections.get_mut(resource)?;
        let names = collection.objects.get_mut(namespace)?;
        let (name, previous) = names.remove_entry(name)?;
        if names.is_empty() {
            collection.objects.remove(namespace);
        }
        state.resource_version += 1;
        let mut last = Value::clone(&previous);
        last["metadata"]["resourceVersion"] = state.resource_version.to_string().into();
        let last = Arc::new(last);
        let key = Key {
            namespace: namespace.into(),
            name,
        };
        collection.record(Event {
            resource_version: state.resource_version,
            key: key.clone(),
            change: Change::Deleted,
            object: last.clone(),
            previous: Some(previous.clone()),
        });
        state.disown(resource, &key, &previous);
        Some(last)
    }

    /// Forgets all history: older resource versions and continue tokens have expired from now on.
    pub fn compact(&self) {
        let mut state = self.state.write();
        state.compacted = state.resource_version;
        let version = state.resource_version;
        for collection in state.collections.values_mut() {
            collection.history.forget(version);
        }
    }

    /// One object.
    pub fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let state = self.state.read();
        let names = state.collections.get(resource)?.objects.get(namespace)?;
        names.get(name).cloned()
    }

    /// All objects of a resource, or those of one namespace, in the order of namespace and name.
    pub fn list(&self, resource: &GroupResource, namespace: Option<&str>) -> Vec<Arc<Value>> {
        let query = Query {
            namespace,
            ..Query::default()
        };
        self.page(resource, query, &|_| true)
            .map_or_else(|_| Vec::new(), |page| page.items)
    }

    /// The objects that `keep` says yes to, at one moment.
    pub fn page(
        &self,
        resource: &GroupResource,
        query: Query<'_>,
        keep: &dyn Fn(&Value) -> bool,
    ) -> Result<Page, Error> {
        let state = self.state.read();
        let at = query.at.unwrap_or(state.resource_version);
        if at > state.resource_version {
            return Err(Error::Future {
                asked: at,
                current: state.resource_version,
            });
        }
        let Some(collection) = state.collections.get(resource) else {
            return state.empty_page(at);
        };
        let undo = collection.history.undo(at)?;
        Ok(collection.page(&undo, at, query, keep))
    }

    /// Whether a resource has any object, in a namespace or at all.
    pub fn is_empty(&self, resource: &GroupResource, namespace: Option<&str>) -> bool {
        let state = self.state.read();
        let objects = state.collections.get(resource).map(|it| &it.objects);
        objects.is_none_or(|objects| match namespace {
            Some(namespace) => !objects.contains_key(namespace),
            None => objects.is_empty(),
        })
    }

    /// The resources of which there are objects, in a namespace or at all.
    pub fn resources(&self, namespace: Option<&str>) -> Vec<GroupResource> {
        let state = self.state.read();
        let holds = |it: &Collection| match namespace {
            Some(namespace) => it.objects.contains_key(namespace),
            None => !it.objects.is_empty(),
        };
        let collections = state.collections.iter();
        let mut resources: Vec<_> = collections
            .filter(|(_, collection)| holds(collection))
            .map(|(resource, _)| resource.clone())
            .collect();
        resources.sort();
        resources
    }

    /// The objects that name the one of this uid as an owner.
    pub fn dependents(&self, uid: &str) -> Vec<(GroupResource, Key)> {
        let state = self.state.read();
        let dependents = state.dependents.get(uid);
        dependents.map_or_else(Vec::new, |set| set.iter().cloned().collect())
    }

    /// Up to `limit` changes of a resource after a resource version, and the present resource version.
    /// Fewer than `limit` means that there are no more up to the present.
    pub fn events_after(
        &self,
        resource: &GroupResource,
        version: u64,
        limit: usize,
    ) -> Result<(Vec<Event>, u64), Error> {
        let state = self.state.read();
        let events = match state.collections.get(resource) {
            Some(collection) => collection.history.after(version, limit)?,
            None => state.empty_page(version).map(|_| Vec::new())?,
        };
        Ok((events, state.resource_version))
    }

    /// Learns of each change of a resource, by its resource version.
    pub fn subscribe(&self, resource: &GroupResource) -> watch::Receiver<u64> {
        let mut state = self.state.write();
        state
            .collection(resource, self.remembered)
            .changed
            .subscribe()
    }

    /// The version of the last change.
    pub fn resource_version(&self) -> u64 {
        self.state.read().resource_version
    }

    /// The version of the last change of one resource, 0 before the first.
    pub fn last_changed(&self, resource: &GroupResource) -> u64 {
        let state = self.state.read();
        let collection = state.collections.get(resource);
        collection.map_or(0, |collection| *collection.changed.borrow())
    }
}

// === impl State ===

impl State {
    fn collection(&mut self, resource: &GroupResource, remembered: usize) -> &mut Collection {
        let compacted = self.compacted;
        self.collections
            .entry(resource.clone())
            .or_insert_with(|| Collection {
                objects: BTreeMap::new(),
                history: History::new(remembered, compacted),
                changed: watch::Sender::new(0),
            })
    }

    fn empty_page(&self, at: u64) -> Result<Page, Error> {
        if at < self.compacted {
            return Err(Error::Expired {
                asked: at,
                oldest: self.compacted,
            });
        }
        Ok(Page {
            resource_version: at,
            items: Vec::new(),
            end: None,
            remaining: 0,
        })
    }

    fn own(&mut self, resource: &GroupResource, key: &Key, object: &Value) {
        for uid in owners(object) {
            let dependents = self.dependents.entry(uid.into()).or_default();
            dependents.insert((resource.clone(), key.clone()));
        }
    }

    fn disown(&mut self, resource: &GroupResource, key: &Key, object: &Value) {
        for uid in owners(object) {
            if let Some(dependents) = self.dependents.get_mut(uid) {
                dependents.remove(&(resource.clone(), key.clone()));
                if dependents.is_empty() {
                    self.dependents.remove(uid);
                }
            }
        }
    }
}

// === impl Collection ===

impl Collection {
    fn record(&mut self, event: Event) {
        let version = event.resource_version;
        self.history.push(event);
        self.changed.send_replace(version);
    }

    fn page(&self, undo: &Undo, at: u64, query: Query<'_>, keep: &dyn Fn(&Value) -> bool) -> Page {
        let mut page = Page {
            resource_version: at,
            items: Vec::new(),
            end: None,
            remaining: 0,
        };
        let limit = query.limit.unwrap_or(usize::MAX);
        let mut last = None;
        for (namespace, name, object) in history::at(&self.objects, undo, query.after) {
            if query.namespace.is_some_and(|only| only != &**namespace) {
                continue;
            }
            if page.items.len() == limit {
                page.remaining += 1;
            } else if keep(object) {
                page.items.push(object.clone());
                last = Some((namespace, name));
            }
        }
        if page.remaining > 0 {
            page.end = last.map(|(namespace, name)| Key {
                namespace: namespace.clone(),
                name: name.clone(),
            });
        }
        page
    }
}

/// The uids of an object's owners.
fn owners(object: &Value) -> impl Iterator<Item = &str> {
    let references = object["metadata"]["ownerReferences"].as_array();
    references
        .into_iter()
        .flatten()
        .filter_map(|reference| reference["uid"].as_str())
}

/// Makes up what every stored object has.
fn complete(object: &mut Value) {
    if !object["metadata"].is_object() {
        object["metadata"] = Value::Object(Map::new());
    }
    let metadata = &mut object["metadata"];
    if metadata["uid"].as_str().is_none_or(str::is_empty) {
        metadata["uid"] = new_uid().into();
    }
    if metadata["creationTimestamp"]
        .as_str()
        .is_none_or(str::is_empty)
    {
        metadata["creationTimestamp"] = timestamp(Timestamp::now()).into();
    }
}

/// A random uid, in the form of a version 4 UUID.
pub fn new_uid() -> String {
    let bits = fastrand::u128(..);
    let bits = (bits & !(0xf << 76) & !(0b11 << 62)) | (0x4 << 76) | (0b10 << 62);
    let hex = format!("{bits:032x}");
    let part = |range| hex.get(range).unwrap_or_default();
    [
        part(0..8),
        part(8..12),
        part(12..16),
        part(16..20),
        part(20..32),
    ]
    .join("-")
}

/// A time as Kubernetes writes it, to the second.
pub fn timestamp(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests;

//! The index itself: three verbs in, one out.
//!
//! An object is read into its record at once. If the record differs from the one before, whatever is
//! computed from it is marked: found by the ways that lead from record to record, never by a search through the
//! mesh. What is marked is computed anew when somebody asks, once however often it was marked, and said
//! if it differs from what was said before.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use mesh_core::change::Change;

use crate::{
    allocate::Allocator,
    build,
    cluster::Cluster,
    dump::Dump,
    object::{Key, Kind, Object},
    output::{ADDRESS_REPORTER, Output, Problem, StatusUpdate},
    published::{BuiltStatus, Published},
    record::{
        Reader,
        endpoint::WorkloadEntry,
        entry::ServiceEntry,
        gateway,
        namespace::Namespace,
        node::Node,
        pod::Pod,
        policy::{Authorization, Peer},
        service::Service,
        slice::Slice,
    },
    settings::Settings,
    text::Texts,
    unit::Unit,
};

mod touch;

/// All that is known of the cluster, reduced to what discovery needs, and what has been said about it.
#[derive(Debug)]
pub struct Index {
    texts: Texts,
    cluster: Cluster,
    allocator: Allocator,
    marked: BTreeSet<Unit>,
    published: Published,
    /// What is wrong with the objects that are known, and what of it has not been told yet.
    problems: HashMap<(Kind, Key), Box<[Problem]>>,
    news: Vec<Problem>,
    /// The statuses of objects that are there and cannot be used.
    unusable: BTreeSet<Unit>,
    /// Policies that were made from PeerAuthentications for another root namespace.
    withdrawn: Vec<Arc<str>>,
}

// === impl Index ===

impl Index {
    /// An empty index.
    pub fn new(settings: Settings) -> Self {
        Self {
            texts: Texts::default(),
            cluster: Cluster::new(settings),
            allocator: Allocator::default(),
            marked: BTreeSet::new(),
            published: Published::default(),
            problems: HashMap::new(),
            news: Vec::new(),
            unusable: BTreeSet::new(),
            withdrawn: Vec::new(),
        }
    }

    /// Takes in an object that is new or has changed. One that says nothing new for discovery costs its
    /// reading and nothing else.
    pub fn apply(&mut self, object: Object) {
        let kind = object.kind();
        let key = self.key_of(&object);
        let mut reader = Reader::new(&mut self.texts, kind, &key);
        macro_rules! read {
            ($record:expr, $set:ident) => {{
                let record = $record;
                if record.is_none() {
                    self.unusable.insert(Unit::Status(kind, key.clone()));
                }
                let problems = reader.into_problems();
                self.$set(&key, record);
                problems
            }};
        }
        let problems = match object {
            Object::Pod(pod) => read!(Pod::read(&pod, &mut reader), set_pod),
            Object::Node(node) => read!(Some(Node::read(&node, &mut reader)), set_node),
            Object::Namespace(namespace) => {
                read!(
                    Some(Namespace::read(&namespace, &mut reader)),
                    set_namespace
                )
            }
            Object::Service(service) => read!(Service::read(&service, &mut reader), set_service),
            Object::EndpointSlice(slice) => read!(Slice::read(&slice, &mut reader), set_slice),
            Object::ServiceEntry(entry) => {
                read!(ServiceEntry::read(&entry, &mut reader), set_entry)
            }
            Object::WorkloadEntry(entry) => {
                read!(WorkloadEntry::read(&entry, &mut reader), set_workload_entry)
            }
            Object::Gateway(gateway) => {
                read!(
                    Some(gateway::Gateway::read(&gateway, &mut reader)),
                    set_gateway
                )
            }
            Object::GatewayClass(class) => {
                read!(Some(gateway::Class::read(&class, &mut reader)), set_class)
            }
            Object::AuthorizationPolicy(policy) => {
                let context = &self.cluster.context;
                let record = Authorization::read(&policy, context, &mut self.texts);
                self.set_policy(&key, Some(record));
                Vec::new()
            }
            Object::PeerAuthentication(policy) => {
                self.set_peer(&key, Some(Peer::read(&policy)));
                Vec::new()
            }
        };
        self.tell(kind, &key, problems);
        self.tidy(kind, &key);
    }

    /// Forgets an object.
    pub fn delete(&mut self, kind: Kind, key: &Key) {
        self.tell(kind, key, Vec::new());
        let status = Unit::Status(kind, key.clone());
        self.unusable.remove(&status);
        self.published.forget_status(&status);
        match kind {
            Kind::Pod => self.set_pod(key, None),
            Kind::Node => self.set_node(key, None),
            Kind::Namespace => self.set_namespace(key, None),
            Kind::Service => self.set_service(key, None),
            Kind::EndpointSlice => self.set_slice(key, None),
            Kind::ServiceEntry => self.set_entry(key, None),
            Kind::WorkloadEntry => self.set_workload_entry(key, None),
            Kind::Gateway => self.set_gateway(key, None),
            Kind::GatewayClass => self.set_class(key, None),
            Kind::AuthorizationPolicy => self.set_policy(key, None),
            Kind::PeerAuthentication => self.set_peer(key, None),
        }
        self.tidy(kind, key);
    }

    /// Takes in all objects of a kind: those that are known and not among them are gone. Objects of
    /// another kind are passed over.
    pub fn reset(&mut self, kind: Kind, objects: Vec<Object>) {
        let mut kept = HashSet::with_capacity(objects.len());
        for object in objects.into_iter().filter(|object| object.kind() == kind) {
            kept.insert(self.key_of(&object));
            self.apply(object);
        }
        let known = self.cluster.keys(kind);
        let troubled = self.problems.keys().filter(|(k, _)| *k == kind);
        let troubled = troubled.map(|(_, key)| key.clone());
        let all: HashSet<Key> = known.into_iter().chain(troubled).collect();
        for key in all.difference(&kept) {
            self.delete(kind, key);
        }
    }

    /// Replaces the settings. If they differ, all is looked at again.
    pub fn configure(&mut self, settings: Settings) {
        if settings == self.cluster.settings {
            return;
        }
        let root = settings.root_namespace.clone();
        let moved = root != self.cluster.settings.root_namespace;
        self.cluster.configure(settings);
        if moved {
            self.withdrawn.extend(self.cluster.found_peers(&root));
        }
        self.reread_policies();
        self.mark_all();
    }

    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.cluster.settings
    }

    /// What differs from the last call. Costs what was touched in between.
    #[must_use = "what was said is not said again"]
    pub fn drain(&mut self) -> Output {
        let mut output = Output {
            problems: std::mem::take(&mut self.news),
            changes: self.peer_policies(),
            ..Output::default()
        };
        for unit in std::mem::take(&mut self.marked) {
            match &unit {
                Unit::Status(kind, key) => {
                    let mut built = build::status::build(&self.cluster, *kind, key);
                    if built.update.is_none() && self.unusable.contains(&unit) {
                        built.update = Some(build::status::nothing(*kind, key));
                    }
                    self.published.settle_status(&unit, built, &mut output);
                }
                Unit::Addresses(key) => {
                    let built = self.addresses(key);
                    self.published.settle_status(&unit, built, &mut output);
                }
                _ => {
                    let built = build::unit(&self.cluster, &unit);
                    self.published.settle(&unit, built, &mut output);
                }
            }
        }
        let removal =
            |change: &Change| matches!(change, Change::RemoveAddress(_) | Change::RemovePolicy(_));
        self.unusable.clear();
        // Stable: otherwise the order of the units stays.
        output.changes.sort_by_key(removal);
        self.texts.sweep();
        output
    }

    /// Lets the next `drain` say every status again, as a new leader needs it.
    pub fn resend_statuses(&mut self) {
        self.published.forget_statuses();
        self.mark_statuses();
    }

    /// A summary of what is known, for people.
    pub fn dump(&self) -> Dump {
        Dump::of(&self.cluster, &self.problems)
    }

    /// What differs in the policies made from PeerAuthentications.
    fn peer_policies(&mut self) -> Vec<Change> {
        let changes: Vec<Change> = (self.cluster.peers.drain().into_iter())
            .map(Change::from)
            .collect();
        let published: HashSet<Arc<str>> = (changes.iter())
            .filter_map(|change| match change {
                Change::Policy(policy) => Some(policy.key()),
                _ => None,
            })
            .collect();
        let withdrawn = std::mem::take(&mut self.withdrawn).into_iter();
        let withdrawn = withdrawn.filter(|key| !published.contains(key));
        let withdrawn = withdrawn.map(Change::RemovePolicy).collect::<Vec<_>>();
        [changes, withdrawn].concat()
    }

    fn addresses(&mut self, key: &Key) -> BuiltStatus {
        let space = self.cluster.seen(&key.namespace);
        let Some(entry) = space.and_then(|space| space.entries.get(&key.name)) else {
            return BuiltStatus::default();
        };
        let settings = &self.cluster.settings;
        let addresses = self.allocator.allocate(settings, key, entry);
        let update = (*addresses != *entry.allocated).then(|| StatusUpdate {
            kind: Kind::ServiceEntry,
            key: key.clone(),
            generation: entry.generation,
            reporter: ADDRESS_REPORTER,
            conditions: Vec::new(),
            addresses,
        });
        BuiltStatus {
            reported: update.is_some(),
            update,
            gateways: Vec::new(),
        }
    }

    fn key_of(&mut self, object: &Object) -> Key {
        let meta = object.metadata();
        let mut text =
            |text: &Option<String>| self.texts.share(text.as_deref().unwrap_or_default());
        Key {
            namespace: text(&meta.namespace),
            name: text(&meta.name),
        }
    }

    /// Forgets a namespace of which nothing is left.
    fn tidy(&mut self, kind: Kind, key: &Key) {
        match kind {
            Kind::Namespace => self.cluster.tidy(&key.name),
            _ => self.cluster.tidy(&key.namespace),
        }
    }

    /// Replaces what is known to be wrong with an object, and tells what is new.
    fn tell(&mut self, kind: Kind, key: &Key, problems: Vec<Problem>) {
        let id = (kind, key.clone());
        let before = self.problems.remove(&id);
        if problems.is_empty() {
            return;
        }
        if before.as_deref() != Some(&problems) {
            self.news.extend(problems.iter().cloned());
        }
        self.problems.insert(id, problems.into());
    }
}

#[cfg(test)]
mod tests;

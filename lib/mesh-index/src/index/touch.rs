//! What is marked when a record changes: whatever was computed from the record before, and whatever is
//! to be computed from the one now.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use super::Index;
use crate::{
    cluster::{Cluster, Space},
    object::{Key, Kind},
    policy::peer::Affected,
    record::{
        endpoint::WorkloadEntry,
        entry::ServiceEntry,
        gateway::{Class, Gateway},
        namespace::Namespace,
        node::Node,
        pod::Pod,
        policy::{Authorization, Peer},
        service::Service,
        slice::Slice,
    },
    text::Labels,
    unit::Unit,
};

/// The record that was replaced, if there was one.
struct Before<T>(Option<T>);

/// Replaces a record. Returns the one before, or nothing if nothing has changed.
fn replace<T: PartialEq>(
    records: &mut HashMap<Arc<str>, T>,
    name: &Arc<str>,
    record: Option<T>,
) -> Option<Before<T>> {
    if records.get(name) == record.as_ref() {
        return None;
    }
    Some(Before(match record {
        Some(record) => records.insert(name.clone(), record),
        None => records.remove(name),
    }))
}

// === impl Index ===

impl Index {
    pub(super) fn set_pod(&mut self, key: &Key, record: Option<Pod>) {
        let node = record.as_ref().map(|pod| pod.node.clone());
        let pods = &mut self.cluster.space(&key.namespace).pods;
        let Some(Before(before)) = replace(pods, &key.name, record) else {
            return;
        };
        let before = before.map(|pod| pod.node);
        if before != node {
            self.cluster.move_pod(key, before.as_ref(), node.as_ref());
        }
        self.marked.insert(Unit::Pod(key.clone()));
    }

    pub(super) fn set_node(&mut self, key: &Key, record: Option<Node>) {
        if replace(&mut self.cluster.nodes, &key.name, record).is_some() {
            let pods = self.cluster.pods_on.get(&key.name);
            let pods = pods.into_iter().flatten().cloned();
            self.marked.extend(pods.map(Unit::Pod));
        }
    }

    /// A namespace tells its objects their waypoint and their balancing, and whether they are looked at.
    pub(super) fn set_namespace(&mut self, key: &Key, record: Option<Namespace>) {
        let name = &key.name;
        let space = self.cluster.space(name);
        if space.namespace == record {
            return;
        }
        // From outside, a namespace's gateways and hosts are seen too.
        let visible = self.cluster.visible_from_outside(name);
        self.cluster.space(name).namespace = record;
        if visible != self.cluster.visible_from_outside(name) {
            self.mark_outside(name);
        }
        self.mark_space(name);
        if self.cluster.renew_network() {
            self.mark_all();
        }
    }

    pub(super) fn set_service(&mut self, key: &Key, record: Option<Service>) {
        let services = &mut self.cluster.space(&key.namespace).services;
        let Some(Before(before)) = replace(services, &key.name, record) else {
            return;
        };
        let host = self.cluster.hostname(&key.namespace, &key.name);
        self.marked.insert(Unit::host(&key.namespace, &host));
        self.marked.insert(Unit::Status(Kind::Service, key.clone()));
        self.marked.extend(self.cluster.entry_hosts(&host));

        let Some(space) = self.cluster.spaces.get_mut(&key.namespace) else {
            return;
        };
        let now = space.services.get(&key.name);
        let leads = |service: Option<&Service>| {
            service.map(|service| (service.selector.clone(), service.ports.clone()))
        };
        let (before, now) = (leads(before.as_ref()), leads(now));
        if before == now {
            return;
        }
        for (selector, _) in before.iter().filter(|(labels, _)| !labels.is_empty()) {
            space.selecting.remove(selector, &key.name);
            self.marked.extend(space.selected(&key.namespace, selector));
        }
        for (selector, _) in now.iter().filter(|(labels, _)| !labels.is_empty()) {
            space.selecting.insert(selector, key.name.clone());
            self.marked.extend(space.selected(&key.namespace, selector));
        }
        let names_pods = |leads: Option<(Labels, _)>| leads.is_some_and(|(l, _)| l.is_empty());
        let (before, now) = (names_pods(before), names_pods(now));
        let slices = space.slices_of.get(&key.name).cloned().unwrap_or_default();
        for slice in &slices {
            self.marked.insert(Unit::Slice(Key {
                namespace: key.namespace.clone(),
                name: slice.clone(),
            }));
            if before || now {
                let pods = space.link(slice, now);
                self.marked.extend(pods_of(&key.namespace, pods));
            }
        }
    }

    pub(super) fn set_slice(&mut self, key: &Key, record: Option<Slice>) {
        let space = self.cluster.space(&key.namespace);
        if space.slices.get(&key.name) == record.as_ref() {
            return;
        }
        self.marked.insert(Unit::Slice(key.clone()));
        let linked = |space: &Space, slice: Option<&Slice>| {
            slice.is_some_and(|slice| space.unselecting(&slice.service).is_some())
        };
        // Without their links, pods that stay are marked only if their ports may differ.
        let unlinked = if linked(space, space.slices.get(&key.name)) {
            space.link(&key.name, false)
        } else {
            BTreeSet::new()
        };
        let before = match record {
            Some(record) => space.slices.insert(key.name.clone(), record),
            None => space.slices.remove(&key.name),
        };
        if let Some(before) = &before {
            space.leave(&before.service, &key.name);
        }
        let mut ports_differ = true;
        let mut service = None;
        if let Some(now) = space.slices.get(&key.name) {
            service = Some(now.service.clone());
            ports_differ = before.is_none_or(|b| b.ports != now.ports || b.service != now.service);
        }
        if let Some(service) = service {
            let slices = space.slices_of.entry(service).or_default();
            slices.insert(key.name.clone());
        }
        let now = if linked(space, space.slices.get(&key.name)) {
            space.link(&key.name, true)
        } else {
            BTreeSet::new()
        };
        let concerned: BTreeSet<_> = if ports_differ {
            unlinked.union(&now).cloned().collect()
        } else {
            unlinked.symmetric_difference(&now).cloned().collect()
        };
        self.marked.extend(pods_of(&key.namespace, concerned));
    }

    pub(super) fn set_entry(&mut self, key: &Key, record: Option<ServiceEntry>) {
        let entries = &mut self.cluster.space(&key.namespace).entries;
        if entries.get(&key.name) == record.as_ref() {
            return;
        }
        self.marked.insert(Unit::Entry(key.clone()));
        self.marked.insert(Unit::Addresses(key.clone()));
        self.marked
            .insert(Unit::Status(Kind::ServiceEntry, key.clone()));
        let hosts = |entry: Option<&ServiceEntry>| -> BTreeSet<Arc<str>> {
            entry
                .into_iter()
                .flat_map(|e| e.hosts.iter().cloned())
                .collect()
        };
        let concerned = &hosts(entries.get(&key.name)) | &hosts(record.as_ref());
        for host in &concerned {
            self.marked.extend(self.cluster.canonical_host(host));
        }
        let entries = &mut self.cluster.space(&key.namespace).entries;
        let before = match record {
            Some(record) => entries.insert(key.name.clone(), record),
            None => entries.remove(&key.name),
        };
        self.cluster.list_entry(key, &hosts(before.as_ref()));
        for host in &concerned {
            self.marked.insert(Unit::host(&key.namespace, host));
            self.marked.extend(self.cluster.canonical_host(host));
        }
        self.reselect(key, before.as_ref());
        self.rehold(key, before.as_ref());
    }

    /// Replaces what an entry selects.
    fn reselect(&mut self, key: &Key, before: Option<&ServiceEntry>) {
        let Some(space) = self.cluster.spaces.get_mut(&key.namespace) else {
            return;
        };
        let now = space.entries.get(&key.name);
        let leads = |entry: Option<&ServiceEntry>| {
            let entry = entry?;
            let visibility = entry.visibility;
            let selector = entry.selector.clone().filter(|s| !s.is_empty())?;
            Some((
                selector,
                entry.hosts.clone(),
                entry.ports.clone(),
                visibility,
            ))
        };
        let (before, now) = (leads(before), leads(now));
        if before == now {
            return;
        }
        if let Some((selector, ..)) = before {
            space.selecting_entries.remove(&selector, &key.name);
            self.marked
                .extend(space.selected(&key.namespace, &selector));
        }
        if let Some((selector, ..)) = now {
            space.selecting_entries.insert(&selector, key.name.clone());
            self.marked
                .extend(space.selected(&key.namespace, &selector));
        }
    }

    /// Replaces the addresses that an entry holds.
    fn rehold(&mut self, key: &Key, before: Option<&ServiceEntry>) {
        let space = self.cluster.spaces.get(&key.namespace);
        let now = space.and_then(|space| space.entries.get(&key.name));
        let concerned = self.allocator.hold(key, before, now);
        self.marked
            .extend(concerned.into_iter().map(Unit::Addresses));
    }

    pub(super) fn set_workload_entry(&mut self, key: &Key, record: Option<WorkloadEntry>) {
        let entries = &mut self.cluster.space(&key.namespace).workload_entries;
        if replace(entries, &key.name, record).is_some() {
            self.marked.insert(Unit::WorkloadEntry(key.clone()));
            self.marked
                .insert(Unit::Status(Kind::WorkloadEntry, key.clone()));
        }
    }

    pub(super) fn set_gateway(&mut self, key: &Key, record: Option<Gateway>) {
        let gateways = &mut self.cluster.space(&key.namespace).gateways;
        if replace(gateways, &key.name, record).is_some() {
            self.marked.extend(self.published.dependents(key).cloned());
        }
    }

    pub(super) fn set_class(&mut self, key: &Key, record: Option<Class>) {
        if replace(&mut self.cluster.classes, &key.name, record).is_none() {
            return;
        }
        for (namespace, space) in &self.cluster.spaces {
            let of_class = |(_, gateway): &(_, &Gateway)| gateway.class == key.name;
            for (name, _) in space.gateways.iter().filter(of_class) {
                let gateway = Key {
                    namespace: namespace.clone(),
                    name: name.clone(),
                };
                self.marked
                    .extend(self.published.dependents(&gateway).cloned());
            }
        }
    }

    pub(super) fn set_policy(&mut self, key: &Key, record: Option<Authorization>) {
        let space = self.cluster.space(&key.namespace);
        let Some(Before(before)) = replace(&mut space.policies, &key.name, record) else {
            return;
        };
        self.marked.insert(Unit::Policy(key.clone()));
        self.marked
            .insert(Unit::Status(Kind::AuthorizationPolicy, key.clone()));
        let now = space.policies.get(&key.name);
        let before = before.and_then(|policy| policy.selector);
        let now = now.and_then(|policy| policy.selector.clone());
        if before == now {
            return;
        }
        if let Some(selector) = &before {
            space.selecting_policies.remove(selector, &key.name);
        }
        if let Some(selector) = &now {
            space.selecting_policies.insert(selector, key.name.clone());
        }
        for selector in before.iter().chain(&now) {
            self.mark_selected(&key.namespace, selector);
        }
    }

    pub(super) fn set_peer(&mut self, key: &Key, record: Option<Peer>) {
        let peers = &mut self.cluster.space(&key.namespace).peers;
        if replace(peers, &key.name, record).is_some() {
            self.marked
                .insert(Unit::Status(Kind::PeerAuthentication, key.clone()));
            self.count_peer(key);
        }
    }

    /// Lets a PeerAuthentication count as long as its namespace is looked at.
    fn count_peer(&mut self, key: &Key) {
        let space = self.cluster.seen(&key.namespace);
        let peer = space.and_then(|space| space.peers.get(&key.name));
        let affected = match peer.map(|peer| Arc::clone(&peer.object)) {
            Some(object) => self.cluster.peers.apply(&object).affected,
            None => self.cluster.peers.delete(&key.namespace, &key.name),
        };
        match affected {
            Affected::Nothing => {}
            Affected::Namespace(namespace) => self.mark_workloads(&namespace),
            Affected::Mesh => {
                let all: Vec<_> = self.cluster.spaces.keys().cloned().collect();
                for namespace in all {
                    self.mark_workloads(&namespace);
                }
            }
        }
    }

    /// Marks the workloads that a policy of this namespace selects: those of all namespaces if it is the
    /// root's.
    fn mark_selected(&mut self, namespace: &Arc<str>, selector: &Labels) {
        let everywhere = **namespace == *self.cluster.settings.root_namespace;
        for (other, space) in &self.cluster.spaces {
            if everywhere || other == namespace {
                self.marked.extend(space.selected(other, selector));
            }
        }
    }

    fn mark_workloads(&mut self, namespace: &Arc<str>) {
        if let Some(space) = self.cluster.spaces.get(namespace) {
            let all = Labels::default();
            self.marked.extend(space.selected(namespace, &all));
        }
    }

    /// Marks everything in a namespace.
    fn mark_space(&mut self, namespace: &Arc<str>) {
        let Some(space) = self.cluster.spaces.get(namespace) else {
            return;
        };
        let units = space.units(namespace, &self.cluster);
        self.marked.extend(units);
    }

    /// Marks what other namespaces see of one: its waypoints, its hosts and, if it is the root, its
    /// policies.
    fn mark_outside(&mut self, namespace: &Arc<str>) {
        let Some(space) = self.cluster.spaces.get(namespace) else {
            return;
        };
        let key = |name: &Arc<str>| Key {
            namespace: namespace.clone(),
            name: name.clone(),
        };
        for gateway in space.gateways.keys() {
            let gateway = key(gateway);
            let dependents = self.published.dependents(&gateway);
            self.marked.extend(dependents.cloned());
        }
        for host in space.entries.values().flat_map(|entry| &entry.hosts) {
            self.marked.extend(self.cluster.entry_hosts(host));
        }
        for service in space.services.keys() {
            let host = self.cluster.hostname(namespace, service);
            self.marked.extend(self.cluster.entry_hosts(&host));
        }
        let selectors = space.policies.values().filter_map(|p| p.selector.clone());
        let selectors: Vec<_> = selectors.collect();
        let peers: Vec<_> = space.peers.keys().map(key).collect();
        for selector in selectors {
            self.mark_selected(namespace, &selector);
        }
        for peer in peers {
            self.count_peer(&peer);
        }
    }

    /// Marks everything that was said and everything that may be said now.
    pub(super) fn mark_all(&mut self) {
        self.marked.extend(self.published.units().cloned());
        for (namespace, space) in &self.cluster.spaces {
            self.marked.extend(space.units(namespace, &self.cluster));
        }
    }

    /// Marks everything that objects' statuses say.
    pub(super) fn mark_statuses(&mut self) {
        for (namespace, space) in &self.cluster.spaces {
            let units = space.units(namespace, &self.cluster);
            let status = |unit: &Unit| matches!(unit, Unit::Status(..) | Unit::Addresses(_));
            self.marked.extend(units.filter(status));
        }
    }

    /// Reads policies anew, as they mean something else under other settings.
    pub(super) fn reread_policies(&mut self) {
        let mut policies = Vec::new();
        let mut peers = Vec::new();
        for (namespace, space) in &self.cluster.spaces {
            let key = |name: &Arc<str>| Key {
                namespace: namespace.clone(),
                name: name.clone(),
            };
            let known = space.policies.iter();
            policies.extend(known.map(|(name, policy)| (key(name), policy.clone())));
            peers.extend(space.peers.keys().map(key));
        }
        for (key, policy) in policies {
            let reported = policy.reported;
            let read = Authorization::of(policy.object, &self.cluster.context, &mut self.texts);
            self.set_policy(&key, Some(Authorization { reported, ..read }));
        }
        for peer in peers {
            self.count_peer(&peer);
        }
    }
}

fn pods_of(
    namespace: &Arc<str>,
    names: impl IntoIterator<Item = Arc<str>>,
) -> impl Iterator<Item = Unit> {
    names.into_iter().map(|name| {
        Unit::Pod(Key {
            namespace: namespace.clone(),
            name,
        })
    })
}

// === impl Cluster ===

impl Cluster {
    /// The hosts of this name in all namespaces that have a ServiceEntry for it.
    fn entry_hosts(&self, host: &Arc<str>) -> impl Iterator<Item = Unit> {
        let entries = self.entries_of.get(host).into_iter().flatten();
        entries.map(|entry| Unit::host(&entry.namespace, host))
    }

    /// The host of this name that is preferred now.
    fn canonical_host(&self, host: &Arc<str>) -> Option<Unit> {
        let namespace = self.canonical(host)?;
        Some(Unit::host(namespace, host))
    }
}

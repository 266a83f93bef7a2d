//! All records, and the ways from one to another.
//!
//! ```text
//! Namespace ─┬─ Pod ◀── labels ── Service ◀── name ── EndpointSlice ── names ──▶ Pod
//!            ├─ WorkloadEntry ◀── labels ── ServiceEntry ◀── host ──▶ ServiceEntry (any namespace)
//!            └─ Gateway ── name ──▶ GatewayClass
//! Node ──▶ its pods
//! ```
//!
//! Everything but hosts, nodes and classes stays within its namespace, so the state is one [`Space`] per
//! namespace.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use mesh_api::mesh_config::Visibility;

use crate::{
    object::{Key, Kind},
    policy::{
        Context, TrustDomains,
        peer::{Affected, Peers, PolicyChange},
    },
    record::{
        endpoint::WorkloadEntry,
        entry::ServiceEntry,
        gateway::{Class, Gateway, Terms},
        namespace::Namespace,
        node::Node,
        pod::Pod,
        policy::{Authorization, Peer},
        service::Service,
        slice::Slice,
    },
    selector::Selectors,
    settings::{Scopes, Settings},
    text::Labels,
    unit::Unit,
};

/// The cluster as the index knows it.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) settings: Settings,
    pub(crate) scopes: Scopes,
    /// Texts of the settings that are part of every workload.
    pub(crate) names: Names,
    pub(crate) spaces: HashMap<Arc<str>, Space>,
    /// What policies mean under these settings.
    pub(crate) context: Context,
    /// PeerAuthentications of namespaces that are looked at.
    pub(crate) peers: Peers,
    pub(crate) nodes: HashMap<Arc<str>, Node>,
    pub(crate) classes: HashMap<Arc<str>, Class>,
    /// Pods by node.
    pub(crate) pods_on: HashMap<Arc<str>, HashSet<Key>>,
    /// ServiceEntries by host, in all namespaces.
    pub(crate) entries_of: HashMap<Arc<str>, BTreeSet<Key>>,
}

/// Texts that are part of every workload.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    pub(crate) cluster_id: Arc<str>,
    pub(crate) trust_domain: Arc<str>,
    pub(crate) network: Arc<str>,
}

/// One namespace and what is in it.
#[derive(Debug, Default)]
pub(crate) struct Space {
    /// The Namespace itself, which may be heard of after what is in it.
    pub(crate) namespace: Option<Namespace>,
    pub(crate) pods: HashMap<Arc<str>, Pod>,
    pub(crate) services: HashMap<Arc<str>, Service>,
    pub(crate) slices: HashMap<Arc<str>, Slice>,
    pub(crate) entries: HashMap<Arc<str>, ServiceEntry>,
    pub(crate) workload_entries: HashMap<Arc<str>, WorkloadEntry>,
    pub(crate) gateways: HashMap<Arc<str>, Gateway>,
    pub(crate) policies: HashMap<Arc<str>, Authorization>,
    pub(crate) peers: HashMap<Arc<str>, Peer>,
    /// Services by what they select.
    pub(crate) selecting: Selectors<Arc<str>>,
    /// ServiceEntries by what they select.
    pub(crate) selecting_entries: Selectors<Arc<str>>,
    /// AuthorizationPolicies by the workloads that must name them.
    pub(crate) selecting_policies: Selectors<Arc<str>>,
    /// Slices by service.
    pub(crate) slices_of: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// Slices of services without a selector by the pods they name.
    pub(crate) slices_with: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
}

// === impl Cluster ===

impl Cluster {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            scopes: Scopes::new(&settings),
            names: Names::new(&settings, "".into()),
            context: context(&settings),
            peers: Peers::new(settings.root_namespace.as_str()),
            settings,
            spaces: HashMap::new(),
            nodes: HashMap::new(),
            classes: HashMap::new(),
            pods_on: HashMap::new(),
            entries_of: HashMap::new(),
        }
    }

    /// Replaces the settings.
    pub(crate) fn configure(&mut self, settings: Settings) {
        self.scopes = Scopes::new(&settings);
        self.context = context(&settings);
        self.settings = settings;
        self.names = Names::new(&self.settings, self.network());
    }

    /// Begins anew with PeerAuthentications, for another root namespace. Returns the policies that were
    /// published for the one before.
    pub(crate) fn found_peers(&mut self, root: &str) -> Vec<Arc<str>> {
        let known: Vec<_> = (self.peers.keys())
            .map(|(namespace, name)| (namespace.clone(), name.clone()))
            .collect();
        for (namespace, name) in known {
            // All is marked in any case.
            drop::<Affected>(self.peers.delete(&namespace, &name));
        }
        let gone = self.peers.drain().into_iter();
        let gone = gone.filter_map(|change| match change {
            PolicyChange::Withdraw(key) => Some(key),
            PolicyChange::Publish(_) => None,
        });
        let gone = gone.collect();
        self.peers = Peers::new(root);
        gone
    }

    /// Takes the network's name anew from the namespace that holds it. Says whether it has changed.
    pub(crate) fn renew_network(&mut self) -> bool {
        let network = self.network();
        let changed = network != self.names.network;
        self.names.network = network;
        changed
    }

    fn network(&self) -> Arc<str> {
        let system = self.spaces.get(&*self.settings.system_namespace);
        let namespace = system.and_then(|space| space.namespace.as_ref());
        let network = namespace.and_then(Namespace::network);
        network.map_or_else(|| "".into(), Arc::clone)
    }

    /// What other namespaces see of one: whether it is looked at, and how far its ServiceEntries are seen.
    pub(crate) fn visible_from_outside(&self, namespace: &str) -> Option<Visibility> {
        let space = self.seen(namespace)?;
        let labels = space.labels().cloned().unwrap_or_default();
        Some(self.scopes.visibility(&labels))
    }

    /// A namespace that is looked at.
    pub(crate) fn seen(&self, namespace: &str) -> Option<&Space> {
        let space = self.spaces.get(namespace)?;
        self.scopes.see(space.labels()).then_some(space)
    }

    /// The state of a namespace, which is made if there is none.
    pub(crate) fn space(&mut self, namespace: &Arc<str>) -> &mut Space {
        self.spaces.entry(namespace.clone()).or_default()
    }

    /// Forgets a namespace of which nothing is left.
    pub(crate) fn tidy(&mut self, namespace: &str) {
        if self.spaces.get(namespace).is_some_and(Space::is_empty) {
            self.spaces.remove(namespace);
        }
    }

    /// Notes on which node a pod is.
    pub(crate) fn move_pod(&mut self, pod: &Key, from: Option<&Arc<str>>, to: Option<&Arc<str>>) {
        if let Some(node) = from
            && let Some(pods) = self.pods_on.get_mut(node)
        {
            pods.remove(pod);
            if pods.is_empty() {
                self.pods_on.remove(node);
            }
        }
        if let Some(node) = to.filter(|node| !node.is_empty()) {
            let pods = self.pods_on.entry(node.clone()).or_default();
            pods.insert(pod.clone());
        }
    }

    /// Notes which hosts an entry has now, and that it had those `before`.
    pub(crate) fn list_entry(&mut self, key: &Key, before: &BTreeSet<Arc<str>>) {
        for host in before {
            if let Some(entries) = self.entries_of.get_mut(host) {
                entries.remove(key);
                if entries.is_empty() {
                    self.entries_of.remove(host);
                }
            }
        }
        let space = self.spaces.get(&key.namespace);
        let entry = space.and_then(|space| space.entries.get(&key.name));
        for host in entry.iter().flat_map(|entry| &entry.hosts) {
            let entries = self.entries_of.entry(host.clone()).or_default();
            entries.insert(key.clone());
        }
    }

    /// The objects of a kind that are known.
    pub(crate) fn keys(&self, kind: Kind) -> Vec<Key> {
        let of_cluster = |name: &Arc<str>| Key::new("", name.clone());
        match kind {
            Kind::Node => return self.nodes.keys().map(of_cluster).collect(),
            Kind::GatewayClass => return self.classes.keys().map(of_cluster).collect(),
            Kind::Namespace => {
                let known = self.spaces.iter().filter(|(_, s)| s.namespace.is_some());
                return known.map(|(name, _)| of_cluster(name)).collect();
            }
            _ => {}
        }
        let spaces = self.spaces.iter();
        let keys = spaces.flat_map(|(namespace, space)| {
            space.names(kind).into_iter().map(|name| Key {
                namespace: namespace.clone(),
                name,
            })
        });
        keys.collect()
    }

    /// The host name of a service.
    pub(crate) fn hostname(&self, namespace: &str, service: &str) -> Arc<str> {
        format!("{service}.{namespace}.svc.{}", self.settings.domain).into()
    }

    /// The name and namespace of the service that has this host name by rule.
    pub(crate) fn parse_hostname<'h>(&self, hostname: &'h str) -> Option<(&'h str, &'h str)> {
        let rest = hostname.strip_suffix(&*self.settings.domain)?;
        rest.strip_suffix(".svc.")?.split_once('.')
    }

    /// The service that has this host name, if its namespace is looked at.
    pub(crate) fn service(&self, hostname: &str) -> Option<(&str, &Service)> {
        let (name, namespace) = self.parse_hostname(hostname)?;
        let space = self.seen(namespace)?;
        let (name, service) = space.services.get_key_value(name)?;
        Some((name, service))
    }

    /// The Gateway of that key with the terms of its class, if its namespace is looked at.
    pub(crate) fn gateway(&self, key: &Key) -> Option<(&Gateway, Terms)> {
        let gateway = self.seen(&key.namespace)?.gateways.get(&key.name)?;
        let class = self.classes.get(&gateway.class);
        let class = class.map(|class| class.terms).unwrap_or_default();
        Some((gateway, gateway.terms.or(class)))
    }

    /// How far an entry is seen: as its namespace's are, or less if it says so itself.
    pub(crate) fn visibility(&self, space: &Space, entry: &ServiceEntry) -> Visibility {
        let allowed = match space.labels() {
            Some(labels) => self.scopes.visibility(labels),
            None => self.scopes.visibility(&Labels::default()),
        };
        match (entry.visibility, allowed) {
            (Some(Visibility::None), _) | (_, Visibility::None) => Visibility::None,
            (Some(Visibility::Namespace), _) | (_, Visibility::Namespace) => Visibility::Namespace,
            _ => Visibility::Public,
        }
    }

    /// The oldest published entry of a namespace with that host.
    pub(crate) fn entry_of(&self, namespace: &str, host: &str) -> Option<(&Key, &ServiceEntry)> {
        let from = Key::new(namespace, "");
        let entries = self.entries_of.get(host)?.range(from..);
        let own = entries.take_while(|key| *key.namespace == *namespace);
        let space = self.seen(namespace)?;
        let published = own.filter_map(|key| {
            let entry = space.entries.get(&key.name)?;
            (self.visibility(space, entry) != Visibility::None).then_some((key, entry))
        });
        published.min_by_key(|(key, entry)| (entry.age, *key))
    }

    /// The namespace whose ServiceEntry is preferred for this host where several have one: none if a
    /// Service of the cluster has that name, else that of the oldest that everyone sees.
    pub(crate) fn canonical(&self, host: &str) -> Option<&Arc<str>> {
        if self.service(host).is_some() {
            return None;
        }
        let mut namespaces: Vec<_> = (self.entries_of.get(host)?.iter())
            .map(|key| &key.namespace)
            .collect();
        namespaces.dedup();
        let oldest = namespaces.into_iter().filter_map(|namespace| {
            let (key, entry) = self.entry_of(namespace, host)?;
            let public = self.visibility(self.seen(namespace)?, entry) == Visibility::Public;
            public.then_some((entry.age, key))
        });
        oldest.min().map(|(_, key)| &key.namespace)
    }
}

fn context(settings: &Settings) -> Context {
    let aliases = settings.trust_domain_aliases.iter();
    Context {
        root_namespace: settings.root_namespace.as_str().into(),
        trust_domains: TrustDomains::new(&settings.trust_domain, aliases.map(|alias| &**alias)),
        dry_run: settings.dry_run_policies,
    }
}

// === impl Names ===

impl Names {
    fn new(settings: &Settings, network: Arc<str>) -> Self {
        Self {
            cluster_id: settings.cluster_id.as_str().into(),
            trust_domain: settings.trust_domain.as_str().into(),
            network,
        }
    }
}

// === impl Space ===

impl Space {
    /// The namespace's labels, if it is known.
    pub(crate) fn labels(&self) -> Option<&Labels> {
        self.namespace.as_ref().map(|namespace| &namespace.labels)
    }

    /// A service whose endpoints are not found by labels.
    pub(crate) fn unselecting(&self, service: &str) -> Option<&Service> {
        let service = self.services.get(service);
        service.filter(|service| service.selector.is_empty())
    }

    /// The names of the objects of a kind.
    fn names(&self, kind: Kind) -> Vec<Arc<str>> {
        fn all<T>(records: &HashMap<Arc<str>, T>) -> Vec<Arc<str>> {
            records.keys().cloned().collect()
        }
        match kind {
            Kind::Pod => all(&self.pods),
            Kind::Service => all(&self.services),
            Kind::EndpointSlice => all(&self.slices),
            Kind::ServiceEntry => all(&self.entries),
            Kind::WorkloadEntry => all(&self.workload_entries),
            Kind::Gateway => all(&self.gateways),
            Kind::AuthorizationPolicy => all(&self.policies),
            Kind::PeerAuthentication => all(&self.peers),
            Kind::Node | Kind::Namespace | Kind::GatewayClass => Vec::new(),
        }
    }

    /// The workloads that have these labels.
    pub(crate) fn selected(
        &self,
        namespace: &Arc<str>,
        selector: &Labels,
    ) -> impl Iterator<Item = Unit> {
        let pods = self.pods.iter();
        let pods = pods.filter(|(_, pod)| pod.labels.include(selector));
        let entries = self.workload_entries.iter();
        let entries = entries.filter(|(_, entry)| entry.endpoint.labels.include(selector));
        let key = |name: &Arc<str>| Key {
            namespace: namespace.clone(),
            name: name.clone(),
        };
        let pods = pods.map(move |(name, _)| Unit::Pod(key(name)));
        pods.chain(entries.map(move |(name, _)| Unit::WorkloadEntry(key(name))))
    }

    /// Everything that is computed from what is in this namespace.
    pub(crate) fn units(
        &self,
        namespace: &Arc<str>,
        cluster: &Cluster,
    ) -> impl Iterator<Item = Unit> {
        let key = |name: &Arc<str>| Key {
            namespace: namespace.clone(),
            name: name.clone(),
        };
        let pods = self.pods.keys().map(move |name| Unit::Pod(key(name)));
        let slices = self.slices.keys().map(move |name| Unit::Slice(key(name)));
        let services = self.services.keys().flat_map(move |name| {
            let host = cluster.hostname(namespace, name);
            [
                Unit::host(namespace, &host),
                Unit::Status(Kind::Service, key(name)),
            ]
        });
        let workload_entries = self.workload_entries.keys().flat_map(move |name| {
            [
                Unit::WorkloadEntry(key(name)),
                Unit::Status(Kind::WorkloadEntry, key(name)),
            ]
        });
        let entries = self.entries.iter().flat_map(move |(name, entry)| {
            let hosts = entry.hosts.iter();
            let hosts = hosts.map(move |host| Unit::host(namespace, host));
            hosts.chain([
                Unit::Entry(key(name)),
                Unit::Addresses(key(name)),
                Unit::Status(Kind::ServiceEntry, key(name)),
            ])
        });
        let policies = self.policies.keys().flat_map(move |name| {
            [
                Unit::Policy(key(name)),
                Unit::Status(Kind::AuthorizationPolicy, key(name)),
            ]
        });
        let peers = self.peers.keys();
        let peers = peers.map(move |name| Unit::Status(Kind::PeerAuthentication, key(name)));
        pods.chain(slices)
            .chain(services)
            .chain(workload_entries)
            .chain(entries)
            .chain(policies)
            .chain(peers)
    }

    /// Lets the pods of a slice be found as endpoints of its service, or no longer. Returns the pods.
    pub(crate) fn link(&mut self, slice: &Arc<str>, linked: bool) -> BTreeSet<Arc<str>> {
        let Some(record) = self.slices.get(slice) else {
            return BTreeSet::new();
        };
        for pod in &record.pods {
            if linked {
                let slices = self.slices_with.entry(pod.clone()).or_default();
                slices.insert(slice.clone());
            } else if let Some(slices) = self.slices_with.get_mut(pod) {
                slices.remove(slice);
                if slices.is_empty() {
                    self.slices_with.remove(pod);
                }
            }
        }
        record.pods.iter().cloned().collect()
    }

    /// Notes that a slice no longer belongs to a service.
    pub(crate) fn leave(&mut self, service: &Arc<str>, slice: &Arc<str>) {
        if let Some(slices) = self.slices_of.get_mut(service) {
            slices.remove(slice);
            if slices.is_empty() {
                self.slices_of.remove(service);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.namespace.is_none()
            && self.pods.is_empty()
            && self.services.is_empty()
            && self.slices.is_empty()
            && self.entries.is_empty()
            && self.workload_entries.is_empty()
            && self.gateways.is_empty()
            && self.policies.is_empty()
            && self.peers.is_empty()
    }
}

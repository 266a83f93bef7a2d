//! Services by key, host name, address and range of addresses, and which workloads back them.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use mesh_core::{
    address::{GatewayAddress, NamespacedHostname},
    balance::weighted::Weighted,
    route::ServiceRef,
    service::{BalancingMode, Service},
};
use prefix_trie::joint::JointPrefixMap;

use crate::{
    backends::Backends,
    persistent::{Map, Multimap, Set, SortedMap},
    workloads::Known,
};

/// A service with everything that a connection to it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: NamespacedHostname,
    pub(crate) service: Arc<Service>,
    pub(crate) reference: Arc<ServiceRef>,
    pub(crate) backends: Backends,
    /// Indexes into the service's `weighted_waypoints`; empty if those have no weight.
    waypoints: Weighted<usize>,
}

/// All services. The other indexes refer by key, so none can hold a stale service.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Services {
    by_key: Map<NamespacedHostname, Arc<Entry>>,
    by_host: Multimap<Arc<str>, NamespacedHostname>,
    by_vip: Multimap<IpAddr, VipOwner>,
    ranges: Map<Arc<str>, Arc<Ranges>>,
    /// The workloads that say they back a service, whether the service is known or not, by uid. They
    /// stand here themselves, as a service's endpoints are gone through whenever one changes.
    members: Map<NamespacedHostname, Members>,
}

type Members = SortedMap<Arc<str>, Arc<Known>>;

/// The ranges of one network: services by CIDR. A trie is copied when a service with ranges changes,
/// which people do and pods do not: endpoints are not in here.
type Ranges = JointPrefixMap<IpNet, Set<NamespacedHostname>>;

/// A service that has a virtual address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct VipOwner {
    network: Arc<str>,
    key: NamespacedHostname,
}

// === impl Entry ===

impl Entry {
    pub(crate) fn new(service: Arc<Service>, backends: Backends) -> Self {
        let weights = service.weighted_waypoints.iter().map(|w| w.weight);
        Self {
            reference: Arc::new(ServiceRef {
                name: service.name.clone(),
                namespace: service.namespace.clone(),
                hostname: service.hostname.clone(),
            }),
            waypoints: Weighted::new(weights.enumerate()),
            key: service.key(),
            backends,
            service,
        }
    }

    /// The waypoint for one more connection.
    pub(crate) fn waypoint(&self, rng: &mut fastrand::Rng) -> Option<&GatewayAddress> {
        let weighted = &self.service.weighted_waypoints;
        let chosen = self
            .waypoints
            .choose(rng)
            .and_then(|index| weighted.get(*index));
        let chosen = chosen.map(|waypoint| &waypoint.destination);
        chosen.or(self.service.waypoint.as_ref())
    }

    /// All waypoints that a connection may be sent to.
    pub(crate) fn waypoints(&self) -> impl Iterator<Item = &GatewayAddress> {
        let service = &self.service;
        let weighted = service.weighted_waypoints.iter().filter(|w| w.weight > 0);
        let plain = service
            .waypoint
            .iter()
            .filter(|_| self.waypoints.is_empty());
        weighted.map(|w| &w.destination).chain(plain)
    }

    pub(crate) fn is_passthrough(&self) -> bool {
        let mode = self.service.load_balancing.as_ref().map(|lb| lb.mode);
        mode == Some(BalancingMode::Passthrough)
    }
}

// === impl Services ===

impl Services {
    /// Adds a service whose key is not known; see `remove`.
    pub(crate) fn insert(&mut self, entry: Entry) {
        let service = &entry.service;
        let key = entry.key.clone();
        self.by_host.insert(key.hostname.clone(), key.clone());
        for vip in &service.vips {
            self.by_vip
                .insert(vip.address, VipOwner::new(&vip.network, &key));
        }
        for range in &service.cidr_vips {
            self.edit_range(&range.network, range.cidr, |owners| {
                owners.insert_mut(key.clone());
            });
        }
        self.by_key.insert_mut(key, Arc::new(entry));
    }

    pub(crate) fn remove(&mut self, key: &NamespacedHostname) -> Option<Arc<Entry>> {
        let entry = Arc::clone(self.by_key.get(key)?);
        let service = &entry.service;
        self.by_host.remove(&key.hostname, key);
        for vip in &service.vips {
            self.by_vip
                .remove(&vip.address, &VipOwner::new(&vip.network, key));
        }
        for range in &service.cidr_vips {
            self.edit_range(&range.network, range.cidr, |owners| {
                owners.remove_mut(key);
            });
        }
        self.by_key.remove_mut(key);
        Some(entry)
    }

    /// Replaces what was prepared for a service after its endpoints changed.
    pub(crate) fn refresh(&mut self, entry: Entry) {
        self.by_key.insert_mut(entry.key.clone(), Arc::new(entry));
    }

    /// Notes that a workload says it backs a service.
    pub(crate) fn join(&mut self, key: &NamespacedHostname, known: Arc<Known>) {
        let uid = known.workload.uid.clone();
        if let Some(members) = self.members.get_mut(key) {
            members.insert_mut(uid, known);
        } else {
            let members = Members::new_sync().insert(uid, known);
            self.members.insert_mut(key.clone(), members);
        }
    }

    pub(crate) fn leave(&mut self, key: &NamespacedHostname, uid: &str) {
        let Some(members) = self.members.get_mut(key) else {
            return;
        };
        members.remove_mut(uid);
        if members.is_empty() {
            self.members.remove_mut(key);
        }
    }

    pub(crate) fn by_key(&self, key: &NamespacedHostname) -> Option<&Arc<Entry>> {
        self.by_key.get(key)
    }

    pub(crate) fn by_host(&self, hostname: &str) -> impl Iterator<Item = &Arc<Entry>> {
        let keys = self.by_host.values(hostname);
        keys.filter_map(|key| self.by_key(key))
    }

    /// The services whose virtual address this is.
    pub(crate) fn at(&self, network: &str, address: IpAddr) -> impl Iterator<Item = &Arc<Entry>> {
        let owners = self.by_vip.values(&address);
        owners
            .filter(move |owner| *owner.network == *network)
            .filter_map(|owner| self.by_key(&owner.key))
    }

    /// The services one of whose ranges holds the address, with the length of the range's prefix.
    pub(crate) fn covering(
        &self,
        network: &str,
        address: IpAddr,
    ) -> impl Iterator<Item = (u8, &Arc<Entry>)> {
        let host = IpNet::from(address);
        let ranges = self.ranges.get(network).into_iter();
        ranges
            .flat_map(move |ranges| ranges.cover(&host))
            .flat_map(|(range, keys)| {
                let entries = keys.iter().filter_map(|key| self.by_key(key));
                entries.map(move |entry| (range.prefix_len(), entry))
            })
    }

    /// The workloads that say they back a service, by uid.
    pub(crate) fn members(&self, key: &NamespacedHostname) -> impl Iterator<Item = &Arc<Known>> {
        let members = self.members.get(key).into_iter();
        members.flat_map(SortedMap::values)
    }

    /// Services that workloads say they back but nobody has described.
    pub(crate) fn staged(&self) -> impl Iterator<Item = &NamespacedHostname> {
        self.members
            .keys()
            .filter(|key| !self.by_key.contains_key(*key))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.by_key.values()
    }

    fn edit_range(
        &mut self,
        network: &Arc<str>,
        cidr: IpNet,
        edit: impl FnOnce(&mut Set<NamespacedHostname>),
    ) {
        if !self.ranges.contains_key(network) {
            self.ranges
                .insert_mut(network.clone(), Arc::new(Ranges::new()));
        }
        let Some(ranges) = self.ranges.get_mut(network).map(Arc::make_mut) else {
            return;
        };
        let owners = ranges.entry(cidr).or_insert_with(Set::new_sync);
        edit(owners);
        if owners.is_empty() {
            ranges.remove(&cidr);
        }
        if ranges.is_empty() {
            self.ranges.remove_mut(network);
        }
    }
}

// === impl VipOwner ===

impl VipOwner {
    fn new(network: &Arc<str>, key: &NamespacedHostname) -> Self {
        Self {
            network: network.clone(),
            key: key.clone(),
        }
    }
}

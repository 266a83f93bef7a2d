//! Workloads by uid, address, host name and pod.

use std::{net::IpAddr, sync::Arc};

use mesh_core::{
    address::NamespacedHostname,
    identity::{self, Identity},
    workload::{NetworkMode, PodInfo, TunnelProtocol, Workload},
};

use crate::{
    persistent::{Map, Multimap},
    store::Config,
};

/// What is known of one workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) workload: Arc<Workload>,
    /// What a tunnel to it must prove, formed once when the workload arrives.
    pub(crate) expected: Result<Arc<[Identity]>, identity::Error>,
    /// Whether it runs on this node.
    pub(crate) local: bool,
}

/// All workloads. The other indexes refer by uid, so none can hold a stale workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Workloads {
    by_uid: Map<Arc<str>, Arc<Known>>,
    by_address: Multimap<IpAddr, Owner>,
    by_hostname: Multimap<Arc<str>, Named>,
    local_pods: Multimap<PodInfo, LocalPod>,
    local_namespaces: Multimap<Arc<str>, Arc<str>>,
    local_identities: Multimap<Identity, Arc<str>>,
}

/// A workload that has an address, in order of preference within a network: pods before other things,
/// such as a WorkloadEntry for the same pod, then those that take HBONE.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Owner {
    network: Arc<str>,
    not_pod: bool,
    not_hbone: bool,
    uid: Arc<str>,
}

/// A workload that has a host name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    namespace: Arc<str>,
    uid: Arc<str>,
}

/// A workload on a node of our node's name; clusters may share node names, ours goes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct LocalPod {
    other_cluster: bool,
    uid: Arc<str>,
}

// === impl Known ===

impl Known {
    pub(crate) fn new(workload: Workload, config: &Config) -> Self {
        let on_node = |node: &Arc<str>| *node == workload.node;
        Self {
            expected: workload.identity().map(|identity| Arc::from([identity])),
            local: config.node.as_ref().is_none_or(on_node),
            workload: Arc::new(workload),
        }
    }

    /// The identity for which this node holds a certificate on the workload's behalf.
    pub(crate) fn node_identity(&self) -> Option<&Identity> {
        let workload = &self.workload;
        let enrolled = workload.protocol == TunnelProtocol::Hbone || workload.native_tunnel;
        let identities = self.expected.as_ref().ok();
        identities
            .filter(|_| self.local && enrolled)
            .and_then(|identities| identities.first())
    }
}

// === impl Workloads ===

impl Workloads {
    /// Adds a workload whose uid is not known; see `remove`.
    pub(crate) fn insert(&mut self, known: Arc<Known>, config: &Config) {
        let workload = Arc::clone(&known.workload);
        for address in indexed_addresses(&workload) {
            self.by_address.insert(*address, Owner::of(&workload));
        }
        if let Some(hostname) = &workload.hostname {
            self.by_hostname
                .insert(hostname.clone(), Named::of(&workload));
        }
        if known.local {
            let (namespace, uid) = (workload.namespace.clone(), workload.uid.clone());
            self.local_pods
                .insert(pod_info(&workload), LocalPod::of(&workload, config));
            self.local_namespaces.insert(namespace, uid);
        }
        if let Some(identity) = known.node_identity() {
            self.local_identities
                .insert(identity.clone(), workload.uid.clone());
        }
        self.by_uid.insert_mut(workload.uid.clone(), known);
    }

    pub(crate) fn remove(&mut self, uid: &str, config: &Config) -> Option<Arc<Known>> {
        let known = Arc::clone(self.by_uid.get(uid)?);
        let workload = &known.workload;
        for address in indexed_addresses(workload) {
            self.by_address.remove(address, &Owner::of(workload));
        }
        if let Some(hostname) = &workload.hostname {
            self.by_hostname.remove(hostname, &Named::of(workload));
        }
        if known.local {
            self.local_pods
                .remove(&pod_info(workload), &LocalPod::of(workload, config));
            self.local_namespaces
                .remove(&workload.namespace, &workload.uid);
        }
        if let Some(identity) = known.node_identity() {
            self.local_identities.remove(identity, &workload.uid);
        }
        self.by_uid.remove_mut(uid);
        Some(known)
    }

    pub(crate) fn by_uid(&self, uid: &str) -> Option<&Arc<Known>> {
        self.by_uid.get(uid)
    }

    /// The workload at an address, the preferred one if several claim it.
    pub(crate) fn at(&self, network: &str, address: IpAddr) -> Option<&Arc<Known>> {
        let mut owners = self.by_address.values(&address);
        let owner = owners.find(|owner| *owner.network == *network)?;
        self.by_uid(&owner.uid)
    }

    pub(crate) fn by_hostname(&self, name: &NamespacedHostname) -> Option<&Arc<Known>> {
        let mut named = self.by_hostname.values(&name.hostname);
        let named = named.find(|named| named.namespace == name.namespace)?;
        self.by_uid(&named.uid)
    }

    pub(crate) fn local_pod(&self, pod: &PodInfo) -> Option<&Arc<Known>> {
        let entry = self.local_pods.values(pod).next()?;
        self.by_uid(&entry.uid)
    }

    /// The uids of this node's workloads in a namespace.
    pub(crate) fn local_in(&self, namespace: &str) -> impl Iterator<Item = &Arc<str>> {
        self.local_namespaces.values(namespace)
    }

    /// The uids of this node's workloads.
    pub(crate) fn local(&self) -> impl Iterator<Item = &Arc<str>> {
        let namespaces = self.local_namespaces.keys();
        namespaces.flat_map(|namespace| self.local_in(namespace))
    }

    pub(crate) fn local_identities(&self) -> impl Iterator<Item = &Identity> {
        self.local_identities.keys()
    }

    pub(crate) fn has_local_identity(&self, identity: &Identity) -> bool {
        self.local_identities.contains_key(identity)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Known>> {
        self.by_uid.values()
    }
}

/// Addresses at which the workload is found; one that shares its node's address is not.
fn indexed_addresses(workload: &Workload) -> &[IpAddr] {
    match workload.network_mode {
        NetworkMode::Standard => &workload.addresses,
        NetworkMode::HostNetwork => &[],
    }
}

fn pod_info(workload: &Workload) -> PodInfo {
    PodInfo {
        name: workload.name.clone(),
        namespace: workload.namespace.clone(),
        service_account: workload.service_account.clone(),
    }
}

// === impl Owner ===

impl Owner {
    fn of(workload: &Workload) -> Self {
        Self {
            network: workload.network.clone(),
            not_pod: !workload.uid.contains("//Pod/"),
            not_hbone: workload.protocol != TunnelProtocol::Hbone,
            uid: workload.uid.clone(),
        }
    }
}

// === impl Named ===

impl Named {
    fn of(workload: &Workload) -> Self {
        Self {
            namespace: workload.namespace.clone(),
            uid: workload.uid.clone(),
        }
    }
}

// === impl LocalPod ===

impl LocalPod {
    fn of(workload: &Workload, config: &Config) -> Self {
        let ours = |cluster: &Arc<str>| *cluster == workload.cluster_id;
        Self {
            other_cluster: !config.cluster.as_ref().is_none_or(ours),
            uid: workload.uid.clone(),
        }
    }
}

//! One state of the mesh, as this proxy knows it.

use std::{
    cmp::Reverse,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use mesh_core::{
    address::{GatewayAddress, GatewayDestination, NamespacedHostname},
    identity::Identity,
    rbac::{Connection, Decision, PolicySet},
    route::{Authority, InboundError, InboundTarget, Route, RouteError, ServiceRef},
    service::{Service, Visibility},
    workload::{PodInfo, Workload},
};

use crate::{
    backends::Backends,
    dump::Dump,
    inbound,
    policies::Policies,
    route::Router,
    services::{Entry, Services},
    store::{Config, Generation},
    workloads::{Known, Workloads},
};

/// One state of the mesh. It does not change; a clone shares everything.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    pub(crate) config: Arc<Config>,
    pub(crate) generation: Generation,
    pub(crate) workloads: Workloads,
    pub(crate) services: Services,
    pub(crate) policies: Policies,
}

/// What an address or a host name stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Destination<'a> {
    Service(&'a Arc<Entry>),
    Workload(&'a Arc<Known>),
}

// === impl Snapshot ===

impl Snapshot {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config: Arc::new(config),
            generation: Generation::default(),
            workloads: Workloads::default(),
            services: Services::default(),
            policies: Policies::default(),
        }
    }

    /// Which state this is.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Where a connection of `source` to `destination` goes.
    ///
    /// What is addressed is told by one table, for all that follows:
    /// 1. a service with exactly this address, if there is no workload at it or the workload backs the
    ///    service (nobody takes over a pod's address by claiming it for a service);
    /// 2. the workload with this address;
    /// 3. a service with a range that holds the address: of the client's namespace before others, the
    ///    longest prefix first.
    ///
    /// A service's waypoint comes before its endpoints; a workload's waypoint only counts when the
    /// workload itself is addressed; and a waypoint is not sent to itself.
    pub fn route(&self, source: &Workload, destination: SocketAddr) -> Result<Route, RouteError> {
        let destination = SocketAddr::new(destination.ip().to_canonical(), destination.port());
        Router::new(self, source).route(destination)
    }

    /// Where a CONNECT to `authority` is delivered that reached `local` at the address `accepted`.
    ///
    /// The target is always the accepted address; the authority only tells the port. An authority of
    /// another address is accepted only where `local` stands in for it: as an application tunnel's end
    /// or as the waypoint of what has the address. Ports in `illegal_ports` are the proxy's own.
    pub fn inbound_target(
        &self,
        local: &Workload,
        authority: &Authority,
        accepted: SocketAddr,
        illegal_ports: &[u16],
    ) -> Result<InboundTarget, InboundError> {
        inbound::target(self, local, authority, accepted, illegal_ports)
    }

    /// The verdict on a connection to `local`, by the policies that concern it in this state, whatever
    /// they were when the caller learned of the workload.
    pub fn authorize(&self, local: &Workload, connection: &Connection) -> Decision {
        self.policies.decide(local, connection)
    }

    /// The policies that concern a workload in this state.
    pub fn policies_for(&self, workload: &Workload) -> Arc<PolicySet> {
        self.policies.of(workload)
    }

    /// The workload at an address of a network. Workloads that share their node's address are not
    /// found; of several, pods go first, then those that take HBONE.
    pub fn workload_at(&self, network: &str, address: IpAddr) -> Option<&Arc<Workload>> {
        let known = self.workloads.at(network, address.to_canonical())?;
        Some(&known.workload)
    }

    /// The workload of a uid.
    pub fn workload_by_uid(&self, uid: &str) -> Option<&Arc<Workload>> {
        self.workloads.by_uid(uid).map(|known| &known.workload)
    }

    /// The workload of a pod of this node.
    pub fn workload_for_pod(&self, pod: &PodInfo) -> Option<&Arc<Workload>> {
        self.workloads.local_pod(pod).map(|known| &known.workload)
    }

    /// The service of a host name in a namespace.
    pub fn service_by_host(&self, namespace: &str, hostname: &str) -> Option<&Arc<Service>> {
        self.service_entry(namespace, hostname)
            .map(|entry| &entry.service)
    }

    /// How telemetry names the service of a key.
    pub fn service_ref(&self, key: &NamespacedHostname) -> Option<&Arc<ServiceRef>> {
        self.services.by_key(key).map(|entry| &entry.reference)
    }

    /// The services of a host name, by namespace.
    pub fn services_by_host(&self, hostname: &str) -> impl Iterator<Item = &Arc<Service>> {
        self.services.by_host(hostname).map(|entry| &entry.service)
    }

    /// The service of a host name among those that a workload backs, for telemetry.
    pub fn service_of(&self, workload: &Workload, hostname: &str) -> Option<&Arc<ServiceRef>> {
        let keys = workload.services.keys();
        let key = keys.into_iter().find(|key| *key.hostname == *hostname)?;
        self.services.by_key(key).map(|entry| &entry.reference)
    }

    /// The workloads that back a service, ready or not, by uid.
    pub fn workloads_of(
        &self,
        service: &NamespacedHostname,
    ) -> impl Iterator<Item = &Arc<Workload>> {
        self.services.members(service).map(|known| &known.workload)
    }

    /// The identities that this node needs certificates for, in no order.
    pub fn node_local_identities(&self) -> impl Iterator<Item = &Identity> {
        self.workloads.local_identities()
    }

    /// All of this state in the form of `config_dump`, sorted.
    pub fn dump(&self) -> Dump<'_> {
        Dump::of(self)
    }

    pub(crate) fn service_entry(&self, namespace: &str, hostname: &str) -> Option<&Arc<Entry>> {
        let mut entries = self.services.by_host(hostname);
        entries.find(|entry| *entry.service.namespace == *namespace)
    }

    /// What an address stands for to a client in `namespace`, by the table at `route`. Without a
    /// namespace nothing is hidden. The cost grows with the services that share this one address.
    pub(crate) fn resolve(
        &self,
        network: &str,
        address: IpAddr,
        namespace: Option<&str>,
    ) -> Option<Destination<'_>> {
        let visible = |entry: &&Arc<Entry>| is_visible(entry, namespace);
        let workload = self.workloads.at(network, address);
        let exact = self
            .services
            .at(network, address)
            .filter(visible)
            .filter(|entry| workload.is_none_or(|known| backs(&known.workload, entry)))
            .min_by_key(|entry| self.preference(entry, namespace));
        if let Some(entry) = exact {
            return Some(Destination::Service(entry));
        }
        if let Some(known) = workload {
            return Some(Destination::Workload(known));
        }
        self.services
            .covering(network, address)
            .filter(|(_, entry)| visible(entry))
            .min_by_key(|(length, entry)| {
                let (other_namespace, rest) = self.preference(entry, namespace);
                (other_namespace, Reverse(*length), rest)
            })
            .map(|(_, entry)| Destination::Service(entry))
    }

    /// What a gateway's name or address stands for.
    pub(crate) fn resolve_gateway(&self, gateway: &GatewayAddress) -> Option<Destination<'_>> {
        match &gateway.destination {
            GatewayDestination::Address(at) => self.resolve(&at.network, at.address, None),
            GatewayDestination::Hostname(name) => {
                let service = self.services.by_key(name).map(Destination::Service);
                service.or_else(|| self.workloads.by_hostname(name).map(Destination::Workload))
            }
        }
    }

    /// Whether `workload` is (one of) what a gateway's name or address stands for, ready or not.
    pub(crate) fn is_instance(&self, workload: &Workload, gateway: &GatewayAddress) -> bool {
        match self.resolve_gateway(gateway) {
            Some(Destination::Service(entry)) => backs(workload, entry),
            Some(Destination::Workload(known)) => known.workload.uid == workload.uid,
            None => false,
        }
    }

    /// Adds a service whose key is not known; its endpoints follow with `refresh_service`.
    pub(crate) fn insert_service(&mut self, service: Service) {
        let backends = Backends::build(&service, std::iter::empty(), &self.config.network);
        self.services
            .insert(Entry::new(Arc::new(service), backends));
    }

    /// Prepares a service's endpoints anew, if it is known.
    pub(crate) fn refresh_service(&mut self, key: &NamespacedHostname) {
        let Some(entry) = self.services.by_key(key) else {
            return;
        };
        let service = Arc::clone(&entry.service);
        let backends = Backends::build(&service, self.services.members(key), &self.config.network);
        self.services.refresh(Entry::new(service, backends));
    }

    /// Among services that share an address the smallest is preferred: one of the client's namespace,
    /// then a canonical one, then one of the preferred namespace, then the first by name.
    fn preference(&self, entry: &Entry, namespace: Option<&str>) -> (bool, (bool, bool)) {
        let service = &entry.service;
        let preferred = self.config.preferred_service_namespace.as_ref();
        let other_namespace = namespace != Some(&service.namespace);
        let not_preferred = preferred != Some(&service.namespace);
        (other_namespace, (!service.canonical, not_preferred))
    }
}

/// Whether a workload says that it backs a service.
pub(crate) fn backs(workload: &Workload, entry: &Entry) -> bool {
    workload.services.contains_key(&entry.key)
}

fn is_visible(entry: &Entry, namespace: Option<&str>) -> bool {
    let own = || namespace.is_none_or(|namespace| *namespace == *entry.service.namespace);
    entry.service.visibility == Visibility::Public || own()
}

#[cfg(test)]
mod tests;

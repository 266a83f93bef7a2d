//! The endpoints of one service, prepared so that a connection only draws one.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use fastrand::Rng;
use mesh_core::{
    address::NamespacedHostname,
    balance::{Balancer, Candidate},
    identity::{self, Identity},
    service::{HealthPolicy, IpFamilies, Service},
    workload::{Health, PortMap, Workload},
};

use crate::workloads::Known;

/// An endpoint: a workload, and what a tunnel to it must prove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    known: Arc<Known>,
    /// The workload's own identity and the service's alternative ones, if the service has any.
    extended: Option<Arc<[Identity]>>,
}

/// The eligible endpoints of one service.
///
/// An endpoint is eligible for a port only if its target port is known. Nearly always all endpoints
/// know all ports, so ports with the same endpoints share one balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backends {
    endpoints: Box<[Endpoint]>,
    by_port: HashMap<u16, SharedBalancer>,
    /// For ports that nobody lists: endpoints that take any port through their application tunnel.
    any_port: SharedBalancer,
    /// An endpoint in another network, if there is one.
    elsewhere: Option<Arc<Known>>,
}

/// A balancer over endpoints by their index.
type SharedBalancer = Arc<Balancer<usize>>;

/// Balancers built so far, by the endpoints they choose among.
struct Pools<'a> {
    service: &'a Service,
    endpoints: &'a [Endpoint],
    all: Option<SharedBalancer>,
    some: HashMap<Vec<usize>, SharedBalancer>,
}

// === impl Endpoint ===

impl Endpoint {
    pub(crate) fn workload(&self) -> &Arc<Workload> {
        &self.known.workload
    }

    /// What a tunnel to the endpoint must prove.
    pub(crate) fn expected(&self) -> Result<&Arc<[Identity]>, &identity::Error> {
        let own = self.known.expected.as_ref();
        own.map(|own| self.extended.as_ref().unwrap_or(own))
    }
}

// === impl Backends ===

impl Backends {
    /// Prepares the endpoints of a service as seen from `network`.
    pub(crate) fn build<'a>(
        service: &Service,
        members: impl Iterator<Item = &'a Arc<Known>>,
        network: &str,
    ) -> Self {
        let (mut near, mut far): (Vec<_>, Vec<_>) = members
            .filter(|known| is_ready(service, &known.workload))
            .partition(|known| *known.workload.network == *network);
        near.retain(|k| !k.workload.addresses.is_empty() || k.workload.hostname.is_some());
        far.retain(|k| k.workload.network_gateway.is_some());
        let endpoints = endpoints(service, &near);
        let (by_port, any_port) = by_port(service, &endpoints);
        Self {
            by_port,
            any_port,
            elsewhere: far.first().map(|known| Arc::clone(known)),
            endpoints,
        }
    }

    /// An endpoint for a connection of `client` to a service port.
    pub(crate) fn choose(&self, client: &Workload, port: u16, rng: &mut Rng) -> Option<&Endpoint> {
        let balancer = self.by_port.get(&port).unwrap_or(&self.any_port);
        self.endpoints.get(balancer.choose(client, rng)?)
    }

    /// An endpoint in another network, if no endpoint is in ours.
    pub(crate) fn only_elsewhere(&self) -> Option<&Arc<Workload>> {
        let elsewhere = self
            .elsewhere
            .as_ref()
            .filter(|_| self.endpoints.is_empty());
        elsewhere.map(|known| &known.workload)
    }
}

// === impl Pools ===

impl Pools<'_> {
    /// The balancer over the endpoints that `takes` the port, by index.
    fn of(&mut self, takes: impl Fn(usize, &Workload) -> bool) -> SharedBalancer {
        let indexed = self.endpoints.iter().enumerate();
        let takers = indexed.filter(|(index, endpoint)| takes(*index, endpoint.workload()));
        let indexes: Vec<usize> = takers.map(|(index, _)| index).collect();
        if indexes.len() == self.endpoints.len() {
            return self.all();
        }
        let build = || Arc::new(balancer(self.service, self.endpoints, &indexes));
        Arc::clone(self.some.entry(indexes.clone()).or_insert_with(build))
    }

    fn all(&mut self) -> SharedBalancer {
        let indexes = || (0..self.endpoints.len()).collect::<Vec<_>>();
        let build = || Arc::new(balancer(self.service, self.endpoints, &indexes()));
        Arc::clone(self.all.get_or_insert_with(build))
    }
}

fn balancer(service: &Service, endpoints: &[Endpoint], indexes: &[usize]) -> Balancer<usize> {
    let candidate = |index: &usize| {
        let workload = endpoints.get(*index)?.workload();
        let value = *index;
        Some(Candidate { value, workload })
    };
    let candidates: Vec<_> = indexes.iter().filter_map(candidate).collect();
    Balancer::new(service.load_balancing.as_ref(), &candidates)
}

/// A balancer for each port that the service or an endpoint lists, and one for all other ports.
fn by_port(
    service: &Service,
    endpoints: &[Endpoint],
) -> (HashMap<u16, SharedBalancer>, SharedBalancer) {
    let key = service.key();
    let workloads = endpoints.iter().map(Endpoint::workload);
    let own: Vec<Option<&PortMap>> = workloads.map(|w| w.services.get(&key)).collect();
    let maps = own.iter().flatten().copied().chain([&service.ports]);
    let ports: BTreeSet<u16> = maps.flat_map(|ports| ports.keys().copied()).collect();
    let mut pools = Pools {
        service,
        endpoints,
        all: None,
        some: HashMap::new(),
    };
    let by_port = ports.into_iter().map(|port| {
        let takes = |index: usize, workload: &Workload| {
            let own = own.get(index).copied().flatten();
            lists(service, own, port).is_some() || takes_any_port(workload)
        };
        (port, pools.of(takes))
    });
    let by_port = by_port.collect();
    (by_port, pools.of(|_, workload| takes_any_port(workload)))
}

/// The target port of a service port at an endpoint: the endpoint's own word, then the service's, then
/// the port itself if the endpoint takes all ports on one. A 0 says that the port is not known there.
pub(crate) fn target_port(
    service: &Service,
    key: &NamespacedHostname,
    workload: &Workload,
    port: u16,
) -> Option<u16> {
    let listed = listed_port(service, key, workload, port);
    listed.or_else(|| takes_any_port(workload).then_some(port))
}

/// The target port that the endpoint or the service lists.
pub(crate) fn listed_port(
    service: &Service,
    key: &NamespacedHostname,
    workload: &Workload,
    port: u16,
) -> Option<u16> {
    lists(service, workload.services.get(key), port)
}

fn lists(service: &Service, own: Option<&PortMap>, port: u16) -> Option<u16> {
    let known = |port: &&u16| **port != 0;
    let own = own.and_then(|ports| ports.get(&port)).filter(known);
    own.or_else(|| service.ports.get(&port).filter(known))
        .copied()
}

/// The address at which an endpoint is connected to: the one that was asked for if it owns it, else
/// its first of the same family, else its first, of those the service offers.
pub(crate) fn address(
    workload: &Workload,
    families: IpFamilies,
    original: IpAddr,
) -> Option<IpAddr> {
    let offered = |address: &&IpAddr| match families {
        IpFamilies::Automatic | IpFamilies::Dual => true,
        IpFamilies::Ipv4Only => address.is_ipv4(),
        IpFamilies::Ipv6Only => address.is_ipv6(),
    };
    let addresses = || workload.addresses.iter();
    addresses()
        .find(|address| **address == original)
        .or_else(|| {
            addresses()
                .filter(offered)
                .find(|a| a.is_ipv4() == original.is_ipv4())
        })
        .or_else(|| addresses().find(offered))
        .copied()
}

fn takes_any_port(workload: &Workload) -> bool {
    let tunnel = workload.application_tunnel;
    tunnel.is_some_and(|tunnel| tunnel.port.is_some())
}

fn is_ready(service: &Service, workload: &Workload) -> bool {
    let health_policy = service.load_balancing.as_ref().map(|lb| lb.health_policy);
    workload.status == Health::Healthy || health_policy == Some(HealthPolicy::AllowAll)
}

/// The identities a service allows its endpoints besides their own. What is not an identity of ours
/// can be proven by nobody, so leaving it out refuses more, never less.
fn alternatives(service: &Service) -> Vec<Identity> {
    let parsed = |name: &Arc<str>| match name.parse() {
        Ok(identity) => Some(identity),
        Err(error) => {
            let service = service.key();
            tracing::warn!(%service, %name, %error, "leaving out a subject alternative name");
            None
        }
    };
    service
        .subject_alt_names
        .iter()
        .filter_map(parsed)
        .collect()
}

/// Endpoints with what each must prove; those with the same identity share one list.
fn endpoints(service: &Service, members: &[&Arc<Known>]) -> Box<[Endpoint]> {
    let alternatives = alternatives(service);
    let mut lists: HashMap<Arc<[Identity]>, Arc<[Identity]>> = HashMap::new();
    let mut extended = |own: &Arc<[Identity]>| {
        let extend = || own.iter().chain(&alternatives).cloned().collect();
        Arc::clone(lists.entry(Arc::clone(own)).or_insert_with(extend))
    };
    let endpoint = |known: &&Arc<Known>| Endpoint {
        extended: match &known.expected {
            Ok(own) if !alternatives.is_empty() => Some(extended(own)),
            Ok(_) | Err(_) => None,
        },
        known: Arc::clone(known),
    };
    members.iter().map(endpoint).collect()
}

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
    workload::{Health, Workload},
};

use crate::workloads::Known;

/// An endpoint: a workload, and what a tunnel to it must prove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) workload: Arc<Workload>,
    /// The workload's own identity and the service's alternative ones.
    pub(crate) expected: Result<Arc<[Identity]>, identity::Error>,
}

/// The eligible endpoints of one service.
///
/// An endpoint is eligible for a port only if its target port is known. Nearly always all endpoints
/// know all ports, so ports with the same endpoints share one balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backends {
    endpoints: Box<[Endpoint]>,
    by_port: HashMap<u16, Arc<Balancer<usize>>>,
    /// For ports that nobody lists: endpoints that take any port through their application tunnel.
    any_port: Arc<Balancer<usize>>,
    /// An endpoint in another network, if there is one.
    elsewhere: Option<Arc<Workload>>,
}

/// Balancers built so far, by the endpoints they choose among.
struct Pools<'a> {
    service: &'a Service,
    endpoints: &'a [Endpoint],
    built: HashMap<Vec<usize>, Arc<Balancer<usize>>>,
}

// === impl Backends ===

impl Backends {
    /// Prepares the endpoints of a service as seen from `network`.
    pub(crate) fn build<'a>(
        service: &Service,
        members: impl Iterator<Item = &'a Known>,
        network: &str,
    ) -> Self {
        let (mut near, mut far): (Vec<_>, Vec<_>) = members
            .filter(|known| is_ready(service, &known.workload))
            .partition(|known| *known.workload.network == *network);
        near.retain(|k| !k.workload.addresses.is_empty() || k.workload.hostname.is_some());
        far.retain(|k| k.workload.network_gateway.is_some());
        let endpoints = with_alternatives(&near, &alternatives(service));
        let key = service.key();
        let listed = near.iter().filter_map(|k| k.workload.services.get(&key));
        let ports: BTreeSet<u16> = listed
            .chain([&service.ports])
            .flat_map(|ports| ports.keys().copied())
            .collect();
        let mut pools = Pools {
            service,
            endpoints: &endpoints,
            built: HashMap::new(),
        };
        let by_port = ports
            .into_iter()
            .map(|port| {
                (
                    port,
                    pools.of(|w| target_port(service, &key, w, port).is_some()),
                )
            })
            .collect();
        let any_port = pools.of(|workload| tunnel_port(workload).is_some());
        Self {
            by_port,
            any_port,
            elsewhere: far.first().map(|known| Arc::clone(&known.workload)),
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
        self.elsewhere
            .as_ref()
            .filter(|_| self.endpoints.is_empty())
    }
}

// === impl Pools ===

impl Pools<'_> {
    fn of(&mut self, has_port: impl Fn(&Workload) -> bool) -> Arc<Balancer<usize>> {
        let indexed = self.endpoints.iter().enumerate();
        let members: Vec<(usize, &Workload)> = indexed
            .filter(|(_, endpoint)| has_port(&endpoint.workload))
            .map(|(index, endpoint)| (index, &*endpoint.workload))
            .collect();
        let indexes = members.iter().map(|(index, _)| *index).collect();
        let policy = self.service.load_balancing.as_ref();
        let build = || {
            let candidate = |(value, workload)| Candidate { value, workload };
            let candidates: Vec<_> = members.into_iter().map(candidate).collect();
            Arc::new(Balancer::new(policy, &candidates))
        };
        Arc::clone(self.built.entry(indexes).or_insert_with(build))
    }
}

/// The target port of a service port at an endpoint: the endpoint's own word, then the service's, then
/// the port itself if the endpoint takes all ports on one. A 0 says that the port is not known there.
pub(crate) fn target_port(
    service: &Service,
    key: &NamespacedHostname,
    workload: &Workload,
    port: u16,
) -> Option<u16> {
    listed_port(service, key, workload, port).or_else(|| tunnel_port(workload).map(|_| port))
}

/// The target port that the endpoint or the service lists.
pub(crate) fn listed_port(
    service: &Service,
    key: &NamespacedHostname,
    workload: &Workload,
    port: u16,
) -> Option<u16> {
    let own = workload
        .services
        .get(key)
        .and_then(|ports| ports.get(&port));
    let known = |port: &&u16| **port != 0;
    own.filter(known)
        .or_else(|| service.ports.get(&port).filter(known))
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

fn tunnel_port(workload: &Workload) -> Option<u16> {
    workload.application_tunnel.and_then(|tunnel| tunnel.port)
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
fn with_alternatives(members: &[&Known], alternatives: &[Identity]) -> Box<[Endpoint]> {
    let mut lists: HashMap<Arc<[Identity]>, Arc<[Identity]>> = HashMap::new();
    let mut extended = |own: &Arc<[Identity]>| {
        let build = || own.iter().chain(alternatives).cloned().collect();
        match alternatives {
            [] => Arc::clone(own),
            _ => Arc::clone(lists.entry(Arc::clone(own)).or_insert_with(build)),
        }
    };
    let mut endpoint = |known: &&Known| Endpoint {
        workload: Arc::clone(&known.workload),
        expected: known
            .expected
            .as_ref()
            .map(&mut extended)
            .map_err(Clone::clone),
    };
    members.iter().map(&mut endpoint).collect()
}

//! Where an outbound connection goes.

use std::{net::SocketAddr, sync::Arc};

use fastrand::Rng;
use mesh_core::{
    address::{GatewayAddress, GatewayDestination},
    identity::{self, Identity},
    route::{HBONE_PORT, Route, RouteError, ServiceRef},
    service::IpFamilies,
    workload::{TunnelProtocol, Workload},
};

use crate::{
    backends,
    services::Entry,
    snapshot::{Destination, Snapshot},
    workloads::Known,
};

/// One connection on its way.
pub(crate) struct Router<'a> {
    snapshot: &'a Snapshot,
    source: &'a Workload,
    rng: Rng,
}

/// The far end of a connection, before it is told whether a tunnel leads there.
struct Upstream<'a> {
    workload: &'a Arc<Workload>,
    expected: Result<&'a Arc<[Identity]>, &'a identity::Error>,
    address: SocketAddr,
}

// === impl Router ===

impl<'a> Router<'a> {
    pub(crate) fn new(snapshot: &'a Snapshot, source: &'a Workload) -> Self {
        Self {
            snapshot,
            source,
            rng: Rng::new(),
        }
    }

    pub(crate) fn route(&mut self, destination: SocketAddr) -> Result<Route, RouteError> {
        let network = &self.snapshot.config.network;
        let namespace = Some(&*self.source.namespace);
        match self.snapshot.resolve(network, destination.ip(), namespace) {
            Some(Destination::Service(entry)) => self.route_service(entry, destination),
            Some(Destination::Workload(known)) => self.route_workload(known, destination),
            None => Ok(Route::Passthrough {
                target: destination,
                service: None,
            }),
        }
    }

    fn route_service(&mut self, entry: &Entry, original: SocketAddr) -> Result<Route, RouteError> {
        let service = Some(&entry.reference);
        let is_waypoint = |snapshot: &Snapshot, source| {
            let mut waypoints = entry.waypoints();
            waypoints.any(|waypoint| snapshot.is_instance(source, waypoint))
        };
        if let Some(waypoint) = entry.waypoint(&mut self.rng)
            && !is_waypoint(self.snapshot, self.source)
        {
            let name = || format!("service {}", entry.key);
            return self.route_waypoint(waypoint, original, service, name);
        }
        if entry.is_passthrough() {
            return self.as_addressed(original, service);
        }
        let upstream = self.choose(entry, original)?;
        direct(&upstream, service)
    }

    fn route_workload(&mut self, known: &Known, original: SocketAddr) -> Result<Route, RouteError> {
        let workload = &known.workload;
        if workload.network != self.source.network {
            return Err(unreachable_network(workload));
        }
        if let Some(waypoint) = &workload.waypoint
            && !self.snapshot.is_instance(self.source, waypoint)
        {
            let name = || format!("workload {}", workload.uid);
            return self.route_waypoint(waypoint, original, None, name);
        }
        direct(&Upstream::of(known, original), None)
    }

    /// To the original destination, by a tunnel if a workload that takes one is there.
    fn as_addressed(
        &self,
        original: SocketAddr,
        service: Option<&Arc<ServiceRef>>,
    ) -> Result<Route, RouteError> {
        let network = &self.source.network;
        match self.snapshot.workloads.at(network, original.ip()) {
            Some(known) => direct(&Upstream::of(known, original), service),
            None => Ok(Route::Passthrough {
                target: original,
                service: service.cloned(),
            }),
        }
    }

    /// A tunnel to a waypoint, which is told the original destination and decides further.
    fn route_waypoint(
        &mut self,
        waypoint: &GatewayAddress,
        original: SocketAddr,
        service: Option<&Arc<ServiceRef>>,
        name: impl Fn() -> String,
    ) -> Result<Route, RouteError> {
        if let GatewayDestination::Address(at) = &waypoint.destination
            && at.network != self.snapshot.config.network
        {
            return Err(RouteError::UnreachableNetwork {
                destination: format!("waypoint of {}", name()).into(),
                network: at.network.clone(),
            });
        }
        let asked = SocketAddr::new(original.ip(), waypoint.hbone_mtls_port);
        let unknown = || RouteError::NoWaypoint {
            destination: name(),
        };
        let upstream = match self
            .snapshot
            .resolve_gateway(waypoint)
            .ok_or_else(unknown)?
        {
            Destination::Service(entry) => {
                self.choose(entry, asked).map_err(|error| match error {
                    RouteError::NoHealthyUpstream { .. } => unknown(),
                    other => other,
                })?
            }
            Destination::Workload(known) => {
                Upstream::of(known, asked).at_best_address(IpFamilies::Automatic)?
            }
        };
        Ok(Route::Hbone {
            workload: Arc::clone(upstream.workload),
            waypoint: true,
            gateway: upstream.address,
            authority: original,
            expected: upstream.expected()?,
            service: service.cloned(),
        })
    }

    /// An endpoint of a service for a connection to one of its ports.
    fn choose<'e>(
        &mut self,
        entry: &'e Entry,
        asked: SocketAddr,
    ) -> Result<Upstream<'e>, RouteError> {
        let service = &entry.service;
        let port = asked.port();
        let endpoint = entry.backends.choose(self.source, port, &mut self.rng);
        let ready = endpoint.and_then(|endpoint| {
            let workload = endpoint.workload();
            let port = backends::target_port(service, &entry.key, workload, port)?;
            Some(Upstream {
                workload,
                expected: endpoint.expected(),
                address: SocketAddr::new(asked.ip(), port),
            })
        });
        if let Some(upstream) = ready {
            return upstream.at_best_address(service.ip_families);
        }
        Err(match entry.backends.only_elsewhere() {
            Some(workload) => unreachable_network(workload),
            None => RouteError::NoHealthyUpstream {
                service: entry.key.clone(),
                port,
            },
        })
    }
}

// === impl Upstream ===

impl<'a> Upstream<'a> {
    fn of(known: &'a Known, address: SocketAddr) -> Self {
        Self {
            workload: &known.workload,
            expected: known.expected.as_ref(),
            address,
        }
    }

    /// The workload at the best of its addresses for a connection that asked for `address`.
    fn at_best_address(mut self, families: IpFamilies) -> Result<Self, RouteError> {
        let address = backends::address(self.workload, families, self.address.ip());
        self.address
            .set_ip(address.ok_or_else(|| RouteError::NoAddress {
                workload: self.workload.uid.clone(),
            })?);
        Ok(self)
    }

    /// What the far end of a tunnel must prove; never empty.
    fn expected(&self) -> Result<Arc<[Identity]>, RouteError> {
        let expected = self.expected.cloned();
        expected.map_err(|source| RouteError::Identity {
            workload: self.workload.uid.clone(),
            source: source.clone(),
        })
    }
}

/// To the workload itself: by a tunnel to its own ztunnel, or as it is.
fn direct(upstream: &Upstream<'_>, service: Option<&Arc<ServiceRef>>) -> Result<Route, RouteError> {
    let workload = Arc::clone(upstream.workload);
    let service = service.cloned();
    let target = upstream.address;
    Ok(match workload.protocol {
        TunnelProtocol::None => Route::Direct {
            workload,
            target,
            service,
        },
        TunnelProtocol::Hbone => Route::Hbone {
            waypoint: false,
            gateway: SocketAddr::new(target.ip(), HBONE_PORT),
            authority: target,
            expected: upstream.expected()?,
            workload,
            service,
        },
    })
}

fn unreachable_network(workload: &Workload) -> RouteError {
    RouteError::UnreachableNetwork {
        destination: workload.uid.clone(),
        network: workload.network.clone(),
    }
}

#[cfg(test)]
mod tests;

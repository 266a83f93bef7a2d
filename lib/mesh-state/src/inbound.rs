//! Where an accepted CONNECT is delivered.

use std::{net::SocketAddr, sync::Arc};

use mesh_core::{
    route::{Authority, InboundError, InboundTarget, ServiceRef},
    workload::Workload,
};

use crate::{
    backends,
    services::Entry,
    snapshot::{Snapshot, backs},
};

/// See [`Snapshot::inbound_target`].
pub(crate) fn target(
    snapshot: &Snapshot,
    local: &Workload,
    authority: &Authority,
    accepted: SocketAddr,
    illegal_ports: &[u16],
) -> Result<InboundTarget, InboundError> {
    let accepted = accepted.ip().to_canonical();
    let (port, service) = match authority {
        Authority::Address(asked) => {
            let asked = SocketAddr::new(asked.ip().to_canonical(), asked.port());
            if asked.ip() != accepted && !stands_in_for(snapshot, local, asked) {
                return Err(InboundError::IpMismatch {
                    asked,
                    actual: accepted,
                });
            }
            (
                asked.port(),
                service_by_target(snapshot, local, asked.port()),
            )
        }
        Authority::Hostname(host, port) => {
            let entry = served(snapshot, local, host)?;
            let service = Some(Arc::clone(&entry.reference));
            (port_by_name(entry, local, *port)?, service)
        }
    };
    let tunnel = local.application_tunnel;
    let upstream = tunnel.and_then(|tunnel| tunnel.port).unwrap_or(port);
    for port in [port, upstream] {
        if illegal_ports.contains(&port) {
            return Err(InboundError::SelfCall { port });
        }
    }
    Ok(InboundTarget {
        upstream: SocketAddr::new(accepted, upstream),
        policy_destination: SocketAddr::new(accepted, port),
        tunnel,
        service,
    })
}

/// Whether `local` may take a connection that was meant for another address: it hands it on to an
/// application that knows what to do, or it is the waypoint of what has the address.
fn stands_in_for(snapshot: &Snapshot, local: &Workload, asked: SocketAddr) -> bool {
    if local.application_tunnel.is_some() {
        return true;
    }
    let network = &snapshot.config.network;
    let exact = snapshot.services.at(network, asked.ip());
    let covering = snapshot.services.covering(network, asked.ip());
    let mut services = exact.chain(covering.map(|(_, entry)| entry));
    let workload = snapshot.workloads.at(network, asked.ip());
    let waypoint = workload.and_then(|known| known.workload.waypoint.as_ref());
    waypoint.is_some_and(|waypoint| snapshot.is_instance(local, waypoint))
        || services.any(|entry| is_waypoint_of(snapshot, local, entry))
}

/// The service of a host name that `local` serves: one of its namespace that it backs, or whose
/// waypoint it is.
fn served<'a>(
    snapshot: &'a Snapshot,
    local: &Workload,
    host: &Arc<str>,
) -> Result<&'a Arc<Entry>, InboundError> {
    let serves = |entry: &&Arc<Entry>| {
        backs(local, entry)
            || local.application_tunnel.is_some()
            || is_waypoint_of(snapshot, local, entry)
    };
    let entry = snapshot
        .service_entry(&local.namespace, host)
        .filter(serves);
    entry.ok_or_else(|| InboundError::UnknownHost { host: host.clone() })
}

fn is_waypoint_of(snapshot: &Snapshot, local: &Workload, entry: &Entry) -> bool {
    let mut waypoints = entry.waypoints();
    waypoints.any(|waypoint| snapshot.is_instance(local, waypoint))
}

/// The target port of a service port: the endpoint's own word, then the service's.
fn port_by_name(entry: &Entry, local: &Workload, port: u16) -> Result<u16, InboundError> {
    let service = &entry.service;
    let target = backends::listed_port(service, &entry.key, local, port);
    target.ok_or_else(|| InboundError::NoPort {
        host: service.hostname.clone(),
        port,
    })
}

/// The first service of the workload that leads to a target port, for telemetry.
fn service_by_target(snapshot: &Snapshot, local: &Workload, port: u16) -> Option<Arc<ServiceRef>> {
    let mut entries = local.services.iter().filter_map(|(key, own)| {
        let entry = snapshot.services.by_key(key)?;
        let mut targets = own.values().chain(entry.service.ports.values());
        targets.any(|target| *target == port).then_some(entry)
    });
    entries.next().map(|entry| Arc::clone(&entry.reference))
}

#[cfg(test)]
mod tests;

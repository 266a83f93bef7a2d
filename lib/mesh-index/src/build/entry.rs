//! ServiceEntries to workloads.

use std::{collections::BTreeMap, sync::Arc};

use mesh_api::mesh_config::Visibility;
use mesh_core::{
    address::NamespacedHostname,
    workload::{PortMap, Workload},
};

use super::{
    base, endpoint, serve,
    waypoint::{self, Side, Subject},
};
use crate::{
    cluster::{Cluster, Space},
    object::Key,
    record::{
        endpoint::{Address, Endpoint},
        entry::{Port, Resolution, ServiceEntry},
    },
    text::Labels,
};

/// The workloads of an entry: its endpoints, or its names where clients resolve them.
pub(super) fn build(cluster: &Cluster, key: &Key, gateways: &mut Vec<Key>) -> Vec<Workload> {
    let Some(space) = cluster.seen(&key.namespace) else {
        return Vec::new();
    };
    let Some(entry) = space.entries.get(&key.name) else {
        return Vec::new();
    };
    let visibility = cluster.visibility(space, entry);
    if visibility == Visibility::None {
        return Vec::new();
    }
    let subject = Subject {
        side: Side::Workload { explicit: false },
        confined: visibility == Visibility::Namespace,
        ..Subject::workload(&key.namespace, entry.binding.as_deref())
    };
    let names = names(entry);
    if entry.endpoints.is_empty() && names.is_empty() {
        return Vec::new();
    }
    let waypoint = waypoint::resolve(cluster, &subject, gateways).gateway;
    let endpoints = entry.endpoints.iter();
    let endpoints = endpoints.map(|endpoint| inline(cluster, key, entry, endpoint));
    let names = names.into_iter();
    let names = names.map(|name| named(cluster, key, entry, name));
    let all = endpoints.chain(names);
    all.map(|workload| Workload {
        waypoint: waypoint.clone(),
        ..workload
    })
    .collect()
}

/// The services of the entries that select a workload of the namespace, with the port of the workload
/// that `target` finds.
pub(super) fn selected(
    cluster: &Cluster,
    space: &Space,
    key: &Key,
    labels: &Labels,
    target: impl Fn(&Port) -> u16,
) -> BTreeMap<NamespacedHostname, PortMap> {
    let mut services = BTreeMap::new();
    for name in space.selecting_entries.matching(labels) {
        let Some(entry) = space.entries.get(name) else {
            continue;
        };
        if cluster.visibility(space, entry) == Visibility::None {
            continue;
        }
        for host in &entry.hosts {
            let ports = entry.ports.iter().map(|port| (port.number, target(port)));
            serve(&mut services, &key.namespace, host.clone(), ports);
        }
    }
    services
}

/// The names that stand for endpoints because there are none.
fn names(entry: &ServiceEntry) -> Vec<&Arc<str>> {
    let resolved = matches!(entry.resolution, Resolution::Dns | Resolution::DynamicDns);
    let implied = resolved && entry.endpoints.is_empty() && entry.selector.is_none();
    let hosts = entry.hosts.iter().filter(|_| implied);
    hosts
        .filter(|host| !ServiceEntry::is_wildcard(host))
        .collect()
}

fn inline(cluster: &Cluster, key: &Key, entry: &ServiceEntry, from: &Endpoint) -> Workload {
    let address = match &from.address {
        Address::Ip(address) => address.to_string(),
        Address::Hostname(name) => name.to_string(),
    };
    let mut services = BTreeMap::new();
    for host in &entry.hosts {
        let ports = entry.ports.iter();
        let ports = ports.map(|p| (p.number, from.port(&p.name).unwrap_or(p.target)));
        serve(&mut services, &key.namespace, host.clone(), ports);
    }
    Workload {
        services,
        ..endpoint::workload(cluster, key, uid(cluster, key, &address), from)
    }
}

fn named(cluster: &Cluster, key: &Key, entry: &ServiceEntry, host: &Arc<str>) -> Workload {
    let mut services = BTreeMap::new();
    let ports = entry.ports.iter().map(|port| (port.number, port.target));
    serve(&mut services, &key.namespace, host.clone(), ports);
    Workload {
        hostname: Some(host.clone()),
        canonical_name: key.name.clone(),
        canonical_revision: "latest".into(),
        workload_name: key.name.clone(),
        services,
        ..base(cluster, key, uid(cluster, key, host))
    }
}

fn uid(cluster: &Cluster, key: &Key, address: &str) -> String {
    format!(
        "{}/networking.istio.io/ServiceEntry/{}/{}/{address}",
        cluster.names.cluster_id, key.namespace, key.name
    )
}

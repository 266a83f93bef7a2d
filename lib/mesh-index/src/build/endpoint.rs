//! WorkloadEntries to workloads.

use mesh_core::workload::Workload;

use super::{
    base, canonical, entry, policy, serve,
    waypoint::{self, Subject},
};
use crate::{
    cluster::Cluster,
    object::Key,
    record::{
        endpoint::{Address, Endpoint},
        entry::Port,
        service::Target,
    },
};

/// The workload of a WorkloadEntry.
pub(super) fn build(cluster: &Cluster, key: &Key, gateways: &mut Vec<Key>) -> Option<Workload> {
    let space = cluster.seen(&key.namespace)?;
    let entry = space.workload_entries.get(&key.name)?;
    let from = &entry.endpoint;
    let target = |port: &Port| from.port(&port.name).unwrap_or(port.target);
    let mut services = entry::selected(cluster, space, key, &from.labels, target);
    for name in space.selecting.matching(&from.labels) {
        let Some(service) = space.services.get(name) else {
            continue;
        };
        let ports = service.ports.iter().filter_map(|port| {
            let target = match (&port.target, from.port(&port.name)) {
                (_, Some(own)) => own,
                (Target::Number(number), None) => *number,
                (Target::Name(name), None) => from.port(name)?,
            };
            Some((port.number, target))
        });
        let hostname = cluster.hostname(&key.namespace, name);
        serve(&mut services, &key.namespace, hostname, ports);
    }
    let subject = Subject::workload(&key.namespace, entry.binding.as_deref());
    let uid = format!(
        "{}/networking.istio.io/WorkloadEntry/{}/{}",
        cluster.names.cluster_id, key.namespace, key.name
    );
    Some(Workload {
        waypoint: waypoint::resolve(cluster, &subject, gateways).gateway,
        authorization_policies: policy::names(cluster, space, key, &from.labels),
        status: entry.health,
        services,
        ..workload(cluster, key, uid, from)
    })
}

/// What an endpoint says about itself.
pub(super) fn workload(cluster: &Cluster, key: &Key, uid: String, from: &Endpoint) -> Workload {
    let (canonical_name, canonical_revision) = canonical(&from.labels, &key.name);
    let base = base(cluster, key, uid);
    let (addresses, hostname) = match &from.address {
        Address::Ip(address) => (vec![*address], None),
        Address::Hostname(name) => (Vec::new(), Some(name.clone())),
    };
    Workload {
        addresses,
        hostname,
        service_account: from.service_account.clone(),
        network: from.network.clone().unwrap_or_else(|| base.network.clone()),
        protocol: from.tunnel,
        native_tunnel: from.native,
        canonical_name,
        canonical_revision,
        workload_name: key.name.clone(),
        locality: from.locality.clone(),
        capacity: from.capacity,
        ..base
    }
}

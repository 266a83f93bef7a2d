//! Pods to workloads.

use std::collections::BTreeMap;

use mesh_core::{
    address::NamespacedHostname,
    workload::{ApplicationTunnel, Health, Locality, PortMap, Workload},
};

use super::{
    base, canonical, entry, policy, serve,
    waypoint::{self, Subject},
};
use crate::{
    cluster::{Cluster, Space},
    object::Key,
    record::{
        pod::Pod,
        service::{Role, Service, Target},
    },
};

/// The workload of a pod; nothing if there is no such pod or its namespace is not looked at.
pub(super) fn build(cluster: &Cluster, key: &Key, gateways: &mut Vec<Key>) -> Option<Workload> {
    let space = cluster.seen(&key.namespace)?;
    let pod = space.pods.get(&key.name)?;
    let role = Role::of(&pod.labels);
    let subject = Subject {
        role: &role,
        ..Subject::workload(&key.namespace, pod.binding.as_deref())
    };
    let waypoint = waypoint::resolve(cluster, &subject, gateways).gateway;
    let node = cluster.nodes.get(&pod.node);
    let lost = node.is_some_and(|node| node.lost);
    let (protocol, native_tunnel) = pod.tunnel();
    let (canonical_name, canonical_revision) = canonical(&pod.labels, &pod.workload);
    let uid = format!(
        "{}//Pod/{}/{}",
        cluster.names.cluster_id, key.namespace, key.name
    );
    Some(Workload {
        service_account: pod.service_account.clone(),
        addresses: pod.addresses.to_vec(),
        protocol,
        network_mode: pod.network_mode,
        node: pod.node.clone(),
        canonical_name,
        canonical_revision,
        workload_name: pod.workload.clone(),
        workload_type: pod.workload_type,
        waypoint,
        application_tunnel: application_tunnel(cluster, key, &role, gateways),
        native_tunnel,
        status: if pod.ready && !lost {
            Health::Healthy
        } else {
            Health::Unhealthy
        },
        locality: node.map_or_else(Locality::default, |node| node.locality.clone()),
        authorization_policies: policy::names(cluster, space, key, &pod.labels),
        services: services(cluster, space, key, pod),
        ..base(cluster, key, uid)
    })
}

/// How a Gateway's pods want to be handed their connections.
fn application_tunnel(
    cluster: &Cluster,
    key: &Key,
    role: &Role,
    gateways: &mut Vec<Key>,
) -> Option<ApplicationTunnel> {
    let Role::Gateway { name, .. } = role else {
        return None;
    };
    let gateway = Key {
        namespace: key.namespace.clone(),
        name: name.clone(),
    };
    let terms = cluster.gateway(&gateway).map(|(_, terms)| terms);
    gateways.push(gateway);
    terms?.binding
}

/// The services that a pod backs. Where a ServiceEntry and a Service have the same name, the ports of
/// the Service count.
fn services(
    cluster: &Cluster,
    space: &Space,
    key: &Key,
    pod: &Pod,
) -> BTreeMap<NamespacedHostname, PortMap> {
    let mut services = entry::selected(cluster, space, key, &pod.labels, |port| port.target);
    let mut add = |name: &str, ports: &mut dyn Iterator<Item = (u16, u16)>| {
        let hostname = cluster.hostname(&key.namespace, name);
        serve(&mut services, &key.namespace, hostname, ports);
    };
    for name in space.selecting.matching(&pod.labels) {
        if let Some(service) = space.services.get(name) {
            add(name, &mut targets(service, pod));
        }
    }
    for slice in space.slices_with.get(&key.name).into_iter().flatten() {
        let slice = space.slices.get(slice);
        let service = slice.and_then(|slice| space.unselecting(&slice.service));
        if let (Some(slice), Some(service)) = (slice, service) {
            let ports = service.ports.iter();
            let mut ports = ports.filter_map(|port| Some((port.number, slice.port(&port.name)?)));
            add(&slice.service, &mut ports);
        }
    }
    services
}

/// Where a service's ports lead on a pod. A name that the pod does not have leads nowhere.
fn targets<'a>(service: &'a Service, pod: &'a Pod) -> impl Iterator<Item = (u16, u16)> + 'a {
    service.ports.iter().filter_map(|port| {
        let target = match &port.target {
            Target::Number(number) => *number,
            Target::Name(name) => {
                let mut named = pod.ports.iter();
                named.find(|known| known.name == *name)?.number
            }
        };
        Some((port.number, target))
    })
}

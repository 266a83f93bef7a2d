//! Endpoints that are no pods to workloads.

use std::collections::BTreeMap;

use mesh_core::workload::{Health, NetworkMode, Workload};

use super::{base, serve};
use crate::{cluster::Cluster, object::Key};

/// The workloads of a slice. Anyone who may write endpoints may write any address into them, so they
/// are never found by their address, have no identity of their own and no tunnel.
pub(super) fn build(cluster: &Cluster, key: &Key) -> Vec<Workload> {
    let Some(space) = cluster.seen(&key.namespace) else {
        return Vec::new();
    };
    let slice = space.slices.get(&key.name);
    let service = slice.and_then(|slice| space.services.get(&slice.service));
    let (Some(slice), Some(service)) = (slice, service) else {
        return Vec::new();
    };
    let mut services = BTreeMap::new();
    let ports = service.ports.iter();
    let ports = ports.filter_map(|port| Some((port.number, slice.port(&port.name)?)));
    let hostname = cluster.hostname(&key.namespace, &slice.service);
    serve(&mut services, &key.namespace, hostname, ports);
    let endpoints = slice.endpoints.iter().map(|endpoint| {
        let uid = format!(
            "{}/discovery.k8s.io/EndpointSlice/{}/{}/{}",
            cluster.names.cluster_id, key.namespace, key.name, endpoint.address
        );
        Workload {
            addresses: vec![endpoint.address],
            network_mode: NetworkMode::HostNetwork,
            canonical_name: slice.service.clone(),
            canonical_revision: "latest".into(),
            workload_name: slice.service.clone(),
            status: if endpoint.ready {
                Health::Healthy
            } else {
                Health::Unhealthy
            },
            services: services.clone(),
            ..base(cluster, key, uid)
        }
    });
    endpoints.collect()
}

//! From records to what is said: pure functions, one for each kind of unit.

use std::sync::Arc;

use mesh_core::{
    address::NamespacedHostname,
    change::Change,
    workload::{PortMap, Workload, WorkloadType},
};

use crate::{cluster::Cluster, object::Key, published::Built, text::Labels, unit::Unit};

pub(crate) mod endpoint;
pub(crate) mod entry;
pub(crate) mod pod;
pub(crate) mod policy;
pub(crate) mod service;
pub(crate) mod slice;
pub(crate) mod status;
pub(crate) mod waypoint;

/// What discovery says of a unit; nothing for a status.
pub(crate) fn unit(cluster: &Cluster, unit: &Unit) -> Built {
    let mut gateways = Vec::new();
    let changes = match unit {
        Unit::Policy(key) => one(policy::build(cluster, key), Change::Policy),
        Unit::Host(key) => one(service::build(cluster, key, &mut gateways), Change::Service),
        Unit::Pod(key) => one(pod::build(cluster, key, &mut gateways), Change::Workload),
        Unit::WorkloadEntry(key) => {
            let workload = endpoint::build(cluster, key, &mut gateways);
            one(workload, Change::Workload)
        }
        Unit::Entry(key) => workloads(entry::build(cluster, key, &mut gateways)),
        Unit::Slice(key) => workloads(slice::build(cluster, key)),
        Unit::Status(..) | Unit::Addresses(_) => Vec::new(),
    };
    Built { changes, gateways }
}

fn one<T>(value: Option<T>, change: impl Fn(T) -> Change) -> Vec<Change> {
    value.into_iter().map(change).collect()
}

fn workloads(workloads: Vec<Workload>) -> Vec<Change> {
    workloads.into_iter().map(Change::Workload).collect()
}

/// A workload with what all of the cluster share.
fn base(cluster: &Cluster, key: &Key, uid: impl Into<Arc<str>>) -> Workload {
    let names = &cluster.names;
    Workload {
        name: key.name.clone(),
        namespace: key.namespace.clone(),
        trust_domain: names.trust_domain.clone(),
        network: names.network.clone(),
        cluster_id: names.cluster_id.clone(),
        workload_type: WorkloadType::Pod,
        ..Workload::with_uid(uid)
    }
}

/// The application and version that labels name for telemetry.
fn canonical(labels: &Labels, workload: &Arc<str>) -> (Arc<str>, Arc<str>) {
    use mesh_api::labels as l;

    let name = labels.first(&[l::CANONICAL_NAME, l::APP_NAME, l::APP]);
    let revision = labels.first(&[l::CANONICAL_REVISION, l::APP_VERSION, l::VERSION]);
    (
        name.unwrap_or(workload).clone(),
        revision.map_or_else(|| "latest".into(), Arc::clone),
    )
}

/// Adds ports to those that a workload serves for a service.
fn serve(
    services: &mut std::collections::BTreeMap<NamespacedHostname, PortMap>,
    namespace: &Arc<str>,
    hostname: Arc<str>,
    ports: impl Iterator<Item = (u16, u16)>,
) {
    let key = NamespacedHostname {
        namespace: namespace.clone(),
        hostname,
    };
    services.entry(key).or_default().extend(ports);
}

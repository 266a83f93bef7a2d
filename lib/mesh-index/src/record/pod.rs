//! Pods.

use std::{net::IpAddr, sync::Arc};

use k8s_openapi::api::core::v1;
use mesh_api::{annotations, labels};
use mesh_core::workload::{NetworkMode, TunnelProtocol, WorkloadType};

use super::{Reader, annotation, binding::Binding, owner};
use crate::text::{Labels, NamedPort};

/// What is kept of a pod that can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) labels: Labels,
    /// At least one.
    pub(crate) addresses: Box<[IpAddr]>,
    pub(crate) node: Arc<str>,
    pub(crate) service_account: Arc<str>,
    pub(crate) workload: Arc<str>,
    pub(crate) workload_type: WorkloadType,
    /// Container ports with a name, for services that target it.
    pub(crate) ports: Arc<[NamedPort]>,
    pub(crate) network_mode: NetworkMode,
    /// Whether the pod says that it takes traffic. Its node may say otherwise.
    pub(crate) ready: bool,
    /// Whether the CNI agent has put the pod in the mesh.
    pub(crate) enrolled: bool,
    pub(crate) binding: Option<Box<Binding>>,
}

/// Addresses of a pod that are looked at; Kubernetes gives one per family.
const MAX_ADDRESSES: usize = 8;
/// Named ports of a pod that are looked at.
const MAX_PORTS: usize = 256;

impl Pod {
    /// What is kept of a pod; nothing if it has ended or has no address.
    pub(crate) fn read(pod: &v1::Pod, reader: &mut Reader<'_>) -> Option<Self> {
        let status = pod.status.as_ref()?;
        if ended(status) {
            return None;
        }
        let addresses = addresses(status, reader);
        if addresses.is_empty() {
            return None;
        }
        let spec = pod.spec.as_ref()?;
        let (workload, workload_type) = owner::workload(pod);
        let namespace = reader.key().namespace.clone();
        Some(Self {
            labels: reader.labels(&pod.metadata),
            addresses,
            node: reader.optional(spec.node_name.as_deref()),
            service_account: reader.text(service_account(spec)),
            workload: reader.text(workload),
            workload_type,
            ports: named_ports(spec, reader),
            network_mode: match spec.host_network {
                Some(true) => NetworkMode::HostNetwork,
                _ => NetworkMode::Standard,
            },
            ready: ready(status) && pod.metadata.deletion_timestamp.is_none(),
            enrolled: annotation(&pod.metadata, annotations::REDIRECTION)
                == Some(annotations::REDIRECTION_ENABLED),
            binding: Binding::read(&pod.metadata, &namespace, reader),
        })
    }

    /// How the pod is reached, and whether it terminates tunnels without its node's proxy.
    pub(crate) fn tunnel(&self) -> (TunnelProtocol, bool) {
        let native = terminates_tunnels(&self.labels);
        if self.enrolled || native {
            (TunnelProtocol::Hbone, native)
        } else {
            (TunnelProtocol::None, false)
        }
    }
}

/// Whether a pod has ended for good.
pub(crate) fn ended(status: &v1::PodStatus) -> bool {
    matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"))
}

/// The account a pod runs as.
pub(crate) fn service_account(spec: &v1::PodSpec) -> &str {
    let named = spec.service_account_name.as_deref();
    let account = named.or(spec.service_account.as_deref());
    account
        .filter(|account| !account.is_empty())
        .unwrap_or("default")
}

/// Whether a workload says that it terminates tunnels itself.
pub(crate) fn terminates_tunnels(known: &Labels) -> bool {
    let protocols = known.get(labels::TUNNEL);
    protocols.is_some_and(|list| list.split(',').any(|protocol| protocol == "http"))
}

fn addresses(status: &v1::PodStatus, reader: &mut Reader<'_>) -> Box<[IpAddr]> {
    let many: Vec<_> = status.pod_ips.iter().flatten().map(|ip| &*ip.ip).collect();
    let texts = match (&many[..], status.pod_ip.as_deref()) {
        ([], Some(ip)) => vec![ip],
        _ => many,
    };
    let mut addresses = Vec::new();
    for (at, text) in reader
        .bounded("status.podIPs", &texts, MAX_ADDRESSES)
        .iter()
        .enumerate()
    {
        if text.is_empty() {
            continue;
        }
        let address = reader.ip(&format!("status.podIPs[{at}]"), text);
        addresses.extend(address.filter(|address| !addresses.contains(address)));
    }
    addresses.into()
}

fn ready(status: &v1::PodStatus) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The named ports of containers, those of native sidecars included.
fn named_ports(spec: &v1::PodSpec, reader: &mut Reader<'_>) -> Arc<[NamedPort]> {
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let containers = spec.containers.iter().chain(sidecars);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let mut named: Vec<NamedPort> = Vec::new();
    for port in ports {
        let (Some(name), true) = (&port.name, is_tcp(port.protocol.as_deref())) else {
            continue;
        };
        if named.len() == MAX_PORTS {
            reader.problem(
                "spec.containers",
                format!("name more than {MAX_PORTS} ports; the others are not found by name"),
            );
            break;
        }
        let Some(number) = reader.port("spec.containers.ports", port.container_port.into()) else {
            continue;
        };
        // Of several ports with one name, Kubernetes takes the first.
        if named.iter().all(|known| *known.name != **name) {
            let name = reader.text(name);
            named.push(NamedPort { name, number });
        }
    }
    reader.texts().ports(named)
}

/// Whether a port's protocol is TCP, which is also the default.
pub(crate) fn is_tcp(protocol: Option<&str>) -> bool {
    matches!(protocol, None | Some("" | "TCP"))
}

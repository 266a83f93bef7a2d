//! Endpoints that users write: WorkloadEntries, and the inline endpoints of ServiceEntries.

use std::{net::IpAddr, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mesh_api::{annotations, condition, networking, networking::WorkloadEntrySpec, status::Status};
use mesh_core::workload::{Health, Locality, TunnelProtocol};

use super::{Reader, annotation, binding::Binding, pod::terminates_tunnels};
use crate::text::{Labels, NamedPort};

/// What is kept of a WorkloadEntry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WorkloadEntry {
    pub(crate) endpoint: Endpoint,
    /// Whether it is reported to be ill.
    pub(crate) health: Health,
    pub(crate) binding: Option<Box<Binding>>,
    pub(crate) generation: i64,
    /// Whether the object's status holds a condition of ours.
    pub(crate) reported: bool,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) address: Address,
    pub(crate) labels: Labels,
    /// Port numbers by the names that a service gives them.
    pub(crate) ports: Arc<[NamedPort]>,
    /// Its network, if it is not the cluster's.
    pub(crate) network: Option<Arc<str>>,
    pub(crate) locality: Locality,
    pub(crate) capacity: u32,
    pub(crate) service_account: Arc<str>,
    pub(crate) tunnel: TunnelProtocol,
    /// Whether it terminates tunnels by itself.
    pub(crate) native: bool,
}

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Address {
    Ip(IpAddr),
    /// To be resolved by whoever connects.
    Hostname(Arc<str>),
}

/// Ports of an endpoint that are looked at; the schema allows 128.
const MAX_PORTS: usize = 256;
/// The condition by which health checks of WorkloadEntries report.
const HEALTHY: &str = "Healthy";

// === impl WorkloadEntry ===

impl WorkloadEntry {
    /// What is kept of a WorkloadEntry; nothing if it has no usable address.
    pub(crate) fn read(entry: &networking::WorkloadEntry, reader: &mut Reader<'_>) -> Option<Self> {
        let meta = &entry.metadata;
        let namespace = reader.key().namespace.clone();
        let mut endpoint = Endpoint::read("spec", &entry.spec, Some(meta), reader)?;
        let enrolled =
            annotation(meta, annotations::REDIRECTION) == Some(annotations::REDIRECTION_ENABLED);
        if enrolled {
            endpoint.tunnel = TunnelProtocol::Hbone;
        }
        let status = entry.status.as_ref();
        let ill = status.and_then(|status| status.condition(HEALTHY));
        Some(Self {
            endpoint,
            health: match ill.map(|condition| condition.status.as_str()) {
                Some(condition::status::FALSE) => Health::Unhealthy,
                _ => Health::Healthy,
            },
            binding: Binding::read(meta, &namespace, reader),
            generation: meta.generation.unwrap_or_default(),
            reported: reported(status),
        })
    }
}

/// Whether a status holds a condition of ours.
pub(crate) fn reported(status: Option<&Status>) -> bool {
    let ours = [
        condition::WAYPOINT_BOUND,
        condition::WAYPOINT_MISSING,
        condition::VISIBILITY_APPLIED,
    ];
    status.is_some_and(|status| ours.iter().any(|kind| status.condition(kind).is_some()))
}

// === impl Endpoint ===

impl Endpoint {
    /// An endpoint of the object; `meta` adds the labels of a WorkloadEntry.
    pub(crate) fn read(
        field: &str,
        spec: &WorkloadEntrySpec,
        meta: Option<&ObjectMeta>,
        reader: &mut Reader<'_>,
    ) -> Option<Self> {
        let address = address(field, spec, reader)?;
        let mut labels = spec.labels.clone();
        let own = meta.and_then(|meta| meta.labels.clone());
        labels.extend(own.unwrap_or_default());
        let labels = reader.label_map(Some(&labels));
        let native = terminates_tunnels(&labels);
        let weight = spec.weight.map(u32::try_from);
        if let Some(Err(_)) = weight {
            let reason = "is no number from 0 to 4294967295; the endpoint gets no traffic";
            reader.problem(format!("{field}.weight"), reason);
        }
        let account = spec.service_account.as_deref().unwrap_or_default();
        let network = spec.network.as_deref().filter(|n| !n.is_empty());
        Some(Self {
            address,
            ports: ports(field, spec, reader),
            network: network.map(|network| reader.text(network)),
            locality: locality(spec.locality.as_deref().unwrap_or_default(), reader),
            // Weight 0 means that none was set, as it does in Istio.
            capacity: match weight {
                None | Some(Ok(0)) => 1,
                Some(weight) => weight.unwrap_or(0),
            },
            service_account: reader.text(if account.is_empty() {
                "default"
            } else {
                account
            }),
            tunnel: if native {
                TunnelProtocol::Hbone
            } else {
                TunnelProtocol::None
            },
            native,
            labels,
        })
    }

    /// The number of the port that a service calls `name`, if the endpoint has its own.
    pub(crate) fn port(&self, name: &str) -> Option<u16> {
        let mut ports = self.ports.iter();
        ports.find(|port| *port.name == *name).map(|p| p.number)
    }
}

fn address(field: &str, spec: &WorkloadEntrySpec, reader: &mut Reader<'_>) -> Option<Address> {
    let field = format!("{field}.address");
    let text = spec.address.as_deref().unwrap_or_default();
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(Address::Ip(ip.to_canonical()));
    }
    if text.is_empty() {
        reader.problem(
            field,
            "is empty: endpoints behind a gateway are not supported",
        );
        return None;
    }
    if text.starts_with("unix://") {
        reader.problem(field, "is a Unix socket, which no tunnel leads to");
        return None;
    }
    reader.hostname(&field, text, false).map(Address::Hostname)
}

fn ports(field: &str, spec: &WorkloadEntrySpec, reader: &mut Reader<'_>) -> Arc<[NamedPort]> {
    let mut ports = Vec::new();
    for (name, number) in spec.ports.iter().take(MAX_PORTS) {
        if let Some(number) = reader.port(&format!("{field}.ports"), *number) {
            let name = reader.text(name);
            ports.push(NamedPort { name, number });
        }
    }
    if spec.ports.len() > MAX_PORTS {
        let reason = format!("has more than {MAX_PORTS} ports; the others are not used");
        reader.problem(format!("{field}.ports"), reason);
    }
    reader.texts().ports(ports)
}

/// `region/zone/subzone`.
fn locality(text: &str, reader: &mut Reader<'_>) -> Locality {
    let mut parts = text.splitn(3, '/');
    let mut part = || reader.text(parts.next().unwrap_or_default());
    Locality {
        region: part(),
        zone: part(),
        subzone: part(),
    }
}

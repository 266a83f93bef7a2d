//! Services.

use std::{net::IpAddr, sync::Arc};

use k8s_openapi::{
    api::core::v1, apimachinery::pkg::apis::meta::v1::ObjectMeta,
    apimachinery::pkg::util::intstr::IntOrString,
};
use mesh_api::{annotations, condition, labels};
use mesh_core::service::{AppProtocol, IpFamilies};

use super::{Reader, annotation, binding::Binding, excerpt, pod::is_tcp, protocol};
use crate::text::Labels;

/// What is kept of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    /// What tells a waypoint's own service and the mesh's from others.
    pub(crate) role: Role,
    /// The pods behind it; none for a service whose endpoints somebody else writes.
    pub(crate) selector: Labels,
    pub(crate) ports: Arc<[ServicePort]>,
    /// Virtual addresses; none for a headless service.
    pub(crate) addresses: Box<[IpAddr]>,
    pub(crate) families: IpFamilies,
    /// Whether clients stay on their node.
    pub(crate) local: bool,
    pub(crate) publish_not_ready: bool,
    pub(crate) distribution: Option<Distribution>,
    pub(crate) binding: Option<Box<Binding>>,
    /// Whether the object's status holds a condition of ours.
    pub(crate) reported: bool,
}

/// What an object is to the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Nothing special.
    Application,
    /// Part of a Gateway's own machinery.
    Gateway {
        /// The Gateway, in the object's namespace.
        name: Arc<str>,
        /// Whether a controller says that it made this for a waypoint or a gateway between networks.
        mesh: bool,
    },
    /// Part of the mesh, if it is in the mesh's namespace.
    System,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServicePort {
    /// The name; may be empty for the only port.
    pub(crate) name: Arc<str>,
    pub(crate) number: u16,
    pub(crate) target: Target,
    /// What is spoken, as far as it is stated.
    pub(crate) protocol: Option<AppProtocol>,
}

/// Where a service's port leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// To this port.
    Number(u16),
    /// To the container port of this name.
    Name(Arc<str>),
}

/// Which endpoints are preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Distribution {
    /// None.
    Any,
    /// Those in the client's zone.
    SameZone,
    /// Those on the client's node, then in its zone.
    SameNode,
}

/// Ports of a service that are looked at.
const MAX_PORTS: usize = 1024;
/// Addresses of a service that are looked at; Kubernetes gives one per family.
const MAX_ADDRESSES: usize = 8;

/// Values of the label that tells which controller made an object for a Gateway: those for waypoints and
/// for gateways between networks.
const MANAGED_MESH: [&str; 2] = ["istio.io-mesh-controller", "istio.io-eastwest-controller"];
/// Labels and values of the mesh's own components.
const SYSTEM_LABELS: [&str; 3] = [labels::APP, "k8s-app", labels::APP_NAME];
const SYSTEM_APPS: [&str; 4] = ["istiod", "ztunnel", "istio-cni-node", "istio-cni"];

// === impl Service ===

impl Service {
    /// What is kept of a service; nothing if it is an alias of an external name.
    pub(crate) fn read(service: &v1::Service, reader: &mut Reader<'_>) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        if spec.type_.as_deref() == Some("ExternalName") {
            return None;
        }
        let meta = &service.metadata;
        let own = reader.labels(meta);
        let namespace = reader.key().namespace.clone();
        let stated = spec.traffic_distribution.as_deref();
        let conditions = service.status.as_ref().and_then(|s| s.conditions.as_ref());
        let mut conditions = conditions.into_iter().flatten();
        Some(Self {
            role: Role::of(&own),
            selector: reader.label_map(spec.selector.as_ref()),
            ports: ports(spec, reader),
            addresses: addresses(spec, reader),
            families: families(spec),
            local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            publish_not_ready: spec.publish_not_ready_addresses == Some(true),
            // Values that are newer than this version state no preference it could follow.
            distribution: (stated.and_then(Distribution::parse))
                .or_else(|| distribution(meta, reader)),
            binding: Binding::read(meta, &namespace, reader),
            reported: conditions.any(|condition| condition.type_ == condition::WAYPOINT_BOUND),
        })
    }
}

fn ports(spec: &v1::ServiceSpec, reader: &mut Reader<'_>) -> Arc<[ServicePort]> {
    let all = spec.ports.as_deref().unwrap_or_default();
    let mut ports = Vec::new();
    for (at, port) in reader
        .bounded("spec.ports", all, MAX_PORTS)
        .iter()
        .enumerate()
    {
        if !is_tcp(port.protocol.as_deref()) {
            continue;
        }
        let Some(number) = reader.port(&format!("spec.ports[{at}].port"), port.port.into()) else {
            continue;
        };
        let field = format!("spec.ports[{at}].targetPort");
        let target = match &port.target_port {
            None | Some(IntOrString::Int(0)) => Some(Target::Number(number)),
            Some(IntOrString::Int(target)) => {
                reader.port(&field, (*target).into()).map(Target::Number)
            }
            Some(IntOrString::String(name)) => Some(match name.parse() {
                Ok(target) => Target::Number(target),
                Err(_) => Target::Name(reader.text(name)),
            }),
        };
        let name = reader.optional(port.name.as_deref());
        ports.extend(target.map(|target| ServicePort {
            name,
            number,
            target,
            protocol: protocol::of_service_port(port),
        }));
    }
    ports.into()
}

fn addresses(spec: &v1::ServiceSpec, reader: &mut Reader<'_>) -> Box<[IpAddr]> {
    let many = spec.cluster_ips.as_deref().unwrap_or_default();
    let one = spec.cluster_ip.as_slice();
    let texts = if many.is_empty() { one } else { many };
    let mut addresses = Vec::new();
    for (at, text) in reader
        .bounded("spec.clusterIPs", texts, MAX_ADDRESSES)
        .iter()
        .enumerate()
    {
        if text.is_empty() || text == "None" {
            continue;
        }
        let address = reader.ip(&format!("spec.clusterIPs[{at}]"), text);
        addresses.extend(address.filter(|address| !addresses.contains(address)));
    }
    addresses.into()
}

fn families(spec: &v1::ServiceSpec) -> IpFamilies {
    let families = spec.ip_families.as_deref().unwrap_or_default();
    let has = |family: &str| families.iter().any(|known| known == family);
    match (has("IPv4"), has("IPv6")) {
        (true, true) => IpFamilies::Dual,
        (true, false) => IpFamilies::Ipv4Only,
        (false, true) => IpFamilies::Ipv6Only,
        (false, false) => IpFamilies::Automatic,
    }
}

/// The preference that an annotation states.
pub(crate) fn distribution(meta: &ObjectMeta, reader: &mut Reader<'_>) -> Option<Distribution> {
    let text = annotation(meta, annotations::TRAFFIC_DISTRIBUTION)?;
    let distribution = Distribution::parse(text);
    if distribution.is_none() {
        reader.problem(
            format!(
                "metadata.annotations[{}]",
                annotations::TRAFFIC_DISTRIBUTION
            ),
            format!(
                "`{}` is unknown: use Any, PreferClose, PreferSameZone or PreferSameNode",
                excerpt(text)
            ),
        );
    }
    distribution
}

// === impl Distribution ===

impl Distribution {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "Any" => Some(Self::Any),
            "PreferClose" | "PreferSameZone" => Some(Self::SameZone),
            "PreferSameNode" => Some(Self::SameNode),
            _ => None,
        }
    }
}

// === impl Role ===

impl Role {
    /// What the labels of a pod or service say it is.
    pub(crate) fn of(own: &Labels) -> Self {
        let managed = own.get(labels::GATEWAY_MANAGED);
        let mesh = managed.is_some_and(|by| MANAGED_MESH.contains(&&**by));
        if let Some(name) = own.get(labels::GATEWAY_NAME) {
            return Self::Gateway {
                name: name.clone(),
                mesh,
            };
        }
        let system = |key: &&str| {
            let app = own.get(key);
            app.is_some_and(|app| SYSTEM_APPS.contains(&&**app))
        };
        if SYSTEM_LABELS.iter().any(system) {
            return Self::System;
        }
        Self::Application
    }
}

//! Gateways and their classes, as far as they are waypoints.

use std::{net::IpAddr, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mesh_api::{
    annotations,
    gateway::{self, Listener},
    labels,
    selector::Selector,
};
use mesh_core::workload::{ApplicationProtocol, ApplicationTunnel};

use super::{Reader, annotation, excerpt};

/// What is kept of a Gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gateway {
    pub(crate) class: Arc<str>,
    pub(crate) listeners: Box<[Port]>,
    /// Where it is reached; nothing as long as it is not ready.
    pub(crate) address: Option<Address>,
    pub(crate) terms: Terms,
}

/// What is kept of a GatewayClass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Class {
    pub(crate) terms: Terms,
}

/// What a Gateway or its class says about its service as a waypoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    /// The traffic it takes.
    pub(crate) traffic: Option<TrafficType>,
    /// How it takes connections if not as HBONE.
    pub(crate) binding: Option<ApplicationTunnel>,
}

/// The traffic that a waypoint takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TrafficType {
    Service,
    Workload,
    All,
    None,
}

/// Where a Gateway is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Hostname(Arc<str>),
    Ip(IpAddr),
}

/// A port that a Gateway listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) number: u16,
    pub(crate) hbone: bool,
    pub(crate) allowed: Allowed,
}

/// The namespaces whose objects may be attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Allowed {
    None,
    /// The Gateway's own.
    Same,
    All,
    Selected(Box<Selector>),
}

/// Listeners of a Gateway that are looked at; the Gateway API allows as many.
const MAX_LISTENERS: usize = 64;

// === impl Gateway ===

impl Gateway {
    pub(crate) fn read(gateway: &gateway::Gateway, reader: &mut Reader<'_>) -> Self {
        let spec = &gateway.spec;
        let mut listeners = Vec::new();
        let all = reader.bounded("spec.listeners", &spec.listeners, MAX_LISTENERS);
        for (at, listener) in all.iter().enumerate() {
            let field = format!("spec.listeners[{at}]");
            if let Some(number) = reader.port(&format!("{field}.port"), listener.port) {
                listeners.push(Port {
                    number,
                    hbone: listener.protocol == "HBONE",
                    allowed: allowed(&field, listener, reader),
                });
            }
        }
        Self {
            class: reader.text(&spec.gateway_class_name),
            listeners: listeners.into(),
            address: address(gateway, reader),
            terms: Terms::read(&gateway.metadata, reader),
        }
    }

    /// The listener on that port.
    pub(crate) fn listener(&self, port: u16) -> Option<&Port> {
        self.listeners.iter().find(|l| l.number == port)
    }
}

/// A host name if there is one, else the first address.
fn address(gateway: &gateway::Gateway, reader: &mut Reader<'_>) -> Option<Address> {
    let addresses = gateway.status.as_ref().map(|status| &status.addresses[..]);
    let addresses = reader.bounded("status.addresses", addresses.unwrap_or_default(), 16);
    let mut ip = None;
    for (at, address) in addresses.iter().enumerate() {
        let value = address.value.as_deref().unwrap_or_default();
        let field = format!("status.addresses[{at}].value");
        match address.type_.as_deref() {
            Some("Hostname") => {
                if let Some(name) = reader.hostname(&field, value, false) {
                    return Some(Address::Hostname(name));
                }
            }
            None | Some("IPAddress") => ip = ip.or_else(|| reader.ip(&field, value)),
            // Types of other implementations say nothing to us.
            Some(_) => {}
        }
    }
    ip.map(Address::Ip)
}

fn allowed(field: &str, listener: &Listener, reader: &mut Reader<'_>) -> Allowed {
    let routes = listener.allowed_routes.as_ref();
    let Some(namespaces) = routes.and_then(|routes| routes.namespaces.as_ref()) else {
        return Allowed::Same;
    };
    let field = format!("{field}.allowedRoutes.namespaces");
    match (namespaces.from.as_deref(), &namespaces.selector) {
        (None | Some("Same"), _) => Allowed::Same,
        (Some("All"), _) => Allowed::All,
        (Some("None"), _) => Allowed::None,
        (Some("Selector"), Some(selector)) => match Selector::try_new(selector) {
            Ok(selector) => Allowed::Selected(Box::new(selector)),
            Err(error) => {
                reader.problem(format!("{field}.selector"), error.to_string());
                Allowed::None
            }
        },
        (Some("Selector"), None) => {
            reader.problem(field, "from: Selector needs a selector; nothing is allowed");
            Allowed::None
        }
        (Some(other), _) => {
            let reason = format!("`{}` is unknown; nothing is allowed", excerpt(other));
            reader.problem(format!("{field}.from"), reason);
            Allowed::None
        }
    }
}

// === impl Class ===

impl Class {
    pub(crate) fn read(class: &gateway::GatewayClass, reader: &mut Reader<'_>) -> Self {
        Self {
            terms: Terms::read(&class.metadata, reader),
        }
    }
}

// === impl Terms ===

impl Terms {
    fn read(meta: &ObjectMeta, reader: &mut Reader<'_>) -> Self {
        Self {
            traffic: traffic(meta, reader),
            binding: binding(meta, reader),
        }
    }

    /// These, and where they say nothing, the others.
    pub(crate) fn or(self, others: Self) -> Self {
        Self {
            traffic: self.traffic.or(others.traffic),
            binding: self.binding.or(others.binding),
        }
    }
}

fn traffic(meta: &ObjectMeta, reader: &mut Reader<'_>) -> Option<TrafficType> {
    use labels::waypoint_for as value;

    match meta.labels.as_ref()?.get(labels::WAYPOINT_FOR)?.as_str() {
        value::SERVICE => Some(TrafficType::Service),
        value::WORKLOAD => Some(TrafficType::Workload),
        value::ALL => Some(TrafficType::All),
        value::NONE => Some(TrafficType::None),
        other => {
            reader.problem(
                format!("metadata.labels[{}]", labels::WAYPOINT_FOR),
                format!(
                    "`{}` is unknown: use service, workload, all or none",
                    excerpt(other)
                ),
            );
            // All: what this waypoint was meant for must not go past it.
            Some(TrafficType::All)
        }
    }
}

/// `PROTOCOL` or `PROTOCOL/port`.
fn binding(meta: &ObjectMeta, reader: &mut Reader<'_>) -> Option<ApplicationTunnel> {
    let text = annotation(meta, annotations::WAYPOINT_INBOUND_BINDING)?;
    let (protocol, port) = match text.split_once('/') {
        Some((protocol, port)) => (protocol, Some(port)),
        None => (text, None),
    };
    let protocol = match protocol {
        "NONE" => Some(ApplicationProtocol::None),
        "PROXY" => Some(ApplicationProtocol::Proxy),
        _ => None,
    };
    let port = port.map(|port| port.parse::<u16>().ok().filter(|port| *port > 0));
    match (protocol, port) {
        (Some(protocol), None) => Some(ApplicationTunnel {
            protocol,
            port: None,
        }),
        (Some(protocol), Some(Some(port))) => Some(ApplicationTunnel {
            protocol,
            port: Some(port),
        }),
        _ => {
            reader.problem(
                format!(
                    "metadata.annotations[{}]",
                    annotations::WAYPOINT_INBOUND_BINDING
                ),
                format!(
                    "`{}` is unknown: use PROXY or NONE, and `/port`",
                    excerpt(text)
                ),
            );
            None
        }
    }
}

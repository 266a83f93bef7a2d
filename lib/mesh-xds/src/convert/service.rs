//! Services.

use std::collections::BTreeMap;

use mesh_core::{
    address::{NetworkAddress, NetworkCidr},
    service::{
        AppProtocol, BalancingMode, HealthPolicy, IpFamilies, LoadBalancing, Scope, Service,
        Visibility, WeightedWaypoint,
    },
};
use mesh_proto::workload as proto;

use super::{
    Error, InField, Interner, Problem, gateway, ip, ip_bytes, known, list, range, required,
    workload::port_map,
};

/// A virtual address of the wire: one address, or a range.
enum Vip {
    Address(NetworkAddress),
    Cidr(NetworkCidr),
}

/// A service of the wire.
pub fn from_proto(message: proto::Service, texts: &mut Interner) -> Result<Service, Error> {
    let mut vips = Vec::new();
    let mut cidr_vips = Vec::new();
    for vip in list("addresses", &message.addresses, |address| {
        vip(address, texts)
    })? {
        match vip {
            Vip::Address(address) => vips.push(address),
            Vip::Cidr(cidr) => cidr_vips.push(cidr),
        }
    }
    Ok(Service {
        name: message.name.into(),
        namespace: texts.share(required(&message.namespace).field("namespace")?),
        hostname: texts.share(required(&message.hostname).field("hostname")?),
        vips,
        cidr_vips,
        app_protocols: app_protocols(&message.ports),
        ports: port_map(message.ports)?,
        subject_alt_names: list("subject_alt_names", &message.subject_alt_names, |name| {
            required(name).map(|name| texts.share(name))
        })?,
        waypoint: message
            .waypoint
            .map(|gateway| gateway::from_proto(&gateway, texts))
            .transpose()
            .field("waypoint")?,
        weighted_waypoints: list(
            "weighted_waypoints",
            &message.weighted_waypoints,
            |choice| weighted_waypoint(choice, texts),
        )?,
        ingress_use_waypoint: message.ingress_use_waypoint,
        load_balancing: message
            .load_balancing
            .map(|balancing| load_balancing(&balancing))
            .transpose()
            .field("load_balancing")?,
        ip_families: ip_families(message.ip_families).field("ip_families")?,
        canonical: message.canonical,
        visibility: visibility(message.visibility).field("visibility")?,
    })
}

/// A service for the wire.
pub fn to_proto(service: &Service) -> proto::Service {
    let single = service.vips.iter().map(|vip| proto::NetworkAddress {
        network: vip.network.to_string(),
        address: ip_bytes(vip.address),
        length: None,
    });
    let ranges = service.cidr_vips.iter().map(|vip| proto::NetworkAddress {
        network: vip.network.to_string(),
        address: ip_bytes(vip.cidr.addr()),
        length: Some(vip.cidr.prefix_len().into()),
    });
    proto::Service {
        name: service.name.to_string(),
        namespace: service.namespace.to_string(),
        hostname: service.hostname.to_string(),
        addresses: single.chain(ranges).collect(),
        ports: ports_to_proto(service),
        subject_alt_names: service
            .subject_alt_names
            .iter()
            .map(ToString::to_string)
            .collect(),
        waypoint: service.waypoint.as_ref().map(gateway::to_proto),
        load_balancing: service.load_balancing.as_ref().map(load_balancing_to_proto),
        ip_families: match service.ip_families {
            IpFamilies::Automatic => proto::IpFamilies::Automatic,
            IpFamilies::Ipv4Only => proto::IpFamilies::Ipv4Only,
            IpFamilies::Ipv6Only => proto::IpFamilies::Ipv6Only,
            IpFamilies::Dual => proto::IpFamilies::Dual,
        }
        .into(),
        canonical: service.canonical,
        ingress_use_waypoint: service.ingress_use_waypoint,
        weighted_waypoints: service
            .weighted_waypoints
            .iter()
            .map(|choice| proto::WeightedWaypoint {
                destination: Some(gateway::to_proto(&choice.destination)),
                weight: choice.weight,
            })
            .collect(),
        visibility: match service.visibility {
            Visibility::Public => proto::Visibility::Public,
            Visibility::Namespace => proto::Visibility::Namespace,
        }
        .into(),
    }
}

/// What is spoken on each port. A value that is newer than this version is left out and not an error: the
/// service can be reached all the same.
fn app_protocols(ports: &[proto::Port]) -> BTreeMap<u16, AppProtocol> {
    let known = |port: &proto::Port| {
        let protocol = match known(port.app_protocol).ok()? {
            proto::AppProtocol::Unknown => return None,
            proto::AppProtocol::Http11 => AppProtocol::Http11,
            proto::AppProtocol::Http2 => AppProtocol::Http2,
            proto::AppProtocol::Grpc => AppProtocol::Grpc,
            proto::AppProtocol::Tcp => AppProtocol::Tcp,
            proto::AppProtocol::Tls => AppProtocol::Tls,
        };
        Some((u16::try_from(port.service_port).ok()?, protocol))
    };
    ports.iter().filter_map(known).collect()
}

fn ports_to_proto(service: &Service) -> Vec<proto::Port> {
    let port = |(number, target): (&u16, &u16)| proto::Port {
        service_port: u32::from(*number),
        target_port: u32::from(*target),
        app_protocol: match service.app_protocols.get(number) {
            None => proto::AppProtocol::Unknown,
            Some(AppProtocol::Http11) => proto::AppProtocol::Http11,
            Some(AppProtocol::Http2) => proto::AppProtocol::Http2,
            Some(AppProtocol::Grpc) => proto::AppProtocol::Grpc,
            Some(AppProtocol::Tcp) => proto::AppProtocol::Tcp,
            Some(AppProtocol::Tls) => proto::AppProtocol::Tls,
        }
        .into(),
    };
    service.ports.iter().map(port).collect()
}

fn vip(message: &proto::NetworkAddress, texts: &mut Interner) -> Result<Vip, Error> {
    let network = texts.share(&message.network);
    Ok(match message.length {
        None => Vip::Address(NetworkAddress {
            address: ip(&message.address).field("address")?,
            network,
        }),
        Some(length) => Vip::Cidr(NetworkCidr {
            cidr: range(&message.address, length)?,
            network,
        }),
    })
}

fn weighted_waypoint(
    message: &proto::WeightedWaypoint,
    texts: &mut Interner,
) -> Result<WeightedWaypoint, Error> {
    let destination = (message.destination.as_ref())
        .ok_or_else(|| Problem::Missing.into())
        .and_then(|gateway| gateway::from_proto(gateway, texts));
    Ok(WeightedWaypoint {
        destination: destination.field("destination")?,
        weight: message.weight,
    })
}

fn load_balancing(message: &proto::LoadBalancing) -> Result<LoadBalancing, Error> {
    use proto::load_balancing as wire;

    Ok(LoadBalancing {
        routing_preference: list("routing_preference", &message.routing_preference, |value| {
            scope(*value)
        })?,
        mode: match known(message.mode).field("mode")? {
            wire::Mode::UnspecifiedMode => BalancingMode::Standard,
            wire::Mode::Strict => BalancingMode::Strict,
            wire::Mode::Failover => BalancingMode::Failover,
            wire::Mode::Passthrough => BalancingMode::Passthrough,
        },
        health_policy: match known(message.health_policy).field("health_policy")? {
            wire::HealthPolicy::OnlyHealthy => HealthPolicy::OnlyHealthy,
            wire::HealthPolicy::AllowAll => HealthPolicy::AllowAll,
        },
    })
}

fn load_balancing_to_proto(balancing: &LoadBalancing) -> proto::LoadBalancing {
    use proto::load_balancing as wire;

    let scope = |scope: &Scope| match scope {
        Scope::Region => wire::Scope::Region.into(),
        Scope::Zone => wire::Scope::Zone.into(),
        Scope::Subzone => wire::Scope::Subzone.into(),
        Scope::Node => wire::Scope::Node.into(),
        Scope::Cluster => wire::Scope::Cluster.into(),
        Scope::Network => wire::Scope::Network.into(),
    };
    proto::LoadBalancing {
        routing_preference: balancing.routing_preference.iter().map(scope).collect(),
        mode: match balancing.mode {
            BalancingMode::Standard => wire::Mode::UnspecifiedMode,
            BalancingMode::Strict => wire::Mode::Strict,
            BalancingMode::Failover => wire::Mode::Failover,
            BalancingMode::Passthrough => wire::Mode::Passthrough,
        }
        .into(),
        health_policy: match balancing.health_policy {
            HealthPolicy::OnlyHealthy => wire::HealthPolicy::OnlyHealthy,
            HealthPolicy::AllowAll => wire::HealthPolicy::AllowAll,
        }
        .into(),
    }
}

fn scope(value: i32) -> Result<Scope, Problem> {
    use proto::load_balancing::Scope as Wire;

    Ok(match known(value)? {
        Wire::UnspecifiedScope => return Err(Problem::Missing),
        Wire::Region => Scope::Region,
        Wire::Zone => Scope::Zone,
        Wire::Subzone => Scope::Subzone,
        Wire::Node => Scope::Node,
        Wire::Cluster => Scope::Cluster,
        Wire::Network => Scope::Network,
    })
}

fn ip_families(value: i32) -> Result<IpFamilies, Problem> {
    Ok(match known(value)? {
        proto::IpFamilies::Automatic => IpFamilies::Automatic,
        proto::IpFamilies::Ipv4Only => IpFamilies::Ipv4Only,
        proto::IpFamilies::Ipv6Only => IpFamilies::Ipv6Only,
        proto::IpFamilies::Dual => IpFamilies::Dual,
    })
}

fn visibility(value: i32) -> Result<Visibility, Problem> {
    Ok(match known(value)? {
        proto::Visibility::Public => Visibility::Public,
        proto::Visibility::Namespace => Visibility::Namespace,
    })
}

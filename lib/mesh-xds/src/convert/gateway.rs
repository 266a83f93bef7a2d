//! Addresses and host names within a network.

use mesh_core::{
    address::{GatewayAddress, GatewayDestination, NamespacedHostname, NetworkAddress},
    route::HBONE_PORT,
};
use mesh_proto::workload as proto;

use super::{Error, InField, Problem, ip, ip_bytes, port, required};

/// A gateway of the wire. Port 0 stands for 15008.
pub fn from_proto(message: proto::GatewayAddress) -> Result<GatewayAddress, Error> {
    use proto::gateway_address::Destination;

    let destination = match message.destination {
        Some(Destination::Hostname(name)) => {
            GatewayDestination::Hostname(hostname(name).field("hostname")?)
        }
        Some(Destination::Address(address)) => {
            GatewayDestination::Address(network_address(address).field("address")?)
        }
        None => return Err(Problem::Missing).field("destination"),
    };
    let hbone_mtls_port = match port(message.hbone_mtls_port).field("hbone_mtls_port")? {
        0 => HBONE_PORT,
        port => port,
    };
    Ok(GatewayAddress {
        destination,
        hbone_mtls_port,
    })
}

/// A gateway for the wire.
pub fn to_proto(gateway: &GatewayAddress) -> proto::GatewayAddress {
    use proto::gateway_address::Destination;

    let destination = match &gateway.destination {
        GatewayDestination::Hostname(name) => Destination::Hostname(proto::NamespacedHostname {
            namespace: name.namespace.to_string(),
            hostname: name.hostname.to_string(),
        }),
        GatewayDestination::Address(address) => Destination::Address(proto::NetworkAddress {
            network: address.network.to_string(),
            address: ip_bytes(address.address),
            length: None,
        }),
    };
    proto::GatewayAddress {
        destination: Some(destination),
        hbone_mtls_port: gateway.hbone_mtls_port.into(),
    }
}

/// A service's name from a key of the form `namespace/hostname`.
pub(super) fn service_name(key: &str) -> Result<NamespacedHostname, Problem> {
    match key.split_once('/') {
        Some((namespace, hostname)) if !namespace.is_empty() && !hostname.is_empty() => {
            Ok(NamespacedHostname {
                namespace: namespace.into(),
                hostname: hostname.into(),
            })
        }
        _ => Err(Problem::ServiceName(super::excerpt(key))),
    }
}

fn hostname(message: proto::NamespacedHostname) -> Result<NamespacedHostname, Error> {
    Ok(NamespacedHostname {
        namespace: required(message.namespace).field("namespace")?,
        hostname: required(message.hostname).field("hostname")?,
    })
}

fn network_address(message: proto::NetworkAddress) -> Result<NetworkAddress, Error> {
    if message.length.is_some() {
        return Err(Problem::Unsupported("a range")).field("length");
    }
    Ok(NetworkAddress {
        address: ip(&message.address).field("address")?,
        network: message.network.into(),
    })
}

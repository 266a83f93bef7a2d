//! Addresses and host names within a network.

use mesh_core::{
    address::{GatewayAddress, GatewayDestination, NamespacedHostname, NetworkAddress},
    route::HBONE_PORT,
};
use mesh_proto::workload as proto;

use super::{Error, InField, Interner, Problem, ip, ip_bytes, port, required};

/// A gateway of the wire. Port 0 stands for 15008.
pub fn from_proto(
    message: &proto::GatewayAddress,
    texts: &mut Interner,
) -> Result<GatewayAddress, Error> {
    use proto::gateway_address::Destination;

    let destination = match &message.destination {
        Some(Destination::Hostname(name)) => {
            GatewayDestination::Hostname(hostname(name, texts).field("hostname")?)
        }
        Some(Destination::Address(address)) => {
            GatewayDestination::Address(network_address(address, texts).field("address")?)
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
pub(super) fn service_name(key: &str, texts: &mut Interner) -> Result<NamespacedHostname, Problem> {
    match key.split_once('/') {
        Some((namespace, hostname)) if !namespace.is_empty() && !hostname.is_empty() => {
            Ok(NamespacedHostname {
                namespace: texts.share(namespace),
                hostname: texts.share(hostname),
            })
        }
        _ => Err(Problem::ServiceName(super::excerpt(key))),
    }
}

fn hostname(
    message: &proto::NamespacedHostname,
    texts: &mut Interner,
) -> Result<NamespacedHostname, Error> {
    Ok(NamespacedHostname {
        // Empty for a gateway that is no Kubernetes object; such a name is found nowhere, which fails
        // closed when a connection needs it.
        namespace: texts.share(&message.namespace),
        hostname: texts.share(required(&message.hostname).field("hostname")?),
    })
}

fn network_address(
    message: &proto::NetworkAddress,
    texts: &mut Interner,
) -> Result<NetworkAddress, Error> {
    if message.length.is_some() {
        return Err(Problem::Unsupported("a range")).field("length");
    }
    Ok(NetworkAddress {
        address: ip(&message.address).field("address")?,
        network: texts.share(&message.network),
    })
}

//! Addresses as the mesh sees them: an IP address belongs to a network, and a gateway may be named by
//! address or by host name.

use std::{fmt, net::IpAddr, sync::Arc};

use ipnet::IpNet;

/// An IP address within one network of the mesh. The empty network is the default one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetworkAddress {
    /// The network's id, as in `ISTIO_META_NETWORK`; may be empty.
    pub network: Arc<str>,
    /// The address, never an IPv4-mapped IPv6 one.
    pub address: IpAddr,
}

/// A range of addresses within one network, for services whose addresses are given as CIDR.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetworkCidr {
    /// The network's id; may be empty.
    pub network: Arc<str>,
    /// The range, with host bits zero.
    pub cidr: IpNet,
}

/// A host name in a namespace; prints as `namespace/hostname`, the key of a service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamespacedHostname {
    /// The Kubernetes namespace.
    pub namespace: Arc<str>,
    /// The fully qualified host name.
    pub hostname: Arc<str>,
}

/// Where a waypoint or a network gateway is found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GatewayAddress {
    /// The gateway itself.
    pub destination: GatewayDestination,
    /// The port on which it accepts HBONE, 15008 unless said otherwise.
    pub hbone_mtls_port: u16,
}

/// How a gateway is named.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum GatewayDestination {
    /// By the address of a workload or a service.
    Address(NetworkAddress),
    /// By the host name of a service or a workload.
    Hostname(NamespacedHostname),
}

impl fmt::Display for NetworkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.address)
    }
}

impl fmt::Display for NetworkCidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.cidr)
    }
}

impl fmt::Display for NamespacedHostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.hostname)
    }
}

//! Where a connection goes: the outcome of routing, and the decision table behind it.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use crate::{address::NamespacedHostname, identity::Identity, workload::Workload};

/// The port on which every ztunnel and waypoint accepts HBONE.
pub const HBONE_PORT: u16 = 15008;

/// Where an outbound connection goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// Nothing of the mesh: plain TCP to the original destination.
    Passthrough {
        /// The original destination.
        target: SocketAddr,
        /// The service that was addressed, if it says `PASSTHROUGH`.
        service: Option<Arc<ServiceRef>>,
    },
    /// A known workload without a tunnel: plain TCP to it.
    Direct {
        /// The workload.
        workload: Arc<Workload>,
        /// Its address and port.
        target: SocketAddr,
        /// The service that was addressed.
        service: Option<Arc<ServiceRef>>,
    },
    /// A tunnel to the destination's ztunnel, or to the waypoint in front of it.
    Hbone {
        /// The workload at the tunnel's far end: the destination, or its waypoint.
        workload: Arc<Workload>,
        /// Whether the far end is a waypoint.
        waypoint: bool,
        /// The tunnel's address.
        gateway: SocketAddr,
        /// The `:authority` of CONNECT.
        authority: SocketAddr,
        /// The identities of which the far end must prove one; never empty.
        expected: Arc<[Identity]>,
        /// The service that was addressed.
        service: Option<Arc<ServiceRef>>,
    },
}

/// A service as telemetry names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceRef {
    /// The object's name.
    pub name: Arc<str>,
    /// The object's namespace.
    pub namespace: Arc<str>,
    /// The fully qualified host name.
    pub hostname: Arc<str>,
}

/// Why there is no route. The connection is closed: falling back to plain text would be silent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// The service exists, but no endpoint of it can take this connection.
    #[error("service {service} has no healthy endpoint for port {port}")]
    NoHealthyUpstream {
        /// `namespace/hostname`.
        service: NamespacedHostname,
        /// The service port that was asked for.
        port: u16,
    },
    /// The destination has a waypoint that is unknown or has no endpoint.
    #[error("waypoint of {destination} is not known or not ready")]
    NoWaypoint {
        /// The service or workload that the waypoint stands in front of.
        destination: String,
    },
    /// The destination is in another network and cannot be reached from here.
    #[error("{destination} is in network `{network}`, which this proxy cannot reach")]
    UnreachableNetwork {
        /// The workload.
        destination: Arc<str>,
        /// Its network.
        network: Arc<str>,
    },
    /// The destination has no address.
    #[error("workload {workload} has no address of the right family")]
    NoAddress {
        /// The workload's uid.
        workload: Arc<str>,
    },
    /// The destination's identity cannot be formed from what discovery said.
    #[error("workload {workload} has no valid identity")]
    Identity {
        /// The workload's uid.
        workload: Arc<str>,
        /// What is wrong with it.
        source: crate::identity::Error,
    },
}

/// What a CONNECT asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Authority {
    /// An address and port.
    Address(SocketAddr),
    /// A service's host name and port.
    Hostname(Arc<str>, u16),
}

/// Where an accepted CONNECT is delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboundTarget {
    /// The application's address and port, in the pod.
    pub upstream: SocketAddr,
    /// The address and port that policies see: the real target port, before any application tunnel.
    pub policy_destination: SocketAddr,
    /// How the bytes are handed over.
    pub tunnel: Option<crate::workload::ApplicationTunnel>,
    /// The service, as far as it can be told, for telemetry.
    pub service: Option<Arc<ServiceRef>>,
}

/// Why a CONNECT is refused before anything is connected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InboundError {
    /// The authority names an address that is not this pod's.
    #[error("CONNECT asks for {asked}, but the connection arrived at {actual}")]
    IpMismatch {
        /// What the authority named.
        asked: SocketAddr,
        /// The address the connection was accepted on.
        actual: IpAddr,
    },
    /// The authority names a host this pod does not serve.
    #[error("CONNECT asks for host {host}, which this workload does not serve")]
    UnknownHost {
        /// The host name.
        host: Arc<str>,
    },
    /// The service has no such port on this pod.
    #[error("service {host} has no port {port} on this workload")]
    NoPort {
        /// The host name.
        host: Arc<str>,
        /// The service port.
        port: u16,
    },
    /// The target is one of the proxy's own ports.
    #[error("CONNECT asks for port {port} of the proxy itself")]
    SelfCall {
        /// The port.
        port: u16,
    },
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Hostname(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

//! Services: a stable address in front of workloads.

use std::{collections::BTreeMap, sync::Arc};

use crate::address::{GatewayAddress, NamespacedHostname, NetworkAddress, NetworkCidr};

/// A service as the control plane describes it, without its endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Service {
    /// The object's name.
    pub name: Arc<str>,
    /// The object's namespace.
    pub namespace: Arc<str>,
    /// The fully qualified host name, such as `details.bookinfo.svc.cluster.local`.
    pub hostname: Arc<str>,
    /// Virtual addresses; none for a headless service.
    pub vips: Vec<NetworkAddress>,
    /// Ranges of virtual addresses (`ServiceEntry`).
    pub cidr_vips: Vec<NetworkCidr>,
    /// Target port by service port; 0 stands for a named port that only an endpoint can resolve.
    pub ports: BTreeMap<u16, u16>,
    /// What is spoken on a service port, as far as somebody said so. Carrying connections does not depend on
    /// it; waypoints and gateways read it.
    pub app_protocols: BTreeMap<u16, AppProtocol>,
    /// Identities, as text, that the endpoints may prove besides their own.
    pub subject_alt_names: Vec<Arc<str>>,
    /// The waypoint in front of this service.
    pub waypoint: Option<GatewayAddress>,
    /// Waypoints to choose from by weight; takes precedence over `waypoint` when a weight is above 0.
    pub weighted_waypoints: Vec<WeightedWaypoint>,
    /// Whether ingress gateways too go through the waypoint instead of past it.
    pub ingress_use_waypoint: bool,
    /// How endpoints are chosen; `None` is by capacity alone.
    pub load_balancing: Option<LoadBalancing>,
    /// Which IP families the service offers.
    pub ip_families: IpFamilies,
    /// Whether this service is preferred when several share a host name or address.
    pub canonical: bool,
    /// Who may see this service.
    pub visibility: Visibility,
}

/// What is spoken on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AppProtocol {
    /// HTTP/1.1.
    Http11,
    /// HTTP/2 without TLS.
    Http2,
    /// gRPC.
    Grpc,
    /// Bytes that nobody should interpret.
    Tcp,
    /// TLS of the application's own.
    Tls,
}

/// One choice among several waypoints.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WeightedWaypoint {
    /// The waypoint.
    pub destination: GatewayAddress,
    /// Its share of the connections.
    pub weight: u32,
}

/// How endpoints are preferred.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LoadBalancing {
    /// Scopes in order of preference.
    pub routing_preference: Vec<Scope>,
    /// What the preferences mean.
    pub mode: BalancingMode,
    /// Which endpoints are eligible.
    pub health_policy: HealthPolicy,
}

/// A scope in which client and endpoint may agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Same region.
    Region,
    /// Same zone (and region).
    Zone,
    /// Same subzone.
    Subzone,
    /// Same node.
    Node,
    /// Same cluster.
    Cluster,
    /// Same network.
    Network,
}

/// What the preferences of a service mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BalancingMode {
    /// No preference.
    #[default]
    Standard,
    /// Only endpoints that match every scope.
    Strict,
    /// The best matching endpoints first.
    Failover,
    /// The original destination, whatever the endpoints.
    Passthrough,
}

/// Which endpoints of a service are eligible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HealthPolicy {
    /// Only healthy ones.
    #[default]
    OnlyHealthy,
    /// All (`publishNotReadyAddresses`).
    AllowAll,
}

/// Which IP families a service offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum IpFamilies {
    /// Whatever the addresses say.
    #[default]
    Automatic,
    /// IPv4 only.
    Ipv4Only,
    /// IPv6 only.
    Ipv6Only,
    /// Both.
    Dual,
}

/// Who may see a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Visibility {
    /// Everyone.
    #[default]
    Public,
    /// Clients of the service's own namespace.
    Namespace,
}

// === impl Service ===

impl Service {
    /// A service with the wire's defaults, to be filled in by struct update.
    pub fn named(name: &str, namespace: &str, hostname: &str) -> Self {
        Self {
            name: name.into(),
            namespace: namespace.into(),
            hostname: hostname.into(),
            vips: Vec::new(),
            cidr_vips: Vec::new(),
            ports: BTreeMap::new(),
            app_protocols: BTreeMap::new(),
            subject_alt_names: Vec::new(),
            waypoint: None,
            weighted_waypoints: Vec::new(),
            ingress_use_waypoint: false,
            load_balancing: None,
            ip_families: IpFamilies::Automatic,
            canonical: false,
            visibility: Visibility::Public,
        }
    }

    /// The key under which discovery knows this service: `namespace/hostname`.
    pub fn key(&self) -> NamespacedHostname {
        NamespacedHostname {
            namespace: self.namespace.clone(),
            hostname: self.hostname.clone(),
        }
    }
}

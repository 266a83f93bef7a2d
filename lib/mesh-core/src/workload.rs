//! Workloads: one addressable instance, usually a pod.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use crate::{
    address::{GatewayAddress, NamespacedHostname},
    identity::{self, Identity},
};

/// One instance that traffic can reach, as the control plane describes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Workload {
    /// Unique in the mesh, such as `cluster1//Pod/bookinfo/details-v1-abc`.
    pub uid: Arc<str>,
    /// The pod's name.
    pub name: Arc<str>,
    /// The pod's namespace.
    pub namespace: Arc<str>,
    /// The pod's service account; `default` where the wire said nothing.
    pub service_account: Arc<str>,
    /// The pod's trust domain; `cluster.local` where the wire said nothing.
    pub trust_domain: Arc<str>,
    /// The network in which `addresses` are valid; may be empty.
    pub network: Arc<str>,
    /// The cluster the workload runs in; `Kubernetes` where the wire said nothing.
    pub cluster_id: Arc<str>,
    /// Addresses, in the order of the wire; may be empty when `hostname` is set.
    pub addresses: Vec<IpAddr>,
    /// A name to resolve when the workload has no address of its own.
    pub hostname: Option<Arc<str>>,
    /// How the workload is reached.
    pub protocol: TunnelProtocol,
    /// Whether the workload shares its node's address.
    pub network_mode: NetworkMode,
    /// The node the workload runs on; may be empty.
    pub node: Arc<str>,
    /// Value of `service.istio.io/canonical-name`.
    pub canonical_name: Arc<str>,
    /// Value of `service.istio.io/canonical-revision`.
    pub canonical_revision: Arc<str>,
    /// The name of the owner (deployment, job …), for telemetry.
    pub workload_name: Arc<str>,
    /// The kind of the owner.
    pub workload_type: WorkloadType,
    /// The waypoint in front of this workload.
    pub waypoint: Option<GatewayAddress>,
    /// The gateway through which other networks reach this workload.
    pub network_gateway: Option<GatewayAddress>,
    /// How traffic is handed to an application that is itself a proxy (a waypoint behind ztunnel).
    pub application_tunnel: Option<ApplicationTunnel>,
    /// Whether the workload terminates HBONE by itself, without a ztunnel in front.
    pub native_tunnel: bool,
    /// Keys (`namespace/name`) of the policies that select this workload.
    pub authorization_policies: Vec<Arc<str>>,
    /// Whether the workload is ready for traffic.
    pub status: Health,
    /// Where the workload runs, for locality-aware balancing and telemetry.
    pub locality: Locality,
    /// Weight among the endpoints of a service; 0 never gets traffic.
    pub capacity: u32,
    /// The services this workload backs, with target ports by service port.
    pub services: BTreeMap<NamespacedHostname, PortMap>,
}

/// Target port by service port.
pub type PortMap = BTreeMap<u16, u16>;

/// How a workload is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TunnelProtocol {
    /// Plain TCP.
    #[default]
    None,
    /// HTTP CONNECT over mutual TLS, port 15008.
    Hbone,
}

/// Whether the workload shares its node's network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NetworkMode {
    /// The workload owns its addresses.
    #[default]
    Standard,
    /// The workload shares the node's addresses and is not found by address.
    HostNetwork,
}

/// The kind of object that owns a workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WorkloadType {
    /// A Deployment, and what behaves like one.
    #[default]
    Deployment,
    /// A CronJob.
    CronJob,
    /// A bare pod.
    Pod,
    /// A Job.
    Job,
}

/// Whether a workload is ready for traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Health {
    /// Ready.
    #[default]
    Healthy,
    /// Not ready; used only by services that publish unready addresses.
    Unhealthy,
}

/// How traffic is handed to an application that is itself a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ApplicationTunnel {
    /// What precedes the bytes.
    pub protocol: ApplicationProtocol,
    /// The port to use instead of the requested one.
    pub port: Option<u16>,
}

/// What precedes the bytes on an application tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ApplicationProtocol {
    /// Nothing.
    #[default]
    None,
    /// A PROXY protocol v2 header.
    Proxy,
}

/// Where a workload runs; parts may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Locality {
    /// Value of `topology.kubernetes.io/region`.
    pub region: Arc<str>,
    /// Value of `topology.kubernetes.io/zone`.
    pub zone: Arc<str>,
    /// Value of `topology.istio.io/subzone`.
    pub subzone: Arc<str>,
}

/// A pod as its node's CNI agent names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodInfo {
    /// The pod's name.
    pub name: Arc<str>,
    /// The pod's namespace.
    pub namespace: Arc<str>,
    /// The pod's service account.
    pub service_account: Arc<str>,
}

// === impl Workload ===

impl Workload {
    /// A plain, healthy workload with the wire's defaults, to be filled in by struct update.
    pub fn with_uid(uid: impl Into<Arc<str>>) -> Self {
        let empty: Arc<str> = "".into();
        Self {
            uid: uid.into(),
            name: empty.clone(),
            namespace: empty.clone(),
            service_account: "default".into(),
            trust_domain: "cluster.local".into(),
            network: empty.clone(),
            cluster_id: "Kubernetes".into(),
            addresses: Vec::new(),
            hostname: None,
            protocol: TunnelProtocol::None,
            network_mode: NetworkMode::Standard,
            node: empty.clone(),
            canonical_name: empty.clone(),
            canonical_revision: empty.clone(),
            workload_name: empty,
            workload_type: WorkloadType::Deployment,
            waypoint: None,
            network_gateway: None,
            application_tunnel: None,
            native_tunnel: false,
            authorization_policies: Vec::new(),
            status: Health::Healthy,
            locality: Locality::default(),
            capacity: 1,
            services: BTreeMap::new(),
        }
    }

    /// The identity this workload proves with its certificate.
    pub fn identity(&self) -> Result<Identity, identity::Error> {
        Identity::try_new(
            self.trust_domain.clone(),
            self.namespace.clone(),
            self.service_account.clone(),
        )
    }
}

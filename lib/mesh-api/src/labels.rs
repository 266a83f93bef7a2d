//! Labels with a meaning for the mesh.

/// Puts a namespace or pod into the mesh with [`dataplane_mode::AMBIENT`], takes it out with
/// [`dataplane_mode::NONE`].
pub const DATAPLANE_MODE: &str = "istio.io/dataplane-mode";
/// Values of [`DATAPLANE_MODE`].
pub mod dataplane_mode {
    /// Traffic goes through the node's proxy.
    pub const AMBIENT: &str = "ambient";
    /// Traffic does not go through the mesh.
    pub const NONE: &str = "none";
}

/// The waypoint of an object or of a namespace's objects; [`USE_WAYPOINT_NONE`] opts out.
pub const USE_WAYPOINT: &str = "istio.io/use-waypoint";
/// The value of [`USE_WAYPOINT`] that says: no waypoint, whatever the namespace says.
pub const USE_WAYPOINT_NONE: &str = "none";
/// The namespace of the waypoint, if it is another one.
pub const USE_WAYPOINT_NAMESPACE: &str = "istio.io/use-waypoint-namespace";
/// A second waypoint that gets a share of the traffic.
pub const USE_WAYPOINT_CANARY: &str = "istio.io/use-waypoint-canary";
/// The namespace of the second waypoint, if it is another one.
pub const USE_WAYPOINT_CANARY_NAMESPACE: &str = "istio.io/use-waypoint-canary-namespace";
/// Whether traffic from ingress gateways goes through the waypoint too, on a Service or Namespace.
pub const INGRESS_USE_WAYPOINT: &str = "istio.io/ingress-use-waypoint";

/// What a Gateway or GatewayClass is a waypoint for, see [`waypoint_for`].
pub const WAYPOINT_FOR: &str = "istio.io/waypoint-for";
/// Values of [`WAYPOINT_FOR`].
pub mod waypoint_for {
    /// Traffic to Services, the default.
    pub const SERVICE: &str = "service";
    /// Traffic to pods and other workloads by their address.
    pub const WORKLOAD: &str = "workload";
    /// Both.
    pub const ALL: &str = "all";
    /// Nothing.
    pub const NONE: &str = "none";
}

/// Whether a Service is reachable from other clusters; see the mesh configuration's scopes.
pub const GLOBAL: &str = "istio.io/global";
/// The revision of the control plane that an object is for.
pub const REVISION: &str = "istio.io/rev";
/// Marks objects that the control plane wrote.
pub const CONFIG: &str = "istio.io/config";

/// How a workload that no CNI agent captured can be reached; holds `http` if it speaks HBONE itself.
pub const TUNNEL: &str = "networking.istio.io/tunnel";
/// Whether a ServiceEntry without addresses gets some; `false` opts out.
pub const ENABLE_AUTOALLOCATE_IP: &str = "networking.istio.io/enable-autoallocate-ip";
/// [`tls_mode::ISTIO`] on pods whose sidecar speaks mutual TLS.
pub const TLS_MODE: &str = "security.istio.io/tlsMode";
/// Values of [`TLS_MODE`].
pub mod tls_mode {
    /// A sidecar accepts mutual TLS.
    pub const ISTIO: &str = "istio";
}

/// The application a workload belongs to, before [`APP_NAME`] and [`APP`].
pub const CANONICAL_NAME: &str = "service.istio.io/canonical-name";
/// The version of the application, before [`APP_VERSION`] and [`VERSION`].
pub const CANONICAL_REVISION: &str = "service.istio.io/canonical-revision";
/// Kubernetes' recommended label for the application.
pub const APP_NAME: &str = "app.kubernetes.io/name";
/// The label for the application of old.
pub const APP: &str = "app";
/// Kubernetes' recommended label for the version.
pub const APP_VERSION: &str = "app.kubernetes.io/version";
/// The label for the version of old.
pub const VERSION: &str = "version";

/// The network of a cluster, on the root namespace; of a gateway, on its Service or Gateway.
pub const NETWORK: &str = "topology.istio.io/network";
/// The cluster of an object.
pub const CLUSTER: &str = "topology.istio.io/cluster";
/// The region of a node.
pub const REGION: &str = "topology.kubernetes.io/region";
/// The zone of a node.
pub const ZONE: &str = "topology.kubernetes.io/zone";
/// The part of a zone that a node is in.
pub const SUBZONE: &str = "topology.istio.io/subzone";

/// The Gateway that a pod or Service serves.
pub const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
/// The class of the Gateway that an object serves.
pub const GATEWAY_CLASS_NAME: &str = "gateway.networking.k8s.io/gateway-class-name";
/// Which controller made the object for a Gateway.
pub const GATEWAY_MANAGED: &str = "gateway.istio.io/managed";

/// The Service that an EndpointSlice belongs to.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The name that Kubernetes gives every namespace as a label.
pub const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
/// A Service that has no virtual address by the will of its owner.
pub const HEADLESS_SERVICE: &str = "service.kubernetes.io/headless";

//! Annotations with a meaning for the mesh.

/// Set by the CNI agent on a pod whose traffic it redirects, to [`REDIRECTION_ENABLED`].
pub const REDIRECTION: &str = "ambient.istio.io/redirection";
/// The value of [`REDIRECTION`] for a pod in the mesh.
pub const REDIRECTION_ENABLED: &str = "enabled";
/// How a waypoint wants to be reached that does not speak HBONE: `PROXY` or `NONE`, and `/port`. On a
/// Gateway or its GatewayClass.
pub const WAYPOINT_INBOUND_BINDING: &str = "ambient.istio.io/waypoint-inbound-binding";
/// How connections to the names of a ServiceEntry are made: [`CONNECT_STRATEGY_RACE`], or one address after
/// the other.
pub const CONNECT_STRATEGY: &str = "ambient.istio.io/connect-strategy";
/// The value of [`CONNECT_STRATEGY`] that connects to all addresses at once and keeps the first that
/// answers; a waypoint does it, ztunnel does not.
pub const CONNECT_STRATEGY_RACE: &str = "FIRST_HEALTHY_RACE";
/// Whether an AuthorizationPolicy is only tried: `true` logs what it would do and enforces nothing.
pub const DRY_RUN: &str = "istio.io/dry-run";
/// The share of traffic, 0 to 100, that goes to the second waypoint.
pub const USE_WAYPOINT_CANARY_WEIGHT: &str = "istio.io/use-waypoint-canary-weight";
/// Which endpoints of a Service are preferred, if the Service itself does not say. Also on a Namespace.
pub const TRAFFIC_DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";
/// The namespaces that see a Service.
pub const EXPORT_TO: &str = "networking.istio.io/exportTo";
/// Identities beside the Service's own that its endpoints may have.
pub const SERVICE_ACCOUNTS: &str = "alpha.istio.io/canonical-serviceaccounts";
/// Service accounts beside the Service's own that its endpoints may have.
pub const KUBERNETES_SERVICE_ACCOUNTS: &str = "alpha.istio.io/kubernetes-serviceaccounts";

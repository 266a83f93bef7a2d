//! Condition types, their reasons, and the field managers that write them.

/// Whether the policy is enforced by ztunnel as written. Reasons: [`reason::ACCEPTED`],
/// [`reason::UNSUPPORTED_VALUE`], [`reason::INVALID`].
pub const ZTUNNEL_ACCEPTED: &str = "ZtunnelAccepted";
/// Whether the policy is enforced by the waypoints of its targets.
pub const WAYPOINT_ACCEPTED: &str = "WaypointAccepted";
/// Whether traffic to the object goes through the waypoint that it names.
pub const WAYPOINT_BOUND: &str = "istio.io/WaypointBound";
/// Whether the object needs a waypoint and has none.
pub const WAYPOINT_MISSING: &str = "istio.io/WaypointMissing";
/// How far a ServiceEntry can be seen.
pub const VISIBILITY_APPLIED: &str = "istio.io/VisibilityApplied";

/// Why a condition is as it is.
pub mod reason {
    /// All of the policy is enforced as written.
    pub const ACCEPTED: &str = "Accepted";
    /// The policy states what cannot be enforced here.
    pub const UNSUPPORTED_VALUE: &str = "UnsupportedValue";
    /// The policy is malformed.
    pub const INVALID: &str = "Invalid";
    /// Some targets of the policy are malformed or missing.
    pub const PARTIALLY_INVALID: &str = "PartiallyInvalid";
    /// The target has no waypoint.
    pub const ANCESTOR_NOT_BOUND: &str = "AncestorNotBound";
    /// The target does not exist.
    pub const TARGET_NOT_FOUND: &str = "TargetNotFound";

    /// Traffic goes through the waypoint.
    pub const WAYPOINT_ACCEPTED: &str = "WaypointAccepted";
    /// The waypoint does not exist or has no address yet.
    pub const WAYPOINT_IS_NOT_READY: &str = "WaypointIsNotReady";
    /// The waypoint does not allow objects of this namespace.
    pub const ATTACHMENT_DENIED: &str = "AttachmentDenied";
    /// The waypoint is for another kind of traffic.
    pub const UNSUPPORTED_TRAFFIC_TYPE: &str = "UnsupportedTrafficType";
    /// The second waypoint's weight is no number from 0 to 100.
    pub const CANARY_INVALID_WEIGHT: &str = "CanaryInvalidWeight";
    /// The second waypoint is the first one.
    pub const CANARY_SAME_AS_PRIMARY: &str = "CanarySameAsPrimary";
    /// A waypoint of another namespace cannot be used here.
    pub const CROSS_NAMESPACE_WAYPOINT_FORBIDDEN: &str = "CrossNamespaceWaypointForbidden";
    /// A service with wildcard hosts needs a waypoint to resolve them.
    pub const NO_WAYPOINT_FOR_WILDCARD_SERVICE: &str = "NoWaypointForWildcardService";
    /// Connecting to several addresses at once needs a waypoint.
    pub const NO_WAYPOINT_FOR_RACING_CONNECT_STRATEGY: &str = "NoWaypointForRacingConnectStrategy";

    /// Seen by all of the mesh.
    pub const PUBLIC: &str = "Public";
    /// Seen by its namespace.
    pub const NAMESPACE: &str = "Namespace";
}

/// Who writes conditions, each the whole set of its own.
pub mod reporter {
    /// WaypointBound, WaypointMissing and VisibilityApplied of Services and ServiceEntries.
    pub const SERVICE: &str = "istio-ambient-service";
    /// WaypointBound of WorkloadEntries.
    pub const WORKLOAD_ENTRY: &str = "istio-ambient-workloadentry";
    /// ZtunnelAccepted.
    pub const ZTUNNEL_POLICY: &str = "istio-ambient-ztunnel-policy";
    /// WaypointAccepted.
    pub const WAYPOINT_POLICY: &str = "istio-ambient-waypoint-policy";
}

/// The values of a condition's `status`.
pub mod status {
    /// It holds.
    pub const TRUE: &str = "True";
    /// It does not hold.
    pub const FALSE: &str = "False";
    /// It cannot be told.
    pub const UNKNOWN: &str = "Unknown";
}

//! What the control plane's program and those who deploy it have to agree on: names of objects, flags, and
//! variables that the program refuses.

/// The ConfigMap of the mesh configuration, before the revision's suffix.
pub const MESH_CONFIG_MAP: &str = "istio";
/// The ConfigMap in every namespace that holds the mesh's roots.
pub const ROOT_CONFIG_MAP: &str = "istio-ca-root-cert";
/// The Secret of a self-signed root.
pub const ROOT_SECRET: &str = "istio-ca-secret";
/// The Secret of a plugged-in authority, which its owner makes.
pub const PLUGGED_SECRET: &str = "cacerts";
/// The lock of who distributes roots and advances their rotation.
pub const NAMESPACE_LOCK: &str = "istio-namespace-controller-election";
/// The lock of who writes conditions.
pub const STATUS_LOCK: &str = "istio-status-leader";

/// Discovery and certificates over TLS.
pub const SECURE_PORT: u16 = 15012;
/// Readiness and debug views.
pub const HTTP_PORT: u16 = 8080;
/// Metrics.
pub const MONITORING_PORT: u16 = 15014;

/// The flags of `discovery`, without their dashes. An argument with another one keeps it from starting.
pub const FLAGS: &[&str] = &[
    "secureGRPCAddr",
    "httpAddr",
    "monitoringAddr",
    "domain",
    "kubeconfig",
    "meshConfig",
    "namespace",
    "keepaliveMaxServerConnectionAge",
    "log_output_level",
    "log_as_json",
    "grpcAddr",
    "httpsAddr",
    "keepaliveInterval",
    "keepaliveTimeout",
];

/// A variable that changes what is protected, and which is not passed over in silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The variable.
    pub name: &'static str,
    /// The values with which the program starts; the empty one is that of an absent variable.
    pub accepted: &'static [&'static str],
    /// What to do instead.
    pub remedy: &'static str,
}

/// What a switch may be that must be off.
const OFF: &[&str] = &["", "false", "0"];

/// What a switch may be that must be on.
const ON: &[&str] = &["", "true", "1"];

/// The variables with which the program does not start.
pub const REFUSED: &[Refusal] = &[
    Refusal {
        name: "PILOT_ENABLE_AMBIENT",
        accepted: ON,
        remedy: "ambient is all that it does; set it to true or leave it out",
    },
    Refusal {
        name: "PILOT_ENABLE_XDS_IDENTITY_CHECK",
        accepted: ON,
        remedy: "unset it: what a proxy says of itself must agree with its credentials",
    },
    Refusal {
        name: "EXTERNAL_CA",
        accepted: &[""],
        remedy: "unset it: certificates are signed by a self-signed or plugged-in authority",
    },
    Refusal {
        name: "USE_CACERTS_FOR_SELF_SIGNED_CA",
        accepted: OFF,
        remedy: "unset it: the self-signed root is in istio-ca-secret",
    },
    Refusal {
        name: "AMBIENT_ENABLE_MULTI_NETWORK",
        accepted: OFF,
        remedy: "unset it: one network per mesh so far",
    },
    Refusal {
        name: "PILOT_AUTO_ALLOW_WAYPOINT_POLICY",
        accepted: OFF,
        remedy: "unset it and write an ALLOW policy for the waypoint's service account",
    },
    Refusal {
        name: "PILOT_ENABLE_NODE_UNTAINT_CONTROLLERS",
        accepted: OFF,
        remedy: "unset it: nodes are not untainted by this program",
    },
    Refusal {
        name: "PILOT_CERT_PROVIDER",
        accepted: &["", "istiod"],
        remedy: "set it to istiod: the serving certificate comes from the mesh's own authority",
    },
];

/// The name of what belongs to a revision. The default one, whether it is named or not, has no suffix.
pub fn suffixed(name: &str, revision: &str) -> String {
    if revision.is_empty() || revision == "default" {
        name.to_owned()
    } else {
        format!("{name}-{revision}")
    }
}

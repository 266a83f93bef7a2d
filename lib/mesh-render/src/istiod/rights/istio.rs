//! What Istio's own control plane may do. It watches more than an ambient mesh needs, and does not become
//! ready before it may; it deploys gateways. Kinds are named one by one, so that whoever grants this need not
//! hold everything.

use k8s_openapi::api::rbac::v1::PolicyRule;

use crate::rbac::{READ, rule};

const WRITE: &[&str] = &[
    "create", "delete", "get", "list", "patch", "update", "watch",
];
const STATUS: &[&str] = &["patch", "update"];

const NETWORKING: &[&str] = &[
    "destinationrules",
    "envoyfilters",
    "gateways",
    "proxyconfigs",
    "serviceentries",
    "sidecars",
    "virtualservices",
    "workloadentries",
    "workloadgroups",
];
const SECURITY: &[&str] = &[
    "authorizationpolicies",
    "peerauthentications",
    "requestauthentications",
];
const GATEWAY: &[&str] = &[
    "backendtlspolicies",
    "gatewayclasses",
    "gateways",
    "grpcroutes",
    "httproutes",
    "listenersets",
    "referencegrants",
    "tcproutes",
    "tlsroutes",
    "udproutes",
];
const GATEWAY_STATUS: &[&str] = &[
    "backendtlspolicies/status",
    "gatewayclasses/status",
    "gateways/status",
    "grpcroutes/status",
    "httproutes/status",
    "listenersets/status",
    "referencegrants/status",
    "tcproutes/status",
    "tlsroutes/status",
    "udproutes/status",
];

/// Rights to the cluster. It would watch webhooks also where there are none, so it may look at them.
pub(super) fn cluster() -> Vec<PolicyRule> {
    const WEBHOOKS: &[&str] = &[
        "mutatingwebhookconfigurations",
        "validatingwebhookconfigurations",
    ];
    let mut rules = configuration();
    rules.extend([
        rule("admissionregistration.k8s.io", WEBHOOKS, READ),
        rule("apiextensions.k8s.io", &["customresourcedefinitions"], READ),
        rule(
            "",
            &["pods", "nodes", "services", "namespaces", "endpoints"],
            READ,
        ),
        rule("discovery.k8s.io", &["endpointslices"], READ),
        rule("networking.k8s.io", &["ingresses", "ingressclasses"], READ),
        rule("networking.k8s.io", &["ingresses/status"], STATUS),
        rule("", &["services/status"], STATUS),
        rule(
            "",
            &["configmaps"],
            &["create", "get", "list", "update", "watch"],
        ),
        rule("", &["secrets"], READ),
        rule("authentication.k8s.io", &["tokenreviews"], &["create"]),
        rule(
            "authorization.k8s.io",
            &["subjectaccessreviews"],
            &["create"],
        ),
        rule(
            "multicluster.x-k8s.io",
            &["serviceexports"],
            &["create", "delete", "get", "list", "watch"],
        ),
        rule("multicluster.x-k8s.io", &["serviceimports"], READ),
    ]);
    rules
}

/// Istio's and the Gateway API's configuration, and its status.
fn configuration() -> Vec<PolicyRule> {
    const EXPERIMENTAL: &str = "gateway.networking.x-k8s.io";
    vec![
        rule("networking.istio.io", NETWORKING, READ),
        rule("networking.istio.io", &["workloadentries"], WRITE),
        rule(
            "networking.istio.io",
            &["serviceentries/status", "workloadentries/status"],
            STATUS,
        ),
        rule("security.istio.io", SECURITY, READ),
        rule(
            "security.istio.io",
            &["authorizationpolicies/status"],
            STATUS,
        ),
        rule("telemetry.istio.io", &["telemetries"], READ),
        rule(
            "extensions.istio.io",
            &["trafficextensions", "wasmplugins"],
            READ,
        ),
        rule("gateway.networking.k8s.io", GATEWAY, READ),
        rule("gateway.networking.k8s.io", GATEWAY_STATUS, STATUS),
        rule(
            "gateway.networking.k8s.io",
            &["gatewayclasses"],
            &["create", "delete", "patch", "update"],
        ),
        rule(
            EXPERIMENTAL,
            &["xbackendtrafficpolicies", "xlistenersets"],
            READ,
        ),
        rule(
            EXPERIMENTAL,
            &["xbackendtrafficpolicies/status", "xlistenersets/status"],
            STATUS,
        ),
        rule("inference.networking.k8s.io", &["inferencepools"], READ),
        rule(
            "inference.networking.k8s.io",
            &["inferencepools/status"],
            STATUS,
        ),
    ]
}

/// Rights to deploy gateways.
pub(super) fn gateway_controller() -> Vec<PolicyRule> {
    vec![
        rule("apps", &["deployments"], WRITE),
        rule("autoscaling", &["horizontalpodautoscalers"], WRITE),
        rule("policy", &["poddisruptionbudgets"], WRITE),
        rule("", &["services", "serviceaccounts"], WRITE),
    ]
}

/// Rights of control planes of other clusters.
pub(super) fn reader() -> Vec<PolicyRule> {
    const CORE: &[&str] = &[
        "configmaps",
        "endpoints",
        "namespaces",
        "nodes",
        "pods",
        "replicationcontrollers",
        "secrets",
        "services",
    ];
    vec![
        rule("networking.istio.io", NETWORKING, READ),
        rule("security.istio.io", SECURITY, READ),
        rule("telemetry.istio.io", &["telemetries"], READ),
        rule(
            "extensions.istio.io",
            &["trafficextensions", "wasmplugins"],
            READ,
        ),
        rule("", CORE, READ),
        rule("gateway.networking.k8s.io", &["gateways"], READ),
        rule("apiextensions.k8s.io", &["customresourcedefinitions"], READ),
        rule("discovery.k8s.io", &["endpointslices"], READ),
        rule(
            "multicluster.x-k8s.io",
            &["serviceexports"],
            &["create", "delete", "get", "list", "watch"],
        ),
        rule("multicluster.x-k8s.io", &["serviceimports"], READ),
        rule("apps", &["replicasets"], READ),
        rule("authentication.k8s.io", &["tokenreviews"], &["create"]),
        rule(
            "authorization.k8s.io",
            &["subjectaccessreviews"],
            &["create"],
        ),
    ]
}

/// Rights within its namespace.
pub(super) fn namespace() -> Vec<PolicyRule> {
    vec![
        rule("networking.istio.io", &["gateways"], &["create"]),
        rule(
            "",
            &["secrets"],
            &["create", "delete", "get", "list", "update", "watch"],
        ),
        rule("", &["configmaps"], &["delete"]),
        rule(
            "coordination.k8s.io",
            &["leases"],
            &["create", "get", "patch", "update"],
        ),
    ]
}

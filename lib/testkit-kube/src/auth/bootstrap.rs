//! The roles and bindings that every server starts with.
//!
//! They carry the names, labels and rules that people rely on: the user-facing roles, and what everyone
//! may do. The many roles of the real server's own controllers are left out, since nothing here runs as
//! them. The user-facing roles cover the resources that this server has.

use serde_json::{Value, json};

use super::{group, rbac::GROUP};

/// Reading.
const READ: [&str; 3] = ["get", "list", "watch"];
/// Writing, and deleting.
const WRITE: [&str; 5] = ["create", "delete", "deletecollection", "patch", "update"];

/// Both.
const ALL: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

/// Paths that tell how the server is.
const INFO: [&str; 5] = ["/healthz", "/livez", "/readyz", "/version", "/version/"];
/// Paths that tell what it offers.
const DISCOVERY: [&str; 11] = [
    "/api",
    "/api/*",
    "/apis",
    "/apis/*",
    "/healthz",
    "/livez",
    "/openapi",
    "/openapi/*",
    "/readyz",
    "/version",
    "/version/",
];

/// Whole objects of rbac.authorization.k8s.io/v1.
pub fn bootstrap() -> Vec<Value> {
    let mut objects = roles();
    objects.extend(user_facing());
    let everyone = [group::AUTHENTICATED, group::UNAUTHENTICATED];
    objects.extend([
        binding("cluster-admin", &[group::MASTERS]),
        binding("system:discovery", &[group::AUTHENTICATED]),
        binding("system:basic-user", &[group::AUTHENTICATED]),
        binding("system:public-info-viewer", &everyone),
        binding(
            "system:service-account-issuer-discovery",
            &[group::SERVICE_ACCOUNTS],
        ),
    ]);
    objects
}

fn roles() -> Vec<Value> {
    vec![
        role(
            "cluster-admin",
            json!([
                { "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] },
                { "nonResourceURLs": ["*"], "verbs": ["*"] },
            ]),
        ),
        role(
            "system:discovery",
            json!([{ "nonResourceURLs": DISCOVERY, "verbs": ["get"] }]),
        ),
        role(
            "system:basic-user",
            json!([
                {
                    "apiGroups": ["authorization.k8s.io"],
                    "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
                    "verbs": ["create"],
                },
                {
                    "apiGroups": ["authentication.k8s.io"],
                    "resources": ["selfsubjectreviews"],
                    "verbs": ["create"],
                },
            ]),
        ),
        role(
            "system:public-info-viewer",
            json!([{ "nonResourceURLs": INFO, "verbs": ["get"] }]),
        ),
        role(
            "system:service-account-issuer-discovery",
            json!([{
                "nonResourceURLs": ["/.well-known/openid-configuration", "/openid/v1/jwks"],
                "verbs": ["get"],
            }]),
        ),
        role(
            "system:auth-delegator",
            json!([
                {
                    "apiGroups": ["authentication.k8s.io"],
                    "resources": ["tokenreviews"],
                    "verbs": ["create"],
                },
                {
                    "apiGroups": ["authorization.k8s.io"],
                    "resources": ["subjectaccessreviews"],
                    "verbs": ["create"],
                },
            ]),
        ),
    ]
}

/// `admin`, `edit` and `view` consist of what labels say, so that others add to them. What they start
/// with comes from roles of their own.
fn user_facing() -> Vec<Value> {
    let aggregate = |to: &str| format!("rbac.authorization.k8s.io/aggregate-to-{to}");
    let facing = [
        ("admin", None, admin_rules()),
        ("edit", Some("admin"), edit_rules()),
        ("view", Some("edit"), view_rules()),
    ];
    let mut objects = Vec::new();
    for (name, within, rules) in facing {
        let mut whole = role(name, Value::Null);
        if let Some(within) = within {
            whole["metadata"]["labels"][aggregate(within)] = "true".into();
        }
        let selected = json!({ "matchLabels": { (aggregate(name)): "true" } });
        whole["aggregationRule"] = json!({ "clusterRoleSelectors": [selected] });
        let mut part = role(&format!("system:aggregate-to-{name}"), rules);
        part["metadata"]["labels"][aggregate(name)] = "true".into();
        objects.extend([whole, part]);
    }
    objects
}

fn admin_rules() -> Value {
    json!([
        { "apiGroups": ["authorization.k8s.io"], "resources": ["localsubjectaccessreviews"], "verbs": ["create"] },
        { "apiGroups": [GROUP], "resources": ["rolebindings", "roles"], "verbs": ALL },
    ])
}

fn edit_rules() -> Value {
    json!([
        { "apiGroups": [""], "resources": ["secrets"], "verbs": READ },
        { "apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["impersonate"] },
        {
            "apiGroups": [""],
            "resources": [
                "configmaps", "endpoints", "events", "persistentvolumeclaims", "pods",
                "replicationcontrollers", "secrets", "serviceaccounts", "services",
            ],
            "verbs": WRITE,
        },
        { "apiGroups": [""], "resources": ["serviceaccounts/token", "pods/eviction"], "verbs": ["create"] },
        {
            "apiGroups": ["apps"],
            "resources": [
                "daemonsets", "deployments", "deployments/scale", "replicasets", "replicasets/scale",
                "statefulsets", "statefulsets/scale",
            ],
            "verbs": WRITE,
        },
        { "apiGroups": ["batch"], "resources": ["cronjobs", "jobs"], "verbs": WRITE },
        { "apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "verbs": WRITE },
        { "apiGroups": ["policy"], "resources": ["poddisruptionbudgets"], "verbs": WRITE },
        { "apiGroups": ["networking.k8s.io"], "resources": ["ingresses", "networkpolicies"], "verbs": WRITE },
        { "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ALL },
    ])
}

fn view_rules() -> Value {
    json!([
        {
            "apiGroups": [""],
            "resources": [
                "configmaps", "endpoints", "persistentvolumeclaims", "persistentvolumeclaims/status",
                "pods", "pods/log", "pods/status", "replicationcontrollers", "serviceaccounts",
                "services", "services/status", "events", "limitranges", "namespaces",
                "namespaces/status", "resourcequotas", "resourcequotas/status",
            ],
            "verbs": READ,
        },
        { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": READ },
        {
            "apiGroups": ["apps"],
            "resources": [
                "controllerrevisions", "daemonsets", "daemonsets/status", "deployments",
                "deployments/scale", "deployments/status", "replicasets", "replicasets/scale",
                "replicasets/status", "statefulsets", "statefulsets/scale", "statefulsets/status",
            ],
            "verbs": READ,
        },
        { "apiGroups": ["batch"], "resources": ["cronjobs", "cronjobs/status", "jobs", "jobs/status"], "verbs": READ },
        {
            "apiGroups": ["autoscaling"],
            "resources": ["horizontalpodautoscalers", "horizontalpodautoscalers/status"],
            "verbs": READ,
        },
        { "apiGroups": ["policy"], "resources": ["poddisruptionbudgets", "poddisruptionbudgets/status"], "verbs": READ },
        {
            "apiGroups": ["networking.k8s.io"],
            "resources": ["ingresses", "ingresses/status", "networkpolicies"],
            "verbs": READ,
        },
    ])
}

#[expect(clippy::needless_pass_by_value, reason = "it is made for this call")]
fn role(name: &str, rules: Value) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": metadata(name),
        "rules": rules,
    })
}

fn binding(role: &str, groups: &[&str]) -> Value {
    let subject = |name: &&str| json!({ "kind": "Group", "apiGroup": GROUP, "name": name });
    let subjects: Vec<_> = groups.iter().map(subject).collect();
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": metadata(role),
        "roleRef": { "apiGroup": GROUP, "kind": "ClusterRole", "name": role },
        "subjects": subjects,
    })
}

fn metadata(name: &str) -> Value {
    json!({
        "name": name,
        "labels": { "kubernetes.io/bootstrapping": "rbac-defaults" },
        "annotations": { "rbac.authorization.kubernetes.io/autoupdate": "true" },
    })
}

//! Kubernetes objects of any kind, as they are applied.

use k8s_openapi::{Metadata, Resource, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::yaml;

/// A kind of objects, as manifests, addresses and permissions name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind {
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The kind's name.
    pub kind: &'static str,
    /// The name in addresses and permissions.
    pub plural: &'static str,
    /// Whether its objects lie in namespaces.
    pub namespaced: bool,
}

/// An object as it is to be applied: only the fields that somebody cares about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; `None` for an object of the cluster.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// All of it, with `apiVersion`, `kind` and `metadata`.
    pub body: Value,
}

macro_rules! kinds {
    ($($constant:ident = $group:literal $version:literal $kind:literal $plural:literal $namespaced:literal;)*) => {
        $(
            #[doc = concat!("`", $plural, "`")]
            pub const $constant: Kind = Kind {
                group: $group,
                version: $version,
                kind: $kind,
                plural: $plural,
                namespaced: $namespaced,
            };
        )*
        /// Every kind of which something may be rendered, in the order of application.
        pub const KINDS: &[Kind] = &[$($constant),*];
    };
}

kinds! {
    SECURITY_CONTEXT_CONSTRAINTS = "security.openshift.io" "v1" "SecurityContextConstraints" "securitycontextconstraints" false;
    SERVICE_ACCOUNT = "" "v1" "ServiceAccount" "serviceaccounts" true;
    CLUSTER_ROLE = "rbac.authorization.k8s.io" "v1" "ClusterRole" "clusterroles" false;
    CLUSTER_ROLE_BINDING = "rbac.authorization.k8s.io" "v1" "ClusterRoleBinding" "clusterrolebindings" false;
    ROLE = "rbac.authorization.k8s.io" "v1" "Role" "roles" true;
    ROLE_BINDING = "rbac.authorization.k8s.io" "v1" "RoleBinding" "rolebindings" true;
    RESOURCE_QUOTA = "" "v1" "ResourceQuota" "resourcequotas" true;
    CONFIG_MAP = "" "v1" "ConfigMap" "configmaps" true;
    NETWORK_ATTACHMENT_DEFINITION = "k8s.cni.cncf.io" "v1" "NetworkAttachmentDefinition" "network-attachment-definitions" true;
    NETWORK_POLICY = "networking.k8s.io" "v1" "NetworkPolicy" "networkpolicies" true;
    POD_DISRUPTION_BUDGET = "policy" "v1" "PodDisruptionBudget" "poddisruptionbudgets" true;
    SERVICE = "" "v1" "Service" "services" true;
    DEPLOYMENT = "apps" "v1" "Deployment" "deployments" true;
    DAEMON_SET = "apps" "v1" "DaemonSet" "daemonsets" true;
    HORIZONTAL_POD_AUTOSCALER = "autoscaling" "v2" "HorizontalPodAutoscaler" "horizontalpodautoscalers" true;
}

/// The kinds by which a program gets its rights.
pub const RIGHTS: &[Kind] = &[
    SERVICE_ACCOUNT,
    CLUSTER_ROLE,
    CLUSTER_ROLE_BINDING,
    ROLE,
    ROLE_BINDING,
];

// === impl Kind ===

impl Kind {
    /// `apps/v1`, or `v1` for the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }
}

// === impl Object ===

impl Object {
    /// The object in the form in which it is applied. `kind` is that of `object`.
    #[expect(
        clippy::expect_used,
        reason = "a failure would be a defect of the type, and the same for every input"
    )]
    pub fn new<K>(kind: Kind, object: &K) -> Self
    where
        K: Resource + Metadata<Ty = ObjectMeta> + Serialize,
    {
        let meta = object.metadata();
        Self {
            kind,
            namespace: meta.namespace.clone(),
            name: meta.name.clone().unwrap_or_default(),
            body: serde_json::to_value(object).expect("types of Kubernetes have texts as keys"),
        }
    }

    /// An object of a kind for which there is no type. `fields` is what it has beside `metadata`.
    pub fn untyped(kind: Kind, meta: &ObjectMeta, fields: Map<String, Value>) -> Self {
        let mut body = fields;
        body.insert("apiVersion".to_owned(), kind.api_version().into());
        body.insert("kind".to_owned(), kind.kind.into());
        body.insert("metadata".to_owned(), json!(meta));
        Self {
            kind,
            namespace: meta.namespace.clone(),
            name: meta.name.clone().unwrap_or_default(),
            body: Value::Object(body),
        }
    }

    /// The object as one YAML document, with the line that begins it.
    pub fn to_yaml(&self) -> String {
        format!("---\n{}", yaml::text(&self.body))
    }
}

//! AuthorizationPolicy: which requests and connections are allowed.
//!
//! Lists are options, because an empty list is not the same as none: `principals: []` is what a template
//! without values leaves behind, and must not mean everybody.

use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{MAX_ENTRIES, MAX_RULES, WorkloadSelector};
use crate::{schema, status::Status};

/// Allows or denies what reaches the workloads it selects. DENY is looked at first; once an ALLOW policy
/// concerns a workload, what none of them allows is denied.
#[derive(
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "security.istio.io",
    version = "v1",
    kind = "AuthorizationPolicy",
    plural = "authorizationpolicies",
    namespaced,
    status = "Status",
    derive = "PartialEq",
    derive = "Default",
    doc = "Allows or denies what reaches the workloads it selects.",
    category = "istio-io",
    category = "security-istio-io",
    shortname = "ap",
    printcolumn = r#"{"name":"Action", "type":"string", "jsonPath":".spec.action"}"#,
    printcolumn = r#"{"name":"Age", "type":"date", "jsonPath":".metadata.creationTimestamp"}"#,
    crates(kube_core = "::kube_core", k8s_openapi = "::k8s_openapi")
)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    schema::rule(
        "(has(self.selector) ? 1 : 0) + (has(self.targetRef) ? 1 : 0) + (has(self.targetRefs) ? 1 : 0) <= 1",
        "set only one of selector and targetRefs",
    ),
    schema::rule(
        "has(self.provider) == (has(self.action) && self.action == 'CUSTOM')",
        "provider is needed with action CUSTOM, and only then",
    ),
]))]
pub struct AuthorizationPolicySpec {
    /// The workloads of this namespace that are meant; all of them without a selector. In the mesh's
    /// root namespace: of all namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<WorkloadSelector>,
    /// A Gateway, Service or other object whose waypoint enforces the policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetReference>,
    /// Gateways, Services or other objects whose waypoints enforce the policy.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub target_refs: Vec<TargetReference>,
    /// What is matched: any one rule suffices. Without rules nothing matches: ALLOW then denies
    /// everything, DENY denies nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_RULES))]
    pub rules: Vec<Rule>,
    /// What a match means: ALLOW (the default), DENY, AUDIT or CUSTOM.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["ALLOW", "DENY", "AUDIT", "CUSTOM"]))]
    pub action: Option<String>,
    /// Who decides with action CUSTOM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<Provider>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    #[schemars(skip)]
    pub other: Map<String, Value>,
}

/// An object that the policy is attached to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend("required" = ["kind", "name"]))]
pub struct TargetReference {
    /// The API group; empty for the core group.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(schema_with = "schema::api_group")]
    pub group: String,
    /// The kind.
    #[schemars(schema_with = "schema::kind")]
    pub kind: String,
    /// The name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Must be empty: objects of other namespaces cannot be targets.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 0))]
    pub namespace: Option<String>,
}

/// The extension that decides in place of the proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Provider {
    /// Its name in the mesh configuration.
    pub name: String,
}

/// One rule: from, to and when must all match. A rule that states none of them matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Rule {
    /// Where it comes from: any one entry suffices.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_ENTRIES))]
    pub from: Option<Vec<From>>,
    /// Where it goes and what it does there: any one entry suffices.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_ENTRIES))]
    pub to: Option<Vec<To>>,
    /// Further conditions: all of them must hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_ENTRIES))]
    pub when: Option<Vec<Condition>>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    #[schemars(skip)]
    pub other: Map<String, Value>,
}

/// One entry of a rule's from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend("required" = ["source"]))]
pub struct From {
    /// The source. At least one attribute must be stated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    #[schemars(skip)]
    pub other: Map<String, Value>,
}

/// One entry of a rule's to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend("required" = ["operation"]))]
pub struct To {
    /// The operation. At least one attribute must be stated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    #[schemars(skip)]
    pub other: Map<String, Value>,
}

/// Where a request or connection comes from. All attributes that are stated must agree; in a list any
/// one value suffices, in a negative list none may match. A text may begin or end with `*`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1, "x-kubernetes-validations" = [schema::rule(
    "!(has(self.serviceAccounts) || has(self.notServiceAccounts)) || !(has(self.principals) \
     || has(self.notPrincipals) || has(self.namespaces) || has(self.notNamespaces))",
    "serviceAccounts cannot stand beside principals or namespaces",
)]))]
pub struct Source {
    /// Identities of peers, such as `cluster.local/ns/default/sa/sleep`, without `spiffe://`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::texts")]
    pub principals: Option<Vec<String>>,
    /// Identities that do not match.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::texts")]
    pub not_principals: Option<Vec<String>>,
    /// Identities in a request's JWT, `issuer/subject`. Needs a waypoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::texts")]
    pub request_principals: Option<Vec<String>>,
    /// Identities in a request's JWT that do not match. Needs a waypoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::texts")]
    pub not_request_principals: Option<Vec<String>>,
    /// Namespaces of peers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::texts")]
    pub namespaces: Option<Vec<String>>,
    /// Namespaces that do not match.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::texts")]
    pub not_namespaces: Option<Vec<String>>,
    /// Addresses or prefixes of peers, such as `10.1.0.0/16`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::ip_blocks")]
    pub ip_blocks: Option<Vec<String>>,
    /// Addresses or prefixes that do not match.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::ip_blocks")]
    pub not_ip_blocks: Option<Vec<String>>,
    /// Addresses or prefixes of clients before a load balancer. Needs a waypoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::ip_blocks")]
    pub remote_ip_blocks: Option<Vec<String>>,
    /// Addresses or prefixes of clients that do not match. Needs a waypoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::ip_blocks")]
    pub not_remote_ip_blocks: Option<Vec<String>>,
    /// Service accounts of peers: `namespace/name`, or `name` for one of this namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::service_accounts")]
    pub service_accounts: Option<Vec<String>>,
    /// Service accounts that do not match.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::service_accounts")]
    pub not_service_accounts: Option<Vec<String>>,
    /// Trust domains of peers. Needs a waypoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::texts")]
    pub trust_domains: Option<Vec<String>>,
    /// Trust domains that do not match. Needs a waypoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::texts")]
    pub not_trust_domains: Option<Vec<String>>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    #[schemars(skip)]
    pub other: Map<String, Value>,
}

/// What a request or connection does. All attributes that are stated must agree; in a list any one value
/// suffices, in a negative list none may match. A text may begin or end with `*`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct Operation {
    /// Hosts of requests. Needs a waypoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::texts")]
    pub hosts: Option<Vec<String>>,
    /// Hosts that do not match. Needs a waypoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::texts")]
    pub not_hosts: Option<Vec<String>>,
    /// Ports of the workload, such as `"8080"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::ports")]
    pub ports: Option<Vec<String>>,
    /// Ports that do not match.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::ports")]
    pub not_ports: Option<Vec<String>>,
    /// Methods of requests. Needs a waypoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::texts")]
    pub methods: Option<Vec<String>>,
    /// Methods that do not match. Needs a waypoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::texts")]
    pub not_methods: Option<Vec<String>>,
    /// Paths of requests. Needs a waypoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::texts")]
    pub paths: Option<Vec<String>>,
    /// Paths that do not match. Needs a waypoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::texts")]
    pub not_paths: Option<Vec<String>>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    #[schemars(skip)]
    pub other: Map<String, Value>,
}

/// A condition on one attribute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend("required" = ["key"], "x-kubernetes-validations" = [
    schema::rule("has(self.values) || has(self.notValues)", "set values or notValues"),
]))]
pub struct Condition {
    /// The attribute, such as `source.ip`. Those of requests need a waypoint.
    #[schemars(schema_with = "schema::attribute")]
    pub key: String,
    /// Values, of which any may match.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::texts")]
    pub values: Option<Vec<String>>,
    /// Values, of which none may match.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::texts")]
    pub not_values: Option<Vec<String>>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    #[schemars(skip)]
    pub other: Map<String, Value>,
}

//! ZTunnel: the node proxy.

use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{TargetReference, Values, condition::StatusCondition, schema};

/// The node proxy.
#[derive(
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "sailoperator.io",
    version = "v1",
    kind = "ZTunnel",
    plural = "ztunnels",
    singular = "ztunnel",
    status = "ZTunnelStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "The proxy on every node that carries the traffic of pods in the mesh. There is one, named `default`.",
    category = "istio-io",
    printcolumn = r#"{"name":"Namespace", "type":"string", "priority":1, "jsonPath":".spec.namespace", "description":"Where it is installed."}"#,
    printcolumn = r#"{"name":"Ready", "type":"string", "jsonPath":".status.conditions[?(@.type==\"Ready\")].status", "description":"Whether it runs on all nodes."}"#,
    printcolumn = r#"{"name":"Status", "type":"string", "jsonPath":".status.state", "description":"Healthy, or the reason why it is not."}"#,
    printcolumn = r#"{"name":"Version", "type":"string", "jsonPath":".spec.version", "description":"The version that is asked for."}"#,
    printcolumn = r#"{"name":"Revision", "type":"string", "priority":1, "jsonPath":".status.istioRevision", "description":"The control plane that it belongs to."}"#,
    printcolumn = r#"{"name":"Age", "type":"date", "jsonPath":".metadata.creationTimestamp", "description":"How old the resource is."}"#,
    crates(kube_core = "::kube_core", k8s_openapi = "::k8s_openapi")
)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend("required" = ["version", "namespace"]))]
pub struct ZTunnelSpec {
    /// The version to run: a release, or a name that stands for one and moves with updates of the operator.
    /// It is not newer than the control plane, and at most one minor release older.
    #[schemars(schema_with = "schema::ztunnel_version")]
    pub version: String,
    /// The namespace to install into. It must exist, and cannot be changed.
    #[schemars(schema_with = "schema::namespace")]
    pub namespace: String,
    /// Of v1alpha1; kept, so that a resource that was written in it is read in it as it was. It is `ambient`
    /// in effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::profile")]
    pub profile: Option<String>,
    /// The control plane whose settings it takes over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetReference>,
    /// Values by their paths in Istio's Helm charts. What this operator does not know is kept, and reported
    /// in the condition ValuesRecognized.
    #[serde(skip_serializing_if = "Values::is_empty")]
    #[schemars(schema_with = "schema::ztunnel_values")]
    pub values: Values,
}

/// What is known of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct ZTunnelStatus {
    /// The generation of the spec that this was written for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What holds now, one entry per type.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<StatusCondition>,
    /// `Healthy`, or the reason of the first condition that does not hold.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub state: String,
    /// The revision that `targetRef` stands for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub istio_revision: String,
}

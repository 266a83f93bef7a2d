//! IstioCNI: the node agent.

use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ComponentStatus, Values, schema};

/// The agent on every node that puts pods in the mesh. There is one, named `default`.
#[derive(
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "sailoperator.io",
    version = "v1",
    kind = "IstioCNI",
    plural = "istiocnis",
    singular = "istiocni",
    status = "ComponentStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "The agent on every node that puts pods in the mesh. There is one, named `default`.",
    category = "istio-io",
    printcolumn = r#"{"name":"Namespace", "type":"string", "priority":1, "jsonPath":".spec.namespace", "description":"Where it is installed."}"#,
    printcolumn = r#"{"name":"Profile", "type":"string", "priority":1, "jsonPath":".spec.profile", "description":"The collection of values to begin with."}"#,
    printcolumn = r#"{"name":"Ready", "type":"string", "jsonPath":".status.conditions[?(@.type==\"Ready\")].status", "description":"Whether it runs on all nodes."}"#,
    printcolumn = r#"{"name":"Status", "type":"string", "jsonPath":".status.state", "description":"Healthy, or the reason why it is not."}"#,
    printcolumn = r#"{"name":"Version", "type":"string", "jsonPath":".spec.version", "description":"The version that is asked for."}"#,
    printcolumn = r#"{"name":"Age", "type":"date", "jsonPath":".metadata.creationTimestamp", "description":"How old the resource is."}"#,
    crates(kube_core = "::kube_core", k8s_openapi = "::k8s_openapi")
)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend("required" = ["version", "namespace"]))]
pub struct IstioCNISpec {
    /// The version to run: a release, or a name that stands for one and moves with updates of the operator.
    #[schemars(schema_with = "schema::version")]
    pub version: String,
    /// The namespace to install into. It must exist, and cannot be changed.
    #[schemars(schema_with = "schema::namespace")]
    pub namespace: String,
    /// A collection of values to begin with. `remote` and `external` are refused: a control plane outside of
    /// the cluster is not supported.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::profile")]
    pub profile: Option<String>,
    /// Values by their paths in Istio's Helm charts. What this operator does not know is kept, and reported
    /// in the condition ValuesRecognized.
    #[serde(skip_serializing_if = "Values::is_empty")]
    #[schemars(schema_with = "schema::cni_values")]
    pub values: Values,
}

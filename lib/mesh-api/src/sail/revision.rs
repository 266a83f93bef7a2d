//! IstioRevision: one control plane.

use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ComponentStatus, Values, schema};

/// One control plane. An Istio makes them; they can be made by hand beside it.
#[derive(
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "sailoperator.io",
    version = "v1",
    kind = "IstioRevision",
    plural = "istiorevisions",
    singular = "istiorevision",
    shortname = "istiorev",
    status = "ComponentStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "One control plane. An Istio makes them, so that there is seldom need to write one.",
    category = "istio-io",
    printcolumn = r#"{"name":"Namespace", "type":"string", "priority":1, "jsonPath":".spec.namespace", "description":"Where it is installed."}"#,
    printcolumn = r#"{"name":"Profile", "type":"string", "priority":1, "jsonPath":".spec.values.profile", "description":"The collection of values to begin with."}"#,
    printcolumn = r#"{"name":"Ready", "type":"string", "jsonPath":".status.conditions[?(@.type==\"Ready\")].status", "description":"Whether it runs."}"#,
    printcolumn = r#"{"name":"Status", "type":"string", "jsonPath":".status.state", "description":"Healthy, or the reason why it is not."}"#,
    printcolumn = r#"{"name":"In use", "type":"string", "jsonPath":".status.conditions[?(@.type==\"InUse\")].status", "description":"Whether anything refers to it."}"#,
    printcolumn = r#"{"name":"Version", "type":"string", "jsonPath":".spec.version", "description":"The release that is asked for."}"#,
    printcolumn = r#"{"name":"Age", "type":"date", "jsonPath":".metadata.creationTimestamp", "description":"How old the resource is."}"#,
    crates(kube_core = "::kube_core", k8s_openapi = "::k8s_openapi")
)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend(
    "required" = ["version", "namespace"],
    "x-kubernetes-validations" = schema::namespace_said(),
))]
pub struct IstioRevisionSpec {
    /// The release that runs.
    #[schemars(schema_with = "schema::revision_version")]
    pub version: String,
    /// The namespace to install into. It must exist, and cannot be changed.
    #[schemars(schema_with = "schema::namespace")]
    pub namespace: String,
    /// Values by their paths in Istio's Helm charts, those of the profile included.
    #[serde(skip_serializing_if = "Values::is_empty")]
    #[schemars(schema_with = "schema::istio_values")]
    pub values: Values,
}

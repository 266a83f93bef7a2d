//! IstioRevisionTag: a name for a revision.

use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{TargetReference, condition::StatusCondition, schema};

/// A name for a revision.
#[derive(
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "sailoperator.io",
    version = "v1",
    kind = "IstioRevisionTag",
    plural = "istiorevisiontags",
    singular = "istiorevisiontag",
    shortname = "istiorevtag",
    status = "IstioRevisionTagStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A name for a revision, by which namespaces and pods can refer to it while it changes.",
    category = "istio-io",
    printcolumn = r#"{"name":"Status", "type":"string", "jsonPath":".status.state", "description":"Healthy, or the reason why it is not."}"#,
    printcolumn = r#"{"name":"In use", "type":"string", "jsonPath":".status.conditions[?(@.type==\"InUse\")].status", "description":"Whether anything refers to it."}"#,
    printcolumn = r#"{"name":"Revision", "type":"string", "jsonPath":".status.istioRevision", "description":"The revision that it stands for."}"#,
    printcolumn = r#"{"name":"Age", "type":"date", "jsonPath":".metadata.creationTimestamp", "description":"How old the resource is."}"#,
    crates(kube_core = "::kube_core", k8s_openapi = "::k8s_openapi")
)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend("required" = ["targetRef"]))]
pub struct IstioRevisionTagSpec {
    /// What is named.
    pub target_ref: TargetReference,
}

/// What is known of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend("required" = ["istiodNamespace", "istioRevision"]))]
pub struct IstioRevisionTagStatus {
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
    /// Namespace of the control plane.
    pub istiod_namespace: String,
    /// The revision that the tag stands for.
    pub istio_revision: String,
}

//! Istio: the control plane that is wanted.

use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Values, condition::StatusCondition, schema};

/// The control plane that is wanted.
#[derive(
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "sailoperator.io",
    version = "v1",
    kind = "Istio",
    plural = "istios",
    singular = "istio",
    status = "IstioStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "The control plane that is wanted. It is carried out by IstioRevisions.",
    category = "istio-io",
    printcolumn = r#"{"name":"Namespace", "type":"string", "priority":1, "jsonPath":".spec.namespace", "description":"Where it is installed."}"#,
    printcolumn = r#"{"name":"Profile", "type":"string", "priority":1, "jsonPath":".spec.profile", "description":"The collection of values to begin with."}"#,
    printcolumn = r#"{"name":"Revisions", "type":"integer", "jsonPath":".status.revisions.total", "description":"How many revisions there are."}"#,
    printcolumn = r#"{"name":"Ready", "type":"integer", "jsonPath":".status.revisions.ready", "description":"How many of them run."}"#,
    printcolumn = r#"{"name":"In use", "type":"integer", "jsonPath":".status.revisions.inUse", "description":"How many of them something refers to."}"#,
    printcolumn = r#"{"name":"Active Revision", "type":"string", "jsonPath":".status.activeRevisionName", "description":"The revision that new workloads get."}"#,
    printcolumn = r#"{"name":"Status", "type":"string", "jsonPath":".status.state", "description":"Healthy, or the reason why it is not."}"#,
    printcolumn = r#"{"name":"Version", "type":"string", "jsonPath":".spec.version", "description":"The version that is asked for."}"#,
    printcolumn = r#"{"name":"Age", "type":"date", "jsonPath":".metadata.creationTimestamp", "description":"How old the resource is."}"#,
    crates(kube_core = "::kube_core", k8s_openapi = "::k8s_openapi")
)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend(
    "required" = ["version", "namespace"],
    "x-kubernetes-validations" = schema::same_namespace(),
))]
pub struct IstioSpec {
    /// The version to run: a release, or a name that stands for one and moves with updates of the operator.
    #[schemars(schema_with = "schema::version")]
    pub version: String,
    /// The namespace to install into. It must exist, and cannot be changed.
    #[schemars(schema_with = "schema::namespace")]
    pub namespace: String,
    /// How a change of the version is carried out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_strategy: Option<UpdateStrategy>,
    /// A collection of values to begin with. `remote` and `external` are refused: a control plane outside of
    /// the cluster is not supported.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::profile")]
    pub profile: Option<String>,
    /// Values by their paths in Istio's Helm charts. What this operator does not know is kept, and reported
    /// in the condition ValuesRecognized.
    #[serde(skip_serializing_if = "Values::is_empty")]
    #[schemars(schema_with = "schema::istio_values")]
    pub values: Values,
}

/// How a change of the version is carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct UpdateStrategy {
    /// `InPlace` changes the one revision. `RevisionBased` makes a new one beside it, named after the version;
    /// the old one goes when nobody uses it any more.
    #[serde(rename = "type")]
    #[schemars(schema_with = "schema::update_strategy_type")]
    pub type_: UpdateStrategyType,
    /// How long an old revision that nobody uses stays, in seconds; 30 if not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub inactive_revision_deletion_grace_period_seconds: Option<i64>,
    /// Declared by Sail and without effect there and here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_workloads: Option<bool>,
}

/// How a change of the version is carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UpdateStrategyType {
    /// The one revision is changed.
    #[default]
    InPlace,
    /// A new revision is made; the old one goes when nobody uses it.
    RevisionBased,
}

/// What is known of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct IstioStatus {
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
    /// The revision that new workloads get.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub active_revision_name: String,
    /// How many revisions there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revisions: Option<RevisionSummary>,
}

/// How many revisions there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend("required" = ["total", "ready", "inUse"]))]
pub struct RevisionSummary {
    /// All; -1 if it cannot be told.
    pub total: i32,
    /// Those that run; -1 if it cannot be told.
    pub ready: i32,
    /// Those that something refers to; -1 if it cannot be told.
    pub in_use: i32,
}

//! Istio: the control plane that is wanted.

use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Values, condition::StatusCondition};

/// The control plane that is wanted.
#[derive(
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "sailoperator.io",
    version = "v1",
    kind = "Istio",
    plural = "istios",
    status = "IstioStatus",
    derive = "PartialEq",
    derive = "Default",
    category = "istio-io",
    crates(kube_core = "::kube_core", k8s_openapi = "::k8s_openapi")
)]
#[serde(default, rename_all = "camelCase")]
pub struct IstioSpec {
    /// The version.
    pub version: String,
    /// Namespace of the control plane.
    pub namespace: String,
    /// How a change of the version is carried out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_strategy: Option<UpdateStrategy>,
    /// Profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Helm values.
    #[serde(skip_serializing_if = "Values::is_empty")]
    pub values: Values,
}

/// How a change of the version is carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct UpdateStrategy {
    /// In place, or beside the old revision.
    #[serde(rename = "type")]
    pub type_: UpdateStrategyType,
    /// How long an old revision that nobody uses stays, in seconds; 30 if not said.
    #[serde(skip_serializing_if = "Option::is_none")]
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
pub struct RevisionSummary {
    /// All.
    pub total: i32,
    /// Those that run.
    pub ready: i32,
    /// Those that somebody refers to.
    pub in_use: i32,
}

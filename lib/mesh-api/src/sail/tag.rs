//! IstioRevisionTag: a name for a revision.

use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{TargetReference, condition::StatusCondition};

/// A name for a revision.
#[derive(
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "sailoperator.io",
    version = "v1",
    kind = "IstioRevisionTag",
    plural = "istiorevisiontags",
    status = "IstioRevisionTagStatus",
    derive = "PartialEq",
    derive = "Default",
    category = "istio-io",
    crates(kube_core = "::kube_core", k8s_openapi = "::k8s_openapi")
)]
#[serde(default, rename_all = "camelCase")]
pub struct IstioRevisionTagSpec {
    /// What is named.
    pub target_ref: TargetReference,
}

/// What is known of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct IstioRevisionTagStatus {
    /// The generation of the spec that this was written for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What holds now, one entry per type.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<StatusCondition>,
    /// `Healthy`, or the reason of the first condition that does not hold.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub state: String,
    /// Namespace of the control plane.
    pub istiod_namespace: String,
    /// The revision that the tag stands for.
    pub istio_revision: String,
}

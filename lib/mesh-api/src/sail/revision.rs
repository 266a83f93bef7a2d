//! IstioRevision.

use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ComponentStatus, Values};

/// IstioRevision.
#[derive(
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "sailoperator.io",
    version = "v1",
    kind = "IstioRevision",
    plural = "istiorevisions",
    status = "ComponentStatus",
    derive = "PartialEq",
    derive = "Default",
    category = "istio-io",
    crates(kube_core = "::kube_core", k8s_openapi = "::k8s_openapi")
)]
#[serde(default, rename_all = "camelCase")]
pub struct IstioRevisionSpec {
    /// The version.
    pub version: String,
    /// Where.
    pub namespace: String,

    /// Helm values.
    #[serde(skip_serializing_if = "Values::is_empty")]
    pub values: Values,
}

//! ZTunnel: the node proxy.

use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{TargetReference, Values, condition::StatusCondition};

/// The node proxy.
#[derive(
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "sailoperator.io",
    version = "v1",
    kind = "ZTunnel",
    plural = "ztunnels",
    status = "ZTunnelStatus",
    derive = "PartialEq",
    derive = "Default",
    category = "istio-io",
    crates(kube_core = "::kube_core", k8s_openapi = "::k8s_openapi")
)]
#[serde(default, rename_all = "camelCase")]
pub struct ZTunnelSpec {
    /// The version.
    pub version: String,
    /// Where.
    pub namespace: String,
    /// The control plane whose settings it takes over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetReference>,
    /// Helm values.
    #[serde(skip_serializing_if = "Values::is_empty")]
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
    pub conditions: Vec<StatusCondition>,
    /// `Healthy`, or the reason of the first condition that does not hold.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub state: String,
    /// The revision that `targetRef` stands for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub istio_revision: String,
}

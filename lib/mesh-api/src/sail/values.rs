//! The values that have an effect, by their paths in Istio's Helm charts.
//!
//! All fields are optional: a layer of values (defaults, profile, platform, user) names what it sets. Layers
//! are merged as JSON and decoded once into these types. What Istio has and they do not has no effect here;
//! [`without_effect`] has the reasons, so that it is not taken for a misspelling.
//!
//! Types of Kubernetes inside of them are decoded whole and are open objects in the CRDs' schemas: written
//! out, they would make the CRDs larger than `kubectl apply` takes. Whoever applies a rendered object is
//! told by the API server what is wrong with them.

mod cni;
mod global;
mod lenient;
mod no_effect;
mod pilot;
mod schema;
mod ztunnel;

pub use self::{
    cni::{AmbientCni, Cni, Repair, ResourceQuotas},
    global::{Enabled, Global, Logging, MultiCluster, Proxy},
    no_effect::without_effect,
    pilot::{Pilot, PilotCni, PodDisruptionBudget, Taint, TargetUtilization},
    ztunnel::{EnvValue, ZtunnelChart},
};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

/// The resource whose values are meant. The same path can have an effect in one and none in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Component {
    /// Istio and IstioRevision.
    Istio,
    /// IstioCNI.
    Cni,
    /// ZTunnel.
    Ztunnel,
}

/// Values of Istio and IstioRevision: charts `istiod`, `base` and `revisiontags`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct IstioValues {
    /// The minor release of Istio, such as `1.28`, whose defaults are wanted.
    #[serde(deserialize_with = "lenient::text")]
    #[schemars(schema_with = "schema::text_or_number")]
    pub compatibility_version: Option<String>,
    /// What concerns all components.
    pub global: Global,
    /// The mesh configuration, as it goes into the ConfigMap `istio`.
    #[schemars(schema_with = "schema::mesh_config")]
    pub mesh_config: Map<String, Value>,
    /// The control plane.
    pub pilot: Pilot,
    /// The profile that these values were made from; written by the operator.
    #[schemars(length(max = 63))]
    pub profile: Option<String>,
    /// The revision; written by the operator, and empty for the one named `default`.
    #[schemars(length(max = 63))]
    pub revision: Option<String>,
    /// Names of the revision; written by the operator.
    #[schemars(schema_with = "schema::names")]
    pub revision_tags: Vec<String>,
    /// The injector of sidecars, which there is none of.
    pub sidecar_injector_webhook: SidecarInjectorWebhook,
}

/// The injector of sidecars, which there is none of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct SidecarInjectorWebhook {
    /// Counts every namespace as one that uses the revision `default`.
    pub enable_namespaces_by_default: Option<bool>,
}

/// Values of IstioCNI: chart `cni`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct CniValues {
    /// The node agent.
    pub cni: Cni,
    /// What concerns all components.
    pub global: Global,
}

/// Values of ZTunnel: chart `ztunnel`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct ZtunnelValues {
    /// The node proxy.
    pub ztunnel: ZtunnelChart,
    /// What concerns all components.
    pub global: Global,
    /// The mesh configuration of the control plane that `targetRef` names; not in the resource's schema.
    #[schemars(skip)]
    pub mesh_config: Map<String, Value>,
    /// The revision that `targetRef` names; not in the resource's schema.
    #[schemars(skip)]
    pub revision: Option<String>,
}

#[cfg(test)]
mod tests;

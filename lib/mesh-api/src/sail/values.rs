//! The values that have an effect, by their paths in Istio's Helm charts.
//!
//! All fields are optional: a layer of values (defaults, profile, platform, user) names what it sets. Layers
//! are merged as JSON and decoded once into these types by [`read`], which also tells what of the values
//! nobody knows. What Istio knows and has no effect here is decoded too, so that it is not taken for a
//! misspelling; [`without_effect`] has the reasons.
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
    global::{Enabled, Global, Logging, MultiCluster, Proxy, Sts},
    no_effect::without_effect,
    pilot::{Pilot, PilotCni, PodDisruptionBudget, Taint, TargetUtilization},
    ztunnel::{EnvValue, ZtunnelChart},
};

use schemars::JsonSchema;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::Values;

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
    /// Of the chart `base`; none of them have an effect.
    pub base: Map<String, Value>,
    /// The minor release of Istio, such as `1.28`, whose defaults are wanted.
    #[serde(deserialize_with = "lenient::text")]
    #[schemars(schema_with = "schema::text_or_number")]
    pub compatibility_version: Option<String>,
    /// Set by the operator; without effect.
    pub default_revision: Option<String>,
    /// Settings that Istio calls experimental.
    pub experimental: Map<String, Value>,
    /// Settings of gateways by GatewayClass.
    pub gateway_classes: Map<String, Value>,
    /// What concerns all components.
    pub global: Global,
    /// A control plane that runs elsewhere; refused.
    pub istiod_remote: Map<String, Value>,
    /// The mesh configuration, as it goes into the ConfigMap `istio`.
    #[schemars(schema_with = "schema::mesh_config")]
    pub mesh_config: Map<String, Value>,
    /// The control plane.
    pub pilot: Pilot,
    /// The profile that these values were made from; written by the operator.
    pub profile: Option<String>,
    /// The revision; written by the operator, and empty for the one named `default`.
    pub revision: Option<String>,
    /// Names of the revision; written by the operator.
    pub revision_tags: Vec<String>,
    /// The injector of sidecars, which there is none of.
    pub sidecar_injector_webhook: SidecarInjectorWebhook,
    /// Telemetry of sidecars.
    pub telemetry: Map<String, Value>,
}

/// The injector of sidecars, which there is none of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct SidecarInjectorWebhook {
    /// Counts every namespace as one that uses the revision `default`.
    pub enable_namespaces_by_default: Option<bool>,
    /// The rest.
    #[serde(flatten)]
    #[schemars(skip)]
    pub other: Map<String, Value>,
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

/// Values that were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read<T> {
    /// What they say.
    pub values: T,
    /// Paths that no version of Istio and no type here has, such as `pilot.replicas`: misspelt, or newer.
    pub unknown: Vec<String>,
}

/// Why values cannot be used. Their author can repair it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A value is of another kind than its path takes.
    #[error("{path}: {problem}")]
    Kind {
        /// The path, such as `pilot.replicaCount`; `.` for the values as a whole.
        path: String,
        /// What is wrong.
        problem: String,
    },
}

/// Reads merged values. A `null` is no value: in a chart it takes away what a layer below has set.
pub fn read<T: DeserializeOwned>(values: &Values) -> Result<Read<T>, Error> {
    let mut values = Value::Object(values.clone());
    remove_nulls(&mut values);
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(values, &mut track);
    let result = serde_ignored::deserialize(tracked, |path| unknown.push(path.to_string()));
    match result {
        Ok(values) => Ok(Read { values, unknown }),
        Err(error) => Err(Error::Kind {
            path: track.path().to_string(),
            problem: error.to_string(),
        }),
    }
}

fn remove_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(remove_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests;

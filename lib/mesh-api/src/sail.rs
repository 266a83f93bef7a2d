//! The custom resources of the operator, group `sailoperator.io`: what a mesh is to be made of.
//!
//! Names, fields, defaults, columns, rules, condition types, reasons and states are those of the Sail
//! operator, so that its users' manifests and scripts keep working. `spec.values` takes the value paths of
//! Istio's Helm charts. It is kept as it was written: what this version does not know is stored, reported
//! and has no effect, where a schema that pruned it would lose it in silence.

mod cni;
pub mod condition;
mod crd;
mod istio;
mod revision;
mod schema;
mod tag;
pub mod values;
pub mod version;
mod ztunnel;

pub use self::{
    cni::{IstioCNI, IstioCNISpec},
    crd::crds,
    istio::{Istio, IstioSpec, IstioStatus, RevisionSummary, UpdateStrategy, UpdateStrategyType},
    revision::{IstioRevision, IstioRevisionSpec},
    tag::{IstioRevisionTag, IstioRevisionTagSpec, IstioRevisionTagStatus},
    ztunnel::{ZTunnel, ZTunnelSpec, ZTunnelStatus},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use self::condition::StatusCondition;

/// The API group of the custom resources.
pub const GROUP: &str = "sailoperator.io";

/// The namespace, service account and Deployment of the operator as `manifests/` install it.
pub const OPERATOR: &str = "lateen-operator";

/// The mark on a custom resource that keeps it until what was made for it is gone. Sail's, so that its
/// resources can be taken over.
pub const FINALIZER: &str = "sailoperator.io/sail-operator";

/// On an owned object, `"true"` lets others change it without being corrected at once.
pub const IGNORE_ANNOTATION: &str = "sailoperator.io/ignore";

/// On an IstioCNI or ZTunnel that is being deleted, [`UNINSTALL_FORCE`] removes it although pods are still
/// in the mesh. They lose their network.
pub const UNINSTALL_ANNOTATION: &str = "lateen.io/uninstall";

/// The value of [`UNINSTALL_ANNOTATION`].
pub const UNINSTALL_FORCE: &str = "force";

/// Values of Istio's Helm charts as their author wrote them, nested by path.
pub type Values = Map<String, Value>;

/// What a ZTunnel or a tag refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend("required" = ["kind", "name"]))]
pub struct TargetReference {
    /// Istio, which stands for its active revision, or IstioRevision.
    #[schemars(schema_with = "schema::target_kind")]
    pub kind: String,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What is known of IstioRevision and IstioCNI.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct ComponentStatus {
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
}

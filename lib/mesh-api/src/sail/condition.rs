//! Condition types, reasons and states of the custom resources, as Sail has them, and some of our own.
//!
//! ```text
//! conditions, in the order of the kind ──▶ the reason of the first that does not hold, or `Healthy`
//! ```
//!
//! Our own types do not count for `state`: a script that waits for `Healthy` waits for the same as with Sail.

mod vocabulary;

pub use vocabulary::{Meaning, conditions_of};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::status;

/// One condition. Sail's has no observedGeneration; ours does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend("required" = ["type", "status"]))]
pub struct StatusCondition {
    /// What this is about.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 316))]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    #[schemars(extend("enum" = ["True", "False", "Unknown"]))]
    pub status: String,
    /// Why, in one word for machines.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Why, for people, with the remedy.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The generation of the spec that this judges.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When `status` last changed, RFC 3339 with whole seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub last_transition_time: Option<String>,
}

impl StatusCondition {
    /// It holds. The reason is the type, as in Sail; for `InUse` see [`reason::REFERENCED_BY_WORKLOADS`].
    pub fn holds(type_: &str) -> Self {
        let reason = if type_ == IN_USE {
            reason::REFERENCED_BY_WORKLOADS
        } else {
            type_
        };
        Self::new(type_, status::TRUE, reason, String::new())
    }

    /// It does not hold.
    pub fn fails(type_: &str, reason: &str, message: impl Into<String>) -> Self {
        Self::new(type_, status::FALSE, reason, message.into())
    }

    /// It cannot be told.
    pub fn unknown(type_: &str, reason: &str, message: impl Into<String>) -> Self {
        Self::new(type_, status::UNKNOWN, reason, message.into())
    }

    /// Says more about it.
    #[must_use]
    pub fn because(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }

    /// Whether it holds.
    pub fn is_true(&self) -> bool {
        self.status == status::TRUE
    }

    fn new(type_: &str, status: &str, reason: &str, message: String) -> Self {
        Self {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            observed_generation: None,
            last_transition_time: None,
        }
    }
}

/// What was asked for is applied.
pub const RECONCILED: &str = "Reconciled";
/// What was applied runs.
pub const READY: &str = "Ready";
/// Somebody refers to it.
pub const IN_USE: &str = "InUse";
/// What it needs beside itself runs.
pub const DEPENDENCIES_HEALTHY: &str = "DependenciesHealthy";
/// Ours: every value that was given has an effect.
pub const VALUES_RECOGNIZED: &str = "ValuesRecognized";
/// Ours: the cluster is such that the mesh can work on it. Its reasons are what was found.
pub const PLATFORM_SUPPORTED: &str = "PlatformSupported";
/// Ours, there while a resource is being deleted: what it stands for is gone.
pub const UNINSTALLED: &str = "Uninstalled";

/// The state of a resource all of whose conditions hold.
pub const HEALTHY: &str = "Healthy";

/// The conditions that make up the state of Istio and IstioRevision, in order.
pub const STATE_OF_REVISION: &[&str] = &[RECONCILED, READY, DEPENDENCIES_HEALTHY];
/// The conditions that make up the state of IstioRevisionTag, in order.
pub const STATE_OF_TAG: &[&str] = &[RECONCILED, IN_USE];
/// The conditions that make up the state of IstioCNI and ZTunnel, in order.
pub const STATE_OF_NODE: &[&str] = &[RECONCILED, READY];

/// The state: the reason of the first of `order` that is there and does not hold, otherwise [`HEALTHY`].
pub fn state<'a>(conditions: &'a [StatusCondition], order: &[&str]) -> &'a str {
    let condition = |type_: &&str| {
        conditions
            .iter()
            .find(|condition| condition.type_ == *type_)
    };
    let mut failing = order
        .iter()
        .filter_map(condition)
        .filter(|condition| !condition.is_true());
    failing
        .next()
        .map_or(HEALTHY, |condition| &condition.reason)
}

/// Why a condition is as it is.
pub mod reason {
    /// `Reconciled`: what was asked for cannot be applied; the message says why and what to do.
    pub const RECONCILE_ERROR: &str = "ReconcileError";
    /// `Reconciled` of a revision or tag: an older one of the other kind has the name.
    pub const NAME_ALREADY_EXISTS: &str = "NameAlreadyExists";
    /// `Reconciled` of a tag: what it names does not exist.
    pub const REF_NOT_FOUND: &str = "RefNotFound";
    /// `Reconciled`, ours: the version fits the other components not. What runs stays as it is.
    pub const VERSION_SKEW: &str = "VersionSkew";
    /// `Reconciled`, ours: the control plane has to be of the new version first.
    pub const WAITING_FOR_CONTROL_PLANE: &str = "WaitingForControlPlane";
    /// `Reconciled`, ours: the node agent has to be of the new version first.
    pub const WAITING_FOR_CNI: &str = "WaitingForCNI";
    /// `Reconciled`, ours: on the way to an older version, the node proxy has to be of it first.
    pub const WAITING_FOR_ZTUNNEL: &str = "WaitingForZTunnel";

    /// `Ready` of an Istio: its revision does not exist.
    pub const ACTIVE_REVISION_NOT_FOUND: &str = "ActiveRevisionNotFound";
    /// `Ready` of an Istio: its revision cannot be read.
    pub const FAILED_TO_GET_ACTIVE_REVISION: &str = "FailedToGetActiveRevision";
    /// `Ready`: the control plane's Deployment is not rolled out.
    pub const ISTIOD_NOT_READY: &str = "IstiodNotReady";
    /// `Ready`: a control plane outside of the cluster does not answer. Never given here.
    pub const REMOTE_ISTIOD_NOT_READY: &str = "RemoteIstiodNotReady";
    /// `Ready` of IstioCNI and ZTunnel: the DaemonSet is not rolled out.
    pub const DAEMON_SET_NOT_READY: &str = "DaemonSetNotReady";
    /// `Ready`: it cannot be told.
    pub const READINESS_CHECK_FAILED: &str = "ReadinessCheckFailed";

    /// `DependenciesHealthy`: the mesh needs an IstioCNI named `default`.
    pub const ISTIO_CNI_NOT_FOUND: &str = "IstioCNINotFound";
    /// `DependenciesHealthy`: the IstioCNI is not healthy.
    pub const ISTIO_CNI_NOT_HEALTHY: &str = "IstioCNINotHealthy";
    /// `DependenciesHealthy`: the mesh needs a ZTunnel named `default`.
    pub const ZTUNNEL_NOT_FOUND: &str = "ZTunnelNotFound";
    /// `DependenciesHealthy`: the ZTunnel is not healthy.
    pub const ZTUNNEL_NOT_HEALTHY: &str = "ZTunnelNotHealthy";
    /// `DependenciesHealthy`: it cannot be told.
    pub const DEPENDENCY_CHECK_FAILED: &str = "DependencyCheckFailed";

    /// `InUse`: a namespace, pod or tag refers to it.
    pub const REFERENCED_BY_WORKLOADS: &str = "ReferencedByWorkloads";
    /// `InUse`: nothing refers to it.
    pub const NOT_REFERENCED_BY_ANYTHING: &str = "NotReferencedByAnything";
    /// `InUse`: it cannot be told.
    pub const USAGE_CHECK_FAILED: &str = "UsageCheckFailed";

    /// `ValuesRecognized`, ours: some values are misspelt, or of a newer version.
    pub const UNKNOWN_VALUES: &str = "UnknownValues";
    /// `ValuesRecognized`, ours: some values of Istio's have no effect here.
    pub const VALUES_WITHOUT_EFFECT: &str = "ValuesWithoutEffect";

    /// `Uninstalled`, ours: pods are still in the mesh and would lose their network.
    pub const UNINSTALL_BLOCKED: &str = "UninstallBlocked";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_the_reason_of_the_first_condition_that_fails() {
        let fails = |type_| StatusCondition::fails(type_, &format!("No{type_}"), "why");
        let all = [
            StatusCondition::unknown(DEPENDENCIES_HEALTHY, reason::DEPENDENCY_CHECK_FAILED, ""),
            fails(READY),
            StatusCondition::holds(RECONCILED),
        ];
        assert_eq!(state(&all, STATE_OF_REVISION), "NoReady");
        assert_eq!(state(&all[..1], STATE_OF_REVISION), "DependencyCheckFailed");
        assert_eq!(state(&all[2..], STATE_OF_REVISION), HEALTHY);
        let ours = [StatusCondition::holds(RECONCILED), fails(VALUES_RECOGNIZED)];
        assert_eq!(state(&ours, STATE_OF_NODE), HEALTHY);
    }

    #[test]
    fn an_unused_tag_says_so_in_its_state() {
        let unused = StatusCondition::fails(IN_USE, reason::NOT_REFERENCED_BY_ANYTHING, "");
        let conditions = [StatusCondition::holds(RECONCILED), unused];
        assert_eq!(state(&conditions, STATE_OF_TAG), "NotReferencedByAnything");
    }

    #[test]
    fn what_holds_has_its_type_for_a_reason() {
        assert_eq!(StatusCondition::holds(READY).reason, "Ready");
        assert_eq!(
            StatusCondition::holds(IN_USE).reason,
            "ReferencedByWorkloads"
        );
    }
}

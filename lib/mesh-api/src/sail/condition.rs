//! Condition types, reasons and states of the custom resources, as Sail has them, and some of our own.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One condition. Sail's has no observedGeneration; ours does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct StatusCondition {
    /// What this is about.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
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
    pub last_transition_time: Option<String>,
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
/// Ours: the cluster is such that the mesh can work on it.
pub const PLATFORM_SUPPORTED: &str = "PlatformSupported";

/// The state of a resource all of whose conditions hold.
pub const HEALTHY: &str = "Healthy";

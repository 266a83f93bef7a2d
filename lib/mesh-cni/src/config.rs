//! Our plugin's entry in the node's CNI configuration.

use serde::{Deserialize, Deserializer, Serialize};

use crate::enrolment::Selector;

/// The plugin's name and type; the file in the runtime's folder of plugins has this name too.
pub const PLUGIN: &str = "istio-cni";

/// Our entry. The field names are Istio's, and all of its fields are there, so that either plugin can be
/// called with either agent's configuration while one replaces the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "the fields are a contract")]
pub struct PluginConfig {
    /// Only for what is not in a list: the CNI version of the file.
    #[serde(rename = "cniVersion", skip_serializing_if = "Option::is_none")]
    pub cni_version: Option<String>,
    /// Always [`PLUGIN`].
    pub name: String,
    /// Always [`PLUGIN`].
    #[serde(rename = "type")]
    pub kind: String,
    /// Always empty; Istio writes it.
    #[serde(deserialize_with = "anything")]
    pub ipam: Empty,
    /// Always empty; Istio writes it.
    #[serde(deserialize_with = "anything")]
    pub dns: Empty,
    /// What the plugin logs: `debug`, `info`, `warn`, `error` or `none`.
    pub plugin_log_level: String,
    /// The agent's run directory on the host: its sockets and the enrolment snapshot.
    pub cni_agent_run_dir: String,
    /// Whether pods are put in the mesh at all.
    pub ambient_enabled: bool,
    /// Who belongs in the mesh. Ours asks the agent; Istio's plugin decides by this.
    #[serde(deserialize_with = "null_is_none")]
    pub enablement_selectors: Vec<Selector>,
    /// Namespaces whose pods pass without asking.
    #[serde(deserialize_with = "null_is_none")]
    pub exclude_namespaces: Vec<String>,
    /// The agent's own namespace: its pods pass without asking.
    pub pod_namespace: String,
    /// For Istio's plugin, which programs sidecars' rules itself.
    pub native_nftables: bool,
    /// For Istio's plugin; ours always fails closed.
    pub enable_ambient_detection_retry: bool,
    /// Whether STATUS says that pods cannot be added while the agent is away or in trouble, which makes the
    /// node not ready. Only where the agent's pod has the node's network: no other pod is started as long as
    /// STATUS fails, the agent's own included.
    #[serde(skip_serializing_if = "is_false")]
    pub status_needs_agent: bool,
}

/// `{}`, whatever is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Empty {}

// === impl PluginConfig ===

impl PluginConfig {
    /// Where the agent's files are if the configuration does not say.
    pub const RUN_DIR: &str = "/var/run/istio-cni";
}

impl Default for PluginConfig {
    fn default() -> Self {
        Self {
            cni_version: None,
            name: PLUGIN.to_owned(),
            kind: PLUGIN.to_owned(),
            ipam: Empty {},
            dns: Empty {},
            plugin_log_level: "info".to_owned(),
            cni_agent_run_dir: Self::RUN_DIR.to_owned(),
            ambient_enabled: true,
            enablement_selectors: Vec::new(),
            exclude_namespaces: Vec::new(),
            pod_namespace: String::new(),
            native_nftables: false,
            enable_ambient_detection_retry: false,
            status_needs_agent: false,
        }
    }
}

fn anything<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Empty, D::Error> {
    serde::de::IgnoredAny::deserialize(deserializer).map(|_| Empty {})
}

/// Go writes a list without items as `null`.
fn null_is_none<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(value: &bool) -> bool {
    !value
}

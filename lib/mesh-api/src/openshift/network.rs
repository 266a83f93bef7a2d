//! How the cluster's network is set up: `operator.openshift.io`.

use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The network type of OVN-Kubernetes.
pub const OVN_KUBERNETES: &str = "OVNKubernetes";

/// How the cluster's network is set up.
#[derive(
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "operator.openshift.io",
    version = "v1",
    kind = "Network",
    plural = "networks",
    derive = "PartialEq",
    derive = "Default",
    crates(kube_core = "::kube_core", k8s_openapi = "::k8s_openapi")
)]
#[serde(default, rename_all = "camelCase")]
pub struct NetworkSpec {
    /// The network that every pod is in.
    pub default_network: DefaultNetwork,
}

/// The network that every pod is in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct DefaultNetwork {
    /// Its implementation, such as [`OVN_KUBERNETES`].
    #[serde(rename = "type")]
    pub type_: String,
    /// Settings of OVN-Kubernetes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ovn_kubernetes_config: Option<OvnKubernetesConfig>,
}

/// Settings of OVN-Kubernetes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct OvnKubernetesConfig {
    /// How packets leave and enter a node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway_config: Option<GatewayConfig>,
}

/// How packets leave and enter a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct GatewayConfig {
    /// Whether they go through the host's network stack (local gateway mode). Without it (shared gateway
    /// mode, the default) Open vSwitch handles them, past all rules of the host.
    pub routing_via_host: bool,
}

impl NetworkSpec {
    /// Whether packets between a node and its pods pass the host's network stack. `None` if the network
    /// is not OVN-Kubernetes.
    pub fn routing_via_host(&self) -> Option<bool> {
        let network = &self.default_network;
        (network.type_ == OVN_KUBERNETES).then(|| {
            let config = network.ovn_kubernetes_config.as_ref();
            let gateway = config.and_then(|config| config.gateway_config.as_ref());
            gateway.is_some_and(|gateway| gateway.routing_via_host)
        })
    }
}

//! `cni`: the node agent.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    apps::v1::DaemonSetUpdateStrategy,
    core::v1::{Affinity, ResourceRequirements, SELinuxOptions, SeccompProfile, Toleration},
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{global::Logging, lenient, schema};

/// The node agent.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Cni {
    /// The registry and folder of the image.
    #[schemars(length(max = 1024))]
    pub hub: Option<String>,
    /// The tag of the image.
    #[serde(deserialize_with = "lenient::text")]
    #[schemars(schema_with = "schema::text_or_number")]
    pub tag: Option<String>,
    /// What is appended to the tag.
    pub variant: Option<String>,
    /// The name of the image; a whole reference if it holds a `/`.
    #[schemars(length(max = 1024))]
    pub image: Option<String>,
    /// When nodes pull the image.
    #[schemars(extend("enum" = ["Always", "Never", "IfNotPresent"]))]
    pub pull_policy: Option<String>,
    /// What is logged.
    pub logging: Logging,
    /// The nodes' folder of CNI plugins.
    #[schemars(length(max = 4096))]
    pub cni_bin_dir: Option<String>,
    /// The nodes' folder of CNI configurations.
    #[schemars(length(max = 4096))]
    pub cni_conf_dir: Option<String>,
    /// The file in it that is changed; the first one if it is not said.
    #[schemars(length(max = 255))]
    pub cni_conf_file_name: Option<String>,
    /// The nodes' folder of network namespaces.
    #[schemars(length(max = 4096))]
    pub cni_netns_dir: Option<String>,
    /// Whether the agent writes a configuration of its own and does not change the one that is there.
    #[serde(deserialize_with = "lenient::truth", rename = "istioOwnedCNIConfig")]
    pub istio_owned_cni_config: Option<bool>,
    /// The file of that.
    #[serde(rename = "istioOwnedCNIConfigFileName")]
    #[schemars(length(max = 255))]
    pub istio_owned_cni_config_file_name: Option<String>,
    /// Namespaces whose pods are left alone.
    #[schemars(schema_with = "schema::names")]
    pub exclude_namespaces: Option<Vec<String>>,
    /// Nodes on which it may run.
    #[schemars(schema_with = "schema::open_object")]
    pub affinity: Option<Affinity>,
    /// Labels of its DaemonSet.
    #[serde(deserialize_with = "lenient::texts")]
    #[schemars(schema_with = "schema::texts")]
    pub daemon_set_labels: BTreeMap<String, String>,
    /// Annotations of its pods.
    #[serde(deserialize_with = "lenient::texts")]
    #[schemars(schema_with = "schema::texts")]
    pub pod_annotations: BTreeMap<String, String>,
    /// Labels of its pods.
    #[serde(deserialize_with = "lenient::texts")]
    #[schemars(schema_with = "schema::texts")]
    pub pod_labels: BTreeMap<String, String>,
    /// Whether the plugin is called after the network's own.
    #[serde(deserialize_with = "lenient::truth")]
    pub chained: Option<bool>,
    /// How the plugin is called: `default`, or `multus`.
    #[schemars(length(max = 63))]
    pub provider: Option<String>,
    /// Pods in the ambient mesh.
    pub ambient: AmbientCni,
    /// Pods whose sidecar could not start.
    pub repair: Repair,
    /// Its seccomp profile.
    #[schemars(schema_with = "schema::open_object")]
    pub seccomp_profile: Option<SeccompProfile>,
    /// Its SELinux label.
    #[schemars(schema_with = "schema::open_object")]
    pub se_linux_options: Option<SELinuxOptions>,
    /// Whether AppArmor is set by annotation, as nodes before Kubernetes 1.30 need it.
    #[serde(deserialize_with = "lenient::truth")]
    pub use_app_armor_annotation: Option<bool>,
    /// What it may use.
    #[schemars(schema_with = "schema::open_object")]
    pub resources: Option<ResourceRequirements>,
    /// A quota that admits pods of its priority.
    pub resource_quotas: ResourceQuotas,
    /// Taints that it tolerates.
    #[schemars(schema_with = "schema::open_list")]
    pub tolerations: Option<Vec<Toleration>>,
    /// How its pods are replaced.
    #[schemars(schema_with = "schema::open_object")]
    pub update_strategy: Option<DaemonSetUpdateStrategy>,
    /// How long it may take to end.
    #[serde(deserialize_with = "lenient::number")]
    #[schemars(schema_with = "schema::count")]
    pub termination_grace_period_seconds: Option<i64>,
    /// The revision that it is labelled with.
    #[schemars(length(max = 63))]
    pub revision: Option<String>,
    /// Environment variables.
    #[serde(deserialize_with = "lenient::texts")]
    #[schemars(schema_with = "schema::texts")]
    pub env: BTreeMap<String, String>,
}

/// Pods in the ambient mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct AmbientCni {
    /// Whether the agent puts pods in the mesh.
    #[serde(deserialize_with = "lenient::truth")]
    pub enabled: Option<bool>,
    /// Which pods these are: label selectors for pods and namespaces.
    #[schemars(schema_with = "schema::open_list")]
    pub enablement_selectors: Option<Vec<Value>>,
    /// Whether ztunnel answers their DNS queries.
    #[serde(deserialize_with = "lenient::truth")]
    pub dns_capture: Option<bool>,
    /// Whether IPv6 is redirected.
    #[serde(deserialize_with = "lenient::truth")]
    pub ipv6: Option<bool>,
    /// Whether rules of pods that are in the mesh already are repaired when the agent starts.
    #[serde(deserialize_with = "lenient::truth")]
    pub reconcile_iptables_on_startup: Option<bool>,
    /// Whether the agent runs in the node's network namespace.
    #[serde(deserialize_with = "lenient::truth")]
    pub share_host_network_namespace: Option<bool>,
    /// Whether the plugin asks again when it cannot tell whether a pod is in the mesh.
    #[serde(deserialize_with = "lenient::truth")]
    pub enable_ambient_detection_retry: Option<bool>,
}

/// Pods whose sidecar could not start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Repair {
    /// Whether they are looked for.
    #[serde(deserialize_with = "lenient::truth")]
    pub enabled: Option<bool>,
    /// Whether they are labelled.
    #[serde(deserialize_with = "lenient::truth")]
    pub label_pods: Option<bool>,
    /// Whether they are deleted.
    #[serde(deserialize_with = "lenient::truth")]
    pub delete_pods: Option<bool>,
    /// Whether they are repaired.
    #[serde(deserialize_with = "lenient::truth")]
    pub repair_pods: Option<bool>,
    /// The container that tells.
    #[schemars(length(max = 63))]
    pub init_container_name: Option<String>,
    /// The label's key.
    #[schemars(length(max = 317))]
    pub broken_pod_label_key: Option<String>,
    /// The label's value.
    #[serde(deserialize_with = "lenient::text")]
    #[schemars(schema_with = "schema::text_or_number")]
    pub broken_pod_label_value: Option<String>,
}

/// A quota that admits pods of the priority of node agents outside of `kube-system`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct ResourceQuotas {
    /// Whether there is one.
    #[serde(deserialize_with = "lenient::truth")]
    pub enabled: Option<bool>,
    /// How many pods it admits.
    #[serde(deserialize_with = "lenient::number")]
    #[schemars(schema_with = "schema::count")]
    pub pods: Option<i64>,
}

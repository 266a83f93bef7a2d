//! `pilot`: the control plane.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Affinity, Container, EnvVar, ResourceRequirements, SeccompProfile, Toleration,
        TopologySpreadConstraint, Volume, VolumeMount,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{lenient, schema};

/// The control plane.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Pilot {
    /// Whether there is one.
    #[serde(deserialize_with = "lenient::truth")]
    pub enabled: Option<bool>,
    /// Whether its number follows its load.
    #[serde(deserialize_with = "lenient::truth")]
    pub autoscale_enabled: Option<bool>,
    /// The least number.
    #[serde(deserialize_with = "lenient::number")]
    #[schemars(schema_with = "schema::count")]
    pub autoscale_min: Option<i64>,
    /// The greatest number.
    #[serde(deserialize_with = "lenient::number")]
    #[schemars(schema_with = "schema::count")]
    pub autoscale_max: Option<i64>,
    /// How fast the number follows: `behavior` of a HorizontalPodAutoscaler.
    #[schemars(schema_with = "schema::open_object")]
    pub autoscale_behavior: Map<String, Value>,
    /// The use of CPU that is aimed at.
    pub cpu: TargetUtilization,
    /// The use of memory that is aimed at.
    pub memory: TargetUtilization,
    /// The number where it does not follow the load.
    #[serde(deserialize_with = "lenient::number")]
    #[schemars(schema_with = "schema::count")]
    pub replica_count: Option<i64>,
    /// How many more there may be while they are replaced.
    #[schemars(schema_with = "schema::number_or_text")]
    pub rolling_max_surge: Option<IntOrString>,
    /// How many may be missing while they are replaced.
    #[schemars(schema_with = "schema::number_or_text")]
    pub rolling_max_unavailable: Option<IntOrString>,
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
    /// What it may use.
    #[schemars(schema_with = "schema::open_object")]
    pub resources: Option<ResourceRequirements>,
    /// Its seccomp profile.
    #[schemars(schema_with = "schema::open_object")]
    pub seccomp_profile: Option<SeccompProfile>,
    /// How its pods are spread.
    #[schemars(schema_with = "schema::open_list")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// Environment variables.
    #[serde(deserialize_with = "lenient::texts")]
    #[schemars(schema_with = "schema::texts")]
    pub env: BTreeMap<String, String>,
    /// Environment variables whose values come from elsewhere.
    #[schemars(schema_with = "schema::open_list")]
    pub env_var_from: Vec<EnvVar>,
    /// Further arguments.
    #[schemars(schema_with = "schema::arguments")]
    pub extra_container_args: Vec<String>,
    /// Where its pods may run.
    #[schemars(schema_with = "schema::open_object")]
    pub affinity: Option<Affinity>,
    /// Taints that its pods tolerate.
    #[schemars(schema_with = "schema::open_list")]
    pub tolerations: Option<Vec<Toleration>>,
    /// Labels of nodes on which it may run.
    #[serde(deserialize_with = "lenient::texts")]
    #[schemars(schema_with = "schema::texts")]
    pub node_selector: BTreeMap<String, String>,
    /// Annotations of its pods.
    #[serde(deserialize_with = "lenient::texts")]
    #[schemars(schema_with = "schema::texts")]
    pub pod_annotations: BTreeMap<String, String>,
    /// Labels of its pods.
    #[serde(deserialize_with = "lenient::texts")]
    #[schemars(schema_with = "schema::texts")]
    pub pod_labels: BTreeMap<String, String>,
    /// Labels of its Deployment.
    #[serde(deserialize_with = "lenient::texts")]
    #[schemars(schema_with = "schema::texts")]
    pub deployment_labels: BTreeMap<String, String>,
    /// Annotations of its Deployment.
    #[serde(deserialize_with = "lenient::texts")]
    #[schemars(schema_with = "schema::texts")]
    pub deployment_annotations: BTreeMap<String, String>,
    /// Annotations of its Service.
    #[serde(deserialize_with = "lenient::texts")]
    #[schemars(schema_with = "schema::texts")]
    pub service_annotations: BTreeMap<String, String>,
    /// Annotations of its ServiceAccount.
    #[serde(deserialize_with = "lenient::texts")]
    #[schemars(schema_with = "schema::texts")]
    pub service_account_annotations: BTreeMap<String, String>,
    /// Further volumes of its pods.
    #[schemars(schema_with = "schema::open_list")]
    pub volumes: Vec<Volume>,
    /// Where they are mounted.
    #[schemars(schema_with = "schema::open_list")]
    pub volume_mounts: Vec<VolumeMount>,
    /// Containers that run before it.
    #[schemars(schema_with = "schema::open_list")]
    pub init_containers: Vec<Container>,
    /// The node agent, as far as the control plane depends on it.
    pub cni: PilotCni,
    /// Nodes that are tainted until their agent is ready.
    pub taint: Taint,
    /// The namespace whose ztunnels get certificates for the pods of their nodes; that of the ZTunnel if it
    /// is not said.
    #[schemars(length(max = 63))]
    pub trusted_ztunnel_namespace: Option<String>,
    /// The name of their service account; `ztunnel` if it is not said.
    #[schemars(length(max = 253))]
    pub trusted_ztunnel_name: Option<String>,
    /// How long a proxy stays connected before it has to connect anew, such as `30m`.
    #[schemars(length(max = 63))]
    pub keepalive_max_server_connection_age: Option<String>,
    /// A root in PEM for fetching keys of JSON Web Tokens.
    #[serde(rename = "jwksResolverExtraRootCA")]
    pub jwks_resolver_extra_root_ca: Option<String>,
    /// Whether the mesh configuration's ConfigMap is made.
    #[serde(deserialize_with = "lenient::truth")]
    pub config_map: Option<bool>,
    /// IP families of its service.
    #[schemars(schema_with = "schema::ip_families")]
    pub ip_families: Vec<String>,
    /// Whether that service has one family or two.
    #[schemars(schema_with = "schema::ip_family_policy")]
    pub ip_family_policy: Option<String>,
    /// A ConfigMap with lists of revoked certificates.
    #[schemars(length(max = 253))]
    pub crl_config_map_name: Option<String>,
    /// How many of its pods may be evicted at once.
    pub pdb: PodDisruptionBudget,
    /// What is shown of a pod that ended.
    #[schemars(length(max = 63))]
    pub termination_message_policy: Option<String>,
}

/// The use that is aimed at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct TargetUtilization {
    /// In percent of what is requested.
    #[serde(deserialize_with = "lenient::number")]
    #[schemars(schema_with = "schema::count")]
    pub target_average_utilization: Option<i64>,
}

/// The node agent, as far as the control plane depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct PilotCni {
    /// Whether the mesh needs an IstioCNI.
    #[serde(deserialize_with = "lenient::truth")]
    pub enabled: Option<bool>,
    /// How it is called: `default` or `multus`.
    #[schemars(length(max = 63))]
    pub provider: Option<String>,
}

/// Nodes that are tainted until their agent is ready.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Taint {
    /// Whether the control plane takes the taint away.
    #[serde(deserialize_with = "lenient::truth")]
    pub enabled: Option<bool>,
    /// The namespace of the agents.
    #[schemars(length(max = 63))]
    pub namespace: Option<String>,
}

/// How many pods may be evicted at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct PodDisruptionBudget {
    /// How many must stay.
    #[schemars(schema_with = "schema::number_or_text")]
    pub min_available: Option<IntOrString>,
    /// How many may go.
    #[schemars(schema_with = "schema::number_or_text")]
    pub max_unavailable: Option<IntOrString>,
    /// Whether pods that do not work may go regardless.
    #[schemars(length(max = 63))]
    pub unhealthy_pod_eviction_policy: Option<String>,
}

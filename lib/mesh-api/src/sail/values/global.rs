//! `global`: what concerns all components.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ResourceRequirements, Toleration};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{lenient, schema};

/// What concerns all components. Each chart reads some of it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Global {
    /// Whose control plane the images are, which decides its rights and arguments: `lateen`, or `istio`
    /// for images of Istio itself. Ours; if it is not said, the hub and the image tell.
    #[schemars(extend("enum" = ["lateen", "istio"]))]
    pub distribution: Option<String>,
    /// The registry and folder of the images.
    #[schemars(length(max = 1024))]
    pub hub: Option<String>,
    /// The tag of the images; the release if it is not said.
    #[serde(deserialize_with = "lenient::text")]
    #[schemars(schema_with = "schema::text_or_number")]
    pub tag: Option<String>,
    /// What is appended to the tag, such as `distroless`.
    pub variant: Option<String>,
    /// When nodes pull images.
    #[schemars(extend("enum" = ["Always", "Never", "IfNotPresent"]))]
    pub image_pull_policy: Option<String>,
    /// Names of secrets to pull images with.
    #[schemars(schema_with = "schema::names")]
    pub image_pull_secrets: Vec<String>,
    /// The Kubernetes that this is, if detection is not to decide: `openshift`, `gke`, `k3d`, `k3s`,
    /// `microk8s` or `minikube`.
    #[schemars(length(max = 63))]
    pub platform: Option<String>,
    /// The namespace of the control plane.
    #[schemars(length(max = 63))]
    pub istio_namespace: Option<String>,
    /// The revision of the control plane.
    #[schemars(length(max = 63))]
    pub revision: Option<String>,
    /// The network of the cluster's pods.
    #[schemars(length(max = 253))]
    pub network: Option<String>,
    /// The mesh.
    #[serde(rename = "meshID")]
    #[schemars(length(max = 253))]
    pub mesh_id: Option<String>,
    /// Networks of the mesh, and how each is entered.
    #[schemars(schema_with = "schema::mesh_networks")]
    pub mesh_networks: Map<String, Value>,
    /// The cluster among several.
    pub multi_cluster: MultiCluster,
    /// Whether logs are lines of JSON.
    #[serde(deserialize_with = "lenient::truth")]
    pub log_as_json: Option<bool>,
    /// What is logged.
    pub logging: Logging,
    /// Whether NetworkPolicies admit the traffic of the components.
    pub network_policy: Enabled,
    /// Which objects are made: cluster-scoped ones, those in namespaces, or all.
    #[schemars(extend("enum" = ["undefined", "all", "cluster", "namespace"]))]
    pub resource_scope: Option<String>,
    /// Whether the account by which other clusters read this one gets its rights.
    #[serde(rename = "enableReaderRBAC")]
    pub enable_reader_rbac: Option<bool>,
    /// Whether redirection uses nftables and not iptables.
    #[serde(deserialize_with = "lenient::truth")]
    pub native_nftables: Option<bool>,
    /// Nodes on which the control plane may run, where `pilot.nodeSelector` is not said.
    #[serde(deserialize_with = "lenient::texts")]
    #[schemars(schema_with = "schema::texts")]
    pub default_node_selector: BTreeMap<String, String>,
    /// Taints that the control plane tolerates, where `pilot.tolerations` is not said.
    #[schemars(schema_with = "schema::open_list")]
    pub default_tolerations: Option<Vec<Toleration>>,
    /// Whether the control plane has a PodDisruptionBudget.
    pub default_pod_disruption_budget: Enabled,
    /// Resources of containers for which nothing else is said.
    #[schemars(schema_with = "schema::open_object")]
    pub default_resources: Option<ResourceRequirements>,
    /// The priority of the control plane.
    #[schemars(length(max = 253))]
    pub priority_class_name: Option<String>,
    /// IP families of the control plane's service.
    #[schemars(schema_with = "schema::ip_families")]
    pub ip_families: Vec<String>,
    /// Whether that service has one family or two.
    #[schemars(schema_with = "schema::ip_family_policy")]
    pub ip_family_policy: Option<String>,
    /// Where certificates are asked for, `host:port`; the control plane if it is not said.
    #[schemars(length(max = 1024))]
    pub ca_address: Option<String>,
    /// Who signs the control plane's own certificate. Only `istiod` is there.
    #[schemars(length(max = 63))]
    pub pilot_cert_provider: Option<String>,
    /// A ClusterTrustBundle with the roots, instead of the ConfigMap.
    #[schemars(length(max = 253))]
    pub trust_bundle_name: Option<String>,
    /// Sidecars; its `clusterDomain` is that of the mesh.
    pub proxy: Proxy,
    /// The account by which other clusters read this one.
    #[schemars(length(max = 253))]
    pub reader_service_account: Option<String>,
}

/// Something that is on or off.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Enabled {
    /// Whether it is on.
    #[serde(deserialize_with = "lenient::truth")]
    pub enabled: Option<bool>,
}

/// The cluster among several of a mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct MultiCluster {
    /// Its name; `Kubernetes` if it is not said.
    #[schemars(length(max = 253))]
    pub cluster_name: Option<String>,
}

/// What is logged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Logging {
    /// Scopes and their levels, such as `default:info,ca:debug`.
    #[schemars(length(max = 1024))]
    pub level: Option<String>,
}

/// Sidecars.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Proxy {
    /// The domain of the cluster's services; `cluster.local` if it is not said.
    #[schemars(length(max = 253))]
    pub cluster_domain: Option<String>,
}

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
    /// Tokens that are exchanged for certificates.
    pub sts: Sts,
    /// Where a control plane outside of this cluster is; refused.
    #[schemars(length(max = 1024))]
    pub remote_pilot_address: Option<String>,
    /// Whether the control plane serves other clusters that have none; refused.
    pub external_istiod: Option<bool>,
    /// Settings of the control plane that are elsewhere by now.
    pub istiod: Map<String, Value>,
    /// Settings of waypoints.
    pub waypoint: Map<String, Value>,
    /// Settings of agentgateway.
    pub agentgateway: Map<String, Value>,
    /// Architectures; long without effect in Istio.
    pub arch: Map<String, Value>,
    /// The certificate authority's kind.
    pub ca_name: Option<String>,
    /// Signers of Kubernetes certificate requests.
    #[schemars(schema_with = "schema::names")]
    pub cert_signers: Vec<String>,
    /// Whether configuration of this cluster is read by a control plane elsewhere.
    pub config_cluster: Option<bool>,
    /// Whether a webhook validates configuration.
    pub config_validation: Option<bool>,
    /// The kind of service account token; long without effect in Istio.
    pub jwt_policy: Option<String>,
    /// Certificates of sidecars as files.
    pub mount_mtls_certs: Option<bool>,
    /// Whether the injector's ConfigMap is left out.
    pub omit_sidecar_injector_config_map: Option<bool>,
    /// Whether webhooks are made by the operator.
    pub operator_manage_webhooks: Option<bool>,
    /// Search domains of pods.
    #[serde(rename = "podDNSSearchNamespaces")]
    #[schemars(schema_with = "schema::names")]
    pub pod_dns_search_namespaces: Vec<String>,
    /// The container that redirects a sidecar's traffic.
    #[serde(rename = "proxy_init")]
    pub proxy_init: Map<String, Value>,
    /// The account by which other clusters read this one.
    #[schemars(length(max = 253))]
    pub reader_service_account: Option<String>,
    /// Certificates of sidecars.
    pub sds: Map<String, Value>,
    /// Tracing of sidecars.
    pub tracer: Map<String, Value>,
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
    /// Without effect in Istio too.
    #[serde(deserialize_with = "lenient::truth")]
    pub enabled: Option<bool>,
    /// The domain of services of all clusters.
    #[schemars(length(max = 253))]
    pub global_domain_suffix: Option<String>,
    /// Whether gateways between clusters get a filter.
    pub include_envoy_filter: Option<bool>,
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
    /// The rest.
    #[serde(flatten)]
    #[schemars(skip)]
    pub other: Map<String, Value>,
}

/// Tokens that are exchanged for certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Sts {
    /// The port of the service that exchanges them; 0 for none.
    #[serde(deserialize_with = "lenient::number")]
    #[schemars(schema_with = "schema::number_or_text")]
    pub service_port: Option<i64>,
}

//! `ztunnel`: the node proxy.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    apps::v1::DaemonSetUpdateStrategy,
    core::v1::{
        Affinity, EnvVarSource, LocalObjectReference, PodDNSConfig, ResourceRequirements,
        SELinuxOptions, Toleration, Volume, VolumeMount,
    },
};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{
    cni::ResourceQuotas,
    global::{Enabled, MultiCluster},
    lenient, schema,
};

/// The node proxy.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct ZtunnelChart {
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
    pub image_pull_policy: Option<String>,
    /// Secrets to pull the image with: names, or objects with a `name`.
    #[serde(deserialize_with = "pull_secrets")]
    #[schemars(schema_with = "schema::open_list")]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// The name of its DaemonSet, ServiceAccount and other objects; `ztunnel` if it is not said.
    #[schemars(length(max = 63))]
    pub resource_name: Option<String>,
    /// The revision of the control plane that it connects to.
    #[schemars(length(max = 63))]
    pub revision: Option<String>,
    /// The namespace of that control plane.
    #[schemars(length(max = 63))]
    pub istio_namespace: Option<String>,
    /// Where certificates are asked for, `host:port`.
    #[schemars(length(max = 1024))]
    pub ca_address: Option<String>,
    /// Where workloads are asked for, `host:port`.
    #[schemars(length(max = 1024))]
    pub xds_address: Option<String>,
    /// The network of the cluster's pods.
    #[schemars(length(max = 253))]
    pub network: Option<String>,
    /// The cluster among several.
    pub multi_cluster: MultiCluster,
    /// What is logged: a level, or levels by module.
    #[schemars(length(max = 1024))]
    pub log_level: Option<String>,
    /// Whether logs are lines of JSON.
    #[serde(deserialize_with = "lenient::truth")]
    pub log_as_json: Option<bool>,
    /// Labels of its objects.
    #[serde(deserialize_with = "lenient::texts")]
    #[schemars(schema_with = "schema::texts")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of its objects.
    #[serde(deserialize_with = "lenient::texts")]
    #[schemars(schema_with = "schema::texts")]
    pub annotations: BTreeMap<String, String>,
    /// Labels of its pods.
    #[serde(deserialize_with = "lenient::texts")]
    #[schemars(schema_with = "schema::texts")]
    pub pod_labels: BTreeMap<String, String>,
    /// Annotations of its pods.
    #[serde(deserialize_with = "lenient::texts")]
    #[schemars(schema_with = "schema::texts")]
    pub pod_annotations: BTreeMap<String, String>,
    /// Environment variables: values, or objects with `value` or `valueFrom`.
    #[schemars(schema_with = "schema::open_object")]
    pub env: BTreeMap<String, EnvValue>,
    /// Nodes on which it may run.
    #[schemars(schema_with = "schema::open_object")]
    pub affinity: Option<Affinity>,
    /// Labels of nodes on which it may run.
    #[serde(deserialize_with = "lenient::texts")]
    #[schemars(schema_with = "schema::texts")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that it tolerates.
    #[schemars(schema_with = "schema::open_list")]
    pub tolerations: Option<Vec<Toleration>>,
    /// What it may use.
    #[schemars(schema_with = "schema::open_object")]
    pub resources: Option<ResourceRequirements>,
    /// A quota that admits pods of its priority.
    pub resource_quotas: ResourceQuotas,
    /// Its SELinux label.
    #[schemars(schema_with = "schema::open_object")]
    pub se_linux_options: Option<SELinuxOptions>,
    /// How long it goes on with open connections when it is to end.
    #[serde(deserialize_with = "lenient::number")]
    #[schemars(schema_with = "schema::count")]
    pub termination_grace_period_seconds: Option<i64>,
    /// How its pods are replaced.
    #[schemars(schema_with = "schema::open_object")]
    pub update_strategy: Option<DaemonSetUpdateStrategy>,
    /// Further volumes of its pods.
    #[schemars(schema_with = "schema::open_list")]
    pub volumes: Vec<Volume>,
    /// Where they are mounted.
    #[schemars(schema_with = "schema::open_list")]
    pub volume_mounts: Vec<VolumeMount>,
    /// How its pods resolve names.
    #[schemars(length(max = 63))]
    pub dns_policy: Option<String>,
    /// How its pods resolve names.
    #[schemars(schema_with = "schema::open_object")]
    pub dns_config: Option<PodDNSConfig>,
    /// Whether lists of revoked certificates are read from the ConfigMap `istio-ca-crl`.
    pub peer_ca_crl: Enabled,
}

/// The value of an environment variable.
#[derive(Clone, Debug, PartialEq)]
pub enum EnvValue {
    /// It.
    Text(String),
    /// Where it comes from.
    From(Box<EnvVarSource>),
}

impl<'de> Deserialize<'de> for EnvValue {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        struct Entry {
            value: Option<lenient::Text>,
            value_from: Option<Box<EnvVarSource>>,
        }
        use serde::de::Error as _;
        let value = Value::deserialize(input)?;
        if !value.is_object() {
            let text: lenient::Text = serde_json::from_value(value).map_err(D::Error::custom)?;
            return Ok(Self::Text(text.0));
        }
        let entry: Entry = serde_json::from_value(value).map_err(D::Error::custom)?;
        match (entry.value, entry.value_from) {
            (Some(text), None) => Ok(Self::Text(text.0)),
            (None, Some(source)) => Ok(Self::From(source)),
            _ => Err(D::Error::custom("expected one of value and valueFrom")),
        }
    }
}

/// Sail takes names, the chart objects.
fn pull_secrets<'de, D: Deserializer<'de>>(
    input: D,
) -> Result<Vec<LocalObjectReference>, D::Error> {
    #[derive(Deserialize)]
    #[serde(
        untagged,
        expecting = "expected the name of a secret, or an object with a `name`"
    )]
    enum Secret {
        Name(String),
        Reference(LocalObjectReference),
    }
    let secrets = Vec::<Secret>::deserialize(input)?;
    let reference = |secret| match secret {
        Secret::Name(name) => LocalObjectReference { name },
        Secret::Reference(reference) => reference,
    };
    Ok(secrets.into_iter().map(reference).collect())
}

//! WorkloadEntry: a workload that is no pod, such as a virtual machine.

use std::collections::BTreeMap;

use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{schema, status::Status};

/// A workload outside of Kubernetes. Also an endpoint of a ServiceEntry.
#[derive(
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "networking.istio.io",
    version = "v1",
    kind = "WorkloadEntry",
    plural = "workloadentries",
    namespaced,
    status = "Status",
    derive = "PartialEq",
    derive = "Default",
    doc = "Describes a workload outside of Kubernetes, such as a virtual machine.",
    category = "istio-io",
    category = "networking-istio-io",
    shortname = "we",
    printcolumn = r#"{"name":"Age", "type":"date", "jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Address", "type":"string", "jsonPath":".spec.address"}"#,
    crates(kube_core = "::kube_core", k8s_openapi = "::k8s_openapi")
)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    schema::rule("has(self.address) || has(self.network)", "set address, or network for one behind a gateway"),
    schema::rule(
        "!has(self.address) || !self.address.startsWith('unix://') || !has(self.ports)",
        "a Unix socket has no ports",
    ),
]))]
pub struct WorkloadEntrySpec {
    /// Its IP address or DNS name; or, for an endpoint of a ServiceEntry, a Unix socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::workload_address")]
    pub address: Option<String>,
    /// Port numbers by the name that a ServiceEntry gives them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::named_ports")]
    pub ports: BTreeMap<String, i64>,
    /// Its labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 256))]
    pub labels: BTreeMap<String, String>,
    /// The network it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub network: Option<String>,
    /// Where it runs: `region/zone/subzone`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub locality: Option<String>,
    /// Its share of the traffic, relative to the other endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub weight: Option<i64>,
    /// Its service account, in the namespace of this object.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub service_account: Option<String>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    #[schemars(skip)]
    pub other: Map<String, Value>,
}

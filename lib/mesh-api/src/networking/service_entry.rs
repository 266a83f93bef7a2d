//! ServiceEntry: a service that the cluster's registry does not hold.

use std::collections::BTreeMap;

use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::WorkloadEntrySpec;
use crate::{schema, status::Status};

/// Makes hosts known to the mesh that are no Services of the cluster.
#[derive(
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "networking.istio.io",
    version = "v1",
    kind = "ServiceEntry",
    plural = "serviceentries",
    namespaced,
    status = "Status",
    derive = "PartialEq",
    derive = "Default",
    doc = "Makes hosts known to the mesh that are no Services of the cluster.",
    category = "istio-io",
    category = "networking-istio-io",
    shortname = "se",
    printcolumn = r#"{"name":"Hosts", "type":"string", "jsonPath":".spec.hosts"}"#,
    printcolumn = r#"{"name":"Location", "type":"string", "jsonPath":".spec.location"}"#,
    printcolumn = r#"{"name":"Resolution", "type":"string", "jsonPath":".spec.resolution"}"#,
    printcolumn = r#"{"name":"Age", "type":"date", "jsonPath":".metadata.creationTimestamp"}"#,
    crates(kube_core = "::kube_core", k8s_openapi = "::k8s_openapi")
)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend("required" = ["hosts"], "x-kubernetes-validations" = [
    schema::rule(
        "!(has(self.workloadSelector) && has(self.endpoints))",
        "set only one of workloadSelector and endpoints",
    ),
    schema::rule(
        "!has(self.endpoints) || (has(self.resolution) && self.resolution != 'NONE')",
        "resolution NONE takes connections as they are and cannot have endpoints",
    ),
    schema::rule(
        "!has(self.addresses) || !has(self.resolution) || self.resolution in ['NONE', 'STATIC'] \
         || self.addresses.all(address, !address.contains('/'))",
        "addresses may be prefixes with resolution NONE or STATIC only",
    ),
    schema::rule(
        "!has(self.resolution) || self.resolution != 'DNS_ROUND_ROBIN' || !has(self.endpoints) \
         || self.endpoints.size() <= 1",
        "resolution DNS_ROUND_ROBIN can have one endpoint at most",
    ),
    schema::rule(
        "!has(self.resolution) || !(self.resolution in ['DNS', 'DNS_ROUND_ROBIN']) \
         || has(self.endpoints) || self.hosts.all(host, !host.startsWith('*'))",
        "a wildcard host cannot be resolved: with resolution DNS or DNS_ROUND_ROBIN it needs endpoints",
    ),
]))]
pub struct ServiceEntrySpec {
    /// Names of the service. A name may begin with `*.`.
    #[schemars(schema_with = "schema::hosts")]
    pub hosts: Vec<String>,
    /// Its addresses or prefixes. A host without addresses gets one from the mesh.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::service_addresses")]
    pub addresses: Vec<String>,
    /// Its ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend(
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["name"],
        "x-kubernetes-validations" = [schema::rule(
            "self.all(a, self.exists_one(b, a.number == b.number))",
            "a port number can stand here once",
        )]
    ))]
    pub ports: Vec<ServicePort>,
    /// MESH_EXTERNAL (the default) or MESH_INTERNAL.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["MESH_EXTERNAL", "MESH_INTERNAL"]))]
    pub location: Option<String>,
    /// How its endpoints are found: NONE (the default), STATIC, DNS, DNS_ROUND_ROBIN or DYNAMIC_DNS.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"]))]
    pub resolution: Option<String>,
    /// Its endpoints.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096))]
    pub endpoints: Vec<WorkloadEntrySpec>,
    /// Pods and WorkloadEntries of this namespace that are its endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload_selector: Option<WorkloadSelector>,
    /// Namespaces that see it: `.` is this one, `*` are all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub export_to: Vec<String>,
    /// Identities that its endpoints may have instead of those they would have by themselves.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subject_alt_names: Vec<String>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    #[schemars(skip)]
    pub other: Map<String, Value>,
}

/// A port of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend("required" = ["name", "number"]))]
pub struct ServicePort {
    /// The port that clients use.
    #[schemars(range(min = 1, max = 65535))]
    pub number: i64,
    /// The name of the port.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// What is spoken there, such as HTTP, HTTPS, GRPC, HTTP2, TLS or TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub protocol: Option<String>,
    /// The port of the endpoints, if it is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub target_port: Option<i64>,
}

/// Which workloads of the namespace are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct WorkloadSelector {
    /// Labels that a workload must have, all of them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::selector_labels")]
    pub labels: BTreeMap<String, String>,
}

//! PeerAuthentication: whether plain text is accepted.

use std::collections::BTreeMap;

use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::WorkloadSelector;
use crate::{schema, status::Status};

/// Whether the workloads it selects accept connections without mutual TLS.
#[derive(
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "security.istio.io",
    version = "v1",
    kind = "PeerAuthentication",
    plural = "peerauthentications",
    namespaced,
    status = "Status",
    derive = "PartialEq",
    derive = "Default",
    doc = "Says whether the workloads it selects accept connections without mutual TLS.",
    category = "istio-io",
    category = "security-istio-io",
    shortname = "pa",
    printcolumn = r#"{"name":"Mode", "type":"string", "jsonPath":".spec.mtls.mode"}"#,
    printcolumn = r#"{"name":"Age", "type":"date", "jsonPath":".metadata.creationTimestamp"}"#,
    crates(kube_core = "::kube_core", k8s_openapi = "::k8s_openapi")
)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [schema::rule(
    "!has(self.portLevelMtls) || (has(self.selector) && has(self.selector.matchLabels) \
     && self.selector.matchLabels.size() > 0)",
    "portLevelMtls needs a selector with labels",
)]))]
pub struct PeerAuthenticationSpec {
    /// The workloads of this namespace that are meant; all of them without a selector. Without a
    /// selector in the mesh's root namespace: those of all namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<WorkloadSelector>,
    /// What holds for all ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtls: Option<MutualTls>,
    /// What holds for single ports of the workload, by port number.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("minProperties" = 1, "maxProperties" = 1024, "x-kubernetes-validations" = [
        schema::rule(
            "self.all(port, 0 < int(port) && int(port) <= 65535)",
            "a port is a number from 1 to 65535",
        ),
    ]))]
    pub port_level_mtls: BTreeMap<String, MutualTls>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    #[schemars(skip)]
    pub other: Map<String, Value>,
}

/// Whether plain text is accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct MutualTls {
    /// UNSET inherits, DISABLE and PERMISSIVE accept plain text, STRICT does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["UNSET", "DISABLE", "PERMISSIVE", "STRICT"]))]
    pub mode: Option<String>,
}

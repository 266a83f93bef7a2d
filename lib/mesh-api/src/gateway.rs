//! Gateway and GatewayClass of `gateway.networking.k8s.io`, as far as the mesh reads them.
//!
//! Their CRDs belong to the cluster, see [`crate::gateway_stand_ins`].

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{schema, status::Condition};

/// A point where traffic enters a proxy; of class `istio-waypoint`, a waypoint.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "Gateway",
    plural = "gateways",
    namespaced,
    status = "GatewayStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A point where traffic enters a proxy.",
    category = "gateway-api",
    shortname = "gtw",
    printcolumn = r#"{"name":"Class", "type":"string", "jsonPath":".spec.gatewayClassName"}"#,
    printcolumn = r#"{"name":"Address", "type":"string", "jsonPath":".status.addresses[*].value"}"#,
    printcolumn = r#"{"name":"Programmed", "type":"string", "jsonPath":".status.conditions[?(@.type==\"Programmed\")].status"}"#,
    printcolumn = r#"{"name":"Age", "type":"date", "jsonPath":".metadata.creationTimestamp"}"#,
    crates(kube_core = "::kube_core", k8s_openapi = "::k8s_openapi")
)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend("required" = ["gatewayClassName"]))]
pub struct GatewaySpec {
    /// The GatewayClass.
    #[schemars(length(min = 1, max = 253))]
    pub gateway_class_name: String,
    /// What it listens on.
    #[schemars(length(max = 64))]
    pub listeners: Vec<Listener>,
    /// Addresses that are asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<GatewayAddress>,
}

/// One port a Gateway listens on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Listener {
    /// The listener's name.
    pub name: String,
    /// The host it is for; all hosts without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i64,
    /// What is spoken there, such as HTTP, TLS, TCP, HBONE or a protocol of an implementation.
    pub protocol: String,
    /// What may be attached to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_routes: Option<AllowedRoutes>,
}

/// What may be attached to a listener.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct AllowedRoutes {
    /// From which namespaces; from the Gateway's own if not stated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<RouteNamespaces>,
}

/// Namespaces from which something may be attached.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct RouteNamespaces {
    /// Same (the default), All, Selector or None.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Which namespaces, with Selector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// An address of a Gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct GatewayAddress {
    /// IPAddress (the default) or Hostname.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<String>,
    /// The address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// What the Gateway's controller says about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct GatewayStatus {
    /// Addresses it has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<GatewayAddress>,
    /// What holds for it now, one entry per type.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// A kind of Gateway, and who serves it.
#[derive(
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "GatewayClass",
    plural = "gatewayclasses",
    status = "GatewayClassStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A kind of Gateway, and who serves it.",
    category = "gateway-api",
    shortname = "gc",
    printcolumn = r#"{"name":"Controller", "type":"string", "jsonPath":".spec.controllerName"}"#,
    printcolumn = r#"{"name":"Accepted", "type":"string", "jsonPath":".status.conditions[?(@.type==\"Accepted\")].status"}"#,
    printcolumn = r#"{"name":"Age", "type":"date", "jsonPath":".metadata.creationTimestamp"}"#,
    crates(kube_core = "::kube_core", k8s_openapi = "::k8s_openapi")
)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend("required" = ["controllerName"]))]
pub struct GatewayClassSpec {
    /// The controller that serves Gateways of this class, such as `istio.io/mesh-controller`.
    #[schemars(length(min = 1, max = 253))]
    pub controller_name: String,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// What the controller says about the class.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct GatewayClassStatus {
    /// What holds for it now, one entry per type.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

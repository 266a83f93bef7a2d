//! Parts of the CRDs' schemas that the types do not say by themselves.
//!
//! Values in lists are checked by patterns and not by CEL: the cost of CEL is estimated for the longest
//! lists that the schema allows, and the API server refuses a CRD whose estimate is too high.

use schemars::{JsonSchema as _, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use crate::{security::MAX_VALUES, status::Condition};

/// One octet of an IPv4 address.
const OCTET: &str = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";

/// A CEL rule and what to say when it does not hold.
pub(crate) fn rule(rule: &str, message: &str) -> Value {
    json!({ "rule": rule, "message": message })
}

/// A number or its text: Istio's writers use both for generations.
pub(crate) fn int_or_string(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "x-kubernetes-int-or-string": true })
}

/// Conditions, one entry per type, so that several writers can each own theirs.
pub(crate) fn conditions(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "What holds for the object now, one entry per type.",
        "type": "array",
        "items": Condition::json_schema(generator),
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    })
}

/// Labels of a selector: no wildcards, no empty keys.
pub(crate) fn selector_labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "Labels that a workload must have, all of them. None select every workload.",
        "type": "object",
        "maxProperties": 256,
        "additionalProperties": {
            "type": "string",
            "maxLength": 63,
            "pattern": "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$",
        },
        "x-kubernetes-validations": [
            rule("self.all(key, key.size() > 0 && !key.contains('*'))", "a label has a key, without wildcards"),
        ],
    })
}

/// An API group, empty for the core group.
pub(crate) fn api_group(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "The API group; empty for the core group.",
        "type": "string",
        "maxLength": 253,
        "pattern": r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
    })
}

/// A kind.
pub(crate) fn kind(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "The kind.",
        "type": "string",
        "minLength": 1,
        "maxLength": 63,
        "pattern": "^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$",
    })
}

/// Texts, of which each may be empty nowhere.
pub(crate) fn texts(_: &mut SchemaGenerator) -> Schema {
    values(&json!({ "type": "string", "minLength": 1 }))
}

/// Ports, written as texts.
pub(crate) fn ports(_: &mut SchemaGenerator) -> Schema {
    let port =
        "^([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$";
    values(&json!({ "type": "string", "pattern": port }))
}

/// Addresses or prefixes. The form of an IPv6 address is checked in outline only.
pub(crate) fn ip_blocks(_: &mut SchemaGenerator) -> Schema {
    let v4 = format!(r"({OCTET}\.){{3}}{OCTET}(/(3[0-2]|[12]?[0-9]))?");
    let v6 = "[0-9a-fA-F:]*:[0-9a-fA-F:.]*(/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))?";
    values(&json!({ "type": "string", "maxLength": 64, "pattern": format!("^({v4}|{v6})$") }))
}

/// Service accounts, `namespace/name` or `name`.
pub(crate) fn service_accounts(_: &mut SchemaGenerator) -> Schema {
    let name = r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?";
    let account = format!("^([a-z0-9]([-a-z0-9]*[a-z0-9])?/)?{name}$");
    let mut schema = values(&json!({ "type": "string", "maxLength": 320, "pattern": account }));
    // Istio's limit.
    schema.insert("maxItems".to_owned(), json!(16));
    schema
}

/// The name of an attribute in a condition.
pub(crate) fn attribute(_: &mut SchemaGenerator) -> Schema {
    let names = [
        r"source\.(ip|namespace|principal|serviceAccount)",
        r"remote\.ip",
        r"destination\.(ip|port)",
        r"connection\.sni",
        r"request\.headers\[.+\]",
        r"request\.auth\.(principal|audiences|presenter|claims\[.+\])",
        r"experimental\.envoy\.filters\..+",
    ];
    json_schema!({
        "description": "The attribute, such as source.ip. Those of requests need a waypoint.",
        "type": "string",
        "maxLength": 1024,
        "pattern": format!("^({})$", names.join("|")),
    })
}

fn values(item: &Value) -> Schema {
    json_schema!({ "type": "array", "minItems": 1, "maxItems": MAX_VALUES, "items": item })
}

/// Names of a service.
pub(crate) fn hosts(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "Names of the service. A name may begin with `*.`.",
        "type": "array",
        "minItems": 1,
        "maxItems": 256,
        "items": {
            "type": "string",
            "maxLength": 255,
            "pattern": r"^(\*[-.])?[A-Za-z0-9_]([-A-Za-z0-9_.]*[A-Za-z0-9_])?\.?$",
        },
    })
}

/// Addresses or prefixes of a service.
pub(crate) fn service_addresses(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = ip_blocks(generator);
    schema.insert("maxItems".to_owned(), json!(256));
    schema.remove("minItems");
    schema
}

/// An IP address, a DNS name or a Unix socket.
pub(crate) fn workload_address(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "Its IP address or DNS name; or, for an endpoint of a ServiceEntry, a Unix socket.",
        "type": "string",
        "maxLength": 256,
        "x-kubernetes-validations": [rule(
            "!self.startsWith('unix://') || self.matches('^unix://[/@].*[^/]$')",
            "a Unix socket is an absolute path, or an abstract name behind `@`",
        )],
    })
}

/// Port numbers by name.
pub(crate) fn named_ports(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "Port numbers by the name that a ServiceEntry gives them.",
        "type": "object",
        "maxProperties": 128,
        "additionalProperties": { "type": "integer", "format": "int64", "minimum": 1, "maximum": 65535 },
        "x-kubernetes-validations": [rule(
            "self.all(name, name.size() < 63 && name.matches('^[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?$'))",
            "the name of a port has letters, digits and `-`, and less than 63 of them",
        )],
    })
}

//! Parts of the schema of values that their types do not say by themselves.
//!
//! Lists and maps are bounded: the API server estimates the cost of rules for the longest ones.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use crate::schema::rule;

/// More of anything than a mesh can use.
const MANY: usize = 256;

/// A text; a whole number is taken for one. A fraction is not: YAML has lost the zero of `1.30`.
pub(super) fn text_or_number(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "x-kubernetes-int-or-string": true, "maxLength": 1024 })
}

/// A whole number, or a text.
pub(super) fn number_or_text(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "x-kubernetes-int-or-string": true, "maxLength": 64 })
}

/// A number of something.
pub(super) fn count(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "int64", "minimum": 0 })
}

/// Texts by name.
pub(super) fn texts(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": MANY,
        "additionalProperties": { "x-kubernetes-int-or-string": true },
    })
}

/// Names of something.
pub(super) fn names(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": MANY,
        "items": { "type": "string", "minLength": 1, "maxLength": 253 },
    })
}

/// Arguments of a program.
pub(super) fn arguments(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "maxItems": MANY, "items": { "type": "string" } })
}

/// A type of Kubernetes.
pub(super) fn open_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

/// A list of a type of Kubernetes. The items may be texts in some.
pub(super) fn open_list(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": MANY,
        "items": { "x-kubernetes-preserve-unknown-fields": true },
    })
}

/// IP families of a service.
pub(super) fn ip_families(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 2,
        "items": { "type": "string", "enum": ["IPv4", "IPv6"] },
    })
}

/// How many IP families a service has.
pub(super) fn ip_family_policy(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "enum": ["SingleStack", "PreferDualStack", "RequireDualStack"],
    })
}

/// Networks of the mesh.
pub(super) fn mesh_networks(_: &mut SchemaGenerator) -> Schema {
    let open = |rule: Value, properties: Value| {
        json!({
            "type": "array",
            "maxItems": 64,
            "items": {
                "type": "object",
                "properties": properties,
                "x-kubernetes-preserve-unknown-fields": true,
                "x-kubernetes-validations": [rule],
            },
        })
    };
    let text = json!({ "type": "string", "maxLength": 253 });
    let endpoints = open(
        at_most_one_of(&["fromCidr", "fromRegistry"]),
        json!({ "fromCidr": text, "fromRegistry": text }),
    );
    let gateways = open(
        at_most_one_of(&["registryServiceName", "address"]),
        json!({ "registryServiceName": text, "address": text }),
    );
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {
            "type": "object",
            "properties": { "endpoints": endpoints, "gateways": gateways },
            "x-kubernetes-preserve-unknown-fields": true,
        },
    })
}

/// The mesh configuration, as far as an ambient mesh reads it.
pub(super) fn mesh_config(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

/// At most one of some fields, in the words of the Sail operator.
pub(super) fn at_most_one_of(fields: &[&str]) -> Value {
    let present: Vec<_> = fields
        .iter()
        .map(|field| format!("(has(self.{field})?1:0)"))
        .collect();
    let message = format!("At most one of [{}] should be set", fields.join(" "));
    rule(&format!("{} <= 1", present.join("+")), &message)
}

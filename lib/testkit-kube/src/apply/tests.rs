use std::sync::LazyLock;

use jiff::Timestamp;
use kube::core::GroupVersionKind;
use serde_json::{Value, json};

use super::{ApplyRequest, Error, Writer, apply, track_update};
use crate::schema::Schema;

mod laws;
mod ownership;

/// A custom kind with every kind of list and map.
static CUSTOM: LazyLock<Schema> = LazyLock::new(|| {
    let spec = json!({"type": "object", "properties": {
        "a": {"type": "integer"},
        "b": {"type": "string"},
        "struct": {"type": "object", "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}}},
        "map": {"type": "object", "additionalProperties": {"type": "string"}},
        "atomicMap": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
        "list": {"type": "array", "items": {"type": "string"}},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "items": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                  "items": {"type": "object", "required": ["name"], "properties": {
                      "name": {"type": "string"}, "x": {"type": "integer"}, "y": {"type": "integer"}}}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }});
    let text = json!({"type": "object", "properties": {
        "spec": spec,
        "status": {"type": "object", "properties": {"ready": {"type": "boolean"}}},
    }});
    Schema::from_openapi(&text).unwrap()
});

fn deployments() -> &'static Schema {
    Schema::builtin(&GroupVersionKind::gvk("apps", "v1", "Deployment")).unwrap()
}

fn writer<'a>(schema: &'a Schema, manager: &'a str) -> Writer<'a> {
    Writer {
        schema,
        manager,
        api_version: "a/v1",
        subresource: None,
        status_apart: true,
        now: Timestamp::from_second(1_800_000_000).unwrap(),
    }
}

/// The object with this specification, or none if that is null.
fn object(spec: &Value) -> Value {
    let mut object = json!({"apiVersion": "a/v1", "kind": "K", "metadata": {"name": "n"}});
    if !spec.is_null() {
        object["spec"] = spec.clone();
    }
    object
}

fn try_apply(
    live: Option<&Value>,
    manager: &str,
    spec: &Value,
    force: bool,
) -> Result<Value, Error> {
    apply(&ApplyRequest {
        writer: writer(&CUSTOM, manager),
        live,
        config: &object(spec),
        force,
    })
}

fn applied(live: Option<&Value>, manager: &str, spec: &Value) -> Value {
    try_apply(live, manager, spec, false).unwrap()
}

fn updated(live: &Value, manager: &str, spec: &Value) -> Value {
    let mut new = live.clone();
    new["spec"] = spec.clone();
    track_update(&writer(&CUSTOM, manager), Some(live), &mut new);
    new
}

/// What a manager owns of the specification.
fn owned(object: &Value, manager: &str) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    let entry = entries.iter().find(|entry| entry["manager"] == manager);
    entry.map_or(Value::Null, |entry| entry["fieldsV1"]["f:spec"].clone())
}

fn message(result: Result<Value, Error>) -> String {
    result.unwrap_err().to_string()
}

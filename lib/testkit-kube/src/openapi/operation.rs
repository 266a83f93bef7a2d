//! Operations as the documents show them. kubectl reads from them which parameters an endpoint takes, and
//! which patches.

use serde_json::{Map, Value, json};

use super::{
    definition::{Dialect, reference},
    root,
};
use crate::registry::Resource;

/// A parameter in the query: its name, its type, and what it is for.
type Parameter = (&'static str, &'static str, &'static str);

const DRY_RUN: Parameter = (
    "dryRun",
    "string",
    "All: process the request without keeping its result.",
);
const MANAGER: Parameter = (
    "fieldManager",
    "string",
    "The name of the one who writes, for the ownership of fields.",
);
const VALIDATION: Parameter = (
    "fieldValidation",
    "string",
    "Ignore, Warn or Strict: what becomes of unknown fields.",
);
const FORCE: Parameter = (
    "force",
    "boolean",
    "Take fields from their owners. For apply only.",
);

const WRITE: [Parameter; 3] = [DRY_RUN, MANAGER, VALIDATION];
const PATCH: [Parameter; 4] = [DRY_RUN, MANAGER, VALIDATION, FORCE];

/// The paths of a resource and of its subresources that store something, with their operations.
pub(super) fn paths(resource: &Resource, dialect: Dialect) -> Vec<(String, Value)> {
    let namespace = if resource.namespaced {
        "namespaces/{namespace}/"
    } else {
        ""
    };
    let collection = format!("/{}/{namespace}{}", root(resource), resource.plural);
    let mut paths = vec![(
        collection.clone(),
        item(resource, &["list", "create", "deletecollection"], dialect),
    )];
    let one = format!("{collection}/{{name}}");
    if resource.is_stored() {
        paths.push((
            one.clone(),
            item(resource, &["get", "update", "patch", "delete"], dialect),
        ));
    }
    if resource.has("status") {
        paths.push((
            format!("{one}/status"),
            item(resource, &["get", "update", "patch"], dialect),
        ));
    }
    for (path, item) in &mut paths {
        let names = ["namespace", "name"]
            .into_iter()
            .filter(|name| path.contains(&format!("{{{name}}}")));
        let parameters: Vec<Value> = names.map(|name| path_parameter(name, dialect)).collect();
        if !parameters.is_empty() {
            item["parameters"] = parameters.into();
        }
    }
    paths
}

fn item(resource: &Resource, verbs: &[&str], dialect: Dialect) -> Value {
    let mut item = Map::new();
    for verb in verbs.iter().filter(|verb| resource.verbs.contains(verb)) {
        let (method, action, parameters): (_, _, &[Parameter]) = match *verb {
            "list" => ("get", "list", &[]),
            "get" => ("get", "get", &[]),
            "create" => ("post", "post", &WRITE),
            "update" => ("put", "put", &WRITE),
            "patch" => ("patch", "patch", &PATCH),
            "delete" => ("delete", "delete", &[DRY_RUN]),
            _ => ("delete", "deletecollection", &[DRY_RUN]),
        };
        let mut operation = json!({
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {
                "group": resource.kind.group, "version": resource.kind.version, "kind": resource.kind.kind,
            },
        });
        operation["parameters"] = parameters
            .iter()
            .map(|parameter| query(*parameter, dialect))
            .collect();
        operation["responses"] = json!({"200": answer(resource, verb, dialect)});
        if ["post", "put", "patch"].contains(&method) {
            body(&mut operation, resource, method, dialect);
        }
        item.insert(method.to_owned(), operation);
    }
    Value::Object(item)
}

/// The content types that an endpoint takes. Strategic merge patches are for built-in kinds.
fn consumed(resource: &Resource, method: &str) -> Vec<&'static str> {
    if method != "patch" {
        return vec!["application/json", "application/yaml"];
    }
    let mut types = vec![
        "application/apply-patch+yaml",
        "application/json-patch+json",
        "application/merge-patch+json",
    ];
    if !resource.is_custom() {
        types.push("application/strategic-merge-patch+json");
    }
    types
}

fn body(operation: &mut Value, resource: &Resource, method: &str, dialect: Dialect) {
    let types = consumed(resource, method);
    let schema = match method {
        "patch" => json!({"type": "object"}),
        _ => reference(resource, dialect),
    };
    match dialect {
        Dialect::V3 => {
            let content = types
                .into_iter()
                .map(|name| (name.to_owned(), json!({"schema": schema})));
            operation["requestBody"] =
                json!({"required": true, "content": content.collect::<Map<_, _>>()});
        }
        Dialect::V2 => {
            operation["consumes"] = json!(types);
            let body = json!({"name": "body", "in": "body", "required": true, "schema": schema});
            if let Some(parameters) = operation["parameters"].as_array_mut() {
                parameters.push(body);
            }
        }
    }
}

fn answer(resource: &Resource, verb: &str, dialect: Dialect) -> Value {
    let schema = match verb {
        "get" | "create" | "update" | "patch" => reference(resource, dialect),
        _ => json!({"type": "object"}),
    };
    match dialect {
        Dialect::V2 => json!({"description": "OK", "schema": schema}),
        Dialect::V3 => {
            json!({"description": "OK", "content": {"application/json": {"schema": schema}}})
        }
    }
}

fn query((name, kind, description): Parameter, dialect: Dialect) -> Value {
    parameter(
        json!({"name": name, "in": "query", "description": description}),
        kind,
        dialect,
    )
}

fn path_parameter(name: &str, dialect: Dialect) -> Value {
    parameter(
        json!({"name": name, "in": "path", "required": true}),
        "string",
        dialect,
    )
}

fn parameter(mut parameter: Value, kind: &str, dialect: Dialect) -> Value {
    match dialect {
        Dialect::V2 => parameter["type"] = json!(kind),
        Dialect::V3 => parameter["schema"] = json!({"type": kind}),
    }
    parameter
}

//! Schemas as the documents show them.

use std::sync::{Arc, LazyLock};

use serde_json::{Map, Value, json};

use crate::{
    registry::Resource,
    schema::{Origin, builtin},
};

/// Which version of OpenAPI a document is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Swagger: no alternatives, no nulls.
    V2,
    /// Version 3.0: nothing beside a reference.
    V3,
}

type Fields = Map<String, Value>;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Words that version 2 does not have, or that kubectl's reader of it does not expect.
const NOT_IN_V2: [&str; 9] = [
    "oneOf",
    "anyOf",
    "allOf",
    "not",
    "nullable",
    "default",
    "x-kubernetes-validations",
    "x-kubernetes-embedded-resource",
    "example",
];

/// The name of a kind's definition.
pub(super) fn name(resource: &Resource) -> Option<String> {
    match resource.schema()?.origin() {
        Origin::Open => None,
        Origin::Builtin(entry) => Some(entry.definition.clone()),
        Origin::Custom(_) => {
            let kind = &resource.kind;
            let group: Vec<&str> = kind.group.rsplit('.').collect();
            Some(format!(
                "{}.{}.{}",
                group.join("."),
                kind.version,
                kind.kind
            ))
        }
    }
}

/// A reference to a kind's definition.
pub(super) fn reference(resource: &Resource, dialect: Dialect) -> Value {
    match name(resource) {
        Some(name) => json!({"$ref": format!("{}{name}", prefix(dialect))}),
        None => json!({"type": "object"}),
    }
}

fn prefix(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::V2 => "#/definitions/",
        Dialect::V3 => "#/components/schemas/",
    }
}

/// The definitions of a version 2 document: all built-in ones, and those of CRDs.
pub(super) fn all(resources: &[Arc<Resource>]) -> Fields {
    let mut all = builtins(Dialect::V2).clone();
    for resource in resources {
        if let (Some(name), Some(definition)) = (name(resource), custom(resource, Dialect::V2)) {
            all.insert(name, definition);
        }
    }
    all
}

/// The definitions of some kinds, with all that they refer to.
pub(super) fn reachable(resources: &[&Resource]) -> Fields {
    let mut found = Fields::new();
    let mut open = Vec::new();
    for resource in resources {
        let Some(name) = name(resource) else { continue };
        if let Some(definition) = custom(resource, Dialect::V3) {
            references(&definition, &mut open);
            found.insert(name, definition);
        } else {
            open.push(name);
        }
    }
    while let Some(name) = open.pop() {
        if let Some(definition) = builtins(Dialect::V3).get(&name)
            && !found.contains_key(&name)
        {
            references(definition, &mut open);
            found.insert(name, definition.clone());
        }
    }
    found
}

fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                found.push(builtin::definition_name(reference).to_owned());
            }
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

/// All built-in definitions, written once for each dialect.
fn builtins(dialect: Dialect) -> &'static Fields {
    static V2: LazyLock<Fields> = LazyLock::new(|| written(Dialect::V2));
    static V3: LazyLock<Fields> = LazyLock::new(|| written(Dialect::V3));
    match dialect {
        Dialect::V2 => &V2,
        Dialect::V3 => &V3,
    }
}

fn written(dialect: Dialect) -> Fields {
    let definition = |(name, text): (&String, &Value)| (name.clone(), write(text, dialect));
    builtin::definitions().iter().map(definition).collect()
}

/// The definition of a CRD's kind.
fn custom(resource: &Resource, dialect: Dialect) -> Option<Value> {
    let Origin::Custom(text) = resource.schema()?.origin() else {
        return None;
    };
    let mut definition = write(text, dialect);
    let fields = definition.as_object_mut()?;
    let kind = &resource.kind;
    fields.insert(
        "x-kubernetes-group-version-kind".to_owned(),
        json!([{"group": kind.group, "version": kind.version, "kind": kind.kind}]),
    );
    let meta = json!({
        "$ref": format!("#/$defs/{META}"),
        "description": "Standard object's metadata.",
    });
    let properties = fields.entry("properties").or_insert_with(|| json!({}));
    for (name, description) in [
        (
            "apiVersion",
            "The group and version of this representation of an object.",
        ),
        ("kind", "The kind of the object."),
    ] {
        if properties.get(name).is_none() {
            properties[name] = json!({"type": "string", "description": description});
        }
    }
    properties["metadata"] = write(&meta, dialect);
    Some(definition)
}

/// Writes one schema, with all below it.
fn write(text: &Value, dialect: Dialect) -> Value {
    let Some(fields) = text.as_object() else {
        return json!({});
    };
    if let Some(Value::String(reference)) = fields.get("$ref") {
        return write_reference(builtin::definition_name(reference), fields, dialect);
    }
    let opaque = dialect == Dialect::V2 && hides_fields(fields);
    let mut written = Fields::new();
    for (name, value) in fields {
        let value = match name.as_str() {
            "properties" if opaque => continue,
            name if dialect == Dialect::V2 && NOT_IN_V2.contains(&name) => continue,
            "properties" => Value::Object(each(value, dialect)),
            "items" | "additionalProperties" | "not" if value.is_object() => write(value, dialect),
            "allOf" | "anyOf" | "oneOf" => {
                let all = value.as_array().into_iter().flatten();
                all.map(|value| write(value, dialect)).collect()
            }
            _ => value.clone(),
        };
        written.insert(name.clone(), value);
    }
    if written.remove("x-kubernetes-int-or-string").is_some() {
        mix(&mut written, "integer", dialect);
        written.insert("format".to_owned(), json!("int-or-string"));
    }
    Value::Object(written)
}

fn each(properties: &Value, dialect: Dialect) -> Fields {
    let properties = properties.as_object().into_iter().flatten();
    properties
        .map(|(name, value)| (name.clone(), write(value, dialect)))
        .collect()
}

/// Whether version 2 cannot say what stands there: what it would say, kubectl would hold objects to.
fn hides_fields(fields: &Fields) -> bool {
    let on = |name: &str| fields.get(name) == Some(&Value::Bool(true));
    on("nullable") || on("x-kubernetes-preserve-unknown-fields")
}

fn write_reference(name: &str, fields: &Fields, dialect: Dialect) -> Value {
    let reference = json!(format!("{}{name}", prefix(dialect)));
    let beside = fields.iter().filter(|(name, _)| {
        *name != "$ref" && !(dialect == Dialect::V2 && NOT_IN_V2.contains(&name.as_str()))
    });
    let mut written: Fields = beside
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if dialect == Dialect::V3 && !written.is_empty() {
        written.insert("allOf".to_owned(), json!([{"$ref": reference}]));
    } else {
        written.insert("$ref".to_owned(), reference);
    }
    Value::Object(written)
}

/// Says that a string may also be a number.
fn mix(written: &mut Fields, number: &str, dialect: Dialect) {
    match dialect {
        Dialect::V2 => {
            written.insert("type".to_owned(), json!("string"));
        }
        Dialect::V3 => {
            written.remove("type");
            written.insert(
                "oneOf".to_owned(),
                json!([{"type": number}, {"type": "string"}]),
            );
        }
    }
}

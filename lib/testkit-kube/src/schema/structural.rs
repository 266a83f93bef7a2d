//! What makes the schema of a CRD structural: each field has one type, given once.

use serde_json::Value;

use super::{
    Error, defaults,
    node::{Kind, ListType, Node},
    parse::{Text, fault, flag},
    path::Path,
    prune, validate,
};

/// Words that only make sense where structure is given.
const STRUCTURE: [&str; 10] = [
    "additionalProperties",
    "default",
    "nullable",
    "description",
    "title",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
];

/// Words of JSON schema that CRDs may not use.
const FORBIDDEN: [&str; 6] = [
    "$ref",
    "definitions",
    "dependencies",
    "patternProperties",
    "additionalItems",
    "id",
];

/// Checks one node that gives structure, apart from its children.
pub(super) fn check(text: &Text, path: Path<'_>) -> Result<(), Error> {
    for name in FORBIDDEN {
        if text.contains_key(name) {
            return Err(fault(
                path.field(name),
                format!("Forbidden: {name} is not supported"),
            ));
        }
    }
    check_type(text, path)?;
    if text.contains_key("properties") && text.contains_key("additionalProperties") {
        let rule = "Forbidden: additionalProperties and properties are mutual exclusive";
        return Err(fault(path.field("additionalProperties"), rule));
    }
    if text.get("additionalProperties") == Some(&Value::Bool(false)) {
        let rule = "Forbidden: additionalProperties cannot be set to false";
        return Err(fault(path.field("additionalProperties"), rule));
    }
    if text.get("items").is_some_and(Value::is_array) {
        let rule = "Forbidden: items must be a schema object and not an array";
        return Err(fault(path.field("items"), rule));
    }
    if flag(text, "uniqueItems") {
        let rule = "Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        return Err(fault(path.field("uniqueItems"), rule));
    }
    if text.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
        let rule = "Invalid value: false: must be true or undefined";
        return Err(fault(
            path.field("x-kubernetes-preserve-unknown-fields"),
            rule,
        ));
    }
    check_extensions(text, path)
}

fn check_type(text: &Text, path: Path<'_>) -> Result<(), Error> {
    let name = text.get("type").and_then(Value::as_str).unwrap_or_default();
    if flag(text, "x-kubernetes-int-or-string") {
        return match name {
            "" => Ok(()),
            _ => Err(fault(
                path.field("type"),
                "Forbidden: must be empty if x-kubernetes-int-or-string is true",
            )),
        };
    }
    let required = match (name, path) {
        ("array", _) if !text.contains_key("items") => {
            let rule = "Required value: must be specified";
            return Err(fault(path.field("items"), rule));
        }
        ("object", _) => return Ok(()),
        (_, Path::Root) => {
            let rule = format!("Invalid value: {name:?}: must be object at the root");
            return Err(fault(path.field("type"), rule));
        }
        ("", _) if flag(text, "x-kubernetes-preserve-unknown-fields") => return Ok(()),
        ("", Path::Field(_, "items")) => "must not be empty for specified array items",
        ("", _) => "must not be empty for specified object fields",
        _ => return Ok(()),
    };
    Err(fault(
        path.field("type"),
        format!("Required value: {required}"),
    ))
}

fn check_extensions(text: &Text, path: Path<'_>) -> Result<(), Error> {
    let kind = text.get("type").and_then(Value::as_str).unwrap_or_default();
    let only = |name: &'static str, values: &[&str], on: &str| {
        let Some(value) = text.get(name) else {
            return Ok(());
        };
        if kind != on {
            let rule = format!("Invalid value: {kind:?}: must be {on} if {name} is specified");
            return Err(fault(path.field("type"), rule));
        }
        if value.as_str().is_some_and(|value| values.contains(&value)) {
            return Ok(());
        }
        let quoted: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
        let rule = format!(
            "Unsupported value: {value}: supported values: {}",
            quoted.join(", ")
        );
        Err(fault(path.field(name), rule))
    };
    only("x-kubernetes-list-type", &["atomic", "map", "set"], "array")?;
    only("x-kubernetes-map-type", &["atomic", "granular"], "object")?;
    if flag(text, "x-kubernetes-embedded-resource") {
        if kind != "object" {
            let rule = "must be object if x-kubernetes-embedded-resource is true";
            return Err(fault(
                path.field("type"),
                format!("Invalid value: {kind:?}: {rule}"),
            ));
        }
        if !text.contains_key("properties") && !flag(text, "x-kubernetes-preserve-unknown-fields") {
            let rule = "Required value: must not be empty if x-kubernetes-embedded-resource is true \
                        without x-kubernetes-preserve-unknown-fields";
            return Err(fault(path.field("properties"), rule));
        }
    }
    let keys = text
        .get("x-kubernetes-list-map-keys")
        .and_then(Value::as_array);
    let is_map = text
        .get("x-kubernetes-list-type")
        .is_some_and(|kind| kind == "map");
    match (is_map, keys) {
        (true, None) => Err(fault(
            path.field("x-kubernetes-list-map-keys"),
            "Required value: must not be empty if x-kubernetes-list-type is map",
        )),
        (true, Some(keys)) => check_keys(text, keys, path),
        (false, Some(_)) => Err(fault(
            path.field("x-kubernetes-list-type"),
            "Invalid value: must be map if x-kubernetes-list-map-keys is non-empty",
        )),
        (false, None) => Ok(()),
    }
}

/// The keys of a list must be scalar fields that every item has.
fn check_keys(text: &Text, keys: &[Value], path: Path<'_>) -> Result<(), Error> {
    let items = text.get("items").and_then(Value::as_object);
    let place = path.field("x-kubernetes-list-map-keys");
    if keys.is_empty() {
        let rule = "Required value: must not be empty if x-kubernetes-list-type is map";
        return Err(fault(place, rule));
    }
    for (index, key) in keys.iter().enumerate() {
        let name = key.as_str().unwrap_or_default();
        let property = items.and_then(|items| items.get("properties")?.get(name));
        let Some(property) = property else {
            let rule = format!("Invalid value: {key}: must be the name of a property of the items");
            return Err(fault(place.index(index), rule));
        };
        let required = items.and_then(|items| items.get("required")?.as_array());
        let is_required = required.is_some_and(|names| names.contains(key));
        if !is_required && property.get("default").is_none() {
            let rule = "Required value: this property is in x-kubernetes-list-map-keys, so it must have \
                        a default or be a required property";
            let items = path.field("items");
            return Err(fault(
                items.field("properties").key(name).field("default"),
                rule,
            ));
        }
    }
    Ok(())
}

/// Checks one node below a junctor. `mixed`: of a field that takes integers and strings.
pub(super) fn check_judge(text: &Text, path: Path<'_>, mixed: bool) -> Result<(), Error> {
    for name in STRUCTURE {
        if text
            .get(name)
            .is_some_and(|value| *value != Value::Bool(false))
        {
            let rule = "Forbidden: must be undefined to be structural";
            return Err(fault(path.field(name), rule));
        }
    }
    if text.contains_key("x-kubernetes-validations") {
        let rule = "Forbidden: must be empty to be structural";
        return Err(fault(path.field("x-kubernetes-validations"), rule));
    }
    let kind = text.get("type").and_then(Value::as_str).unwrap_or_default();
    let allowed = mixed && ["integer", "string"].contains(&kind);
    if !kind.is_empty() && !allowed {
        let rule = "Forbidden: must be empty to be structural";
        return Err(fault(path.field("type"), rule));
    }
    Ok(())
}

/// A field that is judged below a junctor must also be given structure.
pub(super) fn check_completeness(node: &Node, path: Path<'_>) -> Result<(), Error> {
    let Some(checks) = &node.checks else {
        return Ok(());
    };
    let judges = [&checks.all_of, &checks.any_of, &checks.one_of]
        .into_iter()
        .flatten();
    for judge in judges.chain(checks.not.as_ref()) {
        complete(node, judge, path)?;
    }
    Ok(())
}

fn complete(node: &Node, judge: &Node, path: Path<'_>) -> Result<(), Error> {
    for (name, child) in &judge.properties {
        let place = path.field("properties");
        match node.field(name) {
            Some(structure) => complete(structure, child, place.key(name))?,
            None if node.preserve => {}
            None => {
                let rule = "Required value: because it is judged by allOf, anyOf, oneOf or not";
                return Err(fault(place.key(name), rule));
            }
        }
    }
    match (&judge.items, &node.items) {
        (Some(judge), Some(items)) => complete(items, judge, path.field("items")),
        (Some(_), None) if !node.preserve => {
            let rule = "Required value: because it is judged by allOf, anyOf, oneOf or not";
            Err(fault(path.field("items"), rule))
        }
        _ => Ok(()),
    }
}

/// A default must be what it would be after defaulting and pruning, and valid.
pub(super) fn check_default(node: &Node, path: Path<'_>) -> Result<(), Error> {
    let Some(default) = &node.default else {
        return Ok(());
    };
    let place = path.field("default");
    let mut full = default.clone();
    let mut unknown = Vec::new();
    prune::prune(node, &mut full, Path::Root, &mut unknown);
    if let Some(unknown) = unknown.first() {
        let rule = format!("Invalid value: {default}: must not have unknown fields: {unknown}");
        return Err(fault(place, rule));
    }
    defaults::fill(node, &mut full);
    match validate::values(node, &full).first() {
        Some(cause) => {
            let dot = if cause.field.is_empty() { "" } else { "." };
            Err(fault(
                place,
                format!("{dot}{}: {}", cause.field, cause.message).trim_start_matches(": "),
            ))
        }
        None => Ok(()),
    }
}

/// Whether items can be told apart at all.
pub(super) fn check_items(node: &Node, path: Path<'_>) -> Result<(), Error> {
    let scalar = |item: &Node| !matches!(item.kind, Kind::Object | Kind::Array | Kind::Any);
    match (&node.list, &node.items) {
        (ListType::Set, Some(item))
            if !scalar(item) && !item.atomic && item.list != ListType::Atomic =>
        {
            let rule = "Invalid value: items of a set must be scalars, or atomic";
            Err(fault(path.field("items"), rule))
        }
        (ListType::Map(_), Some(item)) if item.kind != Kind::Object => {
            let rule =
                "Invalid value: must be object if parent array's x-kubernetes-list-type is map";
            Err(fault(path.field("items").field("type"), rule))
        }
        _ => Ok(()),
    }
}

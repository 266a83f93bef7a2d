//! Judging values.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{
    Cause, Reason, cel, format,
    node::{Checks, Kind, ListType, Node},
    path::Path,
};

/// What an object is checked against: the place, and what stood there before.
///
/// What has not changed is not judged again (ratcheting): an object that was stored under an older schema
/// can still be updated elsewhere.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) path: Path<'a>,
    pub(crate) old: Option<&'a Value>,
}

/// The causes for which rules are not evaluated: the values may not be what the rules expect.
const BLOCKING: [Reason; 5] = [
    Reason::Required,
    Reason::NotSupported,
    Reason::TooLong,
    Reason::TooMany,
    Reason::TypeInvalid,
];

/// The path that messages show for what belongs to no field.
pub(super) const NOWHERE: &str = "<nil>";

/// All that is wrong with a value.
pub(crate) fn validate(node: &Node, value: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let place = Place {
        path: Path::Root,
        old,
    };
    judge(node, value, place, &mut causes);
    if !causes.iter().any(|cause| BLOCKING.contains(&cause.reason)) {
        cel::validate(node, value, place, &mut causes);
    } else if cel::has_rules(node) {
        let detail = "some validation rules were not checked because the object was invalid; correct the \
                      existing errors to complete validation";
        causes.push(Cause::invalid(NOWHERE, &Value::Null, detail));
    }
    causes
}

/// What is wrong with a value, apart from rules.
pub(crate) fn values(node: &Node, value: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let place = Place {
        path: Path::Root,
        old: None,
    };
    judge(node, value, place, &mut causes);
    causes
}

fn judge(node: &Node, value: &Value, place: Place<'_>, causes: &mut Vec<Cause>) {
    if place.old == Some(value) || value.is_null() && (node.nullable || node.kind == Kind::Any) {
        return;
    }
    let path = place.path;
    if !node.kind.admits(value) {
        let actual = type_name(value);
        let detail = format!(
            "{path} in body must be of type {}: {actual:?}",
            node.kind.name()
        );
        causes.push(Cause::type_invalid(path, actual, detail));
        return;
    }
    if let Some(checks) = &node.checks {
        check(checks, value, path, causes);
    }
    match value {
        Value::Object(fields) => object(node, fields, place, causes),
        Value::Array(items) => list(node, items, place, causes),
        Value::String(text) if node.kind == Kind::Quantity && !format::is_quantity(text) => {
            let detail = "quantities must match the regular expression \
                          '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
            causes.push(Cause::invalid(path, value, detail));
        }
        _ => {}
    }
}

fn object(node: &Node, fields: &Map<String, Value>, place: Place<'_>, causes: &mut Vec<Cause>) {
    for name in &node.required {
        if !fields.contains_key(name.as_ref()) {
            causes.push(Cause::required(place.path.field(name), ""));
        }
    }
    for (name, value) in fields {
        if let Some(child) = node.field(name) {
            let place = Place {
                path: place.path.field(name),
                old: place.old.and_then(|old| old.get(name)),
            };
            judge(child, value, place, causes);
        }
    }
}

fn list(node: &Node, items: &[Value], place: Place<'_>, causes: &mut Vec<Cause>) {
    let Some(child) = &node.items else { return };
    let olds = place.old.and_then(Value::as_array).map(Vec::as_slice);
    for (index, item) in items.iter().enumerate() {
        let place = Place {
            path: place.path.index(index),
            old: olds.and_then(|olds| counterpart(node, item, olds)),
        };
        judge(child, item, place, causes);
    }
    duplicates(node, items, place.path, causes);
}

/// The item of the old list that an item of the new list replaces. Only the items of maps have one.
pub(super) fn counterpart<'a>(node: &Node, item: &Value, olds: &'a [Value]) -> Option<&'a Value> {
    let ListType::Map(keys) = &node.list else {
        return None;
    };
    let same = |old: &&Value| {
        keys.iter()
            .all(|key| old.get(key.as_ref()) == item.get(key.as_ref()))
    };
    olds.iter().find(same)
}

fn duplicates(node: &Node, items: &[Value], path: Path<'_>, causes: &mut Vec<Cause>) {
    let mut seen = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        let identity = match &node.list {
            ListType::Atomic => return,
            ListType::Set => item.clone(),
            ListType::Map(keys) => identity(item, keys),
        };
        if !seen.insert(identity.to_string()) {
            causes.push(Cause::duplicate(path.index(index), &identity));
        }
    }
}

/// The fields that tell an item from others.
fn identity(item: &Value, keys: &[Box<str>]) -> Value {
    let fields = keys.iter().filter_map(|key| {
        let value = item.get(key.as_ref())?;
        Some((key.to_string(), value.clone()))
    });
    Value::Object(fields.collect())
}

fn check(checks: &Checks, value: &Value, path: Path<'_>, causes: &mut Vec<Cause>) {
    if !checks.options.is_empty() && !checks.options.contains(value) {
        let text = |option: &Value| {
            option
                .as_str()
                .map_or_else(|| option.to_string(), str::to_owned)
        };
        let options: Vec<String> = checks.options.iter().map(text).collect();
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        causes.push(Cause::not_supported(path, value, &options));
    }
    match value {
        Value::String(text) => check_string(checks, text, value, path, causes),
        Value::Number(_) => check_number(checks, value, path, causes),
        Value::Array(items) => check_items(checks, items, value, path, causes),
        Value::Object(fields) => {
            let size = fields.len();
            if let Some(least) = checks.min_properties.filter(|least| (size as u64) < *least) {
                let detail = format!("{path} in body should have at least {least} properties");
                causes.push(Cause::invalid(path, value, detail));
            }
            if let Some(most) = checks.max_properties.filter(|most| size as u64 > *most) {
                causes.push(Cause::too_many(path, size, most));
            }
        }
        _ => {}
    }
    junctors(checks, value, path, causes);
}

fn check_string(
    checks: &Checks,
    text: &str,
    value: &Value,
    path: Path<'_>,
    causes: &mut Vec<Cause>,
) {
    let length = text.chars().count() as u64;
    if let Some(most) = checks.max_length.filter(|most| length > *most) {
        causes.push(Cause::too_long(path, most));
    }
    if let Some(least) = checks.min_length.filter(|least| length < *least) {
        let detail = format!("{path} in body should be at least {least} chars long");
        causes.push(Cause::invalid(path, value, detail));
    }
    if let Some(pattern) = checks
        .pattern
        .as_ref()
        .filter(|pattern| !pattern.is_match(text))
    {
        let detail = format!("{path} in body should match '{pattern}'");
        causes.push(Cause::invalid(path, value, detail));
    }
    if let Some(format) = checks
        .format
        .as_ref()
        .filter(|format| !format::admits(format, text))
    {
        let detail = format!("{path} in body must be of type {format}: {text:?}");
        causes.push(Cause::type_invalid(path, text, detail));
    }
}

fn check_number(checks: &Checks, value: &Value, path: Path<'_>, causes: &mut Vec<Cause>) {
    let Some(number) = value.as_f64() else { return };
    let mut complain = |rule: String| {
        let detail = format!("{path} in body should be {rule}");
        causes.push(Cause::invalid(path, value, detail));
    };
    match (checks.minimum, checks.exclusive_minimum) {
        (Some(least), false) if number < least => {
            complain(format!("greater than or equal to {least}"));
        }
        (Some(least), true) if number <= least => complain(format!("greater than {least}")),
        _ => {}
    }
    match (checks.maximum, checks.exclusive_maximum) {
        (Some(most), false) if number > most => complain(format!("less than or equal to {most}")),
        (Some(most), true) if number >= most => complain(format!("less than {most}")),
        _ => {}
    }
    if let Some(step) = checks.multiple_of.filter(|step| *step > 0.0) {
        let steps = number / step;
        if (steps - steps.round()).abs() > 1e-9 {
            complain(format!("a multiple of {step}"));
        }
    }
    let is_int32 = checks.format.as_deref() == Some("int32");
    if is_int32
        && value
            .as_i64()
            .is_none_or(|number| i32::try_from(number).is_err())
    {
        let detail = format!("{path} in body must be of type int32: {value}");
        causes.push(Cause::type_invalid(path, &value.to_string(), detail));
    }
}

fn check_items(
    checks: &Checks,
    items: &[Value],
    value: &Value,
    path: Path<'_>,
    causes: &mut Vec<Cause>,
) {
    let size = items.len();
    if let Some(least) = checks.min_items.filter(|least| (size as u64) < *least) {
        let detail = format!("{path} in body should have at least {least} items");
        causes.push(Cause::invalid(path, value, detail));
    }
    if let Some(most) = checks.max_items.filter(|most| size as u64 > *most) {
        causes.push(Cause::too_many(path, size, most));
    }
    if checks.unique_items {
        let mut seen = BTreeSet::new();
        if !items.iter().all(|item| seen.insert(item.to_string())) {
            let detail = format!("{path} in body shouldn't contain duplicates");
            causes.push(Cause::invalid(path, value, detail));
        }
    }
}

fn junctors(checks: &Checks, value: &Value, path: Path<'_>, causes: &mut Vec<Cause>) {
    let place = Place { path, old: None };
    for node in &checks.all_of {
        judge(node, value, place, causes);
    }
    let valid = |node: &&Node| {
        let mut found = Vec::new();
        judge(node, value, place, &mut found);
        found.is_empty()
    };
    let mut complain = |rule: String| {
        let detail = format!("\"{path}\" must {rule}");
        causes.push(Cause::invalid(NOWHERE, &Value::from(""), detail));
    };
    if !checks.any_of.is_empty() && !checks.any_of.iter().any(|node| valid(&node)) {
        complain("validate at least one schema (anyOf)".to_owned());
    }
    match (
        checks.one_of.len(),
        checks.one_of.iter().filter(valid).count(),
    ) {
        (0, _) | (_, 1) => {}
        (_, 0) => complain("validate one and only one schema (oneOf). Found none valid".to_owned()),
        (_, many) => complain(format!(
            "validate one and only one schema (oneOf). Found {many} valid alternatives"
        )),
    }
    if checks.not.as_ref().is_some_and(|node| valid(&node)) {
        complain("not validate the schema (not)".to_owned());
    }
}

/// The JSON type of a value, as messages call it.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

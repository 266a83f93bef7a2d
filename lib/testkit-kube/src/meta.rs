//! `metadata`: what every object must keep to, whatever its kind.

mod name;

use serde_json::{Map, Value};

use crate::{
    registry::Resource,
    schema::{Cause, Reason},
    status::Status,
};

/// All annotations of one object together, in bytes, as in a cluster.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// The fields of `metav1.ObjectMeta`.
const FIELDS: &[&str] = &[
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Fields that only the server sets.
const IMMUTABLE: &[&str] = &[
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];

/// Checks that metadata has the types it must have, so that later steps can rely on them. A fault is one of
/// encoding: 400.
pub fn check_shape(object: &mut Value) -> Result<(), Status> {
    if !object.is_object() {
        return Err(Status::bad_request("the object is not a JSON object"));
    }
    if object["metadata"].is_null() {
        object["metadata"] = Value::Object(Map::new());
    }
    let bad = |field: &str, want: &str| {
        Status::bad_request(format!("metadata{field}: the value must be {want}"))
    };
    let metadata = object["metadata"]
        .as_object_mut()
        .ok_or_else(|| bad("", "an object"))?;
    metadata.retain(|_, value| !value.is_null());
    for (field, value) in metadata.iter_mut() {
        let path = format!(".{field}");
        match field.as_str() {
            "labels" | "annotations" => {
                let map = value
                    .as_object_mut()
                    .ok_or_else(|| bad(&path, "an object"))?;
                if let Some((key, _)) = map.iter().find(|(_, value)| !value.is_string()) {
                    return Err(bad(&format!("{path}[{key}]"), "a string"));
                }
            }
            "finalizers" => {
                let list = value.as_array().ok_or_else(|| bad(&path, "a list"))?;
                if list.iter().any(|item| !item.is_string()) {
                    return Err(bad(&path, "a list of strings"));
                }
            }
            "ownerReferences" | "managedFields" => {
                let list = value.as_array().ok_or_else(|| bad(&path, "a list"))?;
                if list.iter().any(|item| !item.is_object()) {
                    return Err(bad(&path, "a list of objects"));
                }
            }
            "generation" | "deletionGracePeriodSeconds" => {
                value.as_i64().ok_or_else(|| bad(&path, "an integer"))?;
            }
            known if FIELDS.contains(&known) => {
                value.as_str().ok_or_else(|| bad(&path, "a string"))?;
            }
            _ => {}
        }
    }
    metadata.retain(|_, value| !is_empty(value));
    Ok(())
}

/// Lists and maps of nothing, which a cluster does not keep.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// Removes what `metadata` does not know, and names it.
pub fn prune(object: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.retain(|field, _| {
            let known = FIELDS.contains(&field.as_str());
            if !known {
                unknown.push(format!("metadata.{field}"));
            }
            known
        });
    }
    unknown
}

/// What is wrong with an object's metadata.
pub fn validate(resource: &Resource, object: &Value) -> Vec<Cause> {
    let metadata = &object["metadata"];
    let mut causes = Vec::new();
    match metadata["name"].as_str() {
        None | Some("") => causes.push(cause(
            "metadata.name",
            Reason::Required,
            "Required value: name or generateName is required",
        )),
        Some(name) => {
            if let Some(rule) = name::broken_rule(resource, name) {
                causes.push(invalid("metadata.name", name, rule));
            }
        }
    }
    for (key, value) in entries(&metadata["labels"]) {
        if let Some(rule) = name::broken_key_rule(key) {
            causes.push(invalid("metadata.labels", key, rule));
        }
        let value = value.as_str().unwrap_or_default();
        if let Some(rule) = name::broken_label_rule(value) {
            causes.push(invalid("metadata.labels", value, rule));
        }
    }
    validate_annotations(&metadata["annotations"], &mut causes);
    validate_owners(&metadata["ownerReferences"], &mut causes);
    for finalizer in metadata["finalizers"].as_array().into_iter().flatten() {
        let finalizer = finalizer.as_str().unwrap_or_default();
        if let Some(rule) = name::broken_key_rule(finalizer) {
            causes.push(invalid("metadata.finalizers", finalizer, rule));
        }
    }
    causes
}

/// What an update changes in metadata though it must not.
pub fn validate_update(object: &Value, old: &Value) -> Vec<Cause> {
    let (metadata, before) = (&object["metadata"], &old["metadata"]);
    let mut causes = Vec::new();
    for field in IMMUTABLE {
        if metadata[*field] != before[*field] {
            let value = &metadata[*field];
            causes.push(cause(
                &format!("metadata.{field}"),
                Reason::Invalid,
                &format!("Invalid value: {value}: field is immutable"),
            ));
        }
    }
    if !before["deletionTimestamp"].is_null() {
        let is_new = |it: &&String| !finalizers(old).contains(it);
        let added: Vec<String> = finalizers(object).iter().filter(is_new).cloned().collect();
        if !added.is_empty() {
            causes.push(cause(
                "metadata.finalizers",
                Reason::Forbidden,
                &format!(
                    "Forbidden: no new finalizers can be added if the object is being deleted, found \
                     new finalizers {added:?}"
                ),
            ));
        }
    }
    causes
}

/// An object's finalizers.
pub fn finalizers(object: &Value) -> Vec<String> {
    let list = object["metadata"]["finalizers"].as_array();
    let list = list.into_iter().flatten();
    list.filter_map(|item| item.as_str().map(str::to_owned))
        .collect()
}

/// Replaces an object's finalizers; none leaves no field behind.
pub fn set_finalizers(object: &mut Value, finalizers: Vec<String>) {
    set(
        object,
        "finalizers",
        (!finalizers.is_empty()).then(|| finalizers.into()),
    );
}

/// Sets or removes one field of metadata.
pub fn set(object: &mut Value, field: &str, value: Option<Value>) {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        match value {
            Some(value) => metadata.insert(field.to_owned(), value),
            None => metadata.remove(field),
        };
    }
}

/// A string of metadata, empty when there is none.
pub fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// Whether an object is on its way out.
pub fn is_deleting(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

fn validate_annotations(annotations: &Value, causes: &mut Vec<Cause>) {
    let mut size = 0;
    for (key, value) in entries(annotations) {
        size += key.len() + value.as_str().map_or(0, str::len);
        if let Some(rule) = name::broken_key_rule(&key.to_lowercase()) {
            causes.push(invalid("metadata.annotations", key, rule));
        }
    }
    if size > MAX_ANNOTATIONS {
        causes.push(cause(
            "metadata.annotations",
            Reason::TooLong,
            &format!("Too long: may not be more than {MAX_ANNOTATIONS} bytes"),
        ));
    }
}

fn validate_owners(references: &Value, causes: &mut Vec<Cause>) {
    let references = references.as_array().map(Vec::as_slice).unwrap_or_default();
    for reference in references {
        for (field, name) in [
            ("apiVersion", "version"),
            ("kind", "kind"),
            ("name", "name"),
            ("uid", "uid"),
        ] {
            if reference[field].as_str().is_none_or(str::is_empty) {
                causes.push(invalid(
                    &format!("metadata.ownerReferences.{field}"),
                    "",
                    &format!("{name} must not be empty"),
                ));
            }
        }
    }
    let controllers: Vec<_> = references
        .iter()
        .filter(|it| it["controller"] == true)
        .map(|it| {
            let text = |field: &str| it[field].as_str().unwrap_or_default();
            format!("{}/{}", text("kind"), text("name"))
        })
        .collect();
    if let [first, second, ..] = controllers.as_slice() {
        let message = format!(
            "Invalid value: Only one reference can have Controller set to true. Found \"true\" in \
             references for {first} and {second}"
        );
        causes.push(cause("metadata.ownerReferences", Reason::Invalid, &message));
    }
}

fn entries(map: &Value) -> impl Iterator<Item = (&String, &Value)> {
    map.as_object().into_iter().flatten()
}

fn invalid(field: &str, value: &str, rule: &str) -> Cause {
    cause(
        field,
        Reason::Invalid,
        &format!("Invalid value: {value:?}: {rule}"),
    )
}

/// A cause of a refusal.
pub fn cause(field: &str, reason: Reason, message: &str) -> Cause {
    Cause {
        field: field.to_owned(),
        reason,
        message: message.to_owned(),
    }
}

#[cfg(test)]
mod tests;

//! ConfigMaps and Secrets.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use super::{Judged, immutable, text};
use crate::schema::Cause;

/// Most bytes of all values together.
const MAX_BYTES: u64 = 1024 * 1024;

const KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. \
                   'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is \
                   '[-._a-zA-Z0-9]+')";

pub(super) fn check_config_map(judged: &Judged<'_>, causes: &mut Vec<Cause>) {
    let object = judged.object;
    check_keys(object, &["data", "binaryData"], causes);
    let binary = object.get("binaryData").and_then(Value::as_object);
    for key in binary.into_iter().flat_map(Map::keys) {
        if object
            .pointer("/data")
            .is_some_and(|data| data.get(key).is_some())
        {
            let detail = "duplicate of key present in data";
            causes.push(Cause::invalid(
                format!("binaryData[{key}]"),
                &json!(key),
                detail,
            ));
        }
    }
    check_frozen(judged, &["data", "binaryData"], causes);
}

pub(super) fn complete_secret(object: &mut Value) {
    let Some(fields) = object.as_object_mut() else {
        return;
    };
    let Some(Value::Object(texts)) = fields.remove("stringData") else {
        return;
    };
    let data = fields.entry("data").or_insert_with(|| json!({}));
    for (key, text) in texts {
        if let (Some(text), true) = (text.as_str(), data.is_object()) {
            data[key] = json!(STANDARD.encode(text));
        }
    }
}

pub(super) fn check_secret(judged: &Judged<'_>, causes: &mut Vec<Cause>) {
    let object = judged.object;
    check_keys(object, &["data"], causes);
    if text(object, "type") == "kubernetes.io/tls" {
        for key in ["tls.crt", "tls.key"] {
            if object.get("data").and_then(|data| data.get(key)).is_none() {
                causes.push(Cause::required(format!("data[{key}]"), ""));
            }
        }
    }
    immutable(judged, "/type", "type", causes);
    check_frozen(judged, &["data"], causes);
}

fn check_keys(object: &Value, fields: &[&str], causes: &mut Vec<Cause>) {
    let mut bytes = 0;
    for field in fields {
        for (key, value) in object
            .get(field)
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            let place = format!("{field}[{key}]");
            let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            if key.is_empty() || !key.bytes().all(valid) || key == "." || key.starts_with("..") {
                causes.push(Cause::invalid(&place, &json!(key), KEY));
            }
            if key.len() > 253 {
                causes.push(Cause::invalid(
                    &place,
                    &json!(key),
                    "must be no more than 253 characters",
                ));
            }
            bytes += value.as_str().map_or(0, str::len) as u64;
        }
    }
    if bytes > MAX_BYTES {
        causes.push(Cause::too_long("", MAX_BYTES));
    }
}

/// What says `immutable: true` may not change any more.
fn check_frozen(judged: &Judged<'_>, fields: &[&str], causes: &mut Vec<Cause>) {
    let Some(old) = judged
        .old
        .filter(|old| old.get("immutable") == Some(&json!(true)))
    else {
        return;
    };
    let changed = fields
        .iter()
        .copied()
        .chain(["immutable"])
        .filter(|field| old.get(field) != judged.object.get(field));
    for field in changed {
        causes.push(Cause::forbidden(
            field,
            "field is immutable when `immutable` is set",
        ));
    }
}

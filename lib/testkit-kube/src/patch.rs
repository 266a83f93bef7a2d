//! The three patches that are not server-side apply. All leave the live object alone and answer a new one.

mod strategic;

use json_patch::PatchOperation;
use serde_json::Value;

use crate::schema::Schema;

/// Operations of one JSON patch; the API server's own bound.
const MAX_OPERATIONS: usize = 10_000;
/// Bytes that the `copy` operations of one JSON patch may add up to: without a bound, some thirty of them
/// fill any memory.
const MAX_COPIED: usize = 3 * 1024 * 1024;

/// Why a patch cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The patch does not parse: the caller's fault, answered with 400.
    #[error("the patch is malformed: {0}")]
    Malformed(String),
    /// The patch does not fit the object (a failed `test`, a missing path): answered with 422.
    #[error("the patch does not fit the object: {0}")]
    DoesNotFit(String),
}

/// `application/json-patch+json`.
pub fn json(live: &Value, patch: &Value) -> Result<Value, Error> {
    let count = patch.as_array().map_or(0, Vec::len);
    if count > MAX_OPERATIONS {
        let message = format!("{count} operations, {MAX_OPERATIONS} at most");
        return Err(Error::Malformed(message));
    }
    let patch: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|error| Error::Malformed(error.to_string()))?;
    let mut object = live.clone();
    let mut copied = 0;
    for operation in &patch.0 {
        if let PatchOperation::Copy(copy) = operation {
            let source = object.pointer(copy.from.as_str());
            copied += source.map_or(0, size);
            if copied > MAX_COPIED {
                let message = format!("copies more than {MAX_COPIED} bytes");
                return Err(Error::DoesNotFit(message));
            }
        }
        json_patch::patch(&mut object, std::slice::from_ref(operation))
            .map_err(|error| Error::DoesNotFit(error.to_string()))?;
    }
    Ok(object)
}

/// `application/merge-patch+json`.
pub fn merge(live: &Value, patch: &Value) -> Result<Value, Error> {
    if !patch.is_object() {
        return Err(Error::Malformed("a merge patch is an object".to_owned()));
    }
    let mut object = live.clone();
    json_patch::merge(&mut object, patch);
    Ok(object)
}

/// `application/strategic-merge-patch+json`, for built-in kinds: lists merge by the keys of the schema, and
/// directives (`$patch`, `$retainKeys`, `$deleteFromPrimitiveList`, `$setElementOrder`) are followed.
pub fn strategic(schema: &Schema, live: &Value, patch: &Value) -> Result<Value, Error> {
    let Some(patch) = patch.as_object() else {
        return Err(Error::Malformed(
            "a strategic merge patch is an object".to_owned(),
        ));
    };
    let mut object = live.as_object().cloned().unwrap_or_default();
    strategic::merge_fields(schema.root(), &mut object, patch)?;
    Ok(Value::Object(object))
}

/// About how many bytes a value takes as JSON.
fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len() + 2,
        Value::Array(items) => items.iter().map(|item| size(item) + 1).sum::<usize>() + 2,
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| name.len() + size(value) + 4;
            fields.iter().map(field).sum::<usize>() + 2
        }
    }
}

#[cfg(test)]
mod tests;

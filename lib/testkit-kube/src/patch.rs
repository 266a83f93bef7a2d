//! The three patches that are not server-side apply.

use serde_json::Value;

use crate::schema::Schema;

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
    let patch: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|error| Error::Malformed(error.to_string()))?;
    let mut object = live.clone();
    json_patch::patch(&mut object, &patch).map_err(|error| Error::DoesNotFit(error.to_string()))?;
    Ok(object)
}

/// `application/merge-patch+json`.
pub fn merge(live: &Value, patch: &Value) -> Result<Value, Error> {
    let mut object = live.clone();
    json_patch::merge(&mut object, patch);
    Ok(object)
}

/// `application/strategic-merge-patch+json`, for built-in kinds.
pub fn strategic(_schema: &Schema, live: &Value, patch: &Value) -> Result<Value, Error> {
    merge(live, patch)
}

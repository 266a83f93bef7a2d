//! Changing an object by a patch, in the four forms.

use http::StatusCode;
use serde_json::{Value, json};

use super::{Call, Cluster, Outcome, Turn, admit, conflict, scale};
use crate::{
    apply::{self, ApplyRequest},
    convert, meta,
    patch::{self, Error},
    registry::Resource,
    schema::Reason,
    status::Status,
};

/// How to read a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patch {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Kubernetes' own, by the schema of a built-in kind.
    Strategic,
    /// Server-side apply.
    Apply,
}

// === impl Patch ===

impl Patch {
    /// The patch of a content type.
    pub fn from_content_type(content_type: &str) -> Option<Self> {
        match content_type {
            "application/json-patch+json" => Some(Self::Json),
            "application/merge-patch+json" => Some(Self::Merge),
            "application/strategic-merge-patch+json" => Some(Self::Strategic),
            "application/apply-patch+yaml" => Some(Self::Apply),
            _ => None,
        }
    }
}

impl Cluster {
    /// Changes an object; an apply creates it where it is missing.
    pub fn patch(&self, call: &Call<'_>, kind: Patch, patch: &Value) -> Result<Outcome, Status> {
        let mut turn = self.turn.lock();
        if kind == Patch::Apply && call.subresource != "scale" {
            let call = Call {
                applies: true,
                ..*call
            };
            return self.apply(&call, patch, &mut turn);
        }
        let live = self.live(call)?;
        if call.subresource == "scale" {
            let scale = patched(call, kind, &scale::of(&live), patch)?;
            return self.rescale(call, &live, &scale, &mut turn);
        }
        let old = convert::present(call.resource, &live);
        let mut object = patched(call, kind, &old, patch)?;
        let warnings = admit::decode(call, &mut object, admit::Encoding::Patch)?;
        let object = self.replace(call, &live, object, &mut turn)?;
        Ok(Outcome {
            object,
            created: false,
            warnings,
        })
    }

    fn apply(&self, call: &Call<'_>, config: &Value, turn: &mut Turn) -> Result<Outcome, Status> {
        let mut config = config.clone();
        check_type(call.resource, &config)?;
        let warnings = admit::decode(call, &mut config, admit::Encoding::Object)?;
        admit::place(call, &mut config)?;
        let storage = &call.resource.storage;
        let live = self.store.get(storage, call.namespace, call.name);
        if live.is_none() && !call.subresource.is_empty() {
            return Err(super::not_found(call.resource, call.name));
        }
        if live.is_none() && !meta::text(&config, "uid").is_empty() {
            let why = "uid mismatch: the provided object specified a uid, and no existing object was found";
            return Err(conflict(call.resource, call.name, why));
        }
        let old = live
            .as_ref()
            .map(|live| convert::present(call.resource, live));
        let api_version = call.resource.api_version();
        let Some(writer) = admit::writer(call, &api_version) else {
            return Err(Status::not_implemented("apply for kinds without a schema"));
        };
        let applied = apply::apply(&ApplyRequest {
            writer,
            live: old.as_deref(),
            config: &config,
            force: call.options.force,
        });
        let mut object = applied.map_err(|error| apply_error(call.resource, call.name, &error))?;
        // What was applied may ask for the version that it was made from.
        let version = config["metadata"]["resourceVersion"].as_str();
        if let Some(version) = version {
            meta::set(&mut object, "resourceVersion", Some(version.into()));
        }
        let object = match &live {
            Some(live) => self.replace(call, live, object, turn)?,
            None => self.create_decoded(call, object, turn)?,
        };
        Ok(Outcome {
            object,
            created: live.is_none(),
            warnings,
        })
    }
}

/// What is applied says what it is, since nothing else does.
fn check_type(resource: &Resource, config: &Value) -> Result<(), Status> {
    let text = |field: &str| config[field].as_str().unwrap_or_default();
    let (version, kind) = (text("apiVersion"), text("kind"));
    if version == resource.api_version() && kind == resource.kind.kind {
        return Ok(());
    }
    let separator = if version.contains('/') { "" } else { "/" };
    let message = format!("invalid object type: {separator}{version}, Kind={kind}");
    Err(Status::bad_request(message))
}

fn patched(call: &Call<'_>, kind: Patch, live: &Value, patch: &Value) -> Result<Value, Status> {
    let object = match (kind, call.resource.schema()) {
        (Patch::Json, _) => patch::json(live, patch),
        (Patch::Strategic, Some(schema)) if !call.resource.is_custom() => {
            patch::strategic(schema, live, patch)
        }
        (Patch::Strategic, _) if call.resource.is_custom() => {
            return Err(Status::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "UnsupportedMediaType",
                "the body of the request was in an unknown format - accepted media types include: \
                 application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
            ));
        }
        _ => patch::merge(live, patch),
    };
    object.map_err(|error| match error {
        Error::Malformed(_) => Status::bad_request(error.to_string()),
        Error::DoesNotFit(_) => {
            let message = format!("Invalid value: {error}");
            let cause = meta::cause("patch", Reason::Invalid, &message);
            let kind = &call.resource.kind;
            Status::invalid(&kind.group, &kind.kind, call.name, &[cause])
        }
    })
}

fn apply_error(resource: &Resource, name: &str, error: &apply::Error) -> Status {
    let conflicts = match error {
        apply::Error::Malformed(message) => return Status::bad_request(message.clone()),
        apply::Error::Conflicts(conflicts) => conflicts,
    };
    let causes: Vec<Value> = conflicts
        .iter()
        .map(|conflict| {
            json!({
                "reason": "FieldManagerConflict",
                "message": conflict.message,
                "field": conflict.field,
            })
        })
        .collect();
    let mut status = conflict(resource, name, "");
    status.message = error.to_string();
    status.details["causes"] = causes.into();
    status
}

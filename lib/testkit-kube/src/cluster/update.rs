//! Replacing an object, or its status.

use std::sync::Arc;

use serde_json::Value;

use super::{Call, Cluster, Outcome, Turn, admit, builtin, conflict, delete, scale};
use crate::{convert, meta, registry::Resource, schema::Reason, status::Status};

/// What a client is told to do about a conflict.
const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// Metadata that writers of a built-in object's status may change along with it.
const STATUS_METADATA: &[&str] = &["labels", "annotations", "finalizers", "managedFields"];

impl Cluster {
    /// Replaces an object, or the part of it that a subresource shows.
    pub fn update(&self, call: &Call<'_>, mut object: Value) -> Result<Outcome, Status> {
        let mut turn = self.turn.lock();
        let live = self.live(call)?;
        if call.subresource == "scale" {
            return self.rescale(call, &live, &object, &mut turn);
        }
        let warnings = admit::decode(call, &mut object, admit::Encoding::Object)?;
        let object = self.replace(call, &live, object, &mut turn)?;
        Ok(Outcome {
            object,
            created: false,
            warnings,
        })
    }

    /// Sets the replicas of an object through its `scale`.
    pub(super) fn rescale(
        &self,
        call: &Call<'_>,
        live: &Arc<Value>,
        scale: &Value,
        turn: &mut Turn,
    ) -> Result<Outcome, Status> {
        let object = scale::apply(live, scale)?;
        let object = self.replace(call, live, object, turn)?;
        Ok(Outcome {
            object: scale::of(&object),
            created: false,
            warnings: Vec::new(),
        })
    }

    /// Stores what becomes of `live`. The object is decoded and in the version of the call.
    pub(super) fn replace(
        &self,
        call: &Call<'_>,
        live: &Arc<Value>,
        mut object: Value,
        turn: &mut Turn,
    ) -> Result<Value, Status> {
        let resource = call.resource;
        let old = convert::present(resource, live);
        admit::place(call, &mut object)?;
        check_preconditions(resource, &object, &old)?;
        inherit(resource, call.subresource, &mut object, &old);
        self.complete(call, &mut object, Some(&old), turn)?;
        count_generation(resource, &mut object, &old);
        admit::track(call, Some(&old), &mut object);
        Ok(self.settle(call, live, object))
    }

    /// Stores an object that is complete in place of `live`, unless nothing changed.
    pub(super) fn settle(&self, call: &Call<'_>, live: &Arc<Value>, object: Value) -> Value {
        let storage = &call.resource.storage;
        let object = convert::to_storage(call.resource, object);
        let object = if same(live, &object) {
            Value::clone(live)
        } else {
            object
        };
        let present = |object: &Arc<Value>| Value::clone(&convert::present(call.resource, object));
        if call.options.dry_run {
            return present(&Arc::new(object));
        }
        if meta::is_deleting(&object) && delete::may_go(storage, &object) {
            self.erase(storage, call.namespace, call.name);
            return present(&Arc::new(object));
        }
        if object == **live {
            return present(live);
        }
        let stored = self.store.put(storage, object);
        self.after_write(storage, &stored);
        self.after_replacement(live, &stored);
        // A controller may have written it again.
        let latest = self.store.get(storage, call.namespace, call.name);
        present(latest.as_ref().unwrap_or(&stored))
    }
}

/// Whether an update is about the object that is there.
fn check_preconditions(resource: &Resource, object: &Value, old: &Value) -> Result<(), Status> {
    let name = meta::text(old, "name");
    let (uid, live_uid) = (meta::text(object, "uid"), meta::text(old, "uid"));
    if !uid.is_empty() && uid != live_uid {
        let why = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {live_uid}"
        );
        return Err(conflict(resource, name, &why));
    }
    let version = meta::text(object, "resourceVersion");
    if version.is_empty() && resource.versioned_updates {
        let cause = meta::cause(
            "metadata.resourceVersion",
            Reason::Invalid,
            "Invalid value: 0x0: must be specified for an update",
        );
        let kind = &resource.kind;
        return Err(Status::invalid(&kind.group, &kind.kind, name, &[cause]));
    }
    if !version.is_empty() && version != meta::text(old, "resourceVersion") {
        return Err(conflict(resource, name, MODIFIED));
    }
    Ok(())
}

/// Takes over from the object that is there what the caller does not write.
fn inherit(resource: &Resource, subresource: &str, object: &mut Value, old: &Value) {
    for field in ["resourceVersion", "generation", "selfLink"] {
        let value = &old["metadata"][field];
        meta::set(object, field, (!value.is_null()).then(|| value.clone()));
    }
    for field in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        if object["metadata"][field].is_null() && !old["metadata"][field].is_null() {
            meta::set(object, field, Some(old["metadata"][field].clone()));
        }
    }
    match subresource {
        "status" => {
            let mut whole = old.clone();
            copy(&mut whole, object, "status");
            if resource.is_custom() {
                let managed = &object["metadata"]["managedFields"];
                meta::set(
                    &mut whole,
                    "managedFields",
                    (!managed.is_null()).then(|| managed.clone()),
                );
            } else {
                for field in STATUS_METADATA {
                    let value = &object["metadata"][*field];
                    meta::set(&mut whole, field, (!value.is_null()).then(|| value.clone()));
                }
            }
            *object = whole;
        }
        "finalize" => {
            let mut whole = old.clone();
            whole["spec"]["finalizers"] = object["spec"]["finalizers"].clone();
            *object = whole;
        }
        _ => {
            if resource.has("status") {
                copy(object, old, "status");
            }
            builtin::inherit(&resource.storage, object, old);
        }
    }
}

fn copy(to: &mut Value, from: &Value, field: &str) {
    match from.get(field) {
        Some(value) => to[field] = value.clone(),
        None => admit::remove(to, field),
    }
}

/// A change of what is desired counts.
fn count_generation(resource: &Resource, object: &mut Value, old: &Value) {
    if resource.generations && desired(resource, object) != desired(resource, old) {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or_default() + 1;
        meta::set(object, "generation", Some(generation.into()));
    }
}

fn desired<'a>(resource: &Resource, object: &'a Value) -> Vec<(&'a String, &'a Value)> {
    let fields = object.as_object().into_iter().flatten();
    let counts = |field: &str| match field {
        "apiVersion" | "kind" | "metadata" => false,
        "status" => !resource.has("status"),
        _ => true,
    };
    fields.filter(|(field, _)| counts(field)).collect()
}

/// Whether two states differ in nothing but the times in their managed fields.
fn same(old: &Value, new: &Value) -> bool {
    let timeless = |object: &Value| {
        let fields = object["metadata"]["managedFields"].as_array();
        let mut fields = fields.cloned().unwrap_or_default();
        for entry in &mut fields {
            admit::remove(entry, "time");
        }
        fields
    };
    let rest = |object: &'_ Value| -> Vec<(String, Value)> {
        let fields = object.as_object().into_iter().flatten();
        let fields = fields.filter(|(field, _)| *field != "metadata" && *field != "apiVersion");
        fields
            .map(|(field, value)| (field.clone(), value.clone()))
            .collect()
    };
    let metadata = |object: &Value| {
        let mut metadata = object["metadata"].clone();
        admit::remove(&mut metadata, "managedFields");
        metadata
    };
    metadata(old) == metadata(new) && timeless(old) == timeless(new) && rest(old) == rest(new)
}

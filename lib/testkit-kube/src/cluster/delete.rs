//! Removing objects: at once, or once those who hold them back have let go.

use std::sync::Arc;

use http::StatusCode;
use jiff::{Timestamp, ToSpan as _};
use serde_json::Value;

use super::{Call, Cluster, builtin, conflict, definition, namespace};
use crate::{meta, selector::Selector, status::Status, store::GroupResource};

/// What becomes of the dependents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// They follow.
    Background,
    /// They go first.
    Foreground,
    /// They stay, without their owner.
    Orphan,
}

/// `meta/v1` DeleteOptions.
#[derive(Debug, Clone, Default)]
pub struct DeleteOptions {
    /// What becomes of the dependents.
    pub propagation: Option<Propagation>,
    /// Seconds that a pod gets to end.
    pub grace: Option<i64>,
    /// Only the object of this uid.
    pub uid: Option<String>,
    /// Only the object in this state.
    pub resource_version: Option<String>,
}

/// What a deletion came to.
#[derive(Debug)]
pub enum Removal {
    /// The object is gone; this was its last state.
    Gone(Arc<Value>),
    /// It is on its way out.
    Pending(Arc<Value>),
}

/// Held while dependents are to go first.
pub(super) const FOREGROUND: &str = "foregroundDeletion";
/// Held while dependents are to be set free.
pub(super) const ORPHAN: &str = "orphan";

/// Namespaces that a cluster cannot do without.
const PROTECTED: &[&str] = &["default", "kube-system", "kube-public"];

// === impl Propagation ===

impl Propagation {
    /// The policy of a `propagationPolicy`.
    pub fn parse(text: &str) -> Result<Self, Status> {
        match text {
            "Background" => Ok(Self::Background),
            "Foreground" => Ok(Self::Foreground),
            "Orphan" => Ok(Self::Orphan),
            other => Err(Status::bad_request(format!(
                "propagationPolicy {other:?}: must be Background, Foreground or Orphan"
            ))),
        }
    }
}

// === impl DeleteOptions ===

impl DeleteOptions {
    /// Reads the body of a DELETE; fields that are absent keep what the query said.
    pub fn read(&mut self, body: &Value) -> Result<(), Status> {
        if let Some(policy) = body["propagationPolicy"].as_str() {
            self.propagation = Some(Propagation::parse(policy)?);
        }
        if let Some(orphan) = body["orphanDependents"].as_bool() {
            self.propagation = Some(if orphan {
                Propagation::Orphan
            } else {
                Propagation::Background
            });
        }
        if let Some(grace) = body["gracePeriodSeconds"].as_i64() {
            self.grace = Some(grace);
        }
        let preconditions = &body["preconditions"];
        let text = |field: &str| preconditions[field].as_str().map(str::to_owned);
        self.uid = text("uid");
        self.resource_version = text("resourceVersion");
        Ok(())
    }
}

// === impl Cluster ===

impl Cluster {
    /// Deletes one object.
    pub fn delete(&self, call: &Call<'_>, options: &DeleteOptions) -> Result<Removal, Status> {
        let _turn = self.turn.lock();
        let live = self.live(call)?;
        check_preconditions(call, options, &live)?;
        if call.resource.storage == namespace::NAMESPACES && PROTECTED.contains(&call.name) {
            let why = "this namespace may not be deleted";
            return Err(super::forbidden(call.resource, call.name, why));
        }
        if call.options.dry_run {
            return Ok(Removal::Gone(live));
        }
        Ok(self.begin_deletion(&call.resource.storage, &live, options))
    }

    /// Deletes all objects that are selected, and answers with what they were.
    pub fn delete_collection(
        &self,
        call: &Call<'_>,
        selector: &Selector,
        options: &DeleteOptions,
    ) -> Result<Vec<Arc<Value>>, Status> {
        if call.resource.storage == namespace::NAMESPACES {
            let message = "the server does not allow this method on the requested resource";
            return Err(Status::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "MethodNotAllowed",
                message,
            ));
        }
        let _turn = self.turn.lock();
        let storage = &call.resource.storage;
        let namespace = (!call.namespace.is_empty()).then_some(call.namespace);
        let mut deleted = self.store.list(storage, namespace);
        deleted.retain(|object| selector.matches(object));
        if !call.options.dry_run {
            for object in &deleted {
                self.begin_deletion(storage, object, options);
            }
        }
        Ok(deleted)
    }

    /// Removes an object, or marks it and lets controllers do what has to come first.
    pub(super) fn begin_deletion(
        &self,
        storage: &GroupResource,
        live: &Arc<Value>,
        options: &DeleteOptions,
    ) -> Removal {
        let (namespace, name) = (meta::text(live, "namespace"), meta::text(live, "name"));
        let mut object = Value::clone(live);
        set_propagation(&mut object, options.propagation);
        let grace = if self.deletes_gracefully() {
            grace(storage, live, options.grace)
        } else {
            0
        };
        let held = !meta::finalizers(&object).is_empty()
            || grace > 0
            || namespace::is_held(storage, &object);
        if !held {
            let last = self.erase(storage, namespace, name);
            return Removal::Gone(last.unwrap_or_else(|| live.clone()));
        }
        mark(&mut object, grace);
        if *storage == namespace::NAMESPACES {
            object["status"]["phase"] = "Terminating".into();
        }
        let stored = if object == **live {
            live.clone()
        } else {
            self.store.put(storage, object)
        };
        self.pursue(storage, &stored);
        match self.store.get(storage, namespace, name) {
            Some(latest) => Removal::Pending(latest),
            None => Removal::Gone(stored),
        }
    }

    /// What a deletion waits for is set going.
    fn pursue(&self, storage: &GroupResource, object: &Arc<Value>) {
        if *storage == namespace::NAMESPACES {
            self.drain(meta::text(object, "name"));
        }
        if *storage == definition::DEFINITIONS {
            self.delete_instances(object);
        }
        let finalizers = meta::finalizers(object);
        let uid = meta::text(object, "uid");
        if finalizers.iter().any(|it| it == ORPHAN) {
            self.orphan(uid);
            self.drop_finalizer(storage, object, ORPHAN);
        } else if finalizers.iter().any(|it| it == FOREGROUND) {
            self.delete_dependents(uid);
            self.release(storage, object);
        }
    }

    /// Takes one finalizer off an object, and the object away when it was the last.
    pub(super) fn drop_finalizer(&self, storage: &GroupResource, object: &Value, finalizer: &str) {
        let (namespace, name) = (meta::text(object, "namespace"), meta::text(object, "name"));
        let Some(live) = self.store.get(storage, namespace, name) else {
            return;
        };
        let mut finalizers = meta::finalizers(&live);
        let before = finalizers.len();
        finalizers.retain(|it| it != finalizer);
        if finalizers.len() == before {
            return;
        }
        let mut object = Value::clone(&live);
        meta::set_finalizers(&mut object, finalizers);
        if meta::is_deleting(&object) && may_go(storage, &object) {
            self.erase(storage, namespace, name);
        } else {
            self.store.put(storage, object);
        }
    }

    /// Removes an object at once; controllers see to what it leaves behind.
    pub(super) fn erase(
        &self,
        storage: &GroupResource,
        namespace: &str,
        name: &str,
    ) -> Option<Arc<Value>> {
        let last = self.store.remove(storage, namespace, name)?;
        self.after_removal(storage, &last);
        Some(last)
    }
}

/// Whether nothing holds an object back that is on its way out.
pub(super) fn may_go(storage: &GroupResource, object: &Value) -> bool {
    meta::finalizers(object).is_empty()
        && object["metadata"]["deletionGracePeriodSeconds"]
            .as_i64()
            .unwrap_or_default()
            == 0
        && !namespace::is_held(storage, object)
}

fn check_preconditions(
    call: &Call<'_>,
    options: &DeleteOptions,
    live: &Value,
) -> Result<(), Status> {
    for (field, label, want, guess) in [
        ("uid", "UID", &options.uid, "deleted and then recreated"),
        (
            "resourceVersion",
            "ResourceVersion",
            &options.resource_version,
            "modified",
        ),
    ] {
        let found = meta::text(live, field);
        if let Some(want) = want.as_deref().filter(|want| *want != found) {
            let kind = &call.resource.kind.kind;
            let message = format!(
                "Operation cannot be fulfilled on {kind} {:?}: the {label} in the precondition ({want}) \
                 does not match the {label} in record ({found}). The object might have been {guess}",
                call.name
            );
            let status = conflict(call.resource, call.name, "");
            return Err(Status { message, ..status });
        }
    }
    Ok(())
}

fn set_propagation(object: &mut Value, propagation: Option<Propagation>) {
    let Some(propagation) = propagation else {
        return;
    };
    let mut finalizers = meta::finalizers(object);
    finalizers.retain(|it| it != ORPHAN && it != FOREGROUND);
    match propagation {
        Propagation::Background => {}
        Propagation::Foreground => finalizers.push(FOREGROUND.to_owned()),
        Propagation::Orphan => finalizers.push(ORPHAN.to_owned()),
    }
    meta::set_finalizers(object, finalizers);
}

/// Seconds that a pod gets to end; others, and pods that do not run, get none.
fn grace(storage: &GroupResource, object: &Value, asked: Option<i64>) -> i64 {
    let runs = *storage == builtin::PODS
        && !object["spec"]["nodeName"]
            .as_str()
            .unwrap_or_default()
            .is_empty()
        && !matches!(
            object["status"]["phase"].as_str(),
            Some("Succeeded" | "Failed")
        );
    if !runs {
        return 0;
    }
    let specified = object["spec"]["terminationGracePeriodSeconds"].as_i64();
    let left = object["metadata"]["deletionGracePeriodSeconds"].as_i64();
    let grace = asked.or(left).or(specified).unwrap_or(30);
    left.map_or(grace, |left| grace.min(left)).max(0)
}

/// Notes on an object that it is to go.
fn mark(object: &mut Value, grace: i64) {
    if !meta::is_deleting(object) {
        let end = Timestamp::now().saturating_add(grace.seconds());
        let end = end.unwrap_or_else(|_| Timestamp::now());
        meta::set(
            object,
            "deletionTimestamp",
            Some(crate::store::timestamp(end).into()),
        );
        if let Some(generation) = object["metadata"]["generation"].as_i64() {
            meta::set(object, "generation", Some((generation + 1).into()));
        }
    }
    meta::set(object, "deletionGracePeriodSeconds", Some(grace.into()));
}

//! From what a caller sent to an object that may be stored.

use std::sync::LazyLock;

use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Call, Cluster, Turn, UnknownFields, about, builtin, definition, service};
use crate::{
    apply::{self, Writer},
    meta,
    registry::Resource,
    schema::{Cause, Reason, Schema},
    status::Status,
};

/// The most that one object may take, as in a cluster with etcd's defaults.
const MAX_OBJECT: usize = 1_572_864;

/// What was sent, which decides how unknown fields are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// A whole object, or an applied one.
    Object,
    /// A patch.
    Patch,
}

/// What a kind that has no schema is held against.
static ANYTHING: LazyLock<Option<Schema>> = LazyLock::new(|| {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    Schema::from_openapi(&schema).ok()
});

/// Checks the outer shape of an object and removes what its schema does not know. Answers with warnings.
pub(super) fn decode(
    call: &Call<'_>,
    object: &mut Value,
    encoding: Encoding,
) -> Result<Vec<String>, Status> {
    let resource = call.resource;
    meta::check_shape(object)?;
    for (field, want) in [
        ("apiVersion", &resource.api_version()),
        ("kind", &resource.kind.kind),
    ] {
        match object[field].as_str() {
            None => object[field] = want.clone().into(),
            Some(found) if found == want => {}
            Some(found) => {
                let (version, kind) = match field {
                    "kind" => (&*resource.kind.version, found),
                    _ => (found, object["kind"].as_str().unwrap_or_default()),
                };
                return Err(Status::bad_request(format!(
                    "{kind} in version {version:?} cannot be handled as a {}: the {field} has to be \
                     {want:?}",
                    resource.kind.kind
                )));
            }
        }
    }
    let mut unknown = resource
        .schema()
        .map_or_else(Vec::new, |schema| schema.prune(object));
    if resource.is_custom() {
        unknown.extend(meta::prune(object));
    }
    let duplicates = &call.options.duplicates;
    if call.applies && !unknown.is_empty() {
        return Err(undeclared(call, object, &unknown));
    }
    if unknown.is_empty() && duplicates.is_empty() {
        return Ok(Vec::new());
    }
    let duplicates = duplicates
        .iter()
        .map(|path| format!("duplicate field {path:?}"));
    let unknown = unknown.iter().map(|path| format!("unknown field {path:?}"));
    let mut faults = duplicates.chain(unknown);
    match call.options.unknown_fields {
        UnknownFields::Ignore => Ok(Vec::new()),
        UnknownFields::Warn => Ok(faults.collect()),
        UnknownFields::Strict => {
            let faults: Vec<String> = faults.by_ref().collect();
            Err(strict_error(call, encoding, &faults.join(", ")))
        }
    }
}

/// An apply never passes over a field: who would own it?
fn undeclared(call: &Call<'_>, object: &Value, unknown: &[String]) -> Status {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    let fields: Vec<_> = unknown
        .iter()
        .map(|path| format!(".{path}: field not declared in schema"))
        .collect();
    let version = match text("apiVersion") {
        core if !core.contains('/') => format!("/{core}"),
        version => version.to_owned(),
    };
    let message = format!(
        "failed to create typed patch object ({}/{}; {version}, Kind={}): {}",
        call.namespace,
        call.name,
        text("kind"),
        fields.join(", ")
    );
    // As in a cluster, where nobody gave it a reason.
    Status::new(StatusCode::INTERNAL_SERVER_ERROR, "", message)
}

fn strict_error(call: &Call<'_>, encoding: Encoding, faults: &str) -> Status {
    let kind = &call.resource.kind;
    let message = format!("strict decoding error: {faults}");
    match encoding {
        Encoding::Patch => {
            let cause = meta::cause(
                "patch",
                Reason::Invalid,
                &format!("Invalid value: {message}"),
            );
            Status::invalid(&kind.group, &kind.kind, call.name, &[cause])
        }
        Encoding::Object => Status::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: {message}",
            kind.kind, kind.version, kind.kind
        )),
    }
}

/// Puts a new object into the namespace and under the name that the path says.
pub(super) fn place(call: &Call<'_>, object: &mut Value) -> Result<(), Status> {
    for (field, want) in [("namespace", call.namespace), ("name", call.name)] {
        let found = meta::text(object, field);
        if found.is_empty() || want.is_empty() {
            continue;
        }
        if found != want {
            return Err(Status::bad_request(match field {
                "name" => format!(
                    "the name of the object ({found}) does not match the name on the URL ({want})"
                ),
                _ => {
                    "the namespace of the provided object does not match the namespace sent on the \
                      request"
                        .to_owned()
                }
            }));
        }
    }
    let namespace = (!call.namespace.is_empty()).then(|| call.namespace.into());
    meta::set(object, "namespace", namespace);
    if !call.name.is_empty() {
        meta::set(object, "name", Some(call.name.into()));
    }
    Ok(())
}

/// Gives a new object what the server alone sets.
pub(super) fn begin(resource: &Resource, object: &mut Value) {
    for field in [
        "resourceVersion",
        "selfLink",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        meta::set(object, field, None);
    }
    let now = crate::store::timestamp(Timestamp::now());
    meta::set(object, "creationTimestamp", Some(now.into()));
    meta::set(object, "uid", Some(crate::store::new_uid().into()));
    let generation = resource.generations.then(|| 1.into());
    meta::set(object, "generation", generation);
    // A kubelet registers its node with a status; everywhere else a status is not the creator's to set.
    if resource.has("status") && resource.storage.resource != "nodes" {
        remove(object, "status");
    }
    builtin::begin(&resource.storage, object);
}

/// Notes whose fields they are now. An apply has done so already.
pub(super) fn track(call: &Call<'_>, old: Option<&Value>, object: &mut Value) {
    if !call.applies
        && let Some(writer) = writer(call, &call.resource.api_version())
    {
        apply::track_update(&writer, old, object);
    }
}

/// Who writes, for the field managers.
pub(super) fn writer<'a>(call: &Call<'a>, api_version: &'a str) -> Option<Writer<'a>> {
    Some(Writer {
        schema: call.resource.schema().or(ANYTHING.as_ref())?,
        manager: &call.options.manager,
        api_version,
        subresource: (!call.subresource.is_empty()).then_some(call.subresource),
        status_apart: call.resource.has("status"),
        now: Timestamp::now(),
    })
}

/// Removes a field of an object.
pub(super) fn remove(object: &mut Value, field: &str) {
    if let Some(object) = object.as_object_mut() {
        object.remove(field);
    }
}

impl Cluster {
    /// Fills in defaults and checks the whole object, against what it replaces.
    pub(super) fn complete(
        &self,
        call: &Call<'_>,
        object: &mut Value,
        old: Option<&Value>,
        turn: &mut Turn,
    ) -> Result<(), Status> {
        let resource = call.resource;
        if let Some(schema) = resource.schema() {
            schema.apply_defaults(object);
        }
        builtin::complete(&resource.storage, object);
        let mut causes = Vec::new();
        if resource.storage == service::SERVICES {
            causes.extend(turn.addresses.assign(&self.store, object, old));
        }
        causes.extend(meta::validate(resource, object));
        if let Some(old) = old {
            causes.extend(meta::validate_update(object, old));
        }
        if let Some(schema) = resource.schema() {
            causes.extend(schema.validate(object, old));
        }
        if let Some(cause) = causes.iter().find(|it| it.reason == Reason::TypeInvalid)
            && !resource.is_custom()
        {
            return Err(undecodable(resource, cause));
        }
        if resource.storage == definition::DEFINITIONS {
            causes.extend(definition::validate(object, old));
        }
        refuse(call, object, &causes)?;
        if size(object) > MAX_OBJECT {
            return Err(Status::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "RequestEntityTooLarge",
                format!("Request entity too large: limit is {MAX_OBJECT}"),
            ));
        }
        self.check_references(call, object, old)
    }

    /// What depends on other objects: rights that are given away, service accounts of pods.
    fn check_references(
        &self,
        call: &Call<'_>,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        if call.resource.kind.group == "rbac.authorization.k8s.io" {
            self.authority
                .check_escalation(&self.store, call.user, old, object)?;
        }
        if call.resource.storage == builtin::PODS && old.is_none() {
            let account = object["spec"]["serviceAccountName"]
                .as_str()
                .unwrap_or_default();
            if self
                .store
                .get(&builtin::ACCOUNTS, call.namespace, account)
                .is_none()
            {
                let name = meta::text(object, "name");
                return Err(super::forbidden(
                    call.resource,
                    name,
                    &format!(
                        "error looking up service account {}/{account}: serviceaccount {account:?} not \
                         found",
                        call.namespace
                    ),
                ));
            }
        }
        Ok(())
    }

    /// A namespace takes new objects while it exists and is not on its way out.
    pub(super) fn check_namespace(&self, call: &Call<'_>) -> Result<(), Status> {
        if !call.resource.namespaced {
            return Ok(());
        }
        let namespace = self
            .store
            .get(&super::namespace::NAMESPACES, "", call.namespace);
        let Some(namespace) = namespace else {
            let message = format!("namespaces {:?} not found", call.namespace);
            let status = Status::new(StatusCode::NOT_FOUND, "NotFound", message);
            let details = json!({"name": call.namespace, "kind": "namespaces"});
            return Err(Status { details, ..status });
        };
        if !meta::is_deleting(&namespace) {
            return Ok(());
        }
        let why = format!(
            "unable to create new content in namespace {} because it is being terminated",
            call.namespace
        );
        let status = super::forbidden(call.resource, call.name, &why);
        let mut status = about(call.resource, call.name, status);
        status.details["causes"] = json!([{
            "reason": "NamespaceTerminating",
            "message": format!("namespace {} is being terminated", call.namespace),
            "field": "metadata.namespace",
        }]);
        Err(status)
    }
}

/// A value of a wrong type in a built-in kind: a cluster cannot even read it.
fn undecodable(resource: &Resource, cause: &Cause) -> Status {
    let kind = &resource.kind;
    let found = match cause.message.split('"').nth(1) {
        Some("integer") => "number",
        Some("boolean") => "bool",
        Some(other) => other,
        None => "value",
    };
    Status::bad_request(format!(
        "{} in version {:?} cannot be handled as a {}: json: cannot unmarshal {found} into Go struct \
         field {}.{}: {}",
        kind.kind, kind.version, kind.kind, kind.kind, cause.field, cause.message
    ))
}

fn refuse(call: &Call<'_>, object: &Value, causes: &[Cause]) -> Result<(), Status> {
    if causes.is_empty() {
        return Ok(());
    }
    let kind = &call.resource.kind;
    let name = meta::text(object, "name");
    Err(Status::invalid(&kind.group, &kind.kind, name, causes))
}

/// About how many bytes an object takes as JSON.
fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 5,
        Value::String(text) => text.len() + 3,
        Value::Array(items) => items.iter().map(size).sum::<usize>() + 2,
        Value::Object(fields) => {
            let fields = fields.iter();
            fields
                .map(|(key, value)| key.len() + 4 + size(value))
                .sum::<usize>()
                + 2
        }
    }
}

//! Create, update, patch and delete.

use std::sync::Arc;

use http::{Response, StatusCode, header};
use serde_json::{Value, json};

use super::{
    Shared, duplicate,
    handler::{self, Asked},
    read,
    request::{Form, Location, Query},
    respond::{self, Body},
};
use crate::{
    cluster::{Call, DeleteOptions, Options, Outcome, Patch, Propagation, Removal, UnknownFields},
    convert, meta,
    registry::Resource,
    schema::Reason,
    status::Status,
};

/// The longest field manager, in bytes.
const MAX_MANAGER: usize = 128;

/// Carries out a request that changes something.
pub(super) fn write(
    shared: &Shared,
    verb: &str,
    resource: &Resource,
    at: &Location,
    asked: &Asked,
) -> Result<Response<Body>, Status> {
    let form = Form::negotiate(&asked.headers)?;
    let mut options = options(verb, asked)?;
    let body = match verb {
        "patch" => None,
        "delete" | "deletecollection" if asked.body.is_empty() => Some(Value::Null),
        _ => Some(handler::decode(asked)?),
    };
    if verb.starts_with("delete")
        && let Some(body) = &body
    {
        options.dry_run |= body["dryRun"]
            .as_array()
            .is_some_and(|list| !list.is_empty());
    }
    let call = Call {
        user: &asked.user,
        resource,
        namespace: &at.namespace,
        name: &at.name,
        subresource: &at.subresource,
        options: &options,
        applies: false,
    };
    let outcome = match (verb, body) {
        ("create", Some(body)) if at.subresource == "token" || !resource.is_stored() => {
            return answer_review(shared, &call, body);
        }
        ("create", Some(body)) => shared.cluster.create(&call, body)?,
        ("update", Some(body)) => shared.cluster.update(&call, body)?,
        ("patch", _) => patch(shared, &call, asked)?,
        ("delete", Some(body)) => return delete(shared, &call, asked, &body, form),
        (_, Some(body)) => return delete_collection(shared, &call, asked, &body),
        (_, None) => return Err(handler::unsupported()),
    };
    let code = if outcome.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let shown = read::show(form, &asked.query, resource, Arc::new(outcome.object))?;
    let mut response = respond::json(code, &shown);
    respond::warn(&mut response, &outcome.warnings);
    Ok(response)
}

/// Questions that are asked as objects, and tokens.
fn answer_review(shared: &Shared, call: &Call<'_>, body: Value) -> Result<Response<Body>, Status> {
    let (authority, store) = (&shared.cluster.authority, &shared.cluster.store);
    let answer = if call.subresource == "token" {
        authority.request_token(store, call.namespace, call.name, body)?
    } else {
        let mut body = body;
        meta::check_shape(&mut body)?;
        body["kind"] = call.resource.kind.kind.clone().into();
        authority.review(store, call.user, call.namespace, body)?
    };
    Ok(respond::json(StatusCode::CREATED, &answer))
}

fn patch(shared: &Shared, call: &Call<'_>, asked: &Asked) -> Result<Outcome, Status> {
    let kind = Patch::from_content_type(handler::media_type(&asked.headers));
    let kind = kind.ok_or_else(handler::unsupported)?;
    let refuse = |field: &str, reason: Reason, message: &str| {
        let cause = meta::cause(field, reason, message);
        Status::invalid("meta.k8s.io", "PatchOptions", "", &[cause])
    };
    if kind == Patch::Apply && asked.query.text("fieldManager").is_empty() {
        let message = "Required value: is required for apply patch";
        return Err(refuse("fieldManager", Reason::Required, message));
    }
    if kind != Patch::Apply && !asked.query.text("force").is_empty() {
        let message = "Forbidden: may not be specified for non-apply patch";
        return Err(refuse("force", Reason::Forbidden, message));
    }
    let patch = handler::decode(asked)?;
    shared.cluster.patch(call, kind, &patch)
}

fn delete(
    shared: &Shared,
    call: &Call<'_>,
    asked: &Asked,
    body: &Value,
    form: Form,
) -> Result<Response<Body>, Status> {
    let options = delete_options(&asked.query, body)?;
    let (object, gone) = match shared.cluster.delete(call, &options)? {
        Removal::Gone(object) => (object, true),
        Removal::Pending(object) => (object, false),
    };
    if !gone || returns_object(call.resource) {
        let object = convert::present(call.resource, &object);
        let shown = read::show(form, &asked.query, call.resource, object)?;
        return Ok(respond::json(StatusCode::OK, &shown));
    }
    let mut details = json!({
        "name": call.name,
        "kind": call.resource.plural,
        "uid": meta::text(&object, "uid"),
    });
    if !call.resource.kind.group.is_empty() {
        details["group"] = call.resource.kind.group.clone().into();
    }
    let status = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details,
    });
    Ok(respond::json(StatusCode::OK, &status))
}

fn delete_collection(
    shared: &Shared,
    call: &Call<'_>,
    asked: &Asked,
    body: &Value,
) -> Result<Response<Body>, Status> {
    let options = delete_options(&asked.query, body)?;
    let selector = read::selector(call.resource, &asked.query)?;
    let deleted = shared
        .cluster
        .delete_collection(call, &selector, &options)?;
    let items = deleted
        .iter()
        .map(|object| Value::clone(&convert::present(call.resource, object)));
    let list = json!({
        "kind": call.resource.list_kind,
        "apiVersion": call.resource.api_version(),
        "metadata": {"resourceVersion": shared.cluster.store.resource_version().to_string()},
        "items": items.collect::<Vec<_>>(),
    });
    Ok(respond::json(StatusCode::OK, &list))
}

/// Kinds whose deletion is answered with the object, as in a cluster.
fn returns_object(resource: &Resource) -> bool {
    let kinds = [
        "pods",
        "services",
        "serviceaccounts",
        "persistentvolumeclaims",
    ];
    resource.kind.group.is_empty() && kinds.contains(&&*resource.plural)
}

fn delete_options(query: &Query, body: &Value) -> Result<DeleteOptions, Status> {
    let mut options = DeleteOptions::default();
    if !query.text("propagationPolicy").is_empty() {
        options.propagation = Some(Propagation::parse(query.text("propagationPolicy"))?);
    }
    if let Some(seconds) = query.number("gracePeriodSeconds")? {
        options.grace = i64::try_from(seconds).ok();
    }
    options.read(body)?;
    Ok(options)
}

fn options(verb: &str, asked: &Asked) -> Result<Options, Status> {
    let query = &asked.query;
    let refuse = |field: &str, found: &str, options: &str| {
        let kind = match verb {
            "create" => "CreateOptions",
            "update" => "UpdateOptions",
            "patch" => "PatchOptions",
            _ => "DeleteOptions",
        };
        let message = format!("Unsupported value: {found}: supported values: {options}");
        let cause = meta::cause(field, Reason::NotSupported, &message);
        Status::invalid("meta.k8s.io", kind, "", &[cause])
    };
    let dry_run = match query.text("dryRun") {
        "" => false,
        "All" => true,
        other => {
            let found = format!("[]string{{{other:?}}}");
            return Err(refuse("dryRun", &found, "\"All\""));
        }
    };
    let unknown_fields = match query.text("fieldValidation") {
        "" | "Warn" => UnknownFields::Warn,
        "Ignore" => UnknownFields::Ignore,
        "Strict" => UnknownFields::Strict,
        other => {
            let options = "\"\", \"Ignore\", \"Strict\", \"Warn\"";
            return Err(refuse("fieldValidation", &format!("{other:?}"), options));
        }
    };
    let manager = manager(asked);
    if manager.len() > MAX_MANAGER {
        return Err(Status::bad_request(format!(
            "fieldManager: may not be more than {MAX_MANAGER} bytes"
        )));
    }
    Ok(Options {
        dry_run,
        manager,
        unknown_fields,
        duplicates: duplicates(verb, asked),
        force: query.flag("force"),
    })
}

/// Keys that come twice in an object that is sent as JSON.
fn duplicates(verb: &str, asked: &Asked) -> Vec<String> {
    let whole = matches!(verb, "create" | "update");
    let json = !handler::media_type(&asked.headers).ends_with("yaml");
    if whole && json && asked.query.text("fieldValidation") != "Ignore" {
        duplicate::find(&asked.body)
    } else {
        Vec::new()
    }
}

/// Who writes: as they say, or by their program's name.
fn manager(asked: &Asked) -> String {
    let manager = asked.query.text("fieldManager");
    if !manager.is_empty() {
        return manager.to_owned();
    }
    let agent = asked
        .headers
        .get(header::USER_AGENT)
        .and_then(|it| it.to_str().ok());
    let program = agent
        .and_then(|agent| agent.split('/').next())
        .unwrap_or_default();
    let program: String = program.chars().take(MAX_MANAGER).collect();
    if program.is_empty() {
        "unknown".to_owned()
    } else {
        program
    }
}

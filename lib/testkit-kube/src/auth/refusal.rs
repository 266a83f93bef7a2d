//! Refusals in the words of the API.

use http::StatusCode;
use serde_json::{Map, Value};

use super::rbac::{Attributes, Target};
use crate::status::Status;

/// The user may not do this. A role has to be bound to them; `reason` says what is wrong with those that
/// are.
pub(super) fn forbidden(attributes: &Attributes<'_>, reason: &str) -> Status {
    let message = describe(attributes);
    let message = match reason {
        "" => message,
        reason => format!("{message}: {reason}"),
    };
    match attributes.target {
        Target::Path(_) => named(StatusCode::FORBIDDEN, "Forbidden", "", "", "", &message),
        Target::Resource {
            group,
            resource,
            name,
            ..
        } => forbidden_object(group, resource, name, &message),
    }
}

/// As [`forbidden`], for reasons of another kind.
pub(super) fn forbidden_object(group: &str, resource: &str, name: &str, why: &str) -> Status {
    named(
        StatusCode::FORBIDDEN,
        "Forbidden",
        group,
        resource,
        name,
        why,
    )
}

/// The object is not there.
pub(super) fn not_found(group: &str, resource: &str, name: &str) -> Status {
    let message = format!("{} {name:?} not found", qualified(group, resource));
    Status {
        details: details(group, resource, name),
        ..Status::new(StatusCode::NOT_FOUND, "NotFound", message)
    }
}

/// The object is another one than the request assumes.
pub(super) fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Status {
    let resource_name = qualified(group, resource);
    let message = format!("Operation cannot be fulfilled on {resource_name} {name:?}: {why}");
    Status {
        details: details(group, resource, name),
        ..Status::new(StatusCode::CONFLICT, "Conflict", message)
    }
}

/// The server cannot do its work, or the request leads it into a corner.
pub(super) fn internal(why: &str) -> Status {
    let message = format!("Internal error occurred: {why}");
    Status::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
}

/// A list as messages show it: `["a" "b"]`.
pub(super) fn quoted(values: &[String]) -> String {
    let quoted: Vec<_> = values.iter().map(|value| format!("{value:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

fn named(
    code: StatusCode,
    reason: &'static str,
    group: &str,
    resource: &str,
    name: &str,
    why: &str,
) -> Status {
    let message = match (resource, name) {
        ("", _) => format!("forbidden: {why}"),
        (_, "") => format!("{} is forbidden: {why}", qualified(group, resource)),
        (_, _) => format!(
            "{} {name:?} is forbidden: {why}",
            qualified(group, resource)
        ),
    };
    Status {
        details: details(group, resource, name),
        ..Status::new(code, reason, message)
    }
}

/// Who may not do what, as the real server says it.
fn describe(attributes: &Attributes<'_>) -> String {
    let Attributes { user, verb, target } = attributes;
    let user = &user.name;
    match target {
        Target::Path(path) => format!("User {user:?} cannot {verb} path {path:?}"),
        Target::Resource {
            group,
            resource,
            subresource,
            namespace,
            ..
        } => {
            let resource = match *subresource {
                "" => (*resource).to_owned(),
                subresource => format!("{resource}/{subresource}"),
            };
            let place = match *namespace {
                "" => "at the cluster scope".to_owned(),
                namespace => format!("in the namespace {namespace:?}"),
            };
            format!(
                "User {user:?} cannot {verb} resource {resource:?} in API group {group:?} {place}"
            )
        }
    }
}

/// A resource as messages name it: `deployments.apps`.
fn qualified(group: &str, resource: &str) -> String {
    match group {
        "" => resource.to_owned(),
        group => format!("{resource}.{group}"),
    }
}

fn details(group: &str, resource: &str, name: &str) -> Value {
    let mut details = Map::new();
    for (key, value) in [("name", name), ("group", group), ("kind", resource)] {
        if !value.is_empty() {
            details.insert(key.to_owned(), value.into());
        }
    }
    Value::Object(details)
}

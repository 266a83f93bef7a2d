//! Get and list.

use std::{num::ParseIntError, sync::Arc};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{Response, StatusCode};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Shared,
    handler::Asked,
    request::{Form, Location, Query},
    respond::{self, Body, Item},
};
use crate::{
    cluster::{Call, Options},
    convert,
    registry::Resource,
    schema::Reason,
    selector::Selector,
    status::Status,
    store::{Error, Key, Page, Query as Range},
    table::{Include, Table},
};

/// Where a list goes on, as the client carries it.
#[derive(Debug, Serialize, Deserialize)]
struct Continue {
    /// The moment that the list shows; `None` is the present, whatever the first pages showed.
    #[serde(rename = "rv")]
    version: Option<u64>,
    namespace: String,
    name: String,
}

// === impl Continue ===

impl Continue {
    fn encode(&self) -> String {
        // A struct of strings and numbers always has a JSON form.
        BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }
}

/// One object.
pub(super) fn get(
    shared: &Shared,
    resource: &Resource,
    at: &Location,
    asked: &Asked,
) -> Result<Response<Body>, Status> {
    let form = Form::negotiate(&asked.headers)?;
    let call = Call {
        user: &asked.user,
        resource,
        namespace: &at.namespace,
        name: &at.name,
        subresource: &at.subresource,
        options: &Options::default(),
        applies: false,
    };
    let object = Arc::new(shared.cluster.get(&call)?);
    Ok(respond::json(
        StatusCode::OK,
        &show(form, &asked.query, resource, object)?,
    ))
}

/// One object in the form that was asked for.
pub(super) fn show(
    form: Form,
    query: &Query,
    resource: &Resource,
    object: Arc<Value>,
) -> Result<Value, Status> {
    Ok(match form {
        Form::Object | Form::Aggregated(_) => Arc::unwrap_or_clone(object),
        Form::Metadata(version) => metadata_of(&object, version),
        Form::Table(version) => {
            let table = Table::of(resource, include(query)?, version);
            let mut shown = table.head(&json!({
                "resourceVersion": object["metadata"]["resourceVersion"],
            }));
            shown["rows"] = json!([table.row(&object, Timestamp::now())]);
            shown
        }
    })
}

/// All objects, or a page of them.
pub(super) fn list(
    shared: &Shared,
    resource: Arc<Resource>,
    at: &Location,
    asked: &Asked,
) -> Result<Response<Body>, Status> {
    let form = Form::negotiate(&asked.headers)?;
    let query = &asked.query;
    let selector = selector(&resource, query)?;
    let token = query.text("continue");
    let token = if token.is_empty() {
        None
    } else {
        Some(parse_continue(token)?)
    };
    let version = version(&resource, query)?;
    if token.is_some() && version.is_some_and(|version| version != 0) {
        return Err(Status::bad_request(
            "specifying resource version is not allowed when using continue",
        ));
    }
    let limit = query.number("limit")?.filter(|&limit| limit > 0);
    let after = token
        .as_ref()
        .map(|token| Key::new(&token.namespace, &token.name));
    let range = Range {
        namespace: (!at.namespace.is_empty()).then_some(&at.namespace),
        at: match &token {
            Some(token) => token.version,
            None => moment(shared, query, version, limit.is_some())?,
        },
        after: after.as_ref(),
        limit: limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
    };
    let keep = |object: &Value| selector.matches(object);
    let page = shared.cluster.store.page(&resource.storage, range, &keep);
    let page = page.map_err(|error| match &token {
        Some(token) => expired(&error, token),
        None => refused(&error),
    })?;
    let metadata = list_metadata(&page, selector.is_everything());
    write_list(form, query, resource, &metadata, page.items)
}

fn write_list(
    form: Form,
    query: &Query,
    resource: Arc<Resource>,
    metadata: &Value,
    items: Vec<Arc<Value>>,
) -> Result<Response<Body>, Status> {
    let head = |api_version: &str, kind: &str| json!({"apiVersion": api_version, "kind": kind, "metadata": metadata});
    match form {
        Form::Object | Form::Aggregated(_) => {
            let head = head(&resource.api_version(), &resource.list_kind);
            let bare = !resource.is_custom();
            let items = items.into_iter().map(move |object| Item {
                object: convert::present(&resource, &object),
                bare,
            });
            Ok(respond::list(&head, "items", items))
        }
        Form::Metadata(version) => {
            let head = head(
                &format!("meta.k8s.io/{version}"),
                "PartialObjectMetadataList",
            );
            let items = items
                .into_iter()
                .map(move |object| metadata_of(&object, version));
            Ok(respond::list(&head, "items", items))
        }
        Form::Table(version) => {
            let table = Table::of(&resource, include(query)?, version);
            let head = table.head(metadata);
            let now = Timestamp::now();
            let rows = items
                .into_iter()
                .map(move |object| table.row(&convert::present(&resource, &object), now));
            Ok(respond::list(&head, "rows", rows))
        }
    }
}

/// The selectors of a query.
pub(super) fn selector(resource: &Resource, query: &Query) -> Result<Selector, Status> {
    Selector::parse(
        resource,
        query.text("labelSelector"),
        query.text("fieldSelector"),
    )
    .map_err(|error| Status::bad_request(error.to_string()))
}

/// The one name that a query selects. A selector of a kind that is not known may select nothing else.
pub(super) fn selected_name(
    resource: Option<&Resource>,
    query: &Query,
) -> Result<Option<String>, Status> {
    let Some(resource) = resource else {
        let fields = query.text("fieldSelector");
        let name = fields.strip_prefix("metadata.name=");
        let name = name.map(|name| name.trim_start_matches('='));
        return Ok(name.filter(|name| !name.contains(',')).map(str::to_owned));
    };
    Ok(selector(resource, query)?.name().map(str::to_owned))
}

/// What rows of a table carry.
pub(super) fn include(query: &Query) -> Result<Include, Status> {
    match query.text("includeObject") {
        "" | "Metadata" => Ok(Include::Metadata),
        "None" => Ok(Include::None),
        "Object" => Ok(Include::Object),
        other => Err(Status::bad_request(format!(
            "includeObject {other:?}: must be None, Metadata or Object"
        ))),
    }
}

/// An object's metadata alone.
pub(super) fn metadata_of(object: &Value, version: &str) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": object["metadata"],
    })
}

/// The resource version of a query, and that it goes with the rest.
pub(super) fn version(resource: &Resource, query: &Query) -> Result<Option<u64>, Status> {
    let text = query.text("resourceVersion");
    let refuse = |field: &str, reason: Reason, message: String| {
        let cause = crate::meta::cause(field, reason, &message);
        Status::invalid("meta.k8s.io", "ListOptions", "", &[cause])
    };
    let version = match text {
        "" => None,
        text => Some(text.parse().map_err(|error: ParseIntError| {
            let message = format!("Invalid value: {text:?}: {error}");
            refuse("resourceVersion", Reason::Invalid, message)
        })?),
    };
    let matching = query.text("resourceVersionMatch");
    let forbid = |why: &str| {
        let message = format!("Forbidden: {why}");
        Err(refuse("resourceVersionMatch", Reason::Forbidden, message))
    };
    let streams = query.flag("watch") && !query.text("sendInitialEvents").is_empty();
    match matching {
        "" if streams && query.flag("sendInitialEvents") => {
            forbid("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
        }
        "" => Ok(version),
        "NotOlderThan" if streams => Ok(version),
        _ if query.flag("watch") => forbid(
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ),
        "NotOlderThan" | "Exact" if version.is_none() => {
            forbid("resourceVersionMatch is forbidden unless resourceVersion is provided")
        }
        "Exact" if version == Some(0) => {
            forbid("resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"")
        }
        "NotOlderThan" | "Exact" => Ok(version),
        other => {
            let message = format!("Unsupported value: {other:?} ({})", resource.plural);
            Err(refuse(
                "resourceVersionMatch",
                Reason::NotSupported,
                message,
            ))
        }
    }
}

/// The moment that a list without a continue token shows.
fn moment(
    shared: &Shared,
    query: &Query,
    version: Option<u64>,
    limited: bool,
) -> Result<Option<u64>, Status> {
    let exact = match query.text("resourceVersionMatch") {
        "Exact" => true,
        "" => limited && version != Some(0),
        _ => false,
    };
    match version {
        Some(version) if exact => Ok(Some(version)),
        Some(version) => not_older(shared, version).map(|()| None),
        None => Ok(None),
    }
}

/// The present must not be older than what the client has seen.
pub(super) fn not_older(shared: &Shared, version: u64) -> Result<(), Status> {
    let current = shared.cluster.store.resource_version();
    if version <= current {
        return Ok(());
    }
    let error = Error::Future {
        asked: version,
        current,
    };
    Err(refused(&error))
}

/// The answer to a list of a moment that cannot be shown.
pub(super) fn refused(error: &Error) -> Status {
    match error {
        Error::Expired { .. } => Status::new(StatusCode::GONE, "Expired", error.to_string()),
        Error::Future { .. } => {
            let message = format!("Timeout: {error}");
            let status = Status::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message);
            Status {
                details: json!({
                    "causes": [{
                        "reason": "ResourceVersionTooLarge",
                        "message": "Too large resource version",
                    }],
                    "retryAfterSeconds": 1,
                }),
                retry_after: Some(1),
                ..status
            }
        }
    }
}

/// The answer to a page of a moment that cannot be shown, with the offer to go on in the present.
fn expired(error: &Error, token: &Continue) -> Status {
    let status = refused(error);
    if status.reason != "Expired" {
        return status;
    }
    let token = Continue {
        version: None,
        namespace: token.namespace.clone(),
        name: token.name.clone(),
    };
    Status {
        message: "The provided continue parameter is too old to display a consistent list result. You can \
                  start a new list without the continue parameter, or use the continue token in this \
                  response to retrieve the remainder of the results, which is then not consistent with \
                  the first ones."
            .to_owned(),
        continue_token: Some(token.encode()),
        ..status
    }
}

fn list_metadata(page: &Page, countable: bool) -> Value {
    let mut metadata = json!({"resourceVersion": page.resource_version.to_string()});
    if let Some(end) = &page.end {
        let token = Continue {
            version: Some(page.resource_version),
            namespace: end.namespace.to_string(),
            name: end.name.to_string(),
        };
        metadata["continue"] = token.encode().into();
        if countable {
            metadata["remainingItemCount"] = page.remaining.into();
        }
    }
    metadata
}

fn parse_continue(token: &str) -> Result<Continue, Status> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).unwrap_or_default();
    serde_json::from_slice(&bytes)
        .map_err(|error| Status::bad_request(format!("continue key is not valid: {error}")))
}

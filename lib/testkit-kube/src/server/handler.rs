//! One request: who asks, what for, whether they may, and who answers.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{
    Shared, discovery, logs, read,
    request::{self, Location, Path, Query},
    respond::{self, Body},
    watch, write,
};
use crate::{
    auth::{Attributes, Peer, Target, User},
    openapi, protobuf,
    registry::Resource,
    status::Status,
};

/// The largest body, as in a cluster.
const MAX_BODY: usize = 3 * 1024 * 1024;
/// How long a body may take.
const BODY: Duration = Duration::from_secs(60);

/// A request that may be carried out.
pub(super) struct Asked {
    pub(super) user: User,
    pub(super) headers: HeaderMap,
    pub(super) query: Query,
    pub(super) body: Bytes,
}

/// Answers a request, whatever becomes of it.
pub(super) async fn answer(
    shared: Arc<Shared>,
    peer: Peer,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = serve(&shared, &peer, request).await;
    let response = response.unwrap_or_else(|status| respond::status(&status));
    tracing::debug!(%method, path, code = response.status().as_u16(), "answered");
    Ok(response)
}

async fn serve(
    shared: &Arc<Shared>,
    peer: &Peer,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    if shared.is_refusing() {
        return Err(unavailable());
    }
    let (head, body) = request.into_parts();
    let user = shared
        .cluster
        .authority
        .authenticate(&shared.cluster.store, peer, &head.headers)?;
    let path = head.uri.path();
    let query = Query::parse(head.uri.query());
    let parsed = Path::parse(path);
    let Path::Resource(at) = parsed else {
        authorize_path(shared, &user, &head.method, path)?;
        return document(shared, &head, &parsed);
    };
    let verb = at
        .verb(&head.method, &query)
        .ok_or_else(method_not_allowed)?;
    let resource = shared
        .cluster
        .registry
        .find(&at.group, &at.version, &at.plural);
    // A list of the one object of a name is allowed to whoever may list that one, of a kind that there is
    // not as of any other: what is asked for is judged before it is looked for.
    let selected = if matches!(verb, "list" | "watch" | "deletecollection") {
        read::selected_name(resource.as_deref(), &query)?
    } else {
        None
    };
    authorize(shared, &user, verb, &at, selected.as_deref())?;
    let resource = resource.ok_or_else(|| unknown(shared, &at))?;
    check_method(shared, &resource, &at, verb)?;
    shared.counts.add(&user, verb, &at);
    let body = read_body(body).await?;
    let asked = Asked {
        user,
        headers: head.headers,
        query,
        body,
    };
    dispatch(shared, verb, resource, at, asked).await
}

async fn dispatch(
    shared: &Arc<Shared>,
    verb: &str,
    resource: Arc<Resource>,
    at: Location,
    asked: Asked,
) -> Result<Response<Body>, Status> {
    match verb {
        "get" if at.subresource == "log" => logs::get(shared, &at, &asked).await,
        "get" => read::get(shared, &resource, &at, &asked),
        "list" => read::list(shared, resource, &at, &asked),
        "watch" => watch::start(shared, resource, &at, &asked),
        _ => write::write(shared, verb, &resource, &at, &asked),
    }
}

/// Documents that are no objects.
fn document(
    shared: &Arc<Shared>,
    head: &http::request::Parts,
    parsed: &Path,
) -> Result<Response<Body>, Status> {
    if !matches!(head.method, Method::GET | Method::HEAD) {
        return Err(method_not_allowed());
    }
    if *parsed != Path::Other {
        return discovery::respond(&shared.cluster.registry, &head.headers, parsed);
    }
    let path = head.uri.path().trim_end_matches('/');
    match path {
        "/healthz" | "/livez" | "/readyz" => Ok(respond::bytes(
            StatusCode::OK,
            "text/plain; charset=utf-8",
            "ok".into(),
        )),
        "/version" => Ok(respond::json(StatusCode::OK, &discovery::version())),
        "/openid/v1/jwks" => {
            let keys = shared.cluster.authority.tokens().jwks().to_string();
            Ok(respond::bytes(
                StatusCode::OK,
                "application/jwk-set+json",
                keys.into(),
            ))
        }
        _ if path.starts_with("/openapi/") => {
            let accept = head
                .headers
                .get(header::ACCEPT)
                .and_then(|it| it.to_str().ok());
            let resources = shared.cluster.registry.all();
            let document = openapi::respond(path, accept.unwrap_or_default(), &resources);
            let document = document.ok_or_else(not_found)?;
            Ok(respond::bytes(
                StatusCode::OK,
                document.content_type,
                document.body,
            ))
        }
        _ => Err(not_found()),
    }
}

fn authorize_path(shared: &Shared, user: &User, method: &Method, path: &str) -> Result<(), Status> {
    let attributes = Attributes {
        user,
        verb: &method.as_str().to_lowercase(),
        target: Target::Path(path),
    };
    shared
        .cluster
        .authority
        .require(&shared.cluster.store, &attributes)
}

fn authorize(
    shared: &Shared,
    user: &User,
    verb: &str,
    at: &Location,
    selected: Option<&str>,
) -> Result<(), Status> {
    // A namespace counts as lying within itself, so that a role in it can speak of it.
    let within_itself = at.group.is_empty() && at.plural == "namespaces";
    let attributes = Attributes {
        user,
        verb,
        target: Target::Resource {
            group: &at.group,
            resource: &at.plural,
            subresource: at.subresource.split('/').next().unwrap_or_default(),
            namespace: if within_itself {
                &at.name
            } else {
                &at.namespace
            },
            name: selected.unwrap_or(&at.name),
        },
    };
    shared
        .cluster
        .authority
        .require(&shared.cluster.store, &attributes)
}

/// Whether what is asked for exists, and can be asked that.
fn check_method(
    shared: &Shared,
    resource: &Resource,
    at: &Location,
    verb: &str,
) -> Result<(), Status> {
    if at.namespace.is_empty() == resource.namespaced && !at.name.is_empty()
        || !resource.namespaced && !at.namespace.is_empty()
    {
        return Err(not_found());
    }
    if at.subresource.is_empty() {
        let homeless = resource.namespaced && at.namespace.is_empty();
        let possible = match verb {
            "create" | "deletecollection" => at.name.is_empty() && !homeless,
            "update" | "patch" => !at.name.is_empty(),
            _ => true,
        };
        let verbs = resource.verbs;
        return if possible && verbs.contains(&verb) {
            Ok(())
        } else {
            Err(method_not_allowed())
        };
    }
    let subresource = resource
        .subresources
        .iter()
        .find(|it| it.name == at.subresource);
    let subresource = subresource.ok_or_else(|| unknown(shared, at))?;
    if subresource.verbs.contains(&verb) {
        Ok(())
    } else {
        Err(method_not_allowed())
    }
}

async fn read_body(body: Incoming) -> Result<Bytes, Status> {
    let read = timeout(BODY, Limited::new(body, MAX_BODY).collect());
    match read.await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(Status::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLarge",
            format!("Request entity too large: limit is {MAX_BODY}"),
        )),
        Ok(Err(error)) => Err(Status::bad_request(format!(
            "the body cannot be read: {error}"
        ))),
        Err(_) => Err(Status::new(
            StatusCode::GATEWAY_TIMEOUT,
            "Timeout",
            "the body of the request has not come in time",
        )),
    }
}

fn unknown(shared: &Shared, at: &Location) -> Status {
    let missing = request::missing_feature(&shared.cluster.registry, at);
    missing.map_or_else(not_found, |what| Status::not_implemented(&what))
}

fn not_found() -> Status {
    let message = "the server could not find the requested resource";
    let status = Status::new(StatusCode::NOT_FOUND, "NotFound", message);
    Status {
        details: json!({}),
        ..status
    }
}

fn method_not_allowed() -> Status {
    Status::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "MethodNotAllowed",
        "the server does not allow this method on the requested resource",
    )
}

fn unavailable() -> Status {
    let message = "the server is currently unable to handle the request";
    let status = Status::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "ServiceUnavailable",
        message,
    );
    Status {
        retry_after: Some(1),
        ..status
    }
}

/// Reads a body as JSON, or as YAML or protobuf where the header says so.
pub(super) fn decode(asked: &Asked) -> Result<Value, Status> {
    let content_type = media_type(&asked.headers);
    let bad = |error: &dyn std::fmt::Display| {
        Status::bad_request(format!("the body of the request does not parse: {error}"))
    };
    if content_type.ends_with("yaml") {
        return serde_yaml_ng::from_slice(&asked.body).map_err(|error| bad(&error));
    }
    if content_type.is_empty() || content_type.ends_with("json") {
        return serde_json::from_slice(&asked.body).map_err(|error| bad(&error));
    }
    if content_type == protobuf::MEDIA_TYPE {
        return protobuf::decode(&asked.body).map_err(|error| match error {
            protobuf::Error::UnknownKind { .. } => unsupported(),
            error => bad(&error),
        });
    }
    Err(unsupported())
}

/// The content type without its parameters.
pub(super) fn media_type(headers: &HeaderMap) -> &str {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    value
        .and_then(|value| value.split(';').next())
        .unwrap_or_default()
        .trim()
}

/// The body is in a form that we do not read.
pub(super) fn unsupported() -> Status {
    Status::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "UnsupportedMediaType",
        "the body of the request was in an unknown format - accepted media types include: \
         application/json, application/yaml",
    )
}

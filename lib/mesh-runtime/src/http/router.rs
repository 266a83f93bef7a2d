//! Which handler answers which path and method.

use std::{collections::BTreeMap, fmt, future::Future, pin::Pin};

use bytes::Bytes;
use http::{
    Method, StatusCode,
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use tokio::time;

use super::{Limits, text};

/// A request with its whole body. The body of a `GET` is not read.
pub type Request = http::Request<Bytes>;

/// A response whose body is there already.
pub type Response = http::Response<Full<Bytes>>;

type Handler = Box<dyn Fn(Request) -> Pin<Box<dyn Future<Output = Response> + Send>> + Send + Sync>;

/// Paths with their methods and handlers.
///
/// A path that is not known is answered with 404 and the list of those that are, a method that is not
/// with 405 and those that are. `HEAD` is answered wherever `GET` is.
#[derive(Debug, Default)]
pub struct Router {
    title: Option<&'static str>,
    routes: BTreeMap<&'static str, Route>,
}

struct Route {
    method: Method,
    purpose: &'static str,
    handler: Handler,
}

/// What a router has for a request.
enum Found<'a> {
    Route(&'a Route),
    Dashboard(&'static str),
    OtherMethod(&'a Method),
    Nothing,
}

// === impl Router ===

impl Router {
    /// A router that knows no path.
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers `GET /` with a page that has this title and lists the routes.
    #[must_use]
    pub fn dashboard(mut self, title: &'static str) -> Self {
        self.title = Some(title);
        self
    }

    /// Answers `GET path` with what `handler` returns. `purpose` is shown in lists, in a few words.
    #[must_use]
    pub fn get<F, A>(self, path: &'static str, purpose: &'static str, handler: F) -> Self
    where
        F: Fn(Request) -> A + Send + Sync + 'static,
        A: Future<Output = Response> + Send + 'static,
    {
        self.route(Method::GET, path, purpose, handler)
    }

    /// Answers `POST path` with what `handler` returns. What changes anything belongs here.
    #[must_use]
    pub fn post<F, A>(self, path: &'static str, purpose: &'static str, handler: F) -> Self
    where
        F: Fn(Request) -> A + Send + Sync + 'static,
        A: Future<Output = Response> + Send + 'static,
    {
        self.route(Method::POST, path, purpose, handler)
    }

    fn route<F, A>(
        mut self,
        method: Method,
        path: &'static str,
        purpose: &'static str,
        handler: F,
    ) -> Self
    where
        F: Fn(Request) -> A + Send + Sync + 'static,
        A: Future<Output = Response> + Send + 'static,
    {
        let route = Route {
            method,
            purpose,
            handler: Box::new(move |request| Box::pin(handler(request))),
        };
        self.routes.insert(path, route);
        self
    }

    /// The response to a request as it comes from a connection.
    pub(super) async fn answer(
        &self,
        request: http::Request<Incoming>,
        limits: &Limits,
    ) -> Response {
        let route = match self.find(request.method(), request.uri().path()) {
            Found::Route(route) => route,
            Found::Dashboard(title) => return self.page(title),
            Found::OtherMethod(known) => return not_allowed(known),
            Found::Nothing => return text(StatusCode::NOT_FOUND, self.list()),
        };
        let (head, body) = request.into_parts();
        let body = if route.method == Method::GET {
            Ok(Bytes::new())
        } else {
            read(body, limits).await
        };
        match body {
            Ok(body) => (route.handler)(Request::from_parts(head, body)).await,
            Err((status, reason)) => text(status, reason),
        }
    }

    fn find(&self, method: &Method, path: &str) -> Found<'_> {
        let method = match method {
            &Method::HEAD => &Method::GET,
            other => other,
        };
        match (self.routes.get(path), self.title) {
            (Some(route), _) if route.method == *method => Found::Route(route),
            (Some(route), _) => Found::OtherMethod(&route.method),
            (None, Some(title)) if path == "/" && *method == Method::GET => Found::Dashboard(title),
            (None, Some(_)) if path == "/" => Found::OtherMethod(&Method::GET),
            (None, _) => Found::Nothing,
        }
    }

    fn list(&self) -> String {
        let mut list = String::from("not found; this port answers:\n");
        for (path, route) in &self.routes {
            list.extend([route.method.as_str(), " ", path, "  ", route.purpose, "\n"]);
        }
        list
    }

    /// Titles, paths and purposes are our own constants: nothing here needs escaping.
    fn page(&self, title: &str) -> Response {
        let rows = self.routes.iter().map(|(path, route)| {
            let name = match route.method {
                Method::GET => format!("<a href=\"{path}\">GET {path}</a>"),
                ref method => format!("{method} {path}"),
            };
            format!("<tr><td>{name}</td><td>{}</td></tr>\n", route.purpose)
        });
        let page = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
             </head>\n<body><h1>{title}</h1>\n<table>\n{}</table></body></html>\n",
            rows.collect::<Vec<_>>().concat()
        );
        response(StatusCode::OK, "text/html; charset=utf-8", page)
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route")
            .field("method", &self.method)
            .field("purpose", &self.purpose)
            .finish_non_exhaustive()
    }
}

/// A response with a body of the given type.
pub fn response(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

fn not_allowed(known: &Method) -> Response {
    let mut response = text(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("this path answers {known} only\n"),
    );
    if let Ok(allow) = HeaderValue::from_str(known.as_str()) {
        response.headers_mut().insert(ALLOW, allow);
    }
    response
}

async fn read(body: Incoming, limits: &Limits) -> Result<Bytes, (StatusCode, &'static str)> {
    let whole = Limited::new(body, limits.body_size).collect();
    match time::timeout(limits.body_time, whole).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err((StatusCode::PAYLOAD_TOO_LARGE, "the body is too large\n"))
        }
        Ok(Err(_broken)) => Err((StatusCode::BAD_REQUEST, "the body is malformed\n")),
        Err(_elapsed) => Err((StatusCode::REQUEST_TIMEOUT, "the body is late\n")),
    }
}

//! An API server without connections, for tests on a paused clock: it keeps objects by their path and counts
//! what is written.

use std::{collections::BTreeMap, future::pending, sync::Arc};

use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use kube::{Client, client::Body};
use parking_lot::Mutex;
use serde_json::{Value, json};

/// The server. Its clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct FakeApi(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    network: Network,
    /// By path, such as `/api/v1/namespaces/shop/services/web`.
    objects: BTreeMap<String, Value>,
    version: u64,
    writes: Vec<String>,
}

/// What happens to requests.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Network {
    #[default]
    Works,
    /// They are answered with 503.
    Refuses,
    /// They are never answered.
    Hangs,
}

// === impl FakeApi ===

impl FakeApi {
    pub(crate) fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request| api.clone().serve(request));
        Client::new(service, "default")
    }

    pub(crate) fn becomes(&self, network: Network) {
        self.0.lock().network = network;
    }

    /// Puts an object there, as somebody else would.
    pub(crate) fn put(&self, path: &str, object: Value) {
        self.0.lock().store(path, object);
    }

    pub(crate) fn object(&self, path: &str) -> Option<Value> {
        self.0.lock().objects.get(path).cloned()
    }

    /// `METHOD path` of each request that wrote, or would have.
    pub(crate) fn writes(&self) -> Vec<String> {
        self.0.lock().writes.clone()
    }

    async fn serve(self, request: Request<Body>) -> Result<Response<Body>, kube::Error> {
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        let query = head.uri.query().unwrap_or_default().to_owned();
        let body = body
            .collect()
            .await
            .map_err(|e| kube::Error::Service(e.into()))?;
        let body = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
        if head.method != Method::GET {
            let written = format!("{} {path}", head.method);
            self.0.lock().writes.push(written);
        }
        let network = self.0.lock().network;
        match network {
            Network::Works if query.contains("watch=") => pending().await,
            Network::Works if query.contains("limit=") => Ok(self.0.lock().list(&path)),
            Network::Works => Ok(self.0.lock().answer(&head.method, &path, body)),
            Network::Refuses => Ok(refusal(503, "ServiceUnavailable")),
            Network::Hangs => pending().await,
        }
    }
}

// === impl Inner ===

impl Inner {
    fn answer(&mut self, method: &Method, path: &str, body: Value) -> Response<Body> {
        let object = path.trim_end_matches("/status");
        let known = self.objects.get(object).cloned();
        match (method, known) {
            (&Method::GET, Some(known)) => respond(200, &known),
            (&Method::POST, None) => {
                let name = body["metadata"]["name"].as_str().unwrap_or_default();
                let path = format!("{path}/{name}");
                if self.objects.contains_key(&path) {
                    return refusal(409, "AlreadyExists");
                }
                respond(201, &self.store(&path, body))
            }
            (&Method::PUT, Some(known)) => {
                let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
                if version(&known) != version(&body) {
                    return refusal(409, "Conflict");
                }
                respond(200, &self.store(object, body))
            }
            (&Method::PATCH, Some(mut known)) => {
                known["status"] = body["status"].clone();
                respond(200, &self.store(object, known))
            }
            _ => refusal(404, "NotFound"),
        }
    }

    /// The collection at a path, that of one namespace or of all.
    fn list(&self, path: &str) -> Response<Body> {
        let (base, plural) = path.rsplit_once('/').unwrap_or_default();
        let belongs = |at: &str| {
            let rest = at.strip_prefix(base)?.strip_prefix('/')?;
            match rest.split('/').collect::<Vec<_>>()[..] {
                [of, _name] | ["namespaces", _, of, _name] => Some(of == plural),
                _ => None,
            }
        };
        let of = self
            .objects
            .iter()
            .filter(|(at, _)| belongs(at) == Some(true));
        let items: Vec<_> = of.map(|(_, object)| object.clone()).collect();
        let metadata = json!({"resourceVersion": self.version.to_string()});
        respond(
            200,
            &json!({"kind": "List", "metadata": metadata, "items": items}),
        )
    }

    fn store(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.objects.insert(path.to_owned(), object.clone());
        object
    }
}

fn respond(code: u16, content: &Value) -> Response<Body> {
    let body = content.to_string().into_bytes();
    let response = Response::builder().status(code).body(body.into());
    response.expect("a response of plain parts")
}

fn refusal(code: u16, reason: &str) -> Response<Body> {
    let status = json!({
        "kind": "Status", "status": "Failure", "message": "refused", "reason": reason, "code": code,
    });
    respond(code, &status)
}

//! One case of the suite: a namespace of its own on whichever server is asked, and callers to use it with.

use std::{
    ops::Deref,
    panic::{AssertUnwindSafe, resume_unwind},
    path::PathBuf,
    pin::Pin,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use futures::{AsyncBufRead, AsyncBufReadExt, FutureExt, io::Lines};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use http_body_util::BodyExt;
use kube::{
    Client, Config,
    client::Body,
    config::{AuthInfo, KubeConfigOptions, Kubeconfig},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use testkit_kube::{
    auth::User,
    server::{ApiServer, Options},
};
use tokio::time::timeout;

/// Names a kubeconfig: the suite runs against that server instead of the embedded one.
const KUBECONFIG: &str = "LATEEN_CONFORMANCE_KUBECONFIG";

/// How long anything is waited for. A real server takes its time to empty a namespace.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How often a condition is looked at that nobody announces.
const INTERVAL: Duration = Duration::from_millis(25);

pub(crate) const JSON: &str = "application/json";
pub(crate) const JSON_PATCH: &str = "application/json-patch+json";
pub(crate) const MERGE: &str = "application/merge-patch+json";
pub(crate) const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub(crate) const APPLY: &str = "application/apply-patch+yaml";
pub(crate) const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// The administrator, in a namespace of the case's own.
pub(crate) struct Case {
    admin: Caller,
    pub(crate) namespace: String,
    config: Config,
    /// Paths of objects outside the namespace.
    elsewhere: Mutex<Vec<String>>,
    pub(crate) embedded: Option<ApiServer>,
}

/// Somebody who sends requests.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) client: Client,
    headers: HeaderMap,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

/// A watch, event by event.
pub(crate) struct Watch {
    lines: Lines<Pin<Box<dyn AsyncBufRead + Send>>>,
}

/// Runs a case and cleans up after it, whatever comes of it.
pub(crate) async fn case(test: impl AsyncFnOnce(&Case)) {
    let case = Case::start().await;
    let outcome = AssertUnwindSafe(test(&case)).catch_unwind().await;
    case.clean_up().await;
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}

/// A name that nobody else uses.
pub(crate) fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}-{:08x}-{number}", fastrand::u32(..))
}

/// A ConfigMap.
pub(crate) fn config_map(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name } })
}

/// A pod that nobody runs.
pub(crate) fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name },
        "spec": { "containers": [{ "name": "main", "image": "example.com/main:1" }] },
    })
}

/// A Deployment that nobody rolls out.
pub(crate) fn deployment(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": name },
        "spec": {
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name } },
                "spec": { "containers": [{ "name": "main", "image": "example.com/main:1" }] },
            },
        },
    })
}

/// The names of a list's items, in their order.
pub(crate) fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap())
        .collect()
}

/// A string in an object.
#[track_caller]
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    let found = object.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_else(|| panic!("no text at {pointer} of {object}"))
}

pub(crate) fn version(object: &Value) -> &str {
    text(object, "/metadata/resourceVersion")
}

pub(crate) fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}

// === impl Case ===

impl Case {
    async fn start() -> Self {
        let (embedded, kubeconfig) = if let Some(path) = std::env::var_os(KUBECONFIG) {
            let path = PathBuf::from(path);
            let text = std::fs::read_to_string(&path);
            let text = text.unwrap_or_else(|e| panic!("{KUBECONFIG}={}: {e}", path.display()));
            (None, text)
        } else {
            let server = ApiServer::start(Options::default()).await.unwrap();
            let text = server.kubeconfig(&User::admin()).unwrap();
            (Some(server), text)
        };
        let kubeconfig = Kubeconfig::from_yaml(&kubeconfig).unwrap();
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options);
        let mut config = config.await.unwrap();
        // A watch that hears nothing is no broken one.
        config.read_timeout = None;
        config.default_retry = false;
        let case = Self {
            admin: Caller::new(config.clone()),
            namespace: unique("conformance"),
            config,
            elsewhere: Mutex::default(),
            embedded,
        };
        let namespace = json!({ "metadata": { "name": case.namespace } });
        case.post("/api/v1/namespaces", &namespace).await.ok();
        case.furnished().await;
        case
    }

    /// Waits until controllers have put into the namespace what they put into every one, lest it comes
    /// into a watch.
    async fn furnished(&self) {
        let account = format!("{}/default", self.path("v1", "serviceaccounts"));
        let roots = format!("{}/kube-root-ca.crt", self.config_maps());
        for path in [account, roots] {
            self.until("the furnishing", &path, |answer| answer.status == 200)
                .await;
        }
    }

    async fn clean_up(&self) {
        let elsewhere = std::mem::take(&mut *self.elsewhere.lock());
        for path in elsewhere.iter().rev() {
            self.delete(path).await;
        }
        // Pods that nobody runs end at once only when told to.
        let pods = format!("{}?gracePeriodSeconds=0", self.pods());
        self.delete(&pods).await;
        let path = format!("/api/v1/namespaces/{}", self.namespace);
        self.delete(&path).await;
    }

    /// The path of a resource in the case's namespace, of a group and version like `v1` or `apps/v1`.
    pub(crate) fn path(&self, group_version: &str, resource: &str) -> String {
        let namespace = &self.namespace;
        format!("{}/namespaces/{namespace}/{resource}", base(group_version))
    }

    pub(crate) fn config_maps(&self) -> String {
        self.path("v1", "configmaps")
    }

    pub(crate) fn pods(&self) -> String {
        self.path("v1", "pods")
    }

    pub(crate) fn deployments(&self) -> String {
        self.path("apps/v1", "deployments")
    }

    /// The path of a resource outside namespaces; what is there with that name when the case ends is
    /// removed.
    pub(crate) fn elsewhere(&self, group_version: &str, resource: &str, name: &str) -> String {
        let collection = format!("{}/{resource}", base(group_version));
        self.elsewhere.lock().push(format!("{collection}/{name}"));
        collection
    }

    /// The administrator as somebody else.
    pub(crate) fn impersonate(&self, headers: &[(&'static str, &str)]) -> Caller {
        let mut caller = self.admin.clone();
        for (name, value) in headers {
            let value = HeaderValue::from_str(value).unwrap();
            caller.headers.append(HeaderName::from_static(name), value);
        }
        caller
    }

    /// A user without any role.
    pub(crate) fn user(&self, name: &str) -> Caller {
        self.impersonate(&[("impersonate-user", name)])
    }

    /// Whoever the token speaks of.
    pub(crate) fn with_token(&self, token: &str) -> Caller {
        let mut caller = self.anonymous();
        let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        caller.headers.insert(header::AUTHORIZATION, value);
        caller
    }

    /// Somebody without credentials.
    pub(crate) fn anonymous(&self) -> Caller {
        let mut config = self.config.clone();
        config.auth_info = AuthInfo::default();
        Caller::new(config)
    }
}

impl Deref for Case {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.admin
    }
}

fn base(group_version: &str) -> String {
    match group_version {
        "v1" => "/api/v1".to_owned(),
        other => format!("/apis/{other}"),
    }
}

// === impl Caller ===

impl Caller {
    fn new(config: Config) -> Self {
        Self {
            client: Client::try_from(config).unwrap(),
            headers: HeaderMap::new(),
        }
    }

    /// The same caller, with one more header in every request.
    pub(crate) fn sending(&self, name: HeaderName, value: &str) -> Self {
        let mut caller = self.clone();
        caller
            .headers
            .insert(name, HeaderValue::from_str(value).unwrap());
        caller
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, JSON, Vec::new()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, JSON, body.to_string().into())
            .await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PUT, path, JSON, body.to_string().into())
            .await
    }

    pub(crate) async fn patch(&self, path: &str, kind: &str, body: &Value) -> Answer {
        self.send(Method::PATCH, path, kind, body.to_string().into())
            .await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, JSON, Vec::new()).await
    }

    pub(crate) async fn delete_with(&self, path: &str, options: &Value) -> Answer {
        self.send(Method::DELETE, path, JSON, options.to_string().into())
            .await
    }

    /// Server-side apply by `manager`; `query` may hold `&force=true`.
    pub(crate) async fn apply(
        &self,
        path: &str,
        manager: &str,
        query: &str,
        body: &Value,
    ) -> Answer {
        let path = format!("{path}?fieldManager={manager}{query}");
        self.patch(&path, APPLY, body).await
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: Vec<u8>,
    ) -> Answer {
        let response = self.response(method, path, kind, body).await;
        let (parts, body) = response.into_parts();
        let body = timeout(PATIENCE, body.collect())
            .await
            .expect("no end of the answer");
        let body = body.unwrap().to_bytes();
        let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: serde_json::from_slice(&body).unwrap_or_else(|_| text()),
        }
    }

    async fn response(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: Vec<u8>,
    ) -> http::Response<Body> {
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().unwrap();
        *request.headers_mut() = self.headers.clone();
        let kind = HeaderValue::from_str(kind).unwrap();
        request.headers_mut().insert(header::CONTENT_TYPE, kind);
        let sent = timeout(PATIENCE, self.client.send(request)).await;
        sent.expect("no answer").unwrap()
    }

    /// Watches a collection; the query is the caller's.
    pub(crate) async fn watch(&self, collection: &str, query: &str) -> Watch {
        let path = format!("{collection}?watch=true{query}");
        let response = self.response(Method::GET, &path, JSON, Vec::new()).await;
        let status = response.status();
        assert!(status.is_success(), "{path}: {status}");
        let stream = response.into_body().into_data_stream();
        let stream = futures::TryStreamExt::map_err(stream, std::io::Error::other);
        let reader = futures::TryStreamExt::into_async_read(stream);
        let reader: Pin<Box<dyn AsyncBufRead + Send>> = Box::pin(reader);
        Watch {
            lines: reader.lines(),
        }
    }

    /// Reads a path until the answer is as it should be.
    pub(crate) async fn until(
        &self,
        what: &str,
        path: &str,
        mut condition: impl FnMut(&Answer) -> bool,
    ) -> Answer {
        let looking = async {
            loop {
                let answer = self.get(path).await;
                if condition(&answer) {
                    return answer;
                }
                tokio::time::sleep(INTERVAL).await;
            }
        };
        let found = timeout(PATIENCE, looking).await;
        found.unwrap_or_else(|_| panic!("{what} did not happen to {path}"))
    }

    /// Waits until there is nothing at a path.
    pub(crate) async fn until_gone(&self, path: &str) {
        self.until("the removal", path, |answer| answer.status == 404)
            .await;
    }
}

// === impl Answer ===

impl Answer {
    /// The object of a request that went well.
    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert!(
            (200..300).contains(&self.status),
            "{}: {}",
            self.status,
            self.body
        );
        self.body
    }

    /// The message of a request that did not.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, reason: &str) -> &str {
        let found = (
            self.status,
            self.body["reason"].as_str().unwrap_or_default(),
        );
        assert_eq!(found, (status, reason), "{}", self.body);
        assert_eq!(self.body["kind"], "Status");
        assert_eq!(self.body["status"], "Failure");
        assert_eq!(self.body["code"], status);
        self.message()
    }

    pub(crate) fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }

    /// The fields that an invalid object is refused for, each with the API's word for it.
    #[track_caller]
    pub(crate) fn causes(&self) -> Vec<(&str, &str)> {
        self.refused(422, "Invalid");
        let causes = self.body["details"]["causes"].as_array().unwrap();
        causes
            .iter()
            .map(|cause| {
                (
                    cause["field"].as_str().unwrap(),
                    cause["reason"].as_str().unwrap(),
                )
            })
            .collect()
    }

    /// The texts of its warnings.
    pub(crate) fn warnings(&self) -> Vec<&str> {
        let all = self.headers.get_all(header::WARNING).iter();
        all.map(|value| value.to_str().unwrap()).collect()
    }
}

// === impl Watch ===

impl Watch {
    /// The next event; `None` when the watch has ended.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        let line = futures::StreamExt::next(&mut self.lines);
        let line = timeout(PATIENCE, line).await.expect("no event");
        line.map(|line| serde_json::from_str(&line.unwrap()).unwrap())
    }

    /// The object of the next event, which must be of this type and, unless it is a bookmark, about
    /// this name.
    pub(crate) async fn expect(&mut self, kind: &str, name: &str) -> Value {
        let mut event = self.next().await.expect("the watch has ended");
        let found = event["object"]["metadata"]["name"]
            .as_str()
            .unwrap_or_default();
        assert_eq!(
            (event["type"].as_str(), found),
            (Some(kind), name),
            "{event}"
        );
        event["object"].take()
    }
}

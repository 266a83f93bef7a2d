//! A cluster with the operator's resources, and operators that run in it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Method, Request};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, Resource,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    client::Body,
};
use mesh_kube::{Backoff, queue::Pace};
use mesh_render::Kind;
use mesh_runtime::log;
use operator::{
    Patience,
    config::{Config, Listen},
    outcome::Reconcilers,
    program::Running,
    rights,
    world::Defaults,
};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use testkit_kube::{
    auth::token::Wanted,
    server::{ApiServer, Options},
    store::GroupResource,
};
use tokio::sync::watch;

/// How long anything may take that takes no time.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// The operator's namespace.
pub(crate) const SYSTEM: &str = "sail-operator";
/// Namespaces of the mesh.
pub(crate) const NAMESPACES: [&str; 4] = [SYSTEM, "istio-system", "istio-cni", "ztunnel"];

/// An API server with the operator's resources.
pub(crate) struct Cluster {
    pub(crate) server: ApiServer,
    pub(crate) client: Client,
}

/// An operator, and what it asks the API server for.
pub(crate) struct Operator {
    pub(crate) running: Running,
    pub(crate) requests: Arc<Requests>,
}

/// What an operator has written, and when it dies.
pub(crate) struct Requests {
    writes: AtomicUsize,
    /// After so many writes nothing goes through any more.
    limit: usize,
    log: Mutex<Vec<String>>,
    dead: watch::Sender<bool>,
}

/// How an operator is started.
pub(crate) struct Start {
    pub(crate) pod: &'static str,
    pub(crate) elect: bool,
    pub(crate) limit: usize,
    pub(crate) reconcilers: Reconcilers,
    pub(crate) client: Option<Client>,
}

#[derive(Debug, thiserror::Error)]
#[error("the process was killed")]
struct Killed;

// === impl Cluster ===

impl Cluster {
    pub(crate) async fn start() -> Self {
        let cluster = Self::bare().await;
        for namespace in NAMESPACES {
            cluster.create_namespace(namespace).await;
        }
        cluster
    }

    /// Without the namespaces.
    pub(crate) async fn bare() -> Self {
        let server = ApiServer::start(Options::default()).await.unwrap();
        let client = server.admin_client().await.unwrap();
        let crds = mesh_api::sail::crds().into_iter();
        let crds = crds.chain(mesh_api::gateway_stand_ins()).collect();
        server.install_crds(crds).unwrap();
        Self { server, client }
    }

    /// An operator with these reconcilers, alone.
    pub(crate) async fn operator(&self, reconcilers: Reconcilers) -> Operator {
        self.operator_with(Start::of(reconcilers)).await
    }

    pub(crate) async fn operator_with(&self, start: Start) -> Operator {
        let requests = Arc::new(Requests {
            writes: AtomicUsize::new(0),
            limit: start.limit,
            log: Mutex::default(),
            dead: watch::Sender::new(false),
        });
        let client = start.client.unwrap_or_else(|| self.client.clone());
        let client = counted(client, Arc::clone(&requests));
        let running = Running::start(
            config(start.pod, start.elect),
            client,
            Registry::default(),
            start.reconcilers,
        );
        Operator {
            running: Box::pin(running).await.unwrap(),
            requests,
        }
    }

    /// A client with the operator's own rights and no others, such as they are printed.
    pub(crate) async fn restricted(&self) -> Client {
        for object in rights::objects(SYSTEM).unwrap() {
            let kind = resource_of(object.kind);
            let api = match &object.namespace {
                Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &kind),
                None => Api::all_with(self.client.clone(), &kind),
            };
            let (patch, params) = (
                Patch::Apply(&object.body),
                PatchParams::apply("test").force(),
            );
            let applied: Result<DynamicObject, _> = api.patch(&object.name, &params, &patch).await;
            applied.unwrap();
        }
        let wanted = Wanted {
            audiences: Vec::new(),
            lifetime: jiff::SignedDuration::from_hours(1),
            bound: None,
        };
        let token = self.server.token(SYSTEM, rights::NAME, &wanted).unwrap();
        self.server.client_with_token(&token).await.unwrap()
    }

    pub(crate) async fn create_namespace(&self, name: &str) {
        self.create::<Namespace>(json!({"metadata": {"name": name}}))
            .await;
    }

    pub(crate) async fn create<K: Resource<DynamicType = ()>>(&self, object: Value) {
        let mut object = object;
        object["apiVersion"] = K::api_version(&()).into();
        object["kind"] = K::kind(&()).into();
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let api = self.api::<K>(object.metadata.namespace.as_deref());
        api.create(&PostParams::default(), &object).await.unwrap();
    }

    /// Merges a patch into an object.
    pub(crate) async fn patch<K: Resource<DynamicType = ()>>(
        &self,
        namespace: Option<&str>,
        name: &str,
        patch: Value,
    ) {
        let (api, patch) = (self.api::<K>(namespace), Patch::Merge(patch));
        api.patch(name, &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    pub(crate) async fn delete<K: Resource<DynamicType = ()>>(
        &self,
        namespace: Option<&str>,
        name: &str,
    ) {
        let api = self.api::<K>(namespace);
        drop(api.delete(name, &DeleteParams::default()).await.unwrap());
    }

    /// An object as it is.
    pub(crate) fn get<K: Resource<DynamicType = ()>>(
        &self,
        namespace: Option<&str>,
        name: &str,
    ) -> Option<Arc<Value>> {
        let store = self.server.store();
        store.get(
            &GroupResource::of::<K>(),
            namespace.unwrap_or_default(),
            name,
        )
    }

    /// Waits until an object, if there is one, satisfies a condition.
    pub(crate) async fn until<K: Resource<DynamicType = ()>>(
        &self,
        namespace: Option<&str>,
        name: &str,
        condition: impl Fn(Option<&Value>) -> bool,
    ) -> Option<Arc<Value>> {
        let store = self.server.store();
        let namespace = namespace.unwrap_or_default();
        let waited = store.until::<K>(namespace, name, DEADLINE, condition).await;
        waited.unwrap_or_else(|late| panic!("{late}"))
    }

    /// Waits until some object of a kind satisfies a condition.
    pub(crate) async fn until_any<K: Resource<DynamicType = ()>>(
        &self,
        condition: impl Fn(&Value) -> bool,
    ) {
        let any = |objects: &[Arc<Value>]| objects.iter().any(|object| condition(object));
        let waited = self.server.store().until_all::<K>(DEADLINE, any).await;
        waited.unwrap_or_else(|late| panic!("{late}"));
    }

    /// Waits until a resource of ours is in a state.
    pub(crate) async fn until_state<K: Resource<DynamicType = ()>>(
        &self,
        name: &str,
        state: &str,
    ) -> Arc<Value> {
        let is = |object: Option<&Value>| {
            object.is_some_and(|object| {
                object["status"]["state"] == state
                    && object["status"]["observedGeneration"] == object["metadata"]["generation"]
            })
        };
        self.until::<K>(None, name, is).await.unwrap()
    }

    pub(crate) async fn until_gone<K: Resource<DynamicType = ()>>(
        &self,
        namespace: Option<&str>,
        name: &str,
    ) {
        self.until::<K>(namespace, name, |object| object.is_none())
            .await;
    }

    /// All objects by name but those that come and go by themselves, without what differs each time.
    pub(crate) fn contents(&self) -> BTreeMap<String, Value> {
        let store = self.server.store();
        let mut contents = BTreeMap::new();
        for resource in store.resources(None) {
            if ["events", "leases"].contains(&&*resource.resource) {
                continue;
            }
            for object in store.list(&resource, None) {
                let metadata = &object["metadata"];
                let (namespace, name) = (&metadata["namespace"], &metadata["name"]);
                let builtin = &metadata["labels"]["kubernetes.io/bootstrapping"];
                if name != "kube-root-ca.crt" && builtin.is_null() {
                    let name = format!("{} {namespace} {name}", resource.resource);
                    contents.insert(name, comparable(&object));
                }
            }
        }
        contents
    }

    fn api<K: Resource<DynamicType = ()>>(&self, namespace: Option<&str>) -> Api<DynamicObject> {
        let resource = ApiResource::erase::<K>(&());
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }
}

fn resource_of(kind: Kind) -> ApiResource {
    ApiResource {
        group: kind.group.to_owned(),
        version: kind.version.to_owned(),
        api_version: kind.api_version(),
        kind: kind.kind.to_owned(),
        plural: kind.plural.to_owned(),
    }
}

/// An object without what differs from one run to the next.
fn comparable(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for field in [
            "uid",
            "resourceVersion",
            "creationTimestamp",
            "managedFields",
            "generation",
        ] {
            metadata.remove(field);
        }
        for owner in metadata
            .get_mut("ownerReferences")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            owner["uid"] = Value::Null;
        }
    }
    // Services get their addresses in turn.
    for field in ["clusterIP", "clusterIPs"] {
        if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
            spec.remove(field);
        }
    }
    let status = object.get_mut("status").and_then(Value::as_object_mut);
    for (_, field) in status.into_iter().flatten() {
        if field.is_i64() {
            *field = Value::Null;
        }
        for condition in field.as_array_mut().into_iter().flatten() {
            if condition.is_object() {
                condition["lastTransitionTime"] = Value::Null;
                condition["observedGeneration"] = Value::Null;
            }
        }
    }
    object
}

fn config(pod: &str, elect: bool) -> Config {
    let address = "127.0.0.1:0".parse().unwrap();
    Config {
        pod: pod.to_owned(),
        defaults: Defaults {
            namespace: SYSTEM.to_owned(),
            ..Defaults::default()
        },
        kubeconfig: None,
        listen: Listen {
            metrics: Some(address),
            certificate: None,
            probes: address,
        },
        elect,
        workers: 1,
        pace: Pace {
            backoff: Backoff::new(Duration::from_millis(10), Duration::from_millis(200)),
            burst: 1000,
            every: Duration::from_millis(500),
        },
        patience: Patience {
            stuck: Duration::from_millis(100),
            sight: Duration::from_secs(2),
        },
        log: log::Config::default(),
    }
}

// === impl Start ===

impl Start {
    pub(crate) fn of(reconcilers: Reconcilers) -> Self {
        Self {
            pod: "operator-1",
            elect: false,
            limit: usize::MAX,
            reconcilers,
            client: None,
        }
    }
}

// === impl Operator ===

impl Operator {
    /// Waits until it has wanted to write more than it may.
    pub(crate) async fn killed(&self) {
        let mut dead = self.requests.dead.subscribe();
        dead.wait_for(|dead| *dead).await.unwrap();
    }
}

// === impl Requests ===

impl Requests {
    /// How many writes went through, those of the election aside.
    pub(crate) fn writes(&self) -> usize {
        self.writes.load(Ordering::SeqCst)
    }

    /// What was written.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().clone()
    }

    fn admit(&self, request: &Request<Body>) -> Result<bool, Killed> {
        let path = request.uri().path();
        let writes = request.method() != Method::GET && !path.contains("/leases");
        let reviews = path.contains("reviews");
        if *self.dead.borrow() {
            return Err(Killed);
        }
        if !writes || reviews {
            return Ok(false);
        }
        if self.writes.fetch_add(1, Ordering::SeqCst) >= self.limit {
            self.dead.send_replace(true);
            return Err(Killed);
        }
        self.log.lock().push(format!("{} {path}", request.method()));
        Ok(true)
    }
}

/// A client whose writes are counted, and which breaks after so many.
fn counted(client: Client, requests: Arc<Requests>) -> Client {
    let namespace = client.default_namespace().to_owned();
    let service = tower::service_fn(move |request: Request<Body>| {
        let (client, requests) = (client.clone(), Arc::clone(&requests));
        async move {
            requests.admit(&request)?;
            let answer = client.send(request).await;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(answer?)
        }
    });
    Client::new(service, namespace)
}

//! A cluster with the mesh's CRDs, and control planes that run in it with nothing but their rights.

use std::{net::SocketAddr, time::Duration};

use istiod::{
    args::{Cli, Command},
    config::Config,
    program::Running,
};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ServiceAccount};
use kube::{
    Api, Client, Resource,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
};
use mesh_render::{Object, Platform, object::RIGHTS};
use mesh_runtime::environment::Environment;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use testkit_kube::{
    auth::token::{Bound, BoundKind, Wanted},
    server::{ApiServer, Options},
    wait,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{deployment::rendered, objects};

/// How long anything may take that takes no time.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
/// The control plane's namespace.
pub(crate) const SYSTEM: &str = "istio-system";
/// The nodes, each with a ztunnel.
pub(crate) const NODES: [&str; 2] = ["node1", "node2"];

/// An API server that holds a small cluster.
pub(crate) struct Cluster {
    pub(crate) server: ApiServer,
    pub(crate) client: Client,
}

/// A control plane; it ends with the test.
pub(crate) struct Istiod {
    pub(crate) running: Running,
}

impl Cluster {
    /// Two nodes with their ztunnels, and the namespace `demo`.
    pub(crate) async fn start() -> Self {
        Box::pin(Self::build()).await
    }

    async fn build() -> Self {
        let server = ApiServer::start(Options::default()).await.unwrap();
        let client = server.admin_client().await.unwrap();
        let cluster = Self { server, client };
        let crds = mesh_api::crds().into_iter();
        let crds = crds.chain(mesh_api::gateway_stand_ins()).collect();
        cluster.server.install_crds(crds).unwrap();
        for namespace in [SYSTEM, "demo"] {
            cluster
                .create::<Namespace>(json!({"metadata": {"name": namespace}}))
                .await;
        }
        let rendered = rendered("default", &json!({}), Platform::default());
        for object in rendered.only(RIGHTS).objects {
            cluster.create_rendered(&object).await;
        }
        let account = json!({"metadata": {"name": "ztunnel", "namespace": SYSTEM}});
        cluster.create::<ServiceAccount>(account).await;
        for node in NODES {
            cluster.create_object(&objects::node(node)).await;
            let ztunnel = objects::pod(SYSTEM, &ztunnel(node), node, [10, 9, 0, 1]);
            cluster
                .add_running(objects::with_account(ztunnel, "ztunnel"))
                .await;
        }
        cluster
    }

    /// A control plane with the flags and variables of a default installation, and those given.
    pub(crate) async fn istiod(&self, environment: &[(&str, &str)]) -> Istiod {
        self.replica("istiod-1", environment).await
    }

    /// One replica of several.
    pub(crate) async fn replica(&self, pod: &str, environment: &[(&str, &str)]) -> Istiod {
        let address = "127.0.0.1:0";
        let words = [
            "istiod",
            "discovery",
            "--secureGRPCAddr",
            address,
            "--httpAddr",
            address,
            "--monitoringAddr",
            address,
            "--meshConfig",
            "/nowhere/at/all",
        ];
        let Command::Discovery(flags) = <Cli as clap::Parser>::parse_from(words).command else {
            panic!("asked for discovery");
        };
        let fixed = [
            ("POD_NAME", pod),
            ("POD_NAMESPACE", SYSTEM),
            ("ROOT_CA_DIR", "/nowhere/at/all"),
        ];
        let environment: Environment = fixed.iter().chain(environment).copied().collect();
        let config = Config::try_new(&flags, &environment).unwrap();
        let token = self.token(SYSTEM, "istiod", None, &[]);
        let client = self.server.client_with_token(&token).await.unwrap();
        let running = Box::pin(Running::start(config, client, Registry::default()));
        Istiod {
            running: running.await.unwrap(),
        }
    }

    /// A service account's token, bound to a pod if one is named.
    pub(crate) fn token(
        &self,
        namespace: &str,
        account: &str,
        pod: Option<&str>,
        audiences: &[&str],
    ) -> String {
        let wanted = Wanted {
            audiences: audiences.iter().map(ToString::to_string).collect(),
            lifetime: jiff::SignedDuration::from_hours(1),
            bound: pod.map(|pod| Bound {
                kind: BoundKind::Pod,
                name: pod.to_owned(),
                uid: None,
            }),
        };
        self.server.token(namespace, account, &wanted).unwrap()
    }

    /// The token of a node's ztunnel.
    pub(crate) fn ztunnel_token(&self, node: &str) -> String {
        self.token(SYSTEM, "ztunnel", Some(&ztunnel(node)), &["istio-ca"])
    }

    pub(crate) async fn create<K: Resource<DynamicType = ()>>(&self, object: Value) {
        let mut object = object;
        object["apiVersion"] = K::api_version(&()).into();
        object["kind"] = K::kind(&()).into();
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let api = self.api::<K>(object.metadata.namespace.as_deref());
        api.create(&PostParams::default(), &object).await.unwrap();
    }

    /// Creates what the operator would.
    async fn create_rendered(&self, object: &Object) {
        let kind = object.kind;
        let resource = ApiResource {
            group: kind.group.to_owned(),
            version: kind.version.to_owned(),
            api_version: kind.api_version(),
            kind: kind.kind.to_owned(),
            plural: kind.plural.to_owned(),
        };
        let client = self.client.clone();
        let api: Api<DynamicObject> = match &object.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &resource),
            None => Api::all_with(client, &resource),
        };
        let body = serde_json::from_value(object.body.clone()).unwrap();
        api.create(&PostParams::default(), &body).await.unwrap();
    }

    pub(crate) async fn create_object<K: Resource<DynamicType = ()> + serde::Serialize>(
        &self,
        object: &K,
    ) {
        self.create::<K>(serde_json::to_value(object).unwrap())
            .await;
    }

    /// Adds a pod of the namespace `demo` with its service account.
    pub(crate) async fn add_pod(&self, name: &str, node: &str, address: [u8; 4]) {
        self.add_pod_in("demo", name, node, address).await;
    }

    pub(crate) async fn add_pod_in(
        &self,
        namespace: &str,
        name: &str,
        node: &str,
        address: [u8; 4],
    ) {
        let account = json!({"metadata": {"name": name, "namespace": namespace}});
        self.create::<ServiceAccount>(account).await;
        self.add_running(objects::pod(namespace, name, node, address))
            .await;
    }

    /// A pod with its status, which only its kubelet can give it.
    async fn add_running(&self, pod: Pod) {
        self.create_object(&pod).await;
        let (namespace, name) = (pod.metadata.namespace.unwrap(), pod.metadata.name.unwrap());
        let status = json!({"status": pod.status});
        self.patch_status::<Pod>(&namespace, &name, status).await;
    }

    /// Merges a patch into an object.
    pub(crate) async fn patch<K: Resource<DynamicType = ()>>(
        &self,
        namespace: &str,
        name: &str,
        patch: Value,
    ) {
        let api = self.api::<K>(Some(namespace));
        let patch = Patch::Merge(patch);
        api.patch(name, &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    /// Merges a patch into an object's status.
    pub(crate) async fn patch_status<K: Resource<DynamicType = ()>>(
        &self,
        namespace: &str,
        name: &str,
        patch: Value,
    ) {
        let api = self.api::<K>(Some(namespace));
        let (patch, params) = (Patch::Merge(patch), PatchParams::default());
        api.patch_status(name, &params, &patch).await.unwrap();
    }

    pub(crate) async fn delete<K: Resource<DynamicType = ()>>(&self, namespace: &str, name: &str) {
        let api = self.api::<K>(Some(namespace));
        drop(api.delete(name, &DeleteParams::default()).await.unwrap());
    }

    /// Waits until an object satisfies a condition.
    pub(crate) async fn until<K: Resource<DynamicType = ()>>(
        &self,
        namespace: &str,
        name: &str,
        condition: impl Fn(&Value) -> bool,
    ) -> Value {
        let store = self.server.store();
        let wanted = |object: Option<&Value>| object.is_some_and(&condition);
        let waited = store.until::<K>(namespace, name, DEADLINE, wanted).await;
        let object = waited.unwrap_or_else(|late| panic!("{late}"));
        Value::clone(&object.unwrap())
    }

    /// Writes the mesh configuration.
    pub(crate) async fn configure(&self, mesh: &str) {
        let map = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "istio", "namespace": SYSTEM},
            "data": {"mesh": mesh},
        });
        let (patch, params) = (Patch::Apply(map), PatchParams::apply("test").force());
        let api = self.api::<ConfigMap>(Some(SYSTEM));
        api.patch("istio", &params, &patch).await.unwrap();
    }

    pub(crate) async fn label_namespace(&self, name: &str, label: &str, value: &str) {
        let api = self.api::<Namespace>(None);
        let patch = Patch::Merge(json!({"metadata": {"labels": {label: value}}}));
        api.patch(name, &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    fn api<K: Resource<DynamicType = ()>>(&self, namespace: Option<&str>) -> Api<DynamicObject> {
        let resource = ApiResource::erase::<K>(&());
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }

    /// What a namespace is told to trust, once it is.
    pub(crate) async fn roots(&self, namespace: &str) -> String {
        let told = |map: &Value| map["data"]["root-cert.pem"].is_string();
        let map = self
            .until::<ConfigMap>(namespace, "istio-ca-root-cert", told)
            .await;
        map["data"]["root-cert.pem"].as_str().unwrap().to_owned()
    }
}

impl Istiod {
    /// What a page of the debug port shows.
    pub(crate) async fn debug(&self, path: &str) -> Value {
        let page = get(self.running.http, path).await;
        let (_head, body) = page.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()))
    }

    /// Waits until it serves proxies.
    pub(crate) async fn ready(&self) {
        let ask = || get(self.running.http, "/ready");
        eventually("readiness", ask, |page| page.starts_with("HTTP/1.1 200")).await;
    }

    /// The sum of all series of a metric.
    pub(crate) async fn metrics_named(&self, name: &str) -> u64 {
        let page = get(self.running.monitoring, "/metrics").await;
        let lines = page.lines().filter(|line| line.starts_with(name));
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    }

    /// The value of a metric, 0 if it is not there.
    pub(crate) async fn metric(&self, series: &str) -> u64 {
        let page = get(self.running.monitoring, "/metrics").await;
        let line = page.lines().find_map(|line| line.strip_prefix(series));
        line.map_or(0, |value| value.trim().parse().unwrap())
    }
}

/// The name of a node's ztunnel.
pub(crate) fn ztunnel(node: &str) -> String {
    format!("ztunnel-{node}")
}

async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: istiod\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).await.unwrap();
    page
}

/// Waits until asking gives what is wanted.
pub(crate) async fn eventually<T>(
    what: &str,
    ask: impl AsyncFn() -> T,
    wanted: impl Fn(&T) -> bool,
) -> T {
    let waited = wait::eventually(what, DEADLINE, ask, wanted).await;
    waited.unwrap_or_else(|late| panic!("{late}"))
}

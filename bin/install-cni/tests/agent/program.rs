//! The whole program with the rights, environment and paths that the manifests give it.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    process::Command,
    sync::Arc,
    time::Duration,
};

use install_cni::{args::Flags, config::Config, program::Running};
use jiff::SignedDuration;
use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{Event, Pod},
};
use kube::{
    Api, Client,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
};
use mesh_core::workload::PodInfo;
use mesh_net::netns::NetNs;
use mesh_runtime::{environment::Environment, log, shutdown};
use mesh_zds::proxy::{self, WorkloadManager};
use prometheus_client::registry::Registry;
use serde::Deserialize as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit_kube::{
    auth::token::Wanted,
    server::{ApiServer, Options},
    wait,
};
use testkit_net::{Namespace, filters};
use tokio::task::JoinHandle;

const DEADLINE: Duration = Duration::from_secs(30);
const SYSTEM: &str = "istio-cni";

/// What the manifests hold.
const MANIFEST: &str = include_str!("../../../../manifests/components/cni.yaml");

/// A chain of another network.
const CHAIN: &str = r#"{"cniVersion":"0.4.0","name":"net","plugins":[{"type":"bridge"}]}"#;

/// A node with a pod, in a cluster with the agent's objects.
struct World {
    server: ApiServer,
    admin: Client,
    dir: TempDir,
    host: Namespace,
    pod: Namespace,
}

/// Serves every pod.
struct Willing;

impl WorkloadManager for Willing {
    type Error = std::io::Error;

    async fn add(&mut self, _: &Arc<str>, _: &PodInfo, _: Arc<NetNs>) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn delete(&mut self, _: &Arc<str>) {}
}

/// The objects of the manifest.
fn objects() -> Vec<Value> {
    let documents = serde_yaml_ng::Deserializer::from_str(MANIFEST);
    let objects = documents.map(|document| Value::deserialize(document).unwrap());
    objects.filter(|object| !object.is_null()).collect()
}

fn object(kind: &str) -> Value {
    let mut objects = objects().into_iter();
    objects.find(|object| object["kind"] == kind).unwrap()
}

async fn apply(client: &Client, object: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let version = text(&object["apiVersion"]);
    let (group, version) = version.split_once('/').unwrap_or(("", &version));
    let kind = text(&object["kind"]);
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &kind));
    let api: Api<DynamicObject> = match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let name = text(&object["metadata"]["name"]);
    let params = PatchParams::apply("test").force();
    api.patch(&name, &params, &Patch::Apply(object))
        .await
        .unwrap();
}

/// What the agent sees of a node with this network and this pod. The machine's own process 1 may not be ours to look
/// at, and its other namespaces are not ours to touch.
fn root(at: &Path, network: &Namespace, pod: &Namespace) {
    for folder in ["proc/1/ns", "proc/sys/kernel/random", "var/run/netns"] {
        fs::create_dir_all(at.join(folder)).unwrap();
    }
    fs::write(at.join("proc/sys/kernel/random/boot_id"), "this-boot\n").unwrap();
    let of_pod = Path::new("var/run/netns").join(pod.name());
    for (from, to) in [
        (Path::new("proc/1/ns/net"), network.path()),
        (of_pod.as_path(), pod.path()),
    ] {
        std::os::unix::fs::symlink(to, at.join(from)).unwrap();
    }
}

impl World {
    async fn new(kinds: impl Fn(&str) -> bool) -> Self {
        let server = ApiServer::start(Options::default()).await.unwrap();
        let admin = server.admin_client().await.unwrap();
        for object in objects() {
            if kinds(object["kind"].as_str().unwrap()) {
                apply(&admin, &object).await;
            }
        }
        let dir = tempfile::tempdir().unwrap();
        for folder in ["image", "bin", "net", "run", "host"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        fs::write(dir.path().join("image/istio-cni"), "#!/bin/sh\n").unwrap();
        fs::write(dir.path().join("net/10-net.conflist"), CHAIN).unwrap();
        let (host, pod) = (
            Namespace::new("host").unwrap(),
            Namespace::new("pod").unwrap(),
        );
        root(&dir.path().join("host"), &host, &pod);
        pod.ip("link set lo up").unwrap();
        testkit_net::namespace::connect((&pod, "eth0"), (&host, "veth0")).unwrap();
        pod.ip("address add 10.9.0.7/24 dev eth0").unwrap();
        pod.ip("link set eth0 up").unwrap();
        let world = Self {
            server,
            admin,
            dir,
            host,
            pod,
        };
        world.populate().await;
        world
    }

    async fn populate(&self) {
        apply(
            &self.admin,
            &json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1", "labels": {"kubernetes.io/os": "linux"}}}),
        )
        .await;
        apply(
            &self.admin,
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
            "name": "shop", "labels": {"istio.io/dataplane-mode": "ambient"}}}),
        )
        .await;
        apply(
            &self.admin,
            &json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {
            "name": "default", "namespace": "shop"}}),
        )
        .await;
        self.place("web", "10.9.0.7").await;
    }

    /// A pod on the node that runs.
    async fn place(&self, name: &str, address: &str) {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "shop"},
            "spec": {"nodeName": "node1", "containers": [{"name": "web", "image": "web"}]},
        });
        apply(&self.admin, &pod).await;
        let pods: Api<Pod> = Api::namespaced(self.admin.clone(), "shop");
        let status = json!({"status": {
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
        }});
        let (params, patch) = (PatchParams::default(), Patch::Merge(&status));
        pods.patch_status(name, &params, &patch).await.unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// The folders of this test.
    fn folders(&self) -> Vec<(String, String)> {
        let folders = [
            ("MOUNTED_CNI_NET_DIR", self.path("net")),
            ("MOUNTED_CNI_BIN_DIR", self.path("bin")),
            ("IMAGE_CNI_BIN_DIR", self.path("image")),
            ("CNI_AGENT_RUN_DIR", self.path("run")),
            ("HOST_ROOT_DIR", self.path("host")),
            ("ZTUNNEL_UDS_ADDRESS", self.path("ztunnel.sock")),
            ("CTRLZ_PORT", "0".to_owned()),
        ];
        folders.map(|(k, v)| (k.to_owned(), v)).into()
    }

    /// What the plugin says of the pod, and what it is answered.
    async fn add(&self) -> (String, String) {
        let attachment = json!({
            "containerId": "c1", "interface": "eth0", "netns": self.pod.path(),
            "podName": "web", "podNamespace": "shop", "addresses": ["10.9.0.7"],
        });
        let socket = self.dir.path().join("run/pluginevent.sock");
        super::sockets::post(&socket, "/v1/add", &attachment.to_string()).await
    }

    /// The environment of the manifest's container, with the folders of this test.
    fn config(&self) -> Config {
        let container = &object("DaemonSet")["spec"]["template"]["spec"]["containers"][0];
        let set = container["env"].as_array().unwrap().iter();
        let field = |entry: &Value| match entry["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
            Some("spec.nodeName") => "node1".to_owned(),
            Some("metadata.namespace") => SYSTEM.to_owned(),
            Some("metadata.name") => "istio-cni-node-x".to_owned(),
            _ => entry["value"].as_str().unwrap().to_owned(),
        };
        let set = set.map(|entry| (entry["name"].as_str().unwrap().to_owned(), field(entry)));
        let data = object("ConfigMap")["data"].clone();
        let data: Vec<(String, String)> = data
            .as_object()
            .unwrap()
            .iter()
            .map(|(k, v)| (k.clone(), v.as_str().unwrap().to_owned()))
            .collect();
        let env: Environment = data.into_iter().chain(set).chain(self.folders()).collect();
        let mut config = Config::try_new(&Flags::default(), &env).unwrap();
        // No ports that others may have.
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        config.listen.metrics = Some(any);
        config.listen.debug = Some(any);
        config.listen.probes = any;
        config
    }

    /// The agent with its own rights and no others.
    async fn agent(&self) -> Running {
        let wanted = Wanted {
            audiences: Vec::new(),
            lifetime: SignedDuration::from_hours(1),
            bound: None,
        };
        let token = self.server.token(SYSTEM, "istio-cni", &wanted).unwrap();
        let client = self.server.client_with_token(&token).await.unwrap();
        let (_subscriber, log) = log::build(&log::Config::default(), std::io::sink()).unwrap();
        let quit = shutdown::Quit::default();
        let starting = Running::start(self.config(), client, Registry::default(), (log, quit));
        Box::pin(starting).await.unwrap()
    }

    fn ztunnel(&self) -> JoinHandle<()> {
        let mut client = proxy::Client::new(self.path("ztunnel.sock"), Willing);
        tokio::spawn(async move { match client.run().await {} })
    }

    async fn annotated(&self, value: Option<&str>) {
        let annotated = |pod: Option<&Value>| {
            let annotations = &pod.expect("there is the pod")["metadata"]["annotations"];
            annotations["ambient.istio.io/redirection"].as_str() == value
        };
        let store = self.server.store();
        let waited = store.until::<Pod>("shop", "web", DEADLINE, annotated).await;
        waited.unwrap();
    }

    fn chain(&self) -> String {
        fs::read_to_string(self.dir.path().join("net/10-net.conflist")).unwrap()
    }
}

async fn ready(agent: &Running) {
    let probes = agent.probes;
    let ready = || ask(probes, "/readyz");
    let told = |answer: &(String, String)| answer.0 == "200";
    let waited = wait::eventually("readiness", DEADLINE, ready, told).await;
    waited.unwrap();
}

/// Status and body.
async fn ask(at: SocketAddr, path: &'static str) -> (String, String) {
    let asking = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(at).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    let answer = asking.await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().to_owned();
    (status, body.to_owned())
}

fn held(by: &Namespace) -> String {
    filters::snapshot(by).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_does_its_work_with_the_rights_that_it_is_given() {
    let world = World::new(|_| true).await;
    let before = [held(&world.pod), held(&world.host)];
    let mut agent = world.agent().await;
    ready(&agent).await;
    assert!(
        world.chain().contains("\"type\": \"istio-cni\""),
        "{}",
        world.chain()
    );
    assert_eq!(names(&world.dir.path().join("bin")), ["istio-cni"]);
    let enrolment = world.dir.path().join("run/enrolment.json");
    assert!(fs::read_to_string(enrolment).unwrap().contains("\"shop\""));
    let ztunnel = world.ztunnel();
    let (status, answer) = world.add().await;
    assert_eq!(
        (status.as_str(), answer.as_str()),
        ("200", "{\"enrolled\":true}")
    );
    world.annotated(Some("enabled")).await;
    let rules = held(&world.pod);
    assert!(rules.contains("istio-ambient-nat"), "{rules}");
    let (_, metrics) = ask(agent.metrics.unwrap(), "/metrics").await;
    for line in [
        "istio_cni_plugin_requests_total{response_code=\"200\"} 1",
        "istio_cni_install_ready 1",
        "ztunnel_connected 1",
        "lateen_cni_backend{backend=\"nftables\"} 1",
        "lateen_cni_degraded{reason=\"ztunnel\"} 0",
        "lateen_cni_degraded{reason=\"watches\"} 0",
    ] {
        assert!(
            metrics.lines().any(|l| l == line),
            "{line} is not in\n{metrics}"
        );
    }
    let (_, pods) = ask(agent.debug.unwrap(), "/debug/pods").await;
    assert!(pods.contains("\"name\": \"web\""), "{pods}");
    assert!(
        ask(agent.debug.unwrap(), "/debug/platform")
            .await
            .1
            .contains("findings")
    );

    tells_of_a_lost_pod(&world).await;

    // An upgrade: everything stays.
    let mut signals = shutdown::signals().unwrap();
    signals.quitter().quit();
    agent.until_told(&mut signals).await.unwrap();
    assert!(world.chain().contains("istio-cni"));
    assert_eq!(held(&world.pod), rules);

    // The end of the mesh: nothing stays.
    agent = world.agent().await;
    ready(&agent).await;
    let sets: Api<DaemonSet> = Api::namespaced(world.admin.clone(), SYSTEM);
    sets.delete("istio-cni-node", &DeleteParams::default())
        .await
        .unwrap();
    signals.quitter().quit();
    agent.until_told(&mut signals).await.unwrap();
    ztunnel.abort();
    assert_eq!([held(&world.pod), held(&world.host)], before);
    assert!(!world.chain().contains("istio-cni"), "{}", world.chain());
    assert_eq!(names(&world.dir.path().join("bin")), [""; 0]);
    assert_eq!(names(&world.dir.path().join("run")), [""; 0]);
    world.annotated(None).await;
}

/// A pod whose network namespace nobody knows.
async fn tells_of_a_lost_pod(world: &World) {
    world.place("lost", "10.9.0.8").await;
    let told = |events: &[Arc<Value>]| {
        let mut objects = events.iter().map(|event| &event["involvedObject"]);
        objects.any(|object| object["name"] == "lost")
    };
    let store = world.server.store();
    store.until_all::<Event>(DEADLINE, told).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(world.admin.clone(), "shop");
    pods.delete("lost", &DeleteParams::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_may_see_no_pods_installs_nothing_and_says_what_it_waits_for() {
    let world = World::new(|kind| !kind.ends_with("Binding")).await;
    let agent = world.agent().await;
    assert_eq!(ask(agent.probes, "/healthz").await.0, "200");
    let (status, told) = ask(agent.probes, "/readyz").await;
    assert_eq!(status, "503");
    for task in [
        "view of the node's pods",
        "installation of the plugin",
        "first look at every pod",
    ] {
        assert!(told.contains(task), "{told}");
    }
    assert_eq!(world.chain(), CHAIN);
}

/// The program as a process, in the node's network, with the test's environment.
fn uninstall(world: &World) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_install-cni"));
    command.arg("uninstall").env_clear();
    command.env("PATH", std::env::var("PATH").unwrap());
    for (name, value) in world.folders() {
        command.env(name, value);
    }
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn uninstall_removes_what_an_agent_has_left_and_nothing_under_one_that_runs() {
    let world = World::new(|_| true).await;
    let before = [held(&world.pod), held(&world.host)];
    let agent = world.agent().await;
    ready(&agent).await;
    let ztunnel = world.ztunnel();
    let (status, _) = world.add().await;
    assert_eq!(status, "200");
    let mut refused = world.host.spawn(uninstall(&world)).unwrap();
    let status = refused.wait(DEADLINE).await.unwrap();
    assert_eq!(status.code(), Some(1));
    let told = refused.stderr();
    assert!(
        told.contains("delete the DaemonSet istio-cni-node first"),
        "{told}"
    );
    assert!(world.chain().contains("istio-cni"));
    // An end that keeps everything, and no agent that follows.
    let mut signals = shutdown::signals().unwrap();
    signals.quitter().quit();
    agent.until_told(&mut signals).await.unwrap();
    ztunnel.abort();
    assert_ne!(held(&world.pod), before[0]);
    let mut done = world.host.spawn(uninstall(&world)).unwrap();
    let status = done.wait(DEADLINE).await.unwrap();
    assert!(status.success(), "{}{}", done.stdout(), done.stderr());
    assert_eq!([held(&world.pod), held(&world.host)], before);
    assert!(!world.chain().contains("istio-cni"));
    assert_eq!(names(&world.dir.path().join("bin")), [""; 0]);
    assert_eq!(names(&world.dir.path().join("run")), [""; 0]);
}

//! A node on which all is real but Kubernetes and ztunnel: a runtime that calls a chain of CNI plugins with ours
//! at its end, the agent with its sockets and files, rules in the kernel, and pods with networks.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use install_cni::{
    agent::{Agent, Config, Parts, Paths, Patience, proxies::Ztunnels},
    enrolment_file::EnrolmentFile,
    kernel::Kernel,
    metrics::Metrics,
    parts::PodUid,
    server::{self, LIMITS, Socket, plugin},
};
use k8s_openapi::api::core::v1::{Namespace as NamespaceObject, Pod};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use mesh_cni::{
    config::PluginConfig,
    enrolment::{Policy, Selector, Snapshot},
    protocol::ENROLMENT_FILE,
};
use mesh_core::workload::PodInfo;
use mesh_kube::events;
use mesh_net::netns::{NetNs, NetNsId};
use mesh_redirect::Options;
use mesh_runtime::life::{self, Life};
use mesh_zds::proxy::{Client as Proxy, WorkloadManager};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit_kube::server::ApiServer;
use testkit_net::{
    Namespace,
    cni::{self, Network, Runtime, Sandbox},
    namespace::Run,
    wait::eventually,
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};

/// Longer than anything takes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// The node's name.
const NODE: &str = "node-1";

/// The annotation that says whether a pod is in the mesh.
const REDIRECTION: &str = "ambient.istio.io/redirection";

/// The node.
pub(crate) struct ChainNode {
    pub(crate) runtime: Runtime,
    pub(crate) network: Network,
    pub(crate) host: Namespace,
    pub(crate) client: Client,
    pub(crate) served: watch::Receiver<BTreeMap<PodUid, NetNsId>>,
    server: ApiServer,
    agent: Option<Running>,
    ztunnel: Option<JoinHandle<()>>,
    folder: TempDir,
    run: Run,
}

/// An agent that runs.
struct Running {
    parts: Vec<JoinHandle<()>>,
    _life: Life,
}

/// A pod with a network namespace.
pub(crate) struct NodePod {
    pub(crate) uid: String,
    pub(crate) sandbox: Sandbox,
    pub(crate) netns: Namespace,
}

/// A ztunnel that only takes notes.
struct Notes(watch::Sender<BTreeMap<PodUid, NetNsId>>);

/// Why it would not serve a pod; it always does.
#[derive(Debug, thiserror::Error)]
#[error("no room")]
struct NoRoom;

// === impl ChainNode ===

impl ChainNode {
    /// A node without an agent and ztunnel, and the namespaces `shop`, which is in the mesh, `plain`, `mesh` of
    /// the agent, and `kube-system`.
    pub(crate) async fn without_agent() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("bin")).unwrap();
        fs::create_dir(folder.path().join("run")).unwrap();
        let plugin = cni::built_plugin().unwrap();
        symlink(plugin, folder.path().join("bin/istio-cni")).unwrap();
        let entry = serde_json::to_value(PluginConfig {
            cni_agent_run_dir: folder.path().join("run").to_str().unwrap().to_owned(),
            pod_namespace: "mesh".to_owned(),
            exclude_namespaces: vec!["kube-system".to_owned()],
            ..PluginConfig::default()
        });
        let data = folder.path().join("addresses");
        let network = Network::bridge("10.88.0.0/24", &data, Some(entry.unwrap())).unwrap();
        let server = ApiServer::start(testkit_kube::server::Options::default());
        let server = server.await.unwrap();
        let client = server.admin_client().await.unwrap();
        let run = Run::new();
        let host = run.namespace("node").unwrap();
        // Its first process has the node's network, and there is no other one to be found.
        let proc = folder.path().join("proc");
        fs::create_dir_all(proc.join("1/ns")).unwrap();
        fs::create_dir_all(proc.join("sys/kernel/random")).unwrap();
        fs::write(proc.join("sys/kernel/random/boot_id"), "this-boot\n").unwrap();
        symlink(host.path(), proc.join("1/ns/net")).unwrap();
        let node = Self {
            runtime: Runtime::new([folder.path().join("bin")]).unwrap(),
            network,
            host,
            client,
            served: watch::channel(BTreeMap::new()).1,
            server,
            agent: None,
            ztunnel: None,
            folder,
            run,
        };
        for (name, mode) in [
            ("shop", Some("ambient")),
            ("plain", None),
            ("mesh", None),
            ("kube-system", None),
        ] {
            node.namespace(name, mode).await;
        }
        node
    }

    /// One on which all runs.
    pub(crate) async fn start() -> Self {
        let mut node = Self::without_agent().await;
        node.run_agent().await;
        node.run_ztunnel().await;
        node
    }

    /// Starts an agent, and waits until it serves and the plugin would know what to do without it.
    pub(crate) async fn run_agent(&mut self) {
        let config = crate::kernel::config(&self.host);
        let client = self.server.admin_client().await.unwrap();
        let reporter = events::Reporter {
            controller: "install-cni".to_owned(),
            instance: "test".to_owned(),
        };
        let (events, publisher) = events::channel(client.clone(), reporter);
        let parts = Parts {
            client,
            kernel: Kernel::detect(&config).await.unwrap(),
            proxies: Ztunnels::new(self.run_dir().join("ztunnel.sock")),
            events,
            watches: mesh_kube::watch::Metrics::default(),
        };
        let (agent, handle) = Agent::new(self.agent_config(), parts).unwrap();
        let (life, tasks) = life::begin(Duration::from_secs(1));
        let metrics = Metrics::register(&mut Registry::default());
        let socket = Socket::take(self.run_dir().join("pluginevent.sock")).unwrap();
        let routes = plugin::routes(&Arc::new(handle.clone()), &metrics);
        server::serve("plugin", socket, routes, LIMITS, (&tasks, metrics));
        let mut file = EnrolmentFile::new(&self.run_dir());
        let mut snapshots = handle.snapshots();
        let parts = vec![
            tokio::spawn(publisher.run(std::future::pending())),
            tokio::spawn(async move { match agent.run().await {} }),
            tokio::spawn(async move {
                while let Some(snapshot) = snapshots.next().await {
                    file.write(&snapshot).unwrap();
                }
            }),
        ];
        let serving = timeout(DEADLINE, handle.serving()).await;
        serving.expect("the agent has looked at all pods");
        self.agent = Some(Running { parts, _life: life });
        let path = self.run_dir().join(ENROLMENT_FILE);
        let written = eventually("the enrolment file", DEADLINE, || {
            let snapshot = fs::read(&path)
                .ok()
                .and_then(|bytes| Snapshot::parse(&bytes).ok());
            snapshot.is_some_and(|snapshot| snapshot.namespaces.contains_key("shop"))
        });
        written.await.unwrap();
    }

    /// Ends the agent in the middle of whatever it does. The file of its socket stays, as after SIGKILL.
    pub(crate) async fn kill_agent(&mut self) {
        let socket = self.run_dir().join("pluginevent.sock");
        let aside = self.run_dir().join("aside");
        fs::rename(&socket, &aside).unwrap();
        for part in self.agent.take().into_iter().flat_map(|agent| agent.parts) {
            part.abort();
            drop(part.await);
        }
        fs::rename(&aside, &socket).unwrap();
    }

    /// Starts a ztunnel in the place of the one before, and waits until it is connected.
    pub(crate) async fn run_ztunnel(&mut self) {
        self.kill_ztunnel();
        let (notes, served) = watch::channel(BTreeMap::new());
        let mut proxy = Proxy::new(self.run_dir().join("ztunnel.sock"), Notes(notes));
        let mut status = proxy.status();
        let running = tokio::spawn(async move { match proxy.run().await {} });
        self.ztunnel = Some(running);
        self.served = served;
        let synced = timeout(DEADLINE, status.wait_for(|status| status.synced)).await;
        drop(synced.expect("ztunnel is told of all pods").unwrap());
    }

    pub(crate) fn kill_ztunnel(&mut self) {
        if let Some(running) = self.ztunnel.take() {
            running.abort();
        }
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// The folder with our plugin.
    pub(crate) fn plugins(&self) -> PathBuf {
        self.folder.path().join("bin")
    }

    /// How many addresses are given out.
    pub(crate) fn addresses(&self) -> usize {
        let entries = fs::read_dir(self.folder.path().join("addresses/pods"));
        let names = entries
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name());
        names
            .filter(|name| name.to_string_lossy().starts_with("10.88"))
            .count()
    }

    async fn namespace(&self, name: &str, mode: Option<&str>) {
        let labels = mode.map(|mode| json!({"istio.io/dataplane-mode": mode}));
        let object = json!({"metadata": {"name": name, "labels": labels}});
        let object: NamespaceObject = serde_json::from_value(object).unwrap();
        let api = Api::all(self.client.clone());
        // The API server has some from the start.
        let created = api.create(&PostParams::default(), &object).await;
        if created.is_err() {
            let merge = Patch::Merge(&object);
            api.patch(name, &PatchParams::default(), &merge)
                .await
                .unwrap();
        }
    }

    /// Makes a pod's object, and a network namespace for it.
    pub(crate) async fn pod(&self, namespace: &str, name: &str) -> NodePod {
        let uid = self.object(namespace, name).await;
        let netns = self.run.namespace(name).unwrap();
        let container = format!("{name}-sandbox");
        let sandbox = Sandbox::pod(&container, &netns.path(), namespace, name, &uid);
        NodePod {
            uid,
            sandbox,
            netns,
        }
    }

    /// Makes a pod's object alone, and says its UID.
    pub(crate) async fn object(&self, namespace: &str, name: &str) -> String {
        let object = json!({
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"nodeName": NODE, "containers": [{"name": "app", "image": "app"}]},
        });
        let object: Pod = serde_json::from_value(object).unwrap();
        let created = self
            .pods(namespace)
            .create(&PostParams::default(), &object)
            .await;
        created.unwrap().uid().unwrap()
    }

    pub(crate) fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Deletes a pod's object, as kubelet does once its network is gone.
    pub(crate) async fn forget(&self, namespace: &str, name: &str) {
        let now = DeleteParams::default().grace_period(0);
        drop(self.pods(namespace).delete(name, &now).await.unwrap());
    }

    /// The chain's ADD. It takes a thread: the agent must go on.
    pub(crate) fn add(&mut self, pod: &NodePod) -> Result<Value, cni::Error> {
        let (host, network, runtime) = (&self.host, &self.network, &mut self.runtime);
        tokio::task::block_in_place(|| runtime.add(host, network, &pod.sandbox))
    }

    pub(crate) fn check(&self, pod: &NodePod) -> Result<(), cni::Error> {
        tokio::task::block_in_place(|| self.runtime.check(&self.host, &self.network, &pod.sandbox))
    }

    pub(crate) fn delete(&mut self, pod: &NodePod) -> Result<(), cni::Error> {
        let (host, network, runtime) = (&self.host, &self.network, &mut self.runtime);
        tokio::task::block_in_place(|| runtime.delete(host, network, &pod.sandbox))
    }

    /// Whether a ztunnel serves this pod now.
    pub(crate) fn serves(&self, uid: &str) -> bool {
        self.served.borrow().contains_key(uid)
    }

    pub(crate) async fn no_longer_serves(&mut self, uid: &str) {
        let gone = self.served.wait_for(|served| !served.contains_key(uid));
        let gone = timeout(DEADLINE, gone).await.map(|gone| gone.is_ok());
        assert_eq!(gone, Ok(true), "ztunnel serves {uid} still");
    }

    /// Waits until the API server shows this annotation.
    pub(crate) async fn shows(&self, namespace: &str, name: &str, value: &str) {
        let shown = |pod: Option<&Value>| {
            pod.is_some_and(|pod| pod["metadata"]["annotations"][REDIRECTION] == value)
        };
        let store = self.server.store();
        let waited = store.until::<Pod>(namespace, name, DEADLINE, shown).await;
        waited.unwrap_or_else(|late| panic!("{late}"));
    }

    /// The node's probe set and its rules, as `nft` shows them.
    pub(crate) fn host_rules(&self) -> String {
        self.host.exec("nft", &["list", "ruleset"], "").unwrap()
    }

    fn agent_config(&self) -> Config {
        Config {
            node: NODE.to_owned(),
            policy: Policy {
                selectors: Selector::defaults(),
                excluded_namespaces: ["kube-system".to_owned()].into(),
            },
            options: Options::default(),
            system_namespace: "istio-system".to_owned(),
            paths: Paths {
                run_dir: self.run_dir(),
                host: "/".into(),
                proc: self.folder.path().join("proc"),
            },
            patience: Patience {
                istio_add: Duration::from_secs(4),
                add: Duration::from_secs(3),
                ..Patience::default()
            },
        }
    }
}

impl Drop for ChainNode {
    fn drop(&mut self) {
        self.kill_ztunnel();
        for part in self.agent.iter().flat_map(|agent| &agent.parts) {
            part.abort();
        }
    }
}

/// What `nft` shows in a network namespace.
pub(crate) fn rules_in(netns: &Path) -> String {
    let netns = NetNs::open(netns).unwrap();
    let list = || Command::new("nft").args(["list", "ruleset"]).output();
    let output = netns.run(list).unwrap().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

// === impl NodePod ===

impl NodePod {
    /// Whether its network namespace holds the mesh's rules, as `nft` shows them.
    pub(crate) fn holds_rules(&self) -> bool {
        let rules = self.netns.exec("nft", &["list", "ruleset"], "").unwrap();
        rules.contains("istio-ambient-nat") && rules.contains("15001")
    }
}

impl WorkloadManager for Notes {
    type Error = NoRoom;

    async fn add(&mut self, uid: &PodUid, _pod: &PodInfo, netns: Arc<NetNs>) -> Result<(), NoRoom> {
        let id = netns.id();
        self.0.send_modify(|served| {
            served.insert(uid.clone(), id);
        });
        Ok(())
    }

    async fn delete(&mut self, uid: &PodUid) {
        self.0.send_modify(|served| {
            served.remove(uid);
        });
    }
}

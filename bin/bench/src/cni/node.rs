//! A node: its network and its pods', a runtime that calls plugins, an API server and a ztunnel.

use std::{
    collections::BTreeSet, fs, os::unix::fs::symlink, path::Path, sync::Arc, time::Duration,
};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::{Namespace as NamespaceObject, Pod as PodObject};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, PostParams},
};
use mesh_core::workload::PodInfo;
use mesh_net::netns::NetNs;
use mesh_zds::proxy::{Client as Proxy, WorkloadManager};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit_kube::{auth::User, server::ApiServer};
use testkit_net::{
    Namespace,
    cni::{Network, Runtime, Sandbox},
    namespace::Run,
};
use tokio::{
    sync::watch,
    task::{JoinHandle, block_in_place},
    time::{sleep, timeout},
};

use super::agent::Agent;

/// The node's name.
const NODE: &str = "node-1";
/// Addresses of pods.
const SUBNET: &str = "10.88.0.0/16";
/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(60);
/// Time between two looks at something that cannot be waited for.
const PAUSE: Duration = Duration::from_millis(20);

/// The node. What is declared first goes first.
pub(crate) struct Node {
    agent: Agent,
    ztunnel: JoinHandle<()>,
    served: watch::Receiver<BTreeSet<Arc<str>>>,
    client: Client,
    _server: ApiServer,
    runtime: Runtime,
    /// The chain without our plugin, and the one that the agent has made of it.
    chains: [Network; 2],
    host: Namespace,
    run: Run,
    _folder: TempDir,
}

/// A pod with a network namespace.
pub(crate) struct Pod {
    uid: String,
    namespace: String,
    name: String,
    sandbox: Sandbox,
    netns: Namespace,
}

/// A ztunnel that serves every pod it is told of.
struct Serving(watch::Sender<BTreeSet<Arc<str>>>);

/// It never refuses.
#[derive(Debug, thiserror::Error)]
#[error("refused")]
struct Refused;

// === impl Node ===

impl Node {
    /// A node whose agent has installed this plugin and has a ztunnel.
    pub(crate) async fn start(plugin: &Path) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let run = Run::new();
        let host = run.namespace("node")?;
        let alone = Network::bridge(SUBNET, &folder.path().join("addresses"), None)?;
        lay_out(folder.path(), &host, &alone, plugin)?;
        let server = ApiServer::start(testkit_kube::server::Options::default()).await?;
        let client = server.admin_client().await?;
        let kubeconfig = server
            .authority()
            .kubeconfig(&server.url(), &User::admin())?;
        fs::write(folder.path().join("kubeconfig"), kubeconfig)?;
        for (name, mode) in [("mesh", "ambient"), ("plain", "none"), ("agent", "none")] {
            let labels = json!({"istio.io/dataplane-mode": mode});
            let object = json!({"metadata": {"name": name, "labels": labels}});
            let object: NamespaceObject = serde_json::from_value(object)?;
            let api = Api::all(client.clone());
            api.create(&PostParams::default(), &object).await?;
        }
        let mut agent = Agent::start(folder.path(), NODE)?;
        let (ztunnel, served) = start_ztunnel(&folder.path().join("ztunnel.sock")).await?;
        let file = folder.path().join("net.d/10-pods.conflist");
        let installed = timeout(DEADLINE, installed(&file, &mut agent)).await;
        Ok(Self {
            chains: [alone, installed.context("the plugin is not installed")??],
            agent,
            ztunnel,
            served,
            client,
            _server: server,
            runtime: Runtime::new([folder.path().join("bin")])?,
            host,
            run,
            _folder: folder,
        })
    }

    pub(crate) fn agent(&self) -> &Agent {
        &self.agent
    }

    pub(crate) fn host(&self) -> &Namespace {
        &self.host
    }

    /// Makes a pod's object and its network namespace.
    pub(crate) async fn pod(&self, namespace: &str, name: &str) -> anyhow::Result<Pod> {
        let object = json!({
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"nodeName": NODE, "containers": [{"name": "app", "image": "app"}]},
        });
        let object: PodObject = serde_json::from_value(object)?;
        let api = self.pods(namespace);
        let created = api.create(&PostParams::default(), &object).await?;
        let uid = created.uid().context("a pod has a UID")?;
        let netns = self.run.namespace(name)?;
        Ok(Pod {
            sandbox: Sandbox::pod(name, &netns.path(), namespace, name, &uid),
            uid,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            netns,
        })
    }

    /// A pod with its network, in the mesh if its namespace is.
    pub(crate) async fn start_pod(
        &mut self,
        namespace: &str,
        number: usize,
    ) -> anyhow::Result<Pod> {
        let pod = self.pod(namespace, &format!("pod-{number}")).await?;
        self.add(&pod, true)?;
        Ok(pod)
    }

    /// The chain's ADD, with our plugin or without.
    pub(crate) fn add(&mut self, pod: &Pod, ours: bool) -> anyhow::Result<()> {
        let chain = &self.chains[usize::from(ours)];
        block_in_place(|| self.runtime.add(&self.host, chain, &pod.sandbox))?;
        Ok(())
    }

    /// What each plugin took of the last ADD.
    pub(crate) fn spent(&self) -> &[Duration] {
        self.runtime.spent()
    }

    /// The chain's DEL, and the end of the pod's namespace and object.
    pub(crate) async fn remove_pod(&mut self, pod: Pod, ours: bool) -> anyhow::Result<()> {
        let chain = &self.chains[usize::from(ours)];
        block_in_place(|| self.runtime.delete(&self.host, chain, &pod.sandbox))?;
        pod.netns.remove()?;
        let now = DeleteParams::default().grace_period(0);
        drop(self.pods(&pod.namespace).delete(&pod.name, &now).await?);
        let gone = self.served.wait_for(|served| !served.contains(&*pod.uid));
        drop(
            timeout(DEADLINE, gone)
                .await
                .context("ztunnel serves the pod still")??,
        );
        Ok(())
    }

    /// Whether ztunnel serves a pod.
    pub(crate) fn serves(&self, pod: &Pod) -> bool {
        self.served.borrow().contains(&*pod.uid)
    }

    /// How many pods ztunnel serves.
    pub(crate) fn served(&self) -> usize {
        self.served.borrow().len()
    }

    fn pods(&self, namespace: &str) -> Api<PodObject> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.ztunnel.abort();
    }
}

/// What the agent expects of a node: the root with processes and namespaces, the image's folder, and the folders
/// of plugins and their configuration.
fn lay_out(folder: &Path, host: &Namespace, chain: &Network, plugin: &Path) -> anyhow::Result<()> {
    let proc = folder.join("root/proc");
    fs::create_dir_all(proc.join("1/ns"))?;
    fs::create_dir_all(proc.join("sys/kernel/random"))?;
    fs::write(proc.join("sys/kernel/random/boot_id"), "this-boot\n")?;
    symlink(host.path(), proc.join("1/ns/net"))?;
    symlink("/run", folder.join("root/run"))?;
    for name in ["run", "bin", "net.d"] {
        fs::create_dir(folder.join(name))?;
    }
    fs::write(
        folder.join("net.d/10-pods.conflist"),
        chain.list().to_string(),
    )?;
    super::image(plugin, &folder.join("image"))
}

/// The chain that the agent makes of the file, once it has.
async fn installed(file: &Path, agent: &mut Agent) -> anyhow::Result<Network> {
    loop {
        agent.alive()?;
        let list: Value = serde_json::from_slice(&fs::read(file)?)?;
        let plugins = list["plugins"].as_array().into_iter().flatten();
        if plugins
            .into_iter()
            .any(|plugin| plugin["type"] == mesh_cni::config::PLUGIN)
        {
            return Ok(Network::new(&list)?);
        }
        sleep(PAUSE).await;
    }
}

async fn start_ztunnel(
    socket: &Path,
) -> anyhow::Result<(JoinHandle<()>, watch::Receiver<BTreeSet<Arc<str>>>)> {
    let (serving, served) = watch::channel(BTreeSet::new());
    let mut proxy = Proxy::new(socket, Serving(serving));
    let mut status = proxy.status();
    let running = tokio::spawn(async move { match proxy.run().await {} });
    let synced = timeout(DEADLINE, status.wait_for(|status| status.synced)).await;
    let synced = synced.context("ztunnel is not told of the node's pods")?;
    ensure!(synced.is_ok(), "ztunnel has ended");
    Ok((running, served))
}

impl WorkloadManager for Serving {
    type Error = Refused;

    async fn add(&mut self, uid: &Arc<str>, _: &PodInfo, _: Arc<NetNs>) -> Result<(), Refused> {
        self.0.send_modify(|served| {
            served.insert(Arc::clone(uid));
        });
        Ok(())
    }

    async fn delete(&mut self, uid: &Arc<str>) {
        self.0.send_modify(|served| {
            served.remove(uid);
        });
    }
}

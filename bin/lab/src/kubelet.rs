//! What kubelet and container runtime do on a node: call the plugins for every pod that comes and goes.

use std::{
    collections::BTreeMap,
    fs,
    net::IpAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use mesh_net::netns::NetNs;
use parking_lot::Mutex;
use serde_json::{Value, json};
use testkit_net::{
    Namespace,
    cni::{Network, Runtime, Sandbox},
};
use tokio::task::spawn_blocking;

use crate::agent::Folders;

/// The runtime of one node.
#[derive(Debug)]
pub(crate) struct Kubelet {
    node: Arc<NetNs>,
    runtime: Arc<Mutex<Runtime>>,
    configuration: PathBuf,
    results: PathBuf,
    sandboxes: BTreeMap<String, Sandbox>,
}

/// A pod to the runtime.
pub(crate) struct Started<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) uid: &'a str,
    pub(crate) network: &'a Namespace,
    pub(crate) addresses: &'a [IpAddr],
}

/// The plugin that stands for the cluster's network: the lab has made the pod's interface already, and this says
/// so. `@` is the folder of what it says.
const PLUGIN: &str = "#!/bin/sh
[ \"$CNI_COMMAND\" = ADD ] || exit 0
exec cat \"@/$CNI_CONTAINERID\"
";

/// Its name.
const NAME: &str = "lateen-lab";

/// The configuration of the cluster's network, to which the agent adds its plugin.
const FILE: &str = "10-lab.conflist";

/// What the plugins speak.
const VERSION: &str = "1.0.0";

// === impl Kubelet ===

impl Kubelet {
    /// A runtime with the cluster's network and no pods.
    pub(crate) fn new(node: &Namespace, folders: &Folders, dir: &Path) -> anyhow::Result<Self> {
        let results = dir.join("results");
        fs::create_dir(&results)?;
        let plugin = folders.bin().join(NAME);
        fs::write(&plugin, PLUGIN.replace('@', &results.display().to_string()))?;
        fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755))?;
        let configuration = folders.net().join(FILE);
        let list = json!({"cniVersion": VERSION, "name": "lab", "plugins": [{"type": NAME}]});
        fs::write(&configuration, list.to_string())?;
        let runtime = Runtime::new([folders.bin()])?;
        Ok(Self {
            node: node.handle().clone(),
            runtime: Arc::new(Mutex::new(runtime)),
            configuration,
            results,
            sandboxes: BTreeMap::new(),
        })
    }

    /// Calls the plugins for a new pod. They decide whether it may start.
    pub(crate) async fn start(&mut self, pod: &Started<'_>) -> anyhow::Result<()> {
        let id = format!("{}-{}", pod.namespace, pod.name);
        let address = |ip: &IpAddr| {
            let length = if ip.is_ipv4() { 24 } else { 64 };
            json!({"interface": 0, "address": format!("{ip}/{length}")})
        };
        let ips: Vec<Value> = pod.addresses.iter().map(address).collect();
        let result = json!({
            "cniVersion": VERSION,
            "interfaces": [{"name": "eth0", "sandbox": pod.network.path()}],
            "ips": ips,
        });
        fs::write(self.results.join(&id), result.to_string())?;
        let sandbox = Sandbox::pod(&id, &pod.network.path(), pod.namespace, pod.name, pod.uid);
        let called = sandbox.clone();
        let work = move |runtime: &mut Runtime, node: &Arc<NetNs>, network: &Network| {
            runtime.add(node, network, &called).map(drop)
        };
        self.call(work)
            .await
            .with_context(|| format!("start {id}"))?;
        self.sandboxes.insert(pod.name.to_owned(), sandbox);
        Ok(())
    }

    /// Calls the plugins for a pod that ends.
    pub(crate) async fn end(&mut self, pod: &str) -> anyhow::Result<()> {
        let Some(sandbox) = self.sandboxes.remove(pod) else {
            return Ok(());
        };
        let work = move |runtime: &mut Runtime, node: &Arc<NetNs>, network: &Network| {
            runtime.delete(node, network, &sandbox)
        };
        self.call(work).await.with_context(|| format!("end {pod}"))
    }

    /// Calls the plugins that the configuration names now. They wait for the agent, which may ask the API server
    /// in this process.
    async fn call(
        &self,
        work: impl FnOnce(&mut Runtime, &Arc<NetNs>, &Network) -> Result<(), testkit_net::cni::Error>
        + Send
        + 'static,
    ) -> anyhow::Result<()> {
        let list = serde_json::from_slice(&fs::read(&self.configuration)?)?;
        let network = Network::new(&list)?;
        let (runtime, node) = (self.runtime.clone(), self.node.clone());
        let calling = spawn_blocking(move || work(&mut runtime.lock(), &node, &network));
        Ok(calling.await??)
    }
}

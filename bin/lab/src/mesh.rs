//! The mesh: two nodes with their proxies, pods with applications, and the hands that a cluster has.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use anyhow::{Context as _, anyhow, bail};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1 as objects;
use mesh_api::labels::dataplane_mode;
use mesh_core::{
    identity::Identity,
    workload::{TunnelProtocol, Workload},
};
use tempfile::TempDir;
use testkit_net::{Namespace, Process, Topology, eventually};

use crate::{
    agent::{Cni, Folders, NodeAgent},
    control_plane::{self, Cluster, ControlPlane, ProxyPod},
    kubelet::{Kubelet, Started},
    node::{NodeProxy, PATIENCE, Start},
    program::Program,
};

pub mod dump;
mod played;

/// The namespace of all pods of the lab.
pub const NAMESPACE: &str = "demo";

/// The nodes.
pub const NODES: [&str; 2] = ["node1", "node2"];

/// The programs to run as proxies.
#[derive(Clone, Debug)]
pub struct Proxies {
    /// On node 1.
    pub node1: Program,
    /// On node 2.
    pub node2: Program,
}

/// A running lab. [`Mesh::stop`] takes it down and says what it could not remove; dropping it does the
/// same in silence.
#[derive(Debug)]
pub struct Mesh<C> {
    // Processes go before the namespaces they run in: fields are dropped in this order.
    applications: Vec<Process>,
    nodes: BTreeMap<String, Node>,
    control_plane: C,
    pods: BTreeMap<String, Pod>,
    topology: Topology,
    dir: TempDir,
}

/// What a mesh is built on.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) topology: Topology,
    pub(crate) dir: TempDir,
}

#[derive(Debug)]
struct Node {
    // There is none before the agent is ready.
    proxy: Option<NodeProxy>,
    agent: NodeAgent,
    kubelet: Kubelet,
    folders: Folders,
    program: Program,
    dir: PathBuf,
}

#[derive(Debug)]
struct Pod {
    node: String,
    workload: Workload,
    enrolled: bool,
}

// === impl Site ===

impl Site {
    fn new() -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("lateen-lab-").tempdir()?;
        let topology = Topology::new()?;
        Ok(Self { topology, dir })
    }
}

// === impl Mesh ===

impl Mesh<Cluster> {
    /// Builds a cluster of two nodes, each with a proxy that knows all there is to know, under this istiod.
    pub async fn start(istiod: &Program, proxies: &Proxies, cni: &Cni) -> anyhow::Result<Self> {
        let site = Site::new()?;
        let cluster = Cluster::start(&site, istiod).await?;
        Self::build(site, cluster, proxies, cni).await
    }

    /// Ends a pod and deletes it. What the proxies know of it is not waited for, see [`Mesh::known`].
    pub async fn delete_pod(&mut self, name: &str) -> anyhow::Result<()> {
        let pod = self.pods.remove(name).context("no such pod")?;
        self.node_mut(&pod.node)?.kubelet.end(name).await?;
        self.control_plane
            .delete::<objects::Pod>(NAMESPACE, name)
            .await
    }
}

impl<C: ControlPlane> Mesh<C> {
    async fn build(
        site: Site,
        control_plane: C,
        proxies: &Proxies,
        cni: &Cni,
    ) -> anyhow::Result<Self> {
        let Site { topology, dir } = site;
        let mut mesh = Self {
            applications: Vec::new(),
            nodes: BTreeMap::new(),
            control_plane,
            pods: BTreeMap::new(),
            topology,
            dir,
        };
        for (name, program) in NODES.into_iter().zip([&proxies.node1, &proxies.node2]) {
            mesh.add_node(name, program, cni).await?;
        }
        for name in NODES {
            mesh.agent_ready(name).await?;
        }
        for name in NODES {
            let new = mesh.start_proxy(name).await?;
            mesh.node_mut(name)?.proxy = Some(new);
        }
        for name in NODES {
            mesh.proxy_ready(name).await?;
        }
        Ok(mesh)
    }

    async fn add_node(&mut self, name: &str, program: &Program, cni: &Cni) -> anyhow::Result<()> {
        let network = self.topology.add_node(name)?.namespace();
        let api = self.control_plane.api();
        api.add_node(name).await?;
        let dir = self.dir.path().join(name);
        std::fs::create_dir(&dir)?;
        let folders = Folders::new(network, &dir)?;
        let node = Node {
            proxy: None,
            kubelet: Kubelet::new(network, &folders, &dir)?,
            agent: NodeAgent::start((name, network), cni, api, &folders).await?,
            folders,
            program: program.clone(),
            dir,
        };
        self.nodes.insert(name.to_owned(), node);
        Ok(())
    }

    /// Adds a pod outside of the mesh; its service account has its name.
    pub async fn add_pod(&mut self, node: &str, name: &str) -> anyhow::Result<()> {
        let pod = self.topology.add_pod(node, name)?;
        let uid: Arc<str> = format!("Kubernetes//Pod/{NAMESPACE}/{name}").into();
        let workload = Workload {
            name: name.into(),
            namespace: NAMESPACE.into(),
            service_account: name.into(),
            addresses: vec![pod.address(false), pod.address(true)],
            node: node.into(),
            canonical_name: name.into(),
            canonical_revision: "latest".into(),
            workload_name: name.into(),
            ..Workload::with_uid(uid)
        };
        let api = self.control_plane.api();
        let uid = api.place(&workload).await?;
        let started = Started {
            namespace: NAMESPACE,
            name,
            uid: &uid,
            network: pod.namespace(),
            addresses: &workload.addresses,
        };
        let on = self.nodes.get_mut(node).context("no such node")?;
        on.kubelet.start(&started).await?;
        api.runs(&workload).await?;
        self.control_plane.place(&workload).await?;
        let pod = Pod {
            node: node.to_owned(),
            workload,
            enrolled: false,
        };
        self.pods.insert(name.to_owned(), pod);
        Ok(())
    }

    /// Labels a pod as one of the mesh, while its application runs, and waits until it is.
    pub async fn enrol(&mut self, name: &str) -> anyhow::Result<()> {
        self.label(name, dataplane_mode::AMBIENT).await?;
        self.joined(name).await
    }

    /// Waits until a pod is in the mesh that was labelled, or whose namespace was.
    pub async fn joined(&mut self, name: &str) -> anyhow::Result<()> {
        self.until_enrolled(name, true).await?;
        self.say_protocol(name, TunnelProtocol::Hbone).await?;
        self.known_protocol(name, "HBONE").await
    }

    /// Labels a pod as one outside of the mesh, while its application runs, and waits until it is.
    pub async fn remove(&mut self, name: &str) -> anyhow::Result<()> {
        self.label(name, dataplane_mode::NONE).await?;
        self.left(name).await
    }

    /// Waits until a pod is outside of the mesh whose label was taken away, or that of its namespace.
    pub async fn left(&mut self, name: &str) -> anyhow::Result<()> {
        self.say_protocol(name, TunnelProtocol::None).await?;
        self.until_enrolled(name, false).await?;
        self.known_protocol(name, "TCP").await
    }

    async fn label(&self, name: &str, mode: &str) -> anyhow::Result<()> {
        let pod = self.pods.get(name).context("no such pod")?;
        self.control_plane.api().set_mode(&pod.workload, mode).await
    }

    async fn until_enrolled(&mut self, name: &str, is: bool) -> anyhow::Result<()> {
        let pod = self.pods.get_mut(name).context("no such pod")?;
        let api = self.control_plane.api();
        let waited = api.until_enrolled(&pod.workload, is).await;
        waited.with_context(|| format!("{name} in the mesh: {is}"))?;
        pod.enrolled = is;
        Ok(())
    }

    /// Starts another proxy on a node, in a pod of its own, and waits until it is ready. The one before is
    /// returned as it is, running or not.
    pub async fn renew_proxy(&mut self, node: &str) -> anyhow::Result<NodeProxy> {
        let new = self.start_proxy(node).await?;
        let old = self.node_mut(node)?.proxy.replace(new);
        self.proxy_ready(node).await?;
        old.context("the node had no proxy")
    }

    /// Starts an application in a pod; it runs until the lab ends.
    pub fn start_application(
        &mut self,
        pod: &str,
        command: Command,
    ) -> anyhow::Result<&mut Process> {
        let process = self.topology.pod(pod)?.namespace().spawn(command)?;
        Ok(self.applications.push_mut(process))
    }

    /// The applications, in the order they were started.
    pub fn applications(&mut self) -> &mut [Process] {
        &mut self.applications
    }

    /// A pod's network.
    pub fn pod(&self, name: &str) -> anyhow::Result<&Namespace> {
        Ok(self.topology.pod(name)?.namespace())
    }

    /// A pod's address.
    pub fn address(&self, pod: &str, ipv6: bool) -> anyhow::Result<IpAddr> {
        Ok(self.topology.pod(pod)?.address(ipv6))
    }

    /// The identity of a pod's certificate.
    pub fn identity(&self, pod: &str) -> anyhow::Result<Identity> {
        Ok(self
            .pods
            .get(pod)
            .context("no such pod")?
            .workload
            .identity()?)
    }

    /// The network between the nodes.
    pub fn fabric(&self) -> &Namespace {
        self.topology.fabric()
    }

    /// An address outside of the cluster, of which discovery knows nothing; it is the fabric's.
    pub fn world(&self, ipv6: bool) -> IpAddr {
        self.topology.fabric_address(ipv6)
    }

    /// A node's network.
    pub fn node(&self, name: &str) -> anyhow::Result<&Namespace> {
        Ok(self.topology.node(name)?.namespace())
    }

    /// A node's proxy.
    pub fn proxy(&self, node: &str) -> anyhow::Result<&NodeProxy> {
        let node = self.nodes.get(node).context("no such node")?;
        node.proxy.as_ref().context("the node has no proxy")
    }

    /// A node's proxy, to send it signals.
    pub fn proxy_mut(&mut self, node: &str) -> anyhow::Result<&mut NodeProxy> {
        let proxy = self.node_mut(node)?.proxy.as_mut();
        proxy.context("the node has no proxy")
    }

    /// A node's CNI agent.
    pub fn agent(&self, node: &str) -> anyhow::Result<&NodeAgent> {
        Ok(&self.nodes.get(node).context("no such node")?.agent)
    }

    /// Ends a node's CNI agent as a crash would.
    pub async fn kill_agent(&mut self, node: &str) -> anyhow::Result<()> {
        self.node_mut(node)?.agent.kill().await
    }

    /// Starts a node's CNI agent again, and waits until it is ready.
    pub async fn restart_agent(&mut self, node: &str) -> anyhow::Result<()> {
        let network = self.topology.node(node)?.namespace();
        let node = self.nodes.get_mut(node).context("no such node")?;
        node.agent.restart(network).await
    }

    /// Takes the CNI agents from the cluster, for good.
    pub async fn uninstall_agents(&mut self) -> anyhow::Result<()> {
        self.control_plane.api().delete_agents().await?;
        let agents = self.nodes.values_mut().map(|node| node.agent.terminate());
        try_join_all(agents).await.map(drop)
    }

    fn node_mut(&mut self, name: &str) -> anyhow::Result<&mut Node> {
        self.nodes.get_mut(name).context("no such node")
    }

    /// The control plane.
    pub fn control_plane(&self) -> &C {
        &self.control_plane
    }

    /// The control plane, to change it.
    pub fn control_plane_mut(&mut self) -> &mut C {
        &mut self.control_plane
    }

    /// A folder for files of the applications; it goes with the lab.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What a proxy shows on one of its own ports, asked with curl in its pod.
    pub fn ask_proxy(&self, node: &str, url: &str) -> anyhow::Result<String> {
        let pod = self.topology.pod(self.proxy(node)?.pod())?;
        ask(pod.namespace(), url)
    }

    /// Takes everything down in order, and returns what did not go as it should.
    pub async fn stop(mut self) -> Vec<anyhow::Error> {
        let mut failures = Vec::new();
        let enrolled: Vec<String> = self
            .pods
            .iter()
            .filter(|(_, pod)| pod.enrolled)
            .map(|(name, _)| name.clone())
            .collect();
        for pod in enrolled {
            failures.extend(self.label(&pod, dataplane_mode::NONE).await.err());
            failures.extend(self.until_enrolled(&pod, false).await.err());
        }
        for node in self.nodes.values_mut() {
            if let Some(proxy) = &mut node.proxy {
                failures.extend(proxy.terminate().await.err());
            }
            failures.extend(node.agent.end().await.err());
        }
        drop(self.applications);
        drop(self.nodes);
        failures.extend(self.control_plane.end().await);
        failures.extend(self.topology.remove().into_iter().map(anyhow::Error::from));
        failures.extend(self.dir.close().err().map(anyhow::Error::from));
        failures
    }

    /// Starts a proxy in a new pod of its node.
    async fn start_proxy(&mut self, node: &str) -> anyhow::Result<NodeProxy> {
        let earlier = self.topology.pods().iter();
        let earlier =
            earlier.filter(|pod| pod.name().starts_with("ztunnel-") && pod.node() == node);
        let name = format!("ztunnel-{node}-{}", earlier.count() + 1);
        let pod = self.topology.add_pod(node, &name)?;
        let admitted = ProxyPod {
            node,
            name: &name,
            address: pod.address(false),
        };
        let api = self.control_plane.api();
        let uid = api.admit(&admitted).await?;
        let started = Started {
            namespace: control_plane::NAMESPACE,
            name: &name,
            uid: &uid,
            network: pod.namespace(),
            addresses: &[admitted.address],
        };
        let on = self.nodes.get_mut(node).context("no such node")?;
        on.kubelet.start(&started).await?;
        api.proxy_runs(&admitted).await?;
        let start = Start {
            node,
            pod: &name,
            program: &on.program,
            url: &self.control_plane.url(),
            credentials: &self.control_plane.admit(&admitted, &uid).await?,
            agent_socket: &on.folders.ztunnel(),
            dir: &on.dir,
        };
        NodeProxy::start(&start, pod.namespace())
    }

    async fn agent_ready(&mut self, name: &str) -> anyhow::Result<()> {
        let network = self.topology.node(name)?.namespace();
        let node = self.nodes.get_mut(name).context("no such node")?;
        node.agent.ready(network).await
    }

    /// Waits until a node's proxy has all that it asked for.
    async fn proxy_ready(&mut self, name: &str) -> anyhow::Result<()> {
        let node = self.nodes.get_mut(name).context("no such node")?;
        let proxy = node.proxy.as_mut().context("the node has no proxy")?;
        let pod = self.topology.pod(proxy.pod())?.namespace();
        let url = "http://127.0.0.1:15021/healthz/ready";
        let mut status = None;
        let waited = eventually(format!("readiness of {}", proxy.pod()), PATIENCE, || {
            status = proxy.status().ok().flatten();
            status.is_some() || ask(pod, url).is_ok()
        });
        let waited = waited.await.map_err(anyhow::Error::from);
        let waited =
            waited.and_then(|()| status.map_or(Ok(()), |s| Err(anyhow!("it ended with {s}"))));
        if let Err(why) = waited {
            bail!(
                "{} did not come up: {why}; its log:\n{}",
                proxy.pod(),
                proxy.log()
            );
        }
        Ok(())
    }

    async fn say_protocol(&mut self, name: &str, protocol: TunnelProtocol) -> anyhow::Result<()> {
        let pod = self.pods.get_mut(name).context("no such pod")?;
        pod.workload.protocol = protocol;
        self.control_plane.announce(&pod.workload).await
    }

    async fn known_protocol(&self, name: &str, said: &str) -> anyhow::Result<()> {
        let uid = &self.pods.get(name).context("no such pod")?.workload.uid;
        self.known(&format!("{said} for {name}"), |shown| {
            dump::has_protocol(shown, uid, said)
        })
        .await
    }

    /// Waits until the dumps of both proxies show something.
    pub async fn known(
        &self,
        what: &str,
        shows: impl Fn(&serde_json::Value) -> bool,
    ) -> anyhow::Result<()> {
        for node in self.nodes.keys() {
            let seen = || {
                let dump = self.ask_proxy(node, "http://127.0.0.1:15000/config_dump");
                let dump = dump.ok().and_then(|dump| serde_json::from_str(&dump).ok());
                dump.is_some_and(|dump| shows(&dump))
            };
            eventually(format!("{what} in the dump of {node}"), PATIENCE, seen).await?;
        }
        Ok(())
    }
}

fn ask(from: &Namespace, url: &str) -> anyhow::Result<String> {
    let arguments = ["--silent", "--show-error", "--fail", "--max-time", "5", url];
    Ok(from.exec("curl", &arguments, "")?)
}

//! The mesh: two nodes with their proxies, pods with applications, and the hands that a cluster has.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use anyhow::{Context as _, anyhow, bail};
use mesh_core::{
    address::NamespacedHostname,
    identity::Identity,
    policy::Authorization,
    service::Service,
    workload::{PodInfo, TunnelProtocol, Workload},
};
use mesh_redirect::Backend;
use mesh_xds::Change;
use tempfile::TempDir;
use testkit_net::{Namespace, Process, Topology, eventually};

use crate::{
    agent::NodeAgent,
    control_plane::ControlPlane,
    node::{NodeProxy, PATIENCE, Program, Start},
};

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
pub struct Mesh {
    // Processes go before the namespaces they run in: fields are dropped in this order.
    applications: Vec<Process>,
    nodes: BTreeMap<String, Node>,
    control_plane: ControlPlane,
    pods: BTreeMap<String, Pod>,
    topology: Topology,
    dir: TempDir,
}

#[derive(Debug)]
struct Node {
    proxy: NodeProxy,
    agent: NodeAgent,
    program: Program,
    dir: PathBuf,
}

#[derive(Debug)]
struct Pod {
    node: String,
    uid: Arc<str>,
    workload: Workload,
    enrolled: bool,
}

// === impl Mesh ===

impl Mesh {
    /// Builds two nodes, each with a proxy that knows all there is to know.
    pub async fn start(proxies: &Proxies, backend: Backend) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("lateen-lab-").tempdir()?;
        let mut topology = Topology::new()?;
        let address = topology.fabric_address(false);
        let control_plane = ControlPlane::start(topology.fabric(), address)?;
        let mut nodes = BTreeMap::new();
        for (name, program) in NODES.into_iter().zip([&proxies.node1, &proxies.node2]) {
            topology.add_node(name)?;
            let dir = dir.path().join(name);
            std::fs::create_dir(&dir)?;
            let agent = NodeAgent::start(&agent_socket(&dir), backend)?;
            let proxy = start_proxy(&mut topology, &control_plane, name, program, &dir)?;
            let node = Node {
                proxy,
                agent,
                program: program.clone(),
                dir,
            };
            nodes.insert(name.to_owned(), node);
        }
        let mut mesh = Self {
            applications: Vec::new(),
            nodes,
            control_plane,
            pods: BTreeMap::new(),
            topology,
            dir,
        };
        for name in NODES {
            mesh.proxy_ready(name).await?;
        }
        Ok(mesh)
    }

    /// Adds a pod outside of the mesh; its service account has its name.
    pub fn add_pod(
        &mut self,
        node: &str,
        name: &str,
        service: Option<&Service>,
    ) -> anyhow::Result<()> {
        let pod = self.topology.add_pod(node, name)?;
        let uid: Arc<str> = format!("Kubernetes//Pod/{NAMESPACE}/{name}").into();
        let ports = |service: &Service| (service.key(), service.ports.clone());
        let workload = Workload {
            name: name.into(),
            namespace: NAMESPACE.into(),
            service_account: name.into(),
            addresses: vec![pod.address(false), pod.address(true)],
            node: node.into(),
            canonical_name: name.into(),
            canonical_revision: "latest".into(),
            workload_name: name.into(),
            services: service.map(ports).into_iter().collect(),
            ..Workload::with_uid(uid)
        };
        self.control_plane.place(node, workload.identity()?);
        self.control_plane
            .publish([Change::Workload(workload.clone())]);
        let pod = Pod {
            node: node.to_owned(),
            // Kubernetes names pods to the agent by a UUID.
            uid: uuid().into(),
            workload,
            enrolled: false,
        };
        self.pods.insert(name.to_owned(), pod);
        Ok(())
    }

    /// Brings a pod into the mesh, while its application runs.
    pub async fn enrol(&mut self, name: &str) -> anyhow::Result<()> {
        let namespace = self.topology.pod(name)?.namespace();
        let pod = self.pods.get_mut(name).context("no such pod")?;
        let node = self.nodes.get(&pod.node).context("no such node")?;
        node.agent
            .enrol(&pod.uid, &info(&pod.workload), namespace)
            .await
            .with_context(|| format!("enrol {name}"))?;
        pod.enrolled = true;
        self.say_protocol(name, TunnelProtocol::Hbone).await
    }

    /// Takes a pod out of the mesh, while its application runs.
    pub async fn remove(&mut self, name: &str) -> anyhow::Result<()> {
        // First nobody uses its tunnel any more, then it goes.
        self.say_protocol(name, TunnelProtocol::None).await?;
        let namespace = self.topology.pod(name)?.namespace();
        let pod = self.pods.get_mut(name).context("no such pod")?;
        let node = self.nodes.get(&pod.node).context("no such node")?;
        let removed = node.agent.remove(&pod.uid, namespace).await;
        removed.with_context(|| format!("take {name} out of the mesh"))?;
        pod.enrolled = false;
        Ok(())
    }

    /// Describes a pod anew; the change is published and not waited for, see [`Mesh::known`].
    pub fn describe(
        &mut self,
        name: &str,
        change: impl FnOnce(&mut Workload),
    ) -> anyhow::Result<()> {
        let pod = self.pods.get_mut(name).context("no such pod")?;
        change(&mut pod.workload);
        self.control_plane
            .publish([Change::Workload(pod.workload.clone())]);
        Ok(())
    }

    /// Publishes what is no pod of the lab; it is not waited for, see [`Mesh::known`].
    pub fn publish(&self, changes: impl IntoIterator<Item = Change>) {
        self.control_plane.publish(changes);
    }

    /// From now on the certificate authority refuses a pod's identity to its node.
    pub fn refuse_certificates(&self, pod: &str) -> anyhow::Result<()> {
        let pod = self.pods.get(pod).context("no such pod")?;
        self.control_plane
            .displace(&pod.node, &pod.workload.identity()?);
        Ok(())
    }

    /// Ends the control plane as a crash would.
    pub fn stop_control_plane(&mut self) {
        self.control_plane.stop();
    }

    /// Starts the control plane again, with what it knew and what was published since.
    pub fn start_control_plane(&mut self) -> anyhow::Result<()> {
        self.control_plane.serve()
    }

    /// Starts another proxy on a node, in a pod of its own, and waits until it is ready. The one before is
    /// returned as it is, running or not.
    pub async fn renew_proxy(&mut self, node: &str) -> anyhow::Result<NodeProxy> {
        let Node {
            program,
            dir,
            proxy,
            ..
        } = self.nodes.get_mut(node).context("no such node")?;
        let new = start_proxy(&mut self.topology, &self.control_plane, node, program, dir)?;
        let old = std::mem::replace(proxy, new);
        self.proxy_ready(node).await?;
        Ok(old)
    }

    /// Publishes a service, and waits until both proxies have it.
    pub async fn add_service(&self, service: Service) -> anyhow::Result<()> {
        let key = service.key();
        self.control_plane.publish([Change::Service(service)]);
        self.known(&format!("service {key}"), |dump| has_service(dump, &key))
            .await
    }

    /// Publishes a policy, and waits until both proxies have it.
    pub async fn add_policy(&self, policy: Authorization) -> anyhow::Result<()> {
        let (key, name) = (policy.key(), policy.name.clone());
        self.control_plane.publish([Change::Policy(policy)]);
        self.known(&format!("policy {key}"), |dump| has_policy(dump, &name))
            .await
    }

    /// Withdraws a policy, and waits until both proxies have forgotten it.
    pub async fn remove_policy(&self, key: &str) -> anyhow::Result<()> {
        let (_namespace, name) = key.split_once('/').context("a policy's key has a slash")?;
        self.control_plane
            .publish([Change::RemovePolicy(key.into())]);
        self.known(&format!("end of policy {key}"), |dump| {
            !has_policy(dump, name)
        })
        .await
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
        Ok(&self.nodes.get(node).context("no such node")?.proxy)
    }

    /// A node's proxy, to send it signals.
    pub fn proxy_mut(&mut self, node: &str) -> anyhow::Result<&mut NodeProxy> {
        Ok(&mut self.nodes.get_mut(node).context("no such node")?.proxy)
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
            failures.extend(self.remove(&pod).await.err());
        }
        for node in self.nodes.values_mut() {
            failures.extend(node.proxy.terminate().await.err());
        }
        drop(self.applications);
        drop(self.nodes);
        drop(self.control_plane);
        failures.extend(self.topology.remove().into_iter().map(anyhow::Error::from));
        failures.extend(self.dir.close().err().map(anyhow::Error::from));
        failures
    }

    /// Waits until a node's proxy has all that it asked for.
    async fn proxy_ready(&mut self, name: &str) -> anyhow::Result<()> {
        let Node { proxy, agent, .. } = self.nodes.get_mut(name).context("no such node")?;
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
        let connected = tokio::time::timeout(PATIENCE, agent.proxy_connected()).await;
        connected.with_context(|| format!("the agent of {name} has no ztunnel"))?
    }

    async fn say_protocol(&mut self, name: &str, protocol: TunnelProtocol) -> anyhow::Result<()> {
        self.describe(name, |workload| workload.protocol = protocol)?;
        let pod = self.pods.get(name).context("no such pod")?;
        let uid = pod.workload.uid.clone();
        let said = match protocol {
            TunnelProtocol::Hbone => "HBONE",
            TunnelProtocol::None => "TCP",
        };
        self.known(&format!("{said} for {name}"), |dump| {
            has_protocol(dump, &uid, said)
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

/// Starts a proxy in a new pod of its node.
fn start_proxy(
    topology: &mut Topology,
    control_plane: &ControlPlane,
    node: &str,
    program: &Program,
    dir: &Path,
) -> anyhow::Result<NodeProxy> {
    let earlier = topology.pods().iter();
    let earlier = earlier.filter(|pod| pod.name().starts_with("ztunnel-") && pod.node() == node);
    let pod = format!("ztunnel-{node}-{}", earlier.count() + 1);
    let namespace = topology.add_pod(node, &pod)?.namespace();
    let start = Start {
        node,
        pod: &pod,
        program,
        control_plane,
        agent_socket: &agent_socket(dir),
        dir,
    };
    NodeProxy::start(&start, namespace)
}

/// Where a node's agent listens for its proxy.
fn agent_socket(dir: &Path) -> PathBuf {
    dir.join("ztunnel.sock")
}

fn ask(from: &Namespace, url: &str) -> anyhow::Result<String> {
    let arguments = ["--silent", "--show-error", "--fail", "--max-time", "5", url];
    Ok(from.exec("curl", &arguments, "")?)
}

fn info(workload: &Workload) -> PodInfo {
    PodInfo {
        name: workload.name.clone(),
        namespace: workload.namespace.clone(),
        service_account: workload.service_account.clone(),
    }
}

fn items<'a>(
    dump: &'a serde_json::Value,
    kind: &str,
) -> impl Iterator<Item = &'a serde_json::Value> {
    let list = dump.get(kind).and_then(serde_json::Value::as_array);
    list.into_iter().flatten()
}

fn has_service(dump: &serde_json::Value, key: &NamespacedHostname) -> bool {
    items(dump, "services").any(|service| service["hostname"] == *key.hostname)
}

fn has_policy(dump: &serde_json::Value, name: &str) -> bool {
    items(dump, "policies").any(|policy| policy["name"] == name)
}

fn has_protocol(dump: &serde_json::Value, uid: &str, protocol: &str) -> bool {
    items(dump, "workloads").any(|w| w["uid"] == uid && w["protocol"] == protocol)
}

/// Random, in the form of a version 4 UUID.
fn uuid() -> String {
    let random = fastrand::u128(..);
    let hex = format!("{:032x}", random & !(0xf << 76) | (0x4 << 76));
    let part = |range| hex.get(range).unwrap_or_default();
    [
        part(0..8),
        part(8..12),
        part(12..16),
        part(16..20),
        part(20..32),
    ]
    .join("-")
}

//! A lab for one test, and what is asked of it again and again.

use std::{
    net::SocketAddr,
    ops::{Deref, DerefMut},
    time::Duration,
};

use lab::{
    agent::Cni,
    control_plane::{Cluster, ControlPlane, POD_TRAFFIC, Played},
    mesh::{Mesh, NAMESPACE, NODES, Proxies},
    node::Mark,
    program::Program,
};
use mesh_core::{
    address::NetworkAddress,
    policy::{Action, Authorization, Clause, Match, PolicyScope, Rule, StringMatch},
    service::Service,
};
use mesh_redirect::Backend;
use serde_json::Value;
use testkit_net::{
    Capture, Namespace,
    capture::Captured,
    cni::built_plugin,
    tcp::{Behaviour, Dial, Server},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

/// Longest wait for anything the mesh should do by itself.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What nobody on the wire should read.
pub(crate) const SECRET: &str = "card 4929-1811-0000-7431";

/// Where applications listen.
pub(crate) const PORT: u16 = 8080;

/// Labs that run at once: each is two proxies and half a dozen namespaces.
static TURNS: Semaphore = Semaphore::const_new(2);

/// A lab whose logs are shown when its test fails.
pub(crate) struct Lab<C: ControlPlane = Played> {
    mesh: Option<Mesh<C>>,
    _turn: SemaphorePermit<'static>,
}

/// Waits for a place among the labs that run.
pub(crate) async fn turn() -> SemaphorePermit<'static> {
    TURNS.acquire().await.unwrap()
}

/// The proxy under test: the one built into `lab`.
pub(crate) fn proxy() -> Program {
    Program::new(env!("CARGO_BIN_EXE_lab")).argument("node-proxy")
}

/// The agent built into `lab`, and the plugin.
pub(crate) fn cni() -> Cni {
    Cni {
        agent: Program::new(env!("CARGO_BIN_EXE_lab")).argument("node-agent"),
        plugin: built_plugin().unwrap().to_owned(),
        backend: Backend::default(),
    }
}

// === impl Lab ===

impl Lab<Cluster> {
    /// Two nodes without pods, under the control plane that is built into `lab`.
    pub(crate) async fn of_cluster() -> Self {
        let turn = turn().await;
        let istiod = Program::new(env!("CARGO_BIN_EXE_lab")).argument("control-plane");
        let proxies = Proxies {
            node1: proxy(),
            node2: proxy(),
        };
        let mesh = Mesh::start(&istiod, &proxies, &cni()).await;
        Self {
            mesh: Some(mesh.unwrap()),
            _turn: turn,
        }
    }
}

impl Lab<Played> {
    /// Two nodes without pods.
    pub(crate) async fn start() -> Self {
        Self::with_proxy(proxy()).await
    }

    /// Two nodes, with this program as their proxies.
    pub(crate) async fn with_proxy(program: Program) -> Self {
        let turn = turn().await;
        let proxies = Proxies {
            node1: program.clone(),
            node2: program,
        };
        let mesh = Mesh::played(&proxies, &cni()).await.unwrap();
        Self {
            mesh: Some(mesh),
            _turn: turn,
        }
    }

    /// Two nodes with pod `curl` on one and pod `web` on the other, both in the mesh.
    pub(crate) async fn with_pair() -> Self {
        let mut lab = Self::start().await;
        lab.add_pair().await;
        lab
    }
}

impl<C: ControlPlane> Lab<C> {
    /// Pod `curl` on node 1 and pod `web` on node 2, both in the mesh.
    pub(crate) async fn add_pair(&mut self) {
        self.add_enrolled("node1", "curl").await;
        self.add_enrolled("node2", "web").await;
    }

    /// A pod that is in the mesh.
    pub(crate) async fn add_enrolled(&mut self, node: &str, pod: &str) {
        self.add_pod(node, pod).await.unwrap();
        self.enrol(pod).await.unwrap();
    }

    /// An application in a pod, on [`PORT`].
    pub(crate) fn serve(&self, pod: &str, behaviour: Behaviour) -> Server {
        Server::start(self.pod(pod).unwrap(), self.target(pod), behaviour).unwrap()
    }

    /// The address of a pod's application.
    pub(crate) fn target(&self, pod: &str) -> SocketAddr {
        SocketAddr::new(self.address(pod, false).unwrap(), PORT)
    }

    /// Connects from a pod.
    pub(crate) async fn connect(&self, from: &str, to: SocketAddr) -> TcpStream {
        Dial::to(to).connect(self.pod(from).unwrap()).await.unwrap()
    }

    /// Says [`SECRET`] and expects it back from an application that echoes.
    pub(crate) async fn tell_secret(&self, from: &str, to: SocketAddr) -> std::io::Result<()> {
        ask(self.pod(from).unwrap(), to).await
    }

    /// What passes a namespace while `work` is done, without the control plane's.
    pub(crate) async fn captured<T>(
        &self,
        on: &Namespace,
        work: impl Future<Output = T>,
    ) -> (T, Captured) {
        let capture = Capture::start(on, POD_TRAFFIC).await.unwrap();
        let done = work.await;
        (done, capture.finish().await.unwrap())
    }

    /// The end of a proxy's log.
    pub(crate) fn mark(&self, node: &str) -> Mark {
        self.proxy(node).unwrap().mark()
    }

    /// The first line of a proxy's log since then that has all of these parts.
    pub(crate) async fn line(&self, node: &str, since: Mark, parts: &[&str]) -> String {
        let proxy = self.proxy(node).unwrap();
        proxy.line_since(since, parts).await.unwrap()
    }

    /// The configuration dump of a node's proxy.
    pub(crate) fn dump(&self, node: &str) -> Value {
        let text = self.ask_proxy(node, "http://127.0.0.1:15000/config_dump");
        serde_json::from_str(&text.unwrap()).unwrap()
    }

    /// Takes the lab down; everything must end in order.
    pub(crate) async fn end(mut self) {
        if let Some(mesh) = self.mesh.take() {
            let failures = mesh.stop().await;
            assert!(failures.is_empty(), "{failures:?}");
        }
    }
}

impl<C: ControlPlane> Deref for Lab<C> {
    type Target = Mesh<C>;

    fn deref(&self) -> &Mesh<C> {
        self.mesh.as_ref().unwrap()
    }
}

impl<C: ControlPlane> DerefMut for Lab<C> {
    fn deref_mut(&mut self) -> &mut Mesh<C> {
        self.mesh.as_mut().unwrap()
    }
}

impl<C: ControlPlane> Drop for Lab<C> {
    #[expect(clippy::print_stderr, reason = "shown when a test fails")]
    fn drop(&mut self) {
        if let (true, Some(mesh)) = (std::thread::panicking(), &self.mesh) {
            for node in NODES {
                let log = mesh.proxy(node).map(lab::node::NodeProxy::log);
                eprintln!("the log of {node}:\n{}", log.unwrap_or_default());
                let log = mesh.agent(node).map(lab::agent::NodeAgent::log);
                eprintln!("the log of {node}'s agent:\n{}", log.unwrap_or_default());
            }
            eprintln!("the log of istiod:\n{}", mesh.control_plane().log());
        }
    }
}

/// Says [`SECRET`] and expects it back. An answer that is not the secret is an error too.
pub(crate) async fn ask(from: &Namespace, to: SocketAddr) -> std::io::Result<()> {
    let mut stream = Dial::to(to).connect(from).await?;
    echoes(&mut stream).await?;
    stream.shutdown().await
}

/// Whether what is said on a connection comes back.
pub(crate) async fn echoes(stream: &mut TcpStream) -> std::io::Result<()> {
    timeout(PATIENCE, async {
        stream.write_all(SECRET.as_bytes()).await?;
        let mut answer = [0; SECRET.len()];
        stream.read_exact(&mut answer).await?;
        assert_eq!(answer, SECRET.as_bytes());
        Ok(())
    })
    .await?
}

/// Waits until a new connection is refused.
pub(crate) async fn is_refused<C: ControlPlane>(lab: &Lab<C>, from: &str, to: SocketAddr) {
    let refused = async { while lab.tell_secret(from, to).await.is_ok() {} };
    timeout(PATIENCE, refused).await.unwrap();
}

/// Waits until the other side ends a connection, one way or the other.
pub(crate) async fn closes(stream: &mut TcpStream) {
    let mut byte = [0];
    let read = timeout(PATIENCE, stream.read(&mut byte)).await;
    assert!(!matches!(read.unwrap(), Ok(1..)), "bytes instead of an end");
}

/// The ports to which TCP connections were opened, in order of number, each once.
pub(crate) fn ports_opened(captured: &Captured) -> Vec<u16> {
    let mut ports: Vec<u16> = opened(captured).iter().map(SocketAddr::port).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// Where TCP connections were opened to, once for each interface that the packet passed.
fn opened(captured: &Captured) -> Vec<SocketAddr> {
    captured.packets().filter_map(opens_to).collect()
}

/// The destination, if this is the first packet of a TCP connection over IPv4.
fn opens_to(packet: &[u8]) -> Option<SocketAddr> {
    // The link header of `tcpdump -i any` is 16 or 20 bytes, with the EtherType last or first.
    const IPV4: [u8; 2] = [0x08, 0x00];
    let header = match packet {
        [0x08, 0x00, ..] => 20,
        _ if packet.get(14..16)? == IPV4 => 16,
        _ => return None,
    };
    let ip = packet.get(header..)?;
    let tcp = ip.get(usize::from(ip.first()? & 0xf) * 4..)?;
    let (syn, ack) = (0x02, 0x10);
    let opens = *ip.get(9)? == 6 && tcp.get(13)? & (syn | ack) == syn;
    let address: [u8; 4] = ip.get(16..20)?.try_into().ok()?;
    let port = u16::from_be_bytes(tcp.get(2..4)?.try_into().ok()?);
    opens.then(|| SocketAddr::from((address, port)))
}

/// A service with one address that only the mesh knows; its port 80 is [`PORT`] of its pods.
pub(crate) fn service(name: &str, address: [u8; 4]) -> Service {
    let vip = NetworkAddress {
        network: "".into(),
        address: address.into(),
    };
    let hostname = format!("{name}.{NAMESPACE}.svc.cluster.local");
    Service {
        vips: vec![vip],
        ports: [(80, PORT)].into(),
        ..Service::named(name, NAMESPACE, &hostname)
    }
}

/// A policy for the pods' namespace that denies what matches.
pub(crate) fn deny(what: Match) -> Authorization {
    Authorization {
        name: "deny".into(),
        namespace: NAMESPACE.into(),
        scope: PolicyScope::Namespace,
        action: Action::Deny,
        rules: vec![Rule {
            clauses: vec![Clause {
                matches: vec![what],
            }],
        }],
        dry_run: false,
    }
}

/// Matches a pod by its identity.
pub(crate) fn principal(lab: &Lab, pod: &str) -> Match {
    let identity = lab.identity(pod).unwrap().to_string();
    // Policies write principals without their scheme.
    let principal = identity.strip_prefix("spiffe://").unwrap();
    Match {
        principals: vec![StringMatch::Exact(principal.into())],
        ..Match::default()
    }
}

/// A workload in a dump, by its name.
pub(crate) fn workload<'a>(dump: &'a Value, name: &str) -> Option<&'a Value> {
    let all = dump["workloads"].as_array()?;
    all.iter().find(|workload| workload["name"] == name)
}

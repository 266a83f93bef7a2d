//! What a NetworkPolicy sees of a pod before it is in the mesh and after: rules on the host's side of the
//! pod's interface, as CNI plugins write them.

use std::net::{IpAddr, SocketAddr};

use install_cni::{
    kernel::Kernel,
    parts::{PodUid, Probes, Rules},
};
use mesh_redirect::{
    Options,
    contract::{
        INBOUND_HBONE_PORT, INBOUND_PLAINTEXT_PORT, OUTBOUND_PORT, PROBE_ADDRESS_V4, PROXY_MARK,
    },
};
use testkit_net::{
    Namespace, Topology,
    tcp::{Behaviour, Dial, Server},
    wait::eventually,
};
use tokio::time::Duration;

use super::{MECHANISMS, kernel};

const APP: u16 = 8080;

/// Longer than anything takes.
const DEADLINE: Duration = Duration::from_secs(20);

/// A packet with which a connection begins, and what a policy does with those that it does not allow. Of earlier
/// connections something may be on its way still.
const REFUSAL: &str = "tcp flags & (fin | syn | rst | ack) == syn counter drop";

/// A server with its port and what it says.
fn say(pod: &Namespace, port: u16) -> Server {
    let words = match port {
        APP => "app".to_owned(),
        port => port.to_string(),
    };
    let at = SocketAddr::new([0, 0, 0, 0].into(), port);
    Server::start(pod, at, Behaviour::Say(words)).unwrap()
}

/// Two pods on one node and one on another, with the servers of an application and of the node's proxy.
struct Mesh {
    network: Topology,
    kernel: Kernel,
    servers: Vec<Server>,
}

impl Mesh {
    fn node(&self) -> &Namespace {
        self.network.nodes()[0].namespace()
    }

    /// The one that the policy is about, one on its node, one elsewhere.
    fn pods(&self) -> [&Namespace; 3] {
        [0, 1, 2].map(|index| self.network.pods()[index].namespace())
    }

    fn address(&self, index: usize) -> IpAddr {
        self.network.pods()[index].address(false)
    }

    /// Who answers; `-` if the policy does not let it come to that.
    async fn answer(&self, dial: Dial, from: &Namespace) -> String {
        let before = self.refused();
        let refused = eventually("an answer or a refusal", DEADLINE, || {
            self.refused() > before
        });
        tokio::select! {
            biased;
            answer = dial.ask(from) => answer.unwrap(),
            refused = refused => {
                refused.unwrap();
                "-".to_owned()
            }
        }
    }

    /// How many packets the policy has refused so far.
    fn refused(&self) -> u64 {
        let rules = self.node().exec("nft", &["list", "ruleset"], "").unwrap();
        let mut rules = rules.lines().map(str::trim_end);
        let refusal =
            rules.find(|rule| rule.ends_with(" drop") && rule.contains(" counter packets "));
        refusal.map_or(0, |rule| {
            let (_, counted) = rule.split_once(" packets ").unwrap();
            counted.split(' ').next().unwrap().parse().unwrap()
        })
    }

    /// The application of a pod connects to the first pod's.
    async fn app(&self, from: &Namespace) -> String {
        let dial = Dial::to(SocketAddr::new(self.address(0), APP));
        self.answer(dial, from).await
    }

    /// The proxy, in the namespace of a pod, opens a tunnel to the first pod.
    async fn tunnel(&self, from: &Namespace) -> String {
        let to = SocketAddr::new(self.address(0), INBOUND_HBONE_PORT);
        let dial = Dial::to(to).marked(PROXY_MARK.value);
        self.answer(dial, from).await
    }

    async fn enrol(&self, index: usize) {
        let netns = self.pods()[index].handle();
        Rules::apply(&self.kernel, netns, &Options::default())
            .await
            .unwrap();
    }

    /// A policy for the first pod: what may come in, where it is enforced.
    fn policy(&self, hook: &str, allowed: &str) {
        let pod = self.address(0);
        let script = format!(
            "add table inet network-policy\ndelete table inet network-policy\nadd table inet network-policy\n\
             add chain inet network-policy to-pod {{ type filter hook {hook}; }}\n\
             add rule inet network-policy to-pod ct state established,related accept\n\
             add rule inet network-policy to-pod ip daddr {pod} {allowed} accept\n\
             add rule inet network-policy to-pod ip daddr {pod} {REFUSAL}\n\
             add rule inet network-policy to-pod ip daddr {pod} drop\n"
        );
        self.node().exec("nft", &["-f", "-"], &script).unwrap();
    }
}

async fn each_mesh() -> Vec<Mesh> {
    let mut meshes = Vec::new();
    for mechanism in MECHANISMS {
        let network = Topology::grid(2, 2).unwrap();
        let kernel = kernel(network.nodes()[0].namespace(), mechanism).await;
        kernel.ensure().await.unwrap();
        let ports = [
            APP,
            OUTBOUND_PORT,
            INBOUND_PLAINTEXT_PORT,
            INBOUND_HBONE_PORT,
        ];
        let servers = ports
            .map(|port| say(network.pods()[0].namespace(), port))
            .into();
        meshes.push(Mesh {
            network,
            kernel,
            servers,
        });
    }
    meshes
}

#[tokio::test]
async fn a_policy_for_an_application_port_lets_no_tunnel_in() {
    for mesh in each_mesh().await {
        let [_, neighbour, remote] = mesh.pods();
        mesh.policy("forward priority 0", &format!("tcp dport {APP}"));
        for from in [neighbour, remote] {
            assert_eq!(mesh.app(from).await, "app");
        }
        mesh.enrol(0).await;
        for from in [neighbour, remote] {
            // Who is not in the mesh sends to the application's port, and the proxy answers.
            assert_eq!(mesh.app(from).await, "15006");
            assert_eq!(mesh.tunnel(from).await, "-");
        }
        mesh.policy(
            "forward priority 0",
            &format!("tcp dport {{ {APP}, {INBOUND_HBONE_PORT} }}"),
        );
        for from in [neighbour, remote] {
            assert_eq!(mesh.tunnel(from).await, "15008");
        }
    }
}

#[tokio::test]
async fn a_policy_tells_pods_in_the_mesh_by_their_own_addresses() {
    for mesh in each_mesh().await {
        let [_, neighbour, remote] = mesh.pods();
        for index in [0, 1] {
            mesh.enrol(index).await;
        }
        let from = mesh.address(1);
        mesh.policy(
            "forward priority 0",
            &format!("ip saddr {from} tcp dport {INBOUND_HBONE_PORT}"),
        );
        assert_eq!(mesh.tunnel(neighbour).await, "15008");
        assert_eq!(mesh.tunnel(remote).await, "-");
        let hbone = mesh.servers.last().unwrap();
        assert_eq!(hbone.clients().last().unwrap().ip(), from);
        // Plain text from outside of the mesh can be kept out by leaving the application's port closed.
        assert_eq!(mesh.app(remote).await, "-");
    }
}

#[tokio::test]
async fn an_application_in_the_mesh_sends_to_no_port_but_that_of_its_proxy() {
    for mesh in each_mesh().await {
        let [_, neighbour, _] = mesh.pods();
        let _proxy = say(neighbour, OUTBOUND_PORT);
        mesh.policy("forward priority 0", "tcp dport 1");
        assert_eq!(mesh.app(neighbour).await, "-");
        mesh.enrol(1).await;
        // It does not leave the pod, so no policy of the host sees it.
        assert_eq!(mesh.app(neighbour).await, "15001");
    }
}

#[tokio::test]
async fn a_policy_sees_probes_from_the_node_before_and_from_the_probe_address_after_source_nat() {
    let probe = IpAddr::from(PROBE_ADDRESS_V4);
    for mesh in each_mesh().await {
        let node = mesh.node();
        mesh.enrol(0).await;
        let uid = PodUid::from("pod");
        mesh.kernel.insert(mesh.address(0), &uid).await.unwrap();
        assert_eq!(mesh.app(node).await, "app");
        for (hook, sees_probe_address) in [
            // Where Calico and kube-router look, for example.
            ("output priority 0", false),
            // At the pod's interface, as those do that use eBPF.
            ("postrouting priority 300", true),
        ] {
            mesh.policy(hook, &format!("ip saddr {probe}"));
            let by_probe_address = mesh.app(node).await;
            mesh.policy(hook, &format!("ip saddr != {probe}"));
            let by_other_address = mesh.app(node).await;
            let expected = if sees_probe_address {
                ["app", "-"]
            } else {
                ["-", "app"]
            };
            assert_eq!([by_probe_address, by_other_address], expected, "{hook}");
        }
    }
}

//! Nodes and pods, connected the way a Kubernetes cluster does it without an overlay.
//!
//! ```text
//!  fabric ── br0 ──┬── node1 (172.18.0.1) ──┬── pod (10.244.1.1)
//!  172.18.255.1    │                        └── pod (10.244.1.2)
//!                  └── node2 (172.18.0.2) ───── pod (10.244.2.1)
//! ```
//!
//! Each node owns 10.244.N.0/24 and fd00:244:0:N::/64 and routes the other nodes' ranges to them. A pod
//! has one address of each family on `eth0` and reaches everything through its node, as with Calico: the
//! node's end answers at 169.254.1.1 and fe80::1. All of it is in namespaces; the host is untouched.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::namespace::{Error, Namespace, Run, connect};

/// Most nodes, and most pods on a node: their numbers are the last byte of an address.
const MOST: u8 = 250;

/// A small cluster's network. Dropping it removes it.
#[derive(Debug)]
pub struct Topology {
    // Pods go before their nodes, and nodes before the fabric: fields are dropped in this order.
    pods: Vec<Pod>,
    nodes: Vec<Node>,
    fabric: Namespace,
    run: Run,
}

/// A node.
#[derive(Debug)]
pub struct Node {
    name: String,
    number: u8,
    pods: u8,
    namespace: Namespace,
}

/// A pod.
#[derive(Debug)]
pub struct Pod {
    name: String,
    node: String,
    number: (u8, u8),
    namespace: Namespace,
}

/// What cannot be built, or not be taken down.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// There is none of this name; the names in use are in the message.
    #[error("there is no {kind} `{name}`; there are: {known}")]
    Unknown {
        /// Node or pod.
        kind: &'static str,
        /// The name.
        name: String,
        /// The others.
        known: String,
    },
    /// The name is in use.
    #[error("there is a node or pod `{0}` already")]
    Taken(String),
    /// Addresses are used up.
    #[error("a topology has at most {MOST} nodes with {MOST} pods each")]
    Full,
    /// A step failed.
    #[error("build {what}")]
    Step {
        /// What was being built.
        what: String,
        /// Why it failed.
        source: Error,
    },
}

// === impl Topology ===

impl Topology {
    /// A fabric without nodes.
    pub fn new() -> Result<Self, BuildError> {
        let run = Run::new();
        let fabric = run
            .namespace("fabric")
            .and_then(|fabric| set_up_fabric(&fabric).map(|()| fabric))
            .map_err(step("the fabric"))?;
        Ok(Self {
            pods: Vec::new(),
            nodes: Vec::new(),
            fabric,
            run,
        })
    }

    /// Nodes `node1`… with pods `node1-pod1`… on each.
    pub fn grid(nodes: u8, pods: u8) -> Result<Self, BuildError> {
        let mut topology = Self::new()?;
        for node in 1..=nodes {
            let node = format!("node{node}");
            topology.add_node(&node)?;
            for pod in 1..=pods {
                topology.add_pod(&node, &format!("{node}-pod{pod}"))?;
            }
        }
        Ok(topology)
    }

    /// Adds a node, connected with all others.
    pub fn add_node(&mut self, name: &str) -> Result<&Node, BuildError> {
        self.refuse_taken(name)?;
        let number = next(self.nodes.len())?;
        let node = self.build_node(name, number).map_err(step(name))?;
        Ok(self.nodes.push_mut(node))
    }

    /// Adds a pod to a node.
    pub fn add_pod(&mut self, node: &str, name: &str) -> Result<&Pod, BuildError> {
        self.refuse_taken(name)?;
        let index = self.nodes.iter().position(|n| n.name == node);
        let index = index.ok_or_else(|| self.unknown("node", node))?;
        let number = next(self.nodes[index].pods.into())?;
        let pod = build_pod(&self.run, &self.nodes[index], name, number).map_err(step(name))?;
        self.nodes[index].pods = number;
        Ok(self.pods.push_mut(pod))
    }

    /// The namespace of the bridge that all nodes are connected to. It has addresses too: what stands for
    /// the world outside of the cluster, or for the control plane, runs here.
    pub fn fabric(&self) -> &Namespace {
        &self.fabric
    }

    /// The address of the fabric.
    pub fn fabric_address(&self, ipv6: bool) -> IpAddr {
        fabric_address(ipv6)
    }

    /// All nodes, in the order they were added.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// All pods, in the order they were added.
    pub fn pods(&self) -> &[Pod] {
        &self.pods
    }

    /// A node.
    pub fn node(&self, name: &str) -> Result<&Node, BuildError> {
        let node = self.nodes.iter().find(|node| node.name == name);
        node.ok_or_else(|| self.unknown("node", name))
    }

    /// A pod.
    pub fn pod(&self, name: &str) -> Result<&Pod, BuildError> {
        let pod = self.pods.iter().find(|pod| pod.name == name);
        pod.ok_or_else(|| self.unknown("pod", name))
    }

    /// Removes everything now. All of it is tried; what could not be removed is returned.
    pub fn remove(self) -> Vec<Error> {
        let pods = self.pods.into_iter().map(|pod| pod.namespace);
        let nodes = self.nodes.into_iter().map(|node| node.namespace);
        let all = pods.chain(nodes).chain([self.fabric]);
        all.filter_map(|namespace| namespace.remove().err())
            .collect()
    }

    fn build_node(&self, name: &str, number: u8) -> Result<Node, Error> {
        let namespace = self.run.namespace(name)?;
        connect((&namespace, "eth0"), (&self.fabric, &port(number)))?;
        self.fabric
            .ip(&format!("link set {} master br0", port(number)))?;
        let (v4, v6) = (node_address(number, false), node_address(number, true));
        let mut lines = format!(
            "addr add {v4}/16 dev eth0\naddr add {v6}/64 dev eth0 nodad\n\
             addr add fe80::{number:x}/64 dev eth0 nodad\n"
        );
        for other in &self.nodes {
            lines += &routes_to(other.number);
            other.namespace.ip_batch(&routes_to(number))?;
        }
        namespace.ip_batch(&lines)?;
        self.fabric.ip_batch(&routes_to(number))?;
        namespace.set("net.ipv4.ip_forward", "1")?;
        namespace.set("net.ipv6.conf.all.forwarding", "1")?;
        Ok(Node {
            name: name.to_owned(),
            number,
            pods: 0,
            namespace,
        })
    }

    fn refuse_taken(&self, name: &str) -> Result<(), BuildError> {
        let taken = name == "fabric" || self.node(name).is_ok() || self.pod(name).is_ok();
        if taken {
            Err(BuildError::Taken(name.to_owned()))
        } else {
            Ok(())
        }
    }

    fn unknown(&self, kind: &'static str, name: &str) -> BuildError {
        let names: Vec<_> = match kind {
            "node" => self.nodes.iter().map(|node| &*node.name).collect(),
            _ => self.pods.iter().map(|pod| &*pod.name).collect(),
        };
        BuildError::Unknown {
            kind,
            name: name.to_owned(),
            known: names.join(", "),
        }
    }
}

fn set_up_fabric(fabric: &Namespace) -> Result<(), Error> {
    let (v4, v6) = (fabric_address(false), fabric_address(true));
    fabric.ip_batch(&format!(
        "link add br0 type bridge\nlink set br0 addrgenmode none\nlink set br0 up\n\
         addr add {v4}/16 dev br0\naddr add {v6}/64 dev br0 nodad\n\
         addr add fe80::ff01/64 dev br0 nodad\n"
    ))
}

fn build_pod(run: &Run, node: &Node, name: &str, number: u8) -> Result<Pod, Error> {
    let namespace = run.namespace(name)?;
    let cable = format!("pod{number}");
    connect((&namespace, "eth0"), (&node.namespace, &cable))?;
    let pod = Pod {
        name: name.to_owned(),
        node: node.name.clone(),
        number: (node.number, number),
        namespace,
    };
    let (v4, v6) = (pod.address(false), pod.address(true));
    node.namespace.ip_batch(&format!(
        "addr add 169.254.1.1/32 dev {cable} scope link\naddr add fe80::1/64 dev {cable} nodad\n\
         route add {v4}/32 dev {cable}\nroute add {v6}/128 dev {cable}\n"
    ))?;
    pod.namespace.ip_batch(&format!(
        "addr add {v4}/32 dev eth0\naddr add {v6}/128 dev eth0 nodad\n\
         addr add fe80::2/64 dev eth0 nodad\n\
         route add 169.254.1.1 dev eth0 scope link\nroute add default via 169.254.1.1 src {v4}\n\
         route add default via fe80::1 dev eth0 src {v6}\n"
    ))?;
    Ok(pod)
}

/// The routes by which others reach the pods of a node.
fn routes_to(node: u8) -> String {
    let (v4, v6) = (node_address(node, false), node_address(node, true));
    format!("route add 10.244.{node}.0/24 via {v4}\nroute add fd00:244:0:{node}::/64 via {v6}\n")
}

/// The fabric's end of a node's cable.
fn port(node: u8) -> String {
    format!("node{node}")
}

fn node_address(number: u8, ipv6: bool) -> IpAddr {
    if ipv6 {
        Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0, number.into()).into()
    } else {
        Ipv4Addr::new(172, 18, 0, number).into()
    }
}

fn fabric_address(ipv6: bool) -> IpAddr {
    if ipv6 {
        Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0, 0xff01).into()
    } else {
        Ipv4Addr::new(172, 18, 255, 1).into()
    }
}

fn next(used: usize) -> Result<u8, BuildError> {
    let next = u8::try_from(used + 1).ok();
    next.filter(|number| *number <= MOST)
        .ok_or(BuildError::Full)
}

fn step(what: &str) -> impl FnOnce(Error) -> BuildError {
    let what = what.to_owned();
    move |source| BuildError::Step { what, source }
}

// === impl Node ===

impl Node {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The node's own network, what a program with `hostNetwork` sees.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its address on the fabric.
    pub fn address(&self, ipv6: bool) -> IpAddr {
        node_address(self.number, ipv6)
    }
}

// === impl Pod ===

impl Pod {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of its node.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The pod's network.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its address.
    pub fn address(&self, ipv6: bool) -> IpAddr {
        let (node, pod) = self.number;
        if ipv6 {
            // Written as decimal digits, so that node 12 is :12: and not :c:.
            Ipv6Addr::new(0xfd00, 0x244, 0, hextet(node), 0, 0, 0, pod.into()).into()
        } else {
            Ipv4Addr::new(10, 244, node, pod).into()
        }
    }
}

/// The hextet that reads like this number in decimal.
fn hextet(number: u8) -> u16 {
    let number = u16::from(number);
    ((number / 100) << 8) | ((number / 10 % 10) << 4) | (number % 10)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::tcp::{Behaviour, Dial, Server};

    #[tokio::test]
    async fn pods_reach_each_other_under_their_own_address() {
        let topology = Topology::grid(2, 2).unwrap();
        for ipv6 in [false, true] {
            let server = topology.pod("node2-pod2").unwrap();
            let address = SocketAddr::new(server.address(ipv6), 8080);
            let words = Behaviour::Say("hello".into());
            let listening = Server::start(server.namespace(), address, words).unwrap();
            for client in topology.pods() {
                let answer = Dial::to(address).ask(client.namespace()).await.unwrap();
                assert_eq!(answer, "hello", "{}", client.name());
            }
            let seen: Vec<_> = listening.clients().iter().map(SocketAddr::ip).collect();
            let own: Vec<_> = topology
                .pods()
                .iter()
                .map(|pod| pod.address(ipv6))
                .collect();
            assert_eq!(seen, own);
        }
    }

    #[tokio::test]
    async fn nodes_and_fabric_reach_pods() {
        let topology = Topology::grid(2, 1).unwrap();
        let pod = topology.pod("node1-pod1").unwrap();
        for ipv6 in [false, true] {
            let address = SocketAddr::new(pod.address(ipv6), 80);
            let words = Behaviour::Say("hello".into());
            let _listening = Server::start(pod.namespace(), address, words).unwrap();
            let nodes = topology.nodes().iter().map(Node::namespace);
            for from in nodes.chain([topology.fabric()]) {
                assert_eq!(
                    Dial::to(address).ask(from).await.unwrap(),
                    "hello",
                    "{}",
                    from.name()
                );
            }
        }
    }

    #[test]
    fn removal_leaves_no_namespace() {
        let topology = Topology::grid(2, 1).unwrap();
        let run = topology.run.to_string();
        assert_eq!(topology.remove().len(), 0);
        let left = crate::leftover::list().unwrap();
        assert!(!left.iter().any(|l| l.name.starts_with(&run)), "{left:?}");
    }

    #[test]
    fn mistakes_are_named() {
        let mut topology = Topology::grid(1, 0).unwrap();
        let unknown = topology.add_pod("node7", "web").unwrap_err().to_string();
        assert_eq!(unknown, "there is no node `node7`; there are: node1");
        let taken = topology.add_node("node1").unwrap_err().to_string();
        assert_eq!(taken, "there is a node or pod `node1` already");
    }

    #[test]
    fn addresses_read_as_their_numbers() {
        assert_eq!(hextet(12), 0x12);
        assert_eq!(hextet(207), 0x207);
    }
}

//! The plugin as the last of a chain of the CNI project's own plugins, in real network namespaces.

use std::{fs, os::unix::fs::symlink, path::Path};

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit_net::{
    Namespace,
    cni::{Error, Network, Runtime, Sandbox},
    namespace::Run,
};

use crate::fake::{Node, Reply};

const SUBNET: &str = "10.88.0.0/24";

/// A node, a pod without a network, and a runtime that has our plugin.
struct Chain {
    runtime: Runtime,
    network: Network,
    sandbox: Sandbox,
    pod: Namespace,
    host: Namespace,
    folder: TempDir,
    node: Node,
}

// === impl Chain ===

impl Chain {
    fn new() -> Self {
        let node = Node::new();
        let folder = tempfile::tempdir().unwrap();
        symlink(
            env!("CARGO_BIN_EXE_istio-cni"),
            folder.path().join("istio-cni"),
        )
        .unwrap();
        let run = Run::new();
        let (host, pod) = (
            run.namespace("node").unwrap(),
            run.namespace("pod").unwrap(),
        );
        let entry = node.config("1.0.0", json!({"plugin_log_level": "none"}));
        let data = folder.path().join("addresses");
        Self {
            runtime: Runtime::new([folder.path().to_owned()]).unwrap(),
            network: Network::bridge(SUBNET, &data, Some(entry)).unwrap(),
            sandbox: Sandbox::pod("0a1b", &pod.path(), "shop", "web", "6f-1"),
            pod,
            host,
            folder,
            node,
        }
    }

    fn add(&mut self) -> Result<Value, Error> {
        self.runtime.add(&self.host, &self.network, &self.sandbox)
    }

    fn delete(&mut self) -> Result<(), Error> {
        self.runtime
            .delete(&self.host, &self.network, &self.sandbox)
    }

    fn check(&self) -> Result<(), Error> {
        self.runtime.check(&self.host, &self.network, &self.sandbox)
    }

    /// Addresses that are in use.
    fn addresses(&self) -> usize {
        let entries = fs::read_dir(self.folder.path().join("addresses/pods"));
        let names = entries
            .into_iter()
            .flatten()
            .filter_map(|e| e.ok()?.file_name().into_string().ok());
        names.filter(|name| name.starts_with("10.88")).count()
    }
}

fn enrolled() -> Reply {
    Reply::Says(200, json!({"enrolled": true}))
}

#[test]
fn pod_gets_its_network_and_the_agent_its_addresses() {
    let mut chain = Chain::new();
    let agent = chain
        .node
        .agent([enrolled(), Reply::Says(200, Value::Null)]);
    let result = chain.add().unwrap();
    let address = result["ips"][0]["address"].as_str().unwrap();
    let (address, _) = address.split_once('/').unwrap();
    assert!(chain.pod.ip("addr show eth0").unwrap().contains(address));
    chain.check().unwrap();
    chain.delete().unwrap();
    assert!(chain.pod.ip("link show eth0").is_err());
    assert_eq!(chain.addresses(), 0);
    let asked = agent.asked();
    let paths: Vec<_> = asked.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["/v1/add", "/v1/check", "/v1/del"]);
    for (path, body) in &asked {
        assert_eq!(
            (&body["podUid"], &body["network"]),
            (&json!("6f-1"), &json!("pods"))
        );
        assert_eq!(Path::new(body["netns"].as_str().unwrap()), chain.pod.path());
        // Who goes has no use for addresses.
        let addresses = if path == "/v1/del" {
            json!([])
        } else {
            json!([address])
        };
        assert_eq!(body["addresses"], addresses, "{path}");
    }
}

#[test]
fn mapped_port_reaches_a_pod_that_our_plugin_passed() {
    let mut chain = Chain::new();
    let _agent = chain.node.agent([enrolled()]);
    let mapping = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]);
    let capabilities = &mut chain.sandbox.capabilities;
    capabilities.insert("portMappings".to_owned(), mapping);
    chain.add().unwrap();
    let rules = chain
        .host
        .exec("iptables", &["-t", "nat", "-S"], "")
        .unwrap();
    assert!(rules.contains("--dport 8080"), "{rules}");
    chain.delete().unwrap();
    let rules = chain
        .host
        .exec("iptables", &["-t", "nat", "-S"], "")
        .unwrap();
    assert!(!rules.contains("--dport 8080"), "{rules}");
}

#[test]
fn failure_of_the_last_plugin_leaves_nothing_behind() {
    let mut chain = Chain::new();
    let agent = chain.node.agent([Reply::Says(
        503,
        json!({"message": "no ztunnel", "again": true}),
    )]);
    let error = chain.add().unwrap_err();
    let Error::Failed {
        plugin,
        code,
        message,
        ..
    } = error
    else {
        unreachable!("our plugin refuses: {error}");
    };
    assert_eq!(
        (plugin.as_str(), code, message.as_str()),
        ("istio-cni", 11, "no ztunnel")
    );
    chain.delete().unwrap();
    assert_eq!(chain.addresses(), 0);
    drop(agent);
}

#[test]
fn deletion_works_when_the_agent_and_the_namespace_have_gone() {
    let mut chain = Chain::new();
    let agent = chain.node.agent([enrolled()]);
    chain.add().unwrap();
    drop(agent);
    chain.sandbox.netns = "/run/netns/lateen-gone".into();
    chain.delete().unwrap();
    assert_eq!(chain.addresses(), 0);
}

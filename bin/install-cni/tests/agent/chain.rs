//! The whole way of a pod's network: a runtime calls the CNI project's plugins and ours, and ours asks the agent.

use serde_json::{Value, json};
use testkit_net::cni::Error;

use crate::chain_node::ChainNode;

/// Our plugin's error code and words.
fn refusal(error: Error) -> (u64, String) {
    match error {
        Error::Failed {
            plugin,
            code,
            message,
            details,
            ..
        } if plugin == "istio-cni" => (code, format!("{message}; {details}")),
        error => panic!("our plugin says why: {error}"),
    }
}

fn address(result: &Value) -> String {
    let address = result["ips"][0]["address"].as_str().unwrap();
    address.split_once('/').unwrap().0.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_is_in_the_mesh_when_its_network_is_there() {
    let mut node = ChainNode::start().await;
    let pod = node.pod("shop", "web").await;
    let result = node.add(&pod).unwrap();
    // Nothing is waited for: it is so when ADD returns.
    assert!(pod.holds_rules());
    assert!(node.serves(&pod.uid));
    let address = address(&result);
    assert!(
        node.host_rules().contains(&address),
        "the node's probes pass"
    );
    node.check(&pod).unwrap();
    node.shows("shop", "web", "enabled").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_outside_the_mesh_only_gets_its_network() {
    let mut node = ChainNode::start().await;
    let pod = node.pod("plain", "web").await;
    node.add(&pod).unwrap();
    assert!(!pod.holds_rules());
    assert!(!node.serves(&pod.uid));
    node.check(&pod).unwrap();
    node.delete(&pod).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn deletion_takes_a_pod_out_of_the_mesh() {
    let mut node = ChainNode::start().await;
    let pod = node.pod("shop", "web").await;
    let address = address(&node.add(&pod).unwrap());
    node.delete(&pod).unwrap();
    node.no_longer_serves(&pod.uid).await;
    assert!(
        !node.host_rules().contains(&address),
        "its address is still in the probe set"
    );
    // Twice is as good as once.
    node.delete(&pod).unwrap();
    node.forget("shop", "web").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_call_for_a_pod_changes_nothing() {
    let mut node = ChainNode::start().await;
    let mut pod = node.pod("shop", "web").await;
    node.add(&pod).unwrap();
    // Multus calls the chain again for another interface.
    pod.sandbox.interface = "net1".to_owned();
    node.add(&pod).unwrap();
    assert!(pod.holds_rules() && node.serves(&pod.uid));
    node.delete(&pod).unwrap();
    pod.sandbox.interface = "eth0".to_owned();
    assert!(
        pod.holds_rules() && node.serves(&pod.uid),
        "it has a network still"
    );
    node.check(&pod).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn check_tells_of_rules_that_somebody_removed() {
    let mut node = ChainNode::start().await;
    let pod = node.pod("shop", "web").await;
    node.add(&pod).unwrap();
    pod.netns.exec("nft", &["flush", "ruleset"], "").unwrap();
    let (_, text) = refusal(node.check(&pod).unwrap_err());
    assert!(text.contains("shop/web"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_agent_keeps_pods_of_the_mesh_from_starting_outside() {
    let mut node = ChainNode::start().await;
    let running = node.pod("shop", "running").await;
    node.add(&running).unwrap();
    node.kill_agent().await;
    assert!(running.holds_rules(), "what is in the mesh stays there");
    let pod = node.pod("shop", "web").await;
    let (code, text) = refusal(node.add(&pod).unwrap_err());
    assert_eq!(code, 11, "{text}");
    assert!(
        text.contains("pod shop/web may belong in the mesh"),
        "{text}"
    );
    assert!(text.contains("DaemonSet mesh/istio-cni-node"), "{text}");
    node.delete(&pod).unwrap();
    for (namespace, name) in [("kube-system", "coredns"), ("mesh", "istio-cni-node-x7k2p")] {
        let needed = node.pod(namespace, name).await;
        node.add(&needed).unwrap();
        node.delete(&needed).unwrap();
    }
    // The runtime repeats what failed, and the next agent finds everything.
    node.run_agent().await;
    node.run_ztunnel().await;
    node.add(&pod).unwrap();
    assert!(pod.holds_rules());
    assert!(node.serves(&pod.uid) && node.serves(&running.uid));
    node.check(&running).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_that_goes_while_the_agent_is_away_is_cleaned_up_by_the_next() {
    let mut node = ChainNode::start().await;
    let pod = node.pod("shop", "web").await;
    let address = address(&node.add(&pod).unwrap());
    node.kill_agent().await;
    node.delete(&pod).unwrap();
    node.forget("shop", "web").await;
    node.run_agent().await;
    node.no_longer_serves(&pod.uid).await;
    let rules = || node.host_rules();
    let cleaned = testkit_net::eventually("the probe set", crate::chain_node::DEADLINE, || {
        !rules().contains(&address)
    });
    cleaned.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_ztunnel_a_pod_does_not_start_and_leaves_nothing() {
    let mut node = ChainNode::without_agent().await;
    node.run_agent().await;
    let pod = node.pod("shop", "web").await;
    let (code, text) = refusal(node.add(&pod).unwrap_err());
    assert_eq!(code, 11, "{text}");
    assert!(text.contains("ztunnel"), "{text}");
    node.delete(&pod).unwrap();
    node.run_ztunnel().await;
    node.add(&pod).unwrap();
    assert!(pod.holds_rules() && node.serves(&pod.uid));
}

#[tokio::test(flavor = "multi_thread")]
async fn collection_removes_what_the_runtime_no_longer_has() {
    let mut node = ChainNode::start().await;
    let (kept, lost) = (
        node.pod("shop", "kept").await,
        node.pod("shop", "lost").await,
    );
    for pod in [&kept, &lost] {
        node.add(pod).unwrap();
    }
    // The CNI project's plugins of this version have no GC; ours is asked alone, in the same network.
    let entry = json!({
        "name": "pods", "cniVersion": "1.1.0",
        "plugins": [{"type": "istio-cni", "cni_agent_run_dir": node.run_dir()}],
    });
    let alone = testkit_net::cni::Network::new(&entry).unwrap();
    node.runtime.forget(&node.network, &lost.sandbox);
    drop(lost.netns);
    tokio::task::block_in_place(|| node.runtime.collect(&node.host, &alone)).unwrap();
    tokio::task::block_in_place(|| node.runtime.status(&node.host, &alone)).unwrap();
    node.no_longer_serves(&lost.uid).await;
    assert!(kept.holds_rules() && node.serves(&kept.uid));
}

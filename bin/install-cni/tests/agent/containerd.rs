//! A real container runtime in the place of the test's own: kubelet's calls to containerd, containerd's to the
//! plugins, ours to the agent.

use crate::{
    chain_node::{ChainNode, rules_in},
    containerd_runtime::{Containerd, PodMetadata},
};

fn metadata(namespace: &str, name: &str, uid: &str) -> PodMetadata {
    PodMetadata {
        name: name.to_owned(),
        uid: uid.to_owned(),
        namespace: namespace.to_owned(),
        attempt: 0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_that_containerd_starts_is_in_the_mesh_before_it_runs() {
    let mut node = ChainNode::start().await;
    let containerd = Containerd::start(&node.host, &node.plugins(), &node.network.list()).await;
    let uid = node.object("shop", "web").await;
    let sandbox = containerd.run(metadata("shop", "web", &uid)).await.unwrap();
    assert!(node.serves(&uid), "ztunnel is told of the pod by its UID");
    let address = containerd.address(&sandbox).await;
    assert!(
        node.host_rules().contains(&address),
        "the node's probes pass"
    );
    let namespace = containerd.netns(&sandbox).await;
    let rules = rules_in(&namespace);
    assert!(rules.contains("istio-ambient-nat"), "{rules}");
    containerd.stop(&sandbox).await.unwrap();
    node.no_longer_serves(&uid).await;
    assert!(!node.host_rules().contains(&address));
    containerd.remove(&sandbox).await.unwrap();
    assert!(!namespace.exists(), "the pod's network has gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn containerd_does_not_start_a_pod_that_cannot_be_in_the_mesh() {
    let mut node = ChainNode::without_agent().await;
    node.run_agent().await;
    let containerd = Containerd::start(&node.host, &node.plugins(), &node.network.list()).await;
    let uid = node.object("shop", "web").await;
    let refused = containerd
        .run(metadata("shop", "web", &uid))
        .await
        .unwrap_err();
    let words = refused.message();
    assert!(
        words.contains("istio-cni") && words.contains("ztunnel"),
        "{words}"
    );
    assert_eq!(
        node.addresses(),
        0,
        "the runtime has taken back what the other plugins did"
    );
    let plain = node.object("plain", "web").await;
    let sandbox = containerd
        .run(metadata("plain", "web", &plain))
        .await
        .unwrap();
    containerd.stop(&sandbox).await.unwrap();
    containerd.remove(&sandbox).await.unwrap();
}

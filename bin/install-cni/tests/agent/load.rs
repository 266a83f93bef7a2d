//! What an agent costs the API server: two watches, and a patch where an annotation is not what it should be.

use std::{collections::BTreeMap, time::Duration};

use install_cni::{
    agent::{Patience, Phase, PodView},
    parts::PodUid,
};
use serde_json::Value;
use testkit_kube::store::GroupResource;

use crate::{
    fake_kernel::Kernel,
    fake_ztunnel::Ztunnel,
    node::{Node, REDIRECTION},
    pod_net::Net,
};

/// Pods of the node.
const PODS: usize = 40;

/// Rounds of verification during which nothing changes.
const ROUNDS: usize = 4;

const PATCH: &str = "patch pods/status";

/// A node whose pods are all in the mesh and say so.
struct Full {
    node: Node,
    ztunnel: Ztunnel,
    pods: Vec<(String, PodUid, Net)>,
}

#[tokio::test]
async fn forty_pods_cost_two_watches_and_the_patches_that_change_an_annotation() {
    let full = Full::start().await;
    full.is_settled().await;
    let mut requests = full.node.requests();
    assert_eq!(requests.remove(PATCH), Some(full.changed_annotations()));
    assert_eq!(requests, only(1), "and nothing else, whatever the pods");
}

#[tokio::test]
async fn while_nothing_changes_the_agent_looks_and_writes_nothing() {
    let full = Full::start().await;
    full.is_settled().await;
    let before = (full.node.requests(), full.node.kernel.writes());
    looks_again(&full.node).await;
    assert_eq!((full.node.requests(), full.node.kernel.writes()), before);

    // Nor does what others change in a pod concern an annotation that is right.
    let (name, uid, net) = &full.pods[0];
    let dns = "ambient.istio.io/dns-capture";
    full.node.annotate(name, dns, Some("false")).await;
    let changed = |kernel: &Kernel| !kernel.rules(net).unwrap().dns_capture;
    full.node.kernel.until("no capture of DNS", changed).await;
    full.node.reaches(uid, Phase::Enrolled).await;
    looks_again(&full.node).await;
    assert_eq!(full.node.requests(), before.0);
    assert_eq!(full.node.kernel.writes(), before.1 + 1, "the rules, once");
}

#[tokio::test]
async fn an_agent_that_restarts_on_a_full_node_only_watches() {
    let full = Full::start().await;
    full.is_settled().await;
    let (mut before, writes) = (full.node.requests(), full.node.kernel.writes());
    // As in an upgrade, ztunnel does not come back at once.
    let (mut node, pods) = (full.node, full.pods);
    full.ztunnel.kill().await;
    node.run().await;
    looks_again(&node).await;
    let ztunnel = node.ztunnel();
    let full = Full {
        node,
        ztunnel,
        pods,
    };
    full.is_settled().await;
    looks_again(&full.node).await;
    let patches = before.remove(PATCH);
    assert_eq!(before, only(1));
    let mut after = full.node.requests();
    assert_eq!(after.remove(PATCH), patches, "all annotations are right");
    assert_eq!(after, only(2), "each agent has its own watches");
    assert_eq!(full.node.kernel.writes(), writes);
}

// === impl Full ===

impl Full {
    async fn start() -> Self {
        let mut node = Node::prepare().await;
        node.patience(Patience {
            verify: Duration::from_millis(100),
            ..Patience::default()
        });
        node.run().await;
        let mut ztunnel = node.ztunnel();
        ztunnel.synced().await;
        node.label("demo", Some("ambient")).await;
        let mut pods = Vec::new();
        for index in 1..=PODS {
            let (name, address) = (format!("web-{index}"), format!("10.1.0.{index}"));
            let (uid, net) = node.place(&name, &address).await;
            // A pod of which the watches do not tell yet that it is to be in the mesh is asked for.
            let told = |view: &PodView| view.outside.is_none();
            node.until(&uid, "the watches", told).await;
            node.add(&name, &uid, &net).await.unwrap();
            node.status(&name, "Running", &address).await;
            pods.push((name, uid, net));
        }
        for (_, uid, net) in &pods {
            node.is_in_mesh(uid, net, &mut ztunnel).await;
        }
        Self {
            node,
            ztunnel,
            pods,
        }
    }
    /// Waits until all pods are in the mesh and the API server and the agent say so.
    async fn is_settled(&self) {
        for (name, uid, net) in &self.pods {
            self.node.is_enrolled(uid, net).await;
            self.node.shows(name, Some("enabled")).await;
            let told = |view: &PodView| view.annotation == Some("enabled");
            self.node.until(uid, "its annotation", told).await;
        }
        self.ztunnel.synced().await;
    }

    /// How often the API server has seen another annotation at a pod than before.
    fn changed_annotations(&self) -> u64 {
        let pods = GroupResource::named("", "pods");
        let (events, _) = self
            .node
            .server
            .store()
            .events_after(&pods, 0, usize::MAX)
            .unwrap();
        let shown = |pod: &Value| pod["metadata"]["annotations"][REDIRECTION].clone();
        let changed = events.iter().filter(|event| {
            let before = event.previous.as_deref().map_or(Value::Null, shown);
            before != shown(&event.object)
        });
        changed.count() as u64
    }
}

/// What so many agents ask for that write nothing.
fn only(agents: u64) -> BTreeMap<String, u64> {
    let each = [
        "list namespaces",
        "list pods",
        "watch namespaces",
        "watch pods",
    ];
    each.map(|what| (what.to_owned(), agents)).into()
}

/// Waits until the agent has compared all pods with the kernel several times more.
async fn looks_again(node: &Node) {
    let wanted = node.kernel.looks() + ROUNDS * PODS;
    let later = |kernel: &Kernel| kernel.looks() >= wanted;
    node.kernel.until("more looks", later).await;
}

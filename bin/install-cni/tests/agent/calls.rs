//! What the plugin's calls are answered.

use std::time::Duration;

use install_cni::{agent::Patience, parts::Attach as _};
use mesh_cni::protocol::{Attachment, IstioAdd, IstioIp, IstioNet, Valid, ValidAttachment};
use serde_json::json;
use tokio::time::timeout;

use crate::{
    node::{DEADLINE, MODE, Node, eventually},
    pod_net::Net,
};

/// No pod of any test.
const STRANGER: &str = "11111111-1111-1111-1111-111111111111";

#[tokio::test]
async fn a_pod_that_the_watch_does_not_show_is_asked_for() {
    let (node, mut ztunnel) = Node::ambient().await;
    // Of another node, so that the watch never shows it.
    let elsewhere = json!({"spec": {"nodeName": "node-2"}});
    let (uid, net) = (node.pod("web", elsewhere).await, Net::new("10.1.0.1"));
    assert!(node.add("web", &uid, &net).await.unwrap().enrolled);
    node.is_in_mesh(&uid, &net, &mut ztunnel).await;
}

#[tokio::test]
async fn while_the_api_server_is_away_only_a_pod_that_cannot_belong_starts() {
    let (node, _ztunnel) = Node::start().await;
    node.namespace("plain", json!({})).await;
    node.label("demo", Some("ambient")).await;
    let known = node.pod("known", json!({})).await;
    node.until(&known, "the watch", |_| true).await;
    node.server.refuse_requests(true);
    let net = Net::new("10.1.0.1");
    assert!(
        node.add("known", &known, &net).await.unwrap().enrolled,
        "it is known"
    );

    let unknown = |namespace: &str| Attachment {
        pod_namespace: namespace.to_owned(),
        ..Net::new("10.1.0.2").attachment("unknown", STRANGER)
    };
    let mut refusals = Vec::new();
    for namespace in ["demo", "plain", "never-seen"] {
        let refusal = node.handle.add(unknown(namespace)).await.unwrap_err();
        assert!(refusal.again, "{refusal:?}");
        refusals.push(refusal.message);
    }
    assert!(refusals[0].contains("demo/unknown"), "{refusals:?}");
    let excluded = node.handle.add(unknown("kube-system")).await.unwrap();
    assert!(!excluded.enrolled);
}

#[tokio::test]
async fn a_label_of_which_the_watch_has_not_told_brings_a_pod_in_before_it_starts() {
    let (node, mut ztunnel) = Node::start().await;
    let (uid, net) = node.place("web", "10.1.0.1").await;
    node.until(&uid, "the watch", |_| true).await;
    // Watches may begin again long after the API server is back.
    node.hold_watches().await;
    node.label("demo", Some("ambient")).await;
    assert!(node.add("web", &uid, &net).await.unwrap().enrolled);
    node.is_in_mesh(&uid, &net, &mut ztunnel).await;
}

#[tokio::test]
async fn only_a_pod_that_its_namespace_could_bring_in_costs_a_question() {
    let (node, _ztunnel) = Node::start().await;
    let questions = || node.requests().get("get namespaces").copied().unwrap_or(0);
    let none = json!({"metadata": {"labels": {MODE: "none"}}});
    for (name, more, address, costs) in [
        ("plain", json!({}), "10.1.0.1", 1),
        ("none", none, "10.1.0.2", 0),
        (
            "host",
            json!({"spec": {"hostNetwork": true}}),
            "10.1.0.3",
            0,
        ),
    ] {
        let (uid, net) = (node.pod(name, more).await, Net::new(address));
        node.until(&uid, "the watch", |_| true).await;
        let before = questions();
        assert!(
            !node.add(name, &uid, &net).await.unwrap().enrolled,
            "{name}"
        );
        assert_eq!(questions(), before + costs, "{name}");
    }
    // While nobody answers, what is known holds.
    let (uid, net) = node.place("late", "10.1.0.4").await;
    node.until(&uid, "the watch", |_| true).await;
    node.server.refuse_requests(true);
    assert!(!node.add("late", &uid, &net).await.unwrap().enrolled);
}

#[tokio::test]
async fn a_pod_is_the_one_with_its_uid() {
    let (node, _ztunnel) = Node::ambient().await;
    let (uid, net) = node.place("web", "10.1.0.1").await;
    node.until(&uid, "the watch", |_| true).await;
    let refusal = node.add("web", STRANGER, &net).await.unwrap_err();
    assert!(
        refusal.again && refusal.message.contains(STRANGER),
        "{refusal:?}"
    );
    assert!(!node.kernel.holds_rules(&net));
    let refusal = node.add("nobody", STRANGER, &net).await.unwrap_err();
    assert!(refusal.message.contains("does not exist"), "{refusal:?}");
    // Some runtimes tell none.
    assert!(node.add("web", "", &net).await.unwrap().enrolled);
}

#[tokio::test]
async fn without_a_uid_the_api_server_says_whether_it_is_another_pod_of_the_name() {
    let (node, mut ztunnel) = Node::ambient().await;
    let (uid, first) = node.bring_in("web", "10.1.0.1", &mut ztunnel).await;
    // It has a network already: this one may be its successor's, of which the watch does not tell.
    let second = Net::new("10.1.0.2");
    node.server.refuse_requests(true);
    let refusal = node.add("web", "", &second).await.unwrap_err();
    assert!(refusal.again, "{refusal:?}");
    assert!(!node.kernel.holds_rules(&second));
    let known = node.add("web", &uid, &first).await.unwrap();
    assert!(known.enrolled, "the UID says enough");
    node.server.refuse_requests(false);
    assert!(node.add("web", "", &second).await.unwrap().enrolled);
    node.is_in_mesh(&uid, &second, &mut ztunnel).await;
}

#[tokio::test]
async fn a_static_pod_is_known_by_the_uid_of_its_kubelet() {
    let (node, mut ztunnel) = Node::ambient().await;
    let own = "c8f9a1d0b0e94b0c8a3f4b7b6f6e5d4c";
    let mirror = json!({"metadata": {"annotations": {
        "kubernetes.io/config.hash": own, "kubernetes.io/config.mirror": own,
    }}});
    let (uid, net) = (node.pod("static", mirror).await, Net::new("10.1.0.1"));
    assert!(node.add("static", own, &net).await.unwrap().enrolled);
    node.is_in_mesh(&uid, &net, &mut ztunnel).await;
}

#[tokio::test]
async fn a_pod_whose_network_has_vanished_does_not_start() {
    let (node, mut ztunnel) = Node::ambient().await;
    let (uid, net) = node.place("web", "10.1.0.1").await;
    let vanished = Attachment {
        netns: "/var/run/netns/cni-vanished".to_owned(),
        ..net.attachment("web", &uid)
    };
    let refusal = node.handle.add(vanished).await.unwrap_err();
    let names_it = refusal.message.contains("cni-vanished");
    assert!(refusal.again && names_it, "{refusal:?}");
    ztunnel.serves(&uid, None).await;
    assert!(node.kernel.probes().is_empty());
    assert!(node.add("web", &uid, &net).await.unwrap().enrolled);
    node.is_in_mesh(&uid, &net, &mut ztunnel).await;
}

#[tokio::test]
async fn the_nodes_own_network_is_never_a_pods() {
    let (mut node, ztunnel) = Node::start().await;
    node.patience(Patience {
        istio_add: Duration::from_secs(4),
        add: Duration::from_millis(300),
        ..Patience::default()
    });
    node.run().await;
    ztunnel.synced().await;
    node.label("demo", Some("ambient")).await;
    let (uid, net) = node.place("web", "10.1.0.1").await;
    for netns in [
        "/proc/1/ns/net",
        "/nowhere",
        "relative",
        "/run/../proc/1/ns/net",
        "",
    ] {
        let attachment = Attachment {
            netns: netns.to_owned(),
            ..net.attachment("web", &uid)
        };
        let refusal = node.handle.add(attachment).await.unwrap_err();
        assert!(refusal.again, "{refusal:?}");
    }
    assert_eq!(node.kernel.writes(), 0);
}

/// What Istio's plugin says of the pod `demo/web`.
fn istios_call(net: &Net) -> IstioAdd {
    IstioAdd {
        netns: net.namespace.path().to_str().unwrap().to_owned(),
        pod_name: "web".to_owned(),
        pod_namespace: "demo".to_owned(),
        ips: vec![IstioIp {
            address: IstioNet { ip: net.address },
        }],
    }
}

#[tokio::test]
async fn istios_plugin_is_answered_as_by_istios_agent() {
    let (node, mut ztunnel) = Node::start().await;
    let (uid, net) = node.place("web", "10.1.0.1").await;
    let call = || istios_call(&net);
    let refusal = node.handle.istio_add(call()).await.unwrap_err();
    assert!(!refusal.again, "{refusal:?}");
    node.label("demo", Some("ambient")).await;
    node.until(&uid, "the label", |view| view.outside.is_none())
        .await;
    node.handle.istio_add(call()).await.unwrap();
    node.is_in_mesh(&uid, &net, &mut ztunnel).await;
}

#[tokio::test]
async fn istios_plugin_is_told_the_reason_before_it_hangs_up() {
    assert!(Patience::default().istio_add < Duration::from_secs(5));
    let mut node = Node::prepare().await;
    node.patience(Patience {
        istio_add: Duration::from_millis(100),
        add: 2 * DEADLINE,
        ..Patience::default()
    });
    node.run().await;
    node.label("demo", Some("ambient")).await;
    let (uid, net) = node.place("web", "10.1.0.1").await;
    node.until(&uid, "the label", |view| view.outside.is_none())
        .await;
    let call = istios_call(&net);
    let answer = timeout(DEADLINE, node.handle.istio_add(call)).await;
    let refusal = answer.expect("an answer").unwrap_err();
    let told = "demo/web is not in the mesh after 100ms";
    assert!(refusal.message.contains(told), "{refusal:?}");
}

#[tokio::test]
async fn a_pod_whose_network_goes_is_forgotten_before_its_end_is_seen() {
    let (node, mut ztunnel) = Node::ambient().await;
    let (uid, net) = node.bring_in("web", "10.1.0.1", &mut ztunnel).await;
    let second = Attachment {
        interface: "net1".to_owned(),
        ..net.attachment("web", &uid)
    };
    node.handle.add(second.clone()).await.unwrap();
    node.handle.delete(second).await.unwrap();
    assert_eq!(
        node.kernel.probes().len(),
        1,
        "it still has its first network"
    );
    let gone = Attachment {
        netns: String::new(),
        ..net.attachment("web", &uid)
    };
    node.handle.delete(gone.clone()).await.unwrap();
    assert_eq!(node.kernel.probes().len(), 0);
    ztunnel.serves(&uid, None).await;
    // Again, and what was never there.
    node.handle.delete(gone).await.unwrap();
    node.handle
        .delete(net.attachment("nobody", STRANGER))
        .await
        .unwrap();
    let (_, _net) = node.bring_in("next", "10.1.0.1", &mut ztunnel).await;
}

#[tokio::test]
async fn a_check_asks_the_kernel() {
    let (mut node, mut ztunnel) = Node::start().await;
    node.patience(Patience {
        verify: Duration::from_secs(60),
        ..Patience::default()
    });
    node.run().await;
    ztunnel.synced().await;
    let (uid, net) = node.place("web", "10.1.0.1").await;
    let check = || node.handle.check(net.attachment("web", &uid));
    check().await.expect("it does not belong in the mesh");
    node.label("demo", Some("ambient")).await;
    node.until(&uid, "the label", |view| view.outside.is_none())
        .await;
    node.add("web", &uid, &net).await.unwrap();
    node.is_in_mesh(&uid, &net, &mut ztunnel).await;
    check().await.unwrap();
    node.kernel.set_probe("10.1.0.1", None);
    assert!(check().await.unwrap_err().message.contains("10.1.0.1"));
    node.kernel.set_probe("10.1.0.1", Some(&uid));
    node.kernel.damage(&net);
    assert!(check().await.unwrap_err().message.contains("demo/web"));
}

#[tokio::test]
async fn a_collection_forgets_what_is_gone_and_nothing_that_lives() {
    let (node, mut ztunnel) = Node::ambient().await;
    let (uid, net) = node.place("web", "10.1.0.1").await;
    node.add("web", &uid, &net).await.unwrap();
    let (lost, gone) = node.place("lost", "10.1.0.2").await;
    node.add("lost", &lost, &gone).await.unwrap();
    let attachment = net.attachment("web", &uid);
    let note = node.note(&attachment);
    let others = node.note(&gone.attachment("lost", &lost));
    assert!(note.exists() && others.exists());
    drop(gone);
    let valid = |network: &str, attachments| Valid {
        network: network.to_owned(),
        attachments,
    };
    node.handle
        .collect(valid("other", Vec::new()))
        .await
        .unwrap();
    assert!(note.exists(), "that is another network's list");
    node.handle
        .collect(valid("cluster", Vec::new()))
        .await
        .unwrap();
    assert!(note.exists() && !others.exists());
    node.is_in_mesh(&uid, &net, &mut ztunnel).await;
    let named = vec![ValidAttachment {
        container_id: attachment.container_id,
        interface: attachment.interface,
    }];
    node.handle.collect(valid("cluster", named)).await.unwrap();
    assert!(note.exists());
}

#[tokio::test]
async fn the_plugin_gets_every_namespace_and_the_labels_that_matter() {
    let (node, _ztunnel) = Node::start().await;
    let mut snapshots = node.handle.snapshots();
    let first = snapshots.next().await.unwrap();
    assert!(first.namespaces.contains_key("demo") && first.namespaces.contains_key("kube-system"));
    node.label("demo", Some("ambient")).await;
    let labels = |labels: &mesh_cni::enrolment::Labels| serde_json::to_value(labels).unwrap();
    let second = snapshots.next().await.unwrap();
    let wanted = json!({"istio.io/dataplane-mode": "ambient"});
    assert_eq!(labels(&second.namespaces["demo"]), wanted);
}

#[tokio::test]
async fn a_node_whose_kernel_cannot_hold_probes_says_so_and_keeps_what_it_has() {
    let mut node = Node::prepare().await;
    node.kernel.fail(true);
    node.run().await;
    let status = || async { node.handle.status() };
    let refused = eventually("trouble", status, Result::is_err).await;
    assert!(refused.unwrap_err().message.contains("out of order"));
    // Pods that are in the mesh are not kept from ztunnel for it.
    let ztunnel = node.ztunnel();
    ztunnel.synced().await;
    assert!(node.handle.status().is_err());
    node.kernel.fail(false);
    eventually("no trouble", status, Result::is_ok)
        .await
        .unwrap();
}

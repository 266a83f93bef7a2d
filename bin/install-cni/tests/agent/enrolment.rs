//! Pods come into the mesh and leave it, by labels and annotations, while they run.

use std::{sync::Arc, time::Duration};

use install_cni::agent::{Patience, Phase, Reason};
use k8s_openapi::api::core::v1::Event;
use kube::{
    ResourceExt as _,
    api::{Patch, PatchParams},
};
use mesh_kube::watch::ObjectKey;
use serde_json::{Value, json};

use crate::{
    fake_kernel::Kernel,
    node::{DEADLINE, MODE, Node, REDIRECTION, eventually},
    pod_net::Net,
};

#[tokio::test]
async fn a_label_on_a_namespace_brings_its_running_pods_in_and_its_removal_takes_them_out() {
    let (node, mut ztunnel) = Node::start().await;
    let (uid, net) = node.place("web", "10.1.0.1").await;
    let added = node.add("web", &uid, &net).await.unwrap();
    assert!(!added.enrolled, "nothing asks for it yet");
    node.status("web", "Running", "10.1.0.1").await;
    assert_eq!(node.kernel.writes(), 0);

    node.label("demo", Some("ambient")).await;
    node.is_in_mesh(&uid, &net, &mut ztunnel).await;
    node.shows("web", Some("enabled")).await;

    node.label("demo", None).await;
    node.is_outside(&uid, &net, &mut ztunnel).await;
    node.shows("web", None).await;

    node.label("demo", Some("ambient")).await;
    node.is_in_mesh(&uid, &net, &mut ztunnel).await;
    node.shows("web", Some("enabled")).await;
}

#[tokio::test]
async fn a_pod_starts_in_the_mesh_and_the_plugin_waits_for_it() {
    let (node, mut ztunnel) = Node::ambient().await;
    let (uid, net) = node.place("web", "10.1.0.1").await;
    let added = node.add("web", &uid, &net).await.unwrap();
    assert!(added.enrolled);
    assert!(node.kernel.holds_rules(&net));
    assert_eq!(
        ztunnel.served.borrow_and_update().get(&uid),
        Some(&net.id())
    );
    // The runtime may say it again, and for other interfaces.
    let writes = node.kernel.writes();
    assert!(node.add("web", &uid, &net).await.unwrap().enrolled);
    assert_eq!(node.kernel.writes(), writes);
    node.is_in_mesh(&uid, &net, &mut ztunnel).await;
}

#[tokio::test]
async fn a_pod_that_runs_since_before_the_plugin_is_found_by_its_processes() {
    let mut node = Node::prepare().await;
    node.label("demo", Some("ambient")).await;
    let (uid, net, other) = (
        node.pod("web", json!({})).await,
        Net::new("10.1.0.1"),
        Net::new("10.1.0.9"),
    );
    let cgroup = format!("0::/kubepods/burstable/pod{uid}/c1\n");
    // A monitor in the node's network, and an older process in a namespace without the pod's address.
    node.process(41, "/proc/self/ns/net".as_ref(), &cgroup, 10);
    node.process(42, &other.namespace.path(), &cgroup, 20);
    node.process(43, &net.namespace.path(), &cgroup, 30);
    node.process(44, &net.namespace.path(), "0::/system.slice\n", 5);
    node.status("web", "Running", "10.1.0.1").await;
    node.run().await;
    let mut ztunnel = node.ztunnel();
    node.is_in_mesh(&uid, &net, &mut ztunnel).await;
    assert!(!node.kernel.holds_rules(&other));
}

#[tokio::test]
async fn a_container_cannot_pose_as_another_pod() {
    let (node, mut ztunnel) = Node::start().await;
    let (uid, net) = node.place("web", "10.1.0.1").await;
    // It has the other's address, names its control group after it, and is older than its processes.
    let (thief, posing) = node.place("thief", "10.1.0.1").await;
    let within = format!("0::/kubepods/pod{thief}/c1/kubepods/pod{uid}/c2\n");
    node.process(66, &posing.namespace.path(), &within, 10);
    let of_pod = format!("0::/kubepods/pod{uid}/c3\n");
    node.process(77, &net.namespace.path(), &of_pod, 70);
    node.status("web", "Running", "10.1.0.1").await;
    node.label("demo", Some("ambient")).await;
    node.is_in_mesh(&uid, &net, &mut ztunnel).await;
    assert!(!node.kernel.holds_rules(&posing));
}

#[tokio::test]
async fn who_must_not_be_in_the_mesh_is_not() {
    let (node, _ztunnel) = Node::ambient().await;
    let container = json!([{"name": "app", "image": "app"}]);
    let cases = [
        (
            "host",
            json!({"spec": {"hostNetwork": true}}),
            Reason::HostNetwork,
        ),
        (
            "sidecar",
            json!({"metadata": {"annotations": {"sidecar.istio.io/status": "{}"}}}),
            Reason::Sidecar,
        ),
        (
            "none",
            json!({"metadata": {"labels": {MODE: "none"}}}),
            Reason::NotSelected,
        ),
        (
            "ztunnel",
            json!({"metadata": {"labels": {MODE: "none", "app": "ztunnel"}}, "spec": {"containers": container}}),
            Reason::Ztunnel,
        ),
    ];
    for (index, (name, more, reason)) in cases.into_iter().enumerate() {
        let uid = node.pod(name, more).await;
        let address = format!("10.1.0.{}", index + 1);
        let net = Net::new(&address);
        let added = node.add(name, &uid, &net).await.unwrap();
        assert!(!added.enrolled, "{name}");
        node.status(name, "Running", &address).await;
        node.until(&uid, "a decision", |view| view.outside == Some(reason))
            .await;
    }
    assert_eq!(node.kernel.writes(), 0);
}

#[tokio::test]
async fn a_completed_job_gives_up_its_address_and_the_next_pod_has_it() {
    let (node, mut ztunnel) = Node::ambient().await;
    let (job, net) = node.bring_in("job", "10.1.0.1", &mut ztunnel).await;
    node.status("job", "Running", "10.1.0.1").await;
    node.shows("job", Some("enabled")).await;

    let patch = json!({"status": {"phase": "Succeeded"}});
    let params = PatchParams::default();
    node.pods()
        .patch_status("job", &params, &Patch::Merge(patch))
        .await
        .unwrap();
    node.reaches(&job, Phase::Outside).await;
    ztunnel.serves(&job, None).await;
    assert_eq!(node.kernel.probes().len(), 0);
    node.shows("job", None).await;
    let held = || async { net.descriptors() };
    eventually("nobody but this test holds its network", held, |held| {
        *held == 1
    })
    .await;

    // The API server still shows the address at the job.
    let (next, net) = node.bring_in("next", "10.1.0.1", &mut ztunnel).await;
    node.delete("job").await;
    node.until(&next, "the next pod", |_| node.view(&job).is_none())
        .await;
    assert_eq!(node.kernel.probes().get(&net.address), Some(&next));
}

#[tokio::test]
async fn an_address_is_the_last_ones_who_got_it() {
    let (node, mut ztunnel) = Node::ambient().await;
    let (old, gone) = node.place("old", "10.1.0.1").await;
    node.add("old", &old, &gone).await.unwrap();
    // Its sandbox is gone, and nobody said so.
    drop(gone);
    let (new, net) = node.bring_in("new", "10.1.0.1", &mut ztunnel).await;
    let looks = node.kernel.looks();
    let later = |kernel: &Kernel| kernel.looks() > looks + 4;
    node.kernel.until("more looks", later).await;
    assert_eq!(
        node.kernel.probes().get(&net.address),
        Some(&new),
        "they do not fight for it"
    );
}

#[tokio::test]
async fn annotations_change_the_rules_of_a_running_pod() {
    let (node, mut ztunnel) = Node::ambient().await;
    let (_, net) = node.bring_in("web", "10.1.0.1", &mut ztunnel).await;
    let rules = |kernel: &Kernel| kernel.rules(&net).unwrap();
    let dns = |kernel: &Kernel| rules(kernel).dns_capture;

    node.annotate("web", "ambient.istio.io/dns-capture", Some("false"))
        .await;
    let no_dns = |kernel: &Kernel| !dns(kernel);
    node.kernel.until("no capture of DNS", no_dns).await;
    node.annotate(
        "web",
        "ambient.istio.io/bypass-inbound-capture",
        Some("true"),
    )
    .await;
    let ingress = |kernel: &Kernel| rules(kernel).ingress_mode;
    node.kernel.until("ingress mode", ingress).await;
    node.annotate(
        "web",
        "istio.io/reroute-virtual-interfaces",
        Some("tap0, tap1"),
    )
    .await;
    let interfaces = |kernel: &Kernel| rules(kernel).virtual_interfaces.len() == 2;
    node.kernel.until("interfaces", interfaces).await;
    node.annotate("web", "ambient.istio.io/dns-capture", None)
        .await;
    node.kernel.until("capture of DNS", dns).await;
}

#[tokio::test]
async fn an_annotation_that_cannot_be_read_is_an_event_and_otherwise_nothing() {
    let (node, mut ztunnel) = Node::ambient().await;
    let annotations = json!({"metadata": {"annotations": {
        "ambient.istio.io/dns-capture": "perhaps", "istio.io/reroute-virtual-interfaces": "eth*,tap0",
    }}});
    let (uid, net) = (node.pod("web", annotations).await, Net::new("10.1.0.1"));
    node.add("web", &uid, &net).await.unwrap();
    node.is_in_mesh(&uid, &net, &mut ztunnel).await;
    let rules = node.kernel.rules(&net).unwrap();
    assert!(rules.dns_capture && rules.virtual_interfaces.len() == 1);

    let noted = |events: &[Arc<Value>]| {
        let ours = events.iter();
        let ours = ours.filter(|event| event["reason"] == "InvalidAnnotation");
        let messages = ours.filter_map(|event| event["message"].as_str());
        messages.map(str::to_owned).collect::<Vec<_>>()
    };
    let store = node.server.store();
    let two = |events: &[Arc<Value>]| noted(events).len() == 2;
    let events = store.until_all::<Event>(DEADLINE, two).await.unwrap();
    let text = noted(&events).join("\n");
    assert!(text.contains("\"perhaps\" is not true or false"), "{text}");
    assert!(
        text.contains("\"eth*\" is not the name of an interface"),
        "{text}"
    );
}

#[tokio::test]
async fn the_annotation_is_a_report_and_not_believed() {
    let (node, mut ztunnel) = Node::start().await;
    // One that says it is in the mesh and is not, as after a restart of the node.
    let said = json!({"metadata": {"annotations": {REDIRECTION: "enabled"}}});
    node.label("demo", Some("ambient")).await;
    let (uid, net) = (node.pod("web", said).await, Net::new("10.1.0.1"));
    node.add("web", &uid, &net).await.unwrap();
    node.is_in_mesh(&uid, &net, &mut ztunnel).await;
    let writes = node.kernel.writes();
    for wrong in [None, Some("pending"), Some("nonsense")] {
        node.annotate("web", REDIRECTION, wrong).await;
        node.shows("web", Some("enabled")).await;
    }
    assert_eq!(node.kernel.writes(), writes);
    node.label("demo", None).await;
    node.is_outside(&uid, &net, &mut ztunnel).await;
    node.shows("web", None).await;
}

#[tokio::test]
async fn a_pod_that_is_deleted_leaves_nothing_behind() {
    let (node, mut ztunnel) = Node::ambient().await;
    let (uid, net) = node.bring_in("web", "10.1.0.1", &mut ztunnel).await;
    node.delete("web").await;
    ztunnel.serves(&uid, None).await;
    let gone = || async { (node.view(&uid), node.kernel.probes().len()) };
    eventually("it is forgotten", gone, |left| *left == (None, 0)).await;
    let held = || async { net.descriptors() };
    eventually("nobody but this test holds its network", held, |held| {
        *held == 1
    })
    .await;

    // Another of its name, as of a StatefulSet.
    let (_, _net) = node.bring_in("web", "10.1.0.2", &mut ztunnel).await;
    node.shows("web", Some("enabled")).await;
}

#[tokio::test]
async fn the_mesh_leaves_a_node_without_a_trace() {
    let (mut node, mut ztunnel) = Node::start().await;
    node.patience(Patience {
        verify: Duration::from_millis(5),
        ..Patience::default()
    });
    node.run().await;
    ztunnel.synced().await;
    node.label("demo", Some("ambient")).await;
    let mut nets = Vec::new();
    for (name, address) in [("one", "10.1.0.1"), ("two", "10.1.0.2")] {
        let (uid, net) = node.place(name, address).await;
        node.add(name, &uid, &net).await.unwrap();
        nets.push((uid, net));
    }
    let withdrawn = node.handle.withdraw(DEADLINE).await;
    assert_eq!(withdrawn, install_cni::agent::Withdrawn::default());
    for (uid, net) in &nets {
        node.is_outside(uid, net, &mut ztunnel).await;
    }
    assert_eq!(node.kernel.probes().len(), 0);
    let shown = node.pods().get("one").await.unwrap();
    assert_eq!(
        shown.annotations().get(REDIRECTION),
        None,
        "it is over when it says so"
    );
    // What is looked at from time to time brings nothing back.
    let ensured = node.kernel.ensured();
    node.label("demo", None).await;
    node.label("demo", Some("ambient")).await;
    let (late, net) = node.place("late", "10.1.0.3").await;
    assert!(!node.add("late", &late, &net).await.unwrap().enrolled);
    assert_eq!(
        (node.kernel.ensured(), node.kernel.probes().len()),
        (ensured, 0)
    );
}

#[tokio::test]
async fn what_the_agent_knows_is_seen_in_metrics_and_on_a_page() {
    let (node, mut ztunnel) = Node::start().await;
    let mut registry = prometheus_client::registry::Registry::default();
    node.handle.register(&mut registry);
    node.label("demo", Some("ambient")).await;
    let (uid, net) = node.place("web", "10.1.0.1").await;
    let waits = node.pod("waits", json!({})).await;
    // One that is asked for before the watch shows it counts as changed by then.
    for uid in [&uid, &waits] {
        node.until(uid, "the watch", |_| true).await;
    }
    node.add("web", &uid, &net).await.unwrap();
    node.is_in_mesh(&uid, &net, &mut ztunnel).await;
    node.shows("web", Some("enabled")).await;
    node.until(&uid, "its annotation", |view| {
        view.annotation == Some("enabled")
    })
    .await;
    node.reaches(&waits, Phase::Waiting).await;
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        "ztunnel_connected 1",
        "lateen_cni_pods{state=\"enrolled\"} 1",
        "lateen_cni_pods{state=\"waiting\"} 1",
        "lateen_cni_pods{state=\"outside\"} 0",
        "lateen_cni_probe_addresses 1",
        "nodeagent_reconcile_events_total{type=\"add\"} 2",
    ] {
        assert!(
            text.lines().any(|other| other == line),
            "{line} is not in\n{text}"
        );
    }
    let page = serde_json::to_value(node.handle.view()).unwrap();
    let expected = json!({
        "namespace": "demo", "name": "web", "phase": "enrolled", "netns": net.id().ino,
        "probes": ["10.1.0.1"], "kept": false, "annotation": "enabled",
    });
    assert_eq!(page["pods"][&*uid], expected);
    assert_eq!(page["serving"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_ends_as_long_as_the_api_server_has_it_and_deletes_it() {
    let (node, _ztunnel) = Node::start().await;
    let key = ObjectKey {
        namespace: "demo".to_owned(),
        name: "web".to_owned(),
    };
    assert!(!node.handle.is_ending(&key), "it is not there");
    let held = json!({"metadata": {"finalizers": ["example.org/hold"]}});
    let uid = node.pod("web", held).await;
    node.until(&uid, "the watch", |_| true).await;
    assert!(!node.handle.is_ending(&key), "it runs");
    node.delete("web").await;
    let ending = || async { node.handle.is_ending(&key) };
    eventually("the deletion", ending, |ending| *ending).await;
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    let params = PatchParams::default();
    node.pods().patch("web", &params, &free).await.unwrap();
    eventually("its end", ending, |ending| !*ending).await;
}

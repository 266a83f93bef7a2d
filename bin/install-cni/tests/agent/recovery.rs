//! What happens when something fails, restarts, or is changed behind the agent's back.

use std::time::Duration;

use install_cni::{
    agent::{Patience, Phase, PodView, Step},
    parts::{Attach as _, PodUid},
};
use mesh_cni::protocol::{Attachment, Refusal};
use serde_json::json;

use crate::{
    fake_kernel::Kernel,
    node::{DEADLINE, MODE, Node, eventually},
    pod_net::Net,
};

#[tokio::test]
async fn an_agent_that_restarts_tells_ztunnel_everything_and_touches_nothing() {
    let (mut node, mut ztunnel) = Node::ambient().await;
    let mut pods = Vec::new();
    for (name, address) in [
        ("one", "10.1.0.1"),
        ("two", "10.1.0.2"),
        ("three", "10.1.0.3"),
    ] {
        let (uid, net) = node.bring_in(name, address, &mut ztunnel).await;
        node.status(name, "Running", address).await;
        node.shows(name, Some("enabled")).await;
        pods.push((uid, net));
    }
    let writes = node.kernel.writes();
    ztunnel.served.mark_unchanged();
    node.run().await;
    for (uid, net) in &pods {
        node.is_in_mesh(uid, net, &mut ztunnel).await;
    }
    ztunnel.synced().await;
    assert_eq!(node.kernel.writes(), writes, "the kernel is as it was");
    assert_eq!(ztunnel.served.borrow().len(), 3);
    // Another ztunnel knows all of them, too.
    let mut other = node.ztunnel();
    other.synced().await;
    for (uid, net) in &pods {
        other.serves(uid, Some(net)).await;
    }
    assert_eq!(node.kernel.writes(), writes);
}

#[tokio::test]
async fn what_changed_while_no_agent_ran_is_made_good() {
    let (mut node, mut ztunnel) = Node::ambient().await;
    let (leaves, old) = node.place("leaves", "10.1.0.1").await;
    node.add("leaves", &leaves, &old).await.unwrap();
    node.status("leaves", "Running", "10.1.0.1").await;
    let (stays, net) = node.bring_in("stays", "10.1.0.2", &mut ztunnel).await;
    node.status("stays", "Running", "10.1.0.2").await;
    node.kill().await;
    let none = json!({"metadata": {"labels": {MODE: "none"}}});
    let params = kube::api::PatchParams::default();
    node.pods()
        .patch("leaves", &params, &kube::api::Patch::Merge(none))
        .await
        .unwrap();
    node.kernel.damage(&net);
    node.kernel.set_probe("10.1.0.2", None);
    node.kernel.set_probe("10.9.9.9", Some("nobody"));
    node.run().await;
    node.is_in_mesh(&stays, &net, &mut ztunnel).await;
    node.is_outside(&leaves, &old, &mut ztunnel).await;
    assert_eq!(node.kernel.probes().len(), 1, "{:?}", node.kernel.probes());
}

#[tokio::test]
async fn rules_that_somebody_changed_are_put_back_and_counted() {
    let (node, mut ztunnel) = Node::ambient().await;
    let (uid, net) = node.bring_in("web", "10.1.0.1", &mut ztunnel).await;
    let right = node.kernel.rules(&net).unwrap();
    let before = node.handle.view().repairs;
    node.kernel.damage(&net);
    let back = |kernel: &Kernel| kernel.rules(&net).as_ref() == Some(&right);
    node.kernel.until("the rules are back", back).await;
    assert_eq!(node.handle.view().repairs, before + 1);

    node.kernel.set_probe("10.1.0.1", None);
    let back = |kernel: &Kernel| kernel.probes().get(&net.address) == Some(&uid);
    node.kernel.until("the address is back", back).await;
    assert_eq!(node.handle.view().repairs, before + 2);
}

#[tokio::test]
async fn a_pod_with_a_new_sandbox_is_enrolled_anew() {
    let (node, mut ztunnel) = Node::ambient().await;
    let (uid, old) = node.bring_in("web", "10.1.0.1", &mut ztunnel).await;
    node.status("web", "Running", "10.1.0.1").await;

    // The runtime says so, and the API server shows the old address.
    let new = Net::new("10.1.0.2");
    assert!(node.add("web", &uid, &new).await.unwrap().enrolled);
    node.is_in_mesh(&uid, &new, &mut ztunnel).await;
    assert_eq!(node.kernel.probes().len(), 1, "the old address is given up");

    // Nobody says so: the namespace is gone, and a process is in another.
    let another = Net::new("10.1.0.3");
    node.process(
        77,
        &another.namespace.path(),
        &format!("0::/kubepods/pod{uid}/c9\n"),
        70,
    );
    node.status("web", "Running", "10.1.0.3").await;
    drop((old, new));
    node.is_in_mesh(&uid, &another, &mut ztunnel).await;
}

#[tokio::test]
async fn after_a_reboot_pods_are_enrolled_in_their_new_networks_only() {
    let (mut node, mut ztunnel) = Node::ambient().await;
    let (uid, old) = node.bring_in("web", "10.1.0.1", &mut ztunnel).await;
    node.status("web", "Running", "10.1.0.1").await;
    node.shows("web", Some("enabled")).await;

    node.reboot().await;
    node.kernel.reset();
    ztunnel.kill().await;
    node.run().await;
    let mut ztunnel = node.ztunnel();
    ztunnel.synced().await;
    // The path and the number of its old network may be anybody's by now.
    let looked = |view: &PodView| view.failure.is_some() && view.netns.is_none();
    node.until(&uid, "a look for its network", looked).await;
    assert!(!node.kernel.holds_rules(&old) && node.kernel.probes().is_empty());
    ztunnel.serves(&uid, None).await;
    node.shows("web", None).await;

    let new = Net::new("10.1.0.2");
    assert!(node.add("web", &uid, &new).await.unwrap().enrolled);
    node.is_in_mesh(&uid, &new, &mut ztunnel).await;
    node.shows("web", Some("enabled")).await;
}

#[tokio::test]
async fn without_ztunnel_a_pod_does_not_start_and_comes_in_when_there_is_one() {
    let mut node = Node::prepare().await;
    node.patience(Patience {
        istio_add: Duration::from_secs(4),
        add: Duration::from_millis(300),
        ..Patience::default()
    });
    node.run().await;
    node.label("demo", Some("ambient")).await;
    let (uid, net) = node.place("web", "10.1.0.1").await;
    let refusal = refused_for(&node, (&uid, &net), "no ztunnel is connected").await;
    assert!(refusal.again, "{refusal:?}");
    assert!(refusal.message.contains("demo/web"), "{refusal:?}");
    node.shows("web", Some("pending")).await;
    node.reaches(&uid, Phase::Entering(Step::Ztunnel)).await;

    let mut ztunnel = node.ztunnel();
    node.is_in_mesh(&uid, &net, &mut ztunnel).await;
    node.shows("web", Some("enabled")).await;
}

#[tokio::test]
async fn a_ztunnel_that_refuses_a_pod_keeps_it_from_starting() {
    let (mut node, mut ztunnel) = Node::start().await;
    node.patience(Patience {
        istio_add: Duration::from_secs(4),
        add: Duration::from_millis(300),
        ..Patience::default()
    });
    node.run().await;
    ztunnel.synced().await;
    node.label("demo", Some("ambient")).await;
    ztunnel.refuse(true);
    let (uid, net) = node.place("web", "10.1.0.1").await;
    refused_for(&node, (&uid, &net), "ztunnel refused: no room").await;
    ztunnel.refuse(false);
    node.is_in_mesh(&uid, &net, &mut ztunnel).await;
}

/// Adds the pod `web` as a runtime does, again when it was refused, until it is refused for this reason: how far
/// the agent comes with a pod within its patience is up to the machine.
async fn refused_for(node: &Node, (uid, net): (&PodUid, &Net), reason: &str) -> Refusal {
    let add = || async { node.add("web", uid, net).await.unwrap_err() };
    let named = |refusal: &Refusal| refusal.message.contains(reason);
    eventually(reason, add, named).await
}

#[tokio::test]
async fn during_an_upgrade_pods_go_to_the_new_ztunnel_and_are_taken_from_both() {
    let (node, mut old) = Node::ambient().await;
    let (one, net) = node.place("one", "10.1.0.1").await;
    node.add("one", &one, &net).await.unwrap();
    let mut new = node.ztunnel();
    new.synced().await;
    new.serves(&one, Some(&net)).await;
    let (two, second) = node.place("two", "10.1.0.2").await;
    node.add("two", &two, &second).await.unwrap();
    new.serves(&two, Some(&second)).await;
    assert!(!old.served.borrow().contains_key(&two));
    node.delete("one").await;
    new.serves(&one, None).await;
    old.serves(&one, None).await;
    old.kill().await;
    node.is_in_mesh(&two, &second, &mut new).await;
}

#[tokio::test]
async fn while_the_kernel_fails_pods_wait_and_the_annotation_does_not_lie() {
    let (node, mut ztunnel) = Node::ambient().await;
    let (uid, _net) = node.bring_in("web", "10.1.0.1", &mut ztunnel).await;
    node.shows("web", Some("enabled")).await;
    node.kernel.fail(true);
    node.shows("web", None).await;
    let failing = |view: &PodView| {
        let failure = view.failure.as_ref();
        failure.is_some_and(|f| f.message.contains("out of order") && f.step == Step::Rules)
    };
    node.until(&uid, "a visible reason", failing).await;
    node.kernel.fail(false);
    node.shows("web", Some("enabled")).await;
}

#[tokio::test]
async fn an_agent_that_is_killed_after_any_change_leaves_a_pod_that_the_next_one_brings_in() {
    for writes in 1..=2 {
        let (mut node, mut ztunnel) = Node::ambient().await;
        let (uid, net) = node.place("web", "10.1.0.1").await;
        node.status("web", "Running", "10.1.0.1").await;
        node.kernel.freeze_after(Some(writes));
        let handle = node.handle.clone();
        let attachment = net.attachment("web", &uid);
        let adding = tokio::spawn(async move { handle.add(attachment).await });
        node.kernel.until("the change", Kernel::is_frozen).await;
        node.kill().await;
        adding.abort();
        node.kernel.freeze_after(None);
        node.run().await;
        node.is_in_mesh(&uid, &net, &mut ztunnel).await;

        // And on the way out.
        node.kernel.freeze_after(Some(writes));
        node.label("demo", None).await;
        node.kernel.until("the change", Kernel::is_frozen).await;
        node.kill().await;
        node.kernel.freeze_after(None);
        node.run().await;
        node.is_outside(&uid, &net, &mut ztunnel).await;
    }
}

#[tokio::test]
async fn an_agent_without_an_api_server_keeps_ztunnel_waiting() {
    let (mut node, mut ztunnel) = Node::ambient().await;
    let (uid, net) = node.bring_in("web", "10.1.0.1", &mut ztunnel).await;
    node.status("web", "Running", "10.1.0.1").await;
    node.kill().await;
    node.server.refuse_requests(true);
    node.server.disconnect_watches();
    node.run().await;
    // It must not be told of an empty node: it would stop serving all pods.
    let refusal = node
        .add(
            "other",
            "11111111-1111-1111-1111-111111111111",
            &Net::new("10.1.0.7"),
        )
        .await;
    assert!(refusal.unwrap_err().again);
    assert!(!node.handle.view().serving && !node.socket().exists());
    assert!(ztunnel.served.borrow().contains_key(&uid));
    let writes = node.kernel.writes();
    node.server.refuse_requests(false);
    node.is_in_mesh(&uid, &net, &mut ztunnel).await;
    ztunnel.synced().await;
    assert_eq!(node.kernel.writes(), writes);
}

#[tokio::test]
async fn a_pod_that_no_watch_shows_is_asked_for_again_and_leaves_when_it_is_gone() {
    let (mut node, mut ztunnel) = Node::start().await;
    node.patience(Patience {
        verify: Duration::from_millis(50),
        confirm: Duration::from_millis(100),
        ..Patience::default()
    });
    node.run().await;
    ztunnel.synced().await;
    node.label("demo", Some("ambient")).await;
    // The watch is about the pods of this node.
    let elsewhere = json!({"spec": {"nodeName": "node-2"}});
    let (uid, net) = (node.pod("web", elsewhere).await, Net::new("10.1.0.1"));
    node.add("web", &uid, &net).await.unwrap();
    node.is_in_mesh(&uid, &net, &mut ztunnel).await;
    let asked = || async { node.requests().get("get pods").copied().unwrap_or_default() };
    let before = asked().await;
    eventually("it is asked for", asked, |now| *now > before + 2).await;
    node.is_in_mesh(&uid, &net, &mut ztunnel).await;
    // An API server that does not answer takes nothing away.
    node.server.refuse_requests(true);
    let ensured = node.kernel.ensured();
    let rounds = || async { node.kernel.ensured() };
    eventually("some rounds", rounds, |now| *now > ensured + 4).await;
    node.is_in_mesh(&uid, &net, &mut ztunnel).await;
    node.server.refuse_requests(false);
    node.delete("web").await;
    let gone = || async { node.view(&uid).is_none() };
    eventually("it is forgotten", gone, |gone| *gone).await;
    ztunnel.serves(&uid, None).await;
    assert!(node.kernel.probes().is_empty());
}

#[tokio::test]
async fn a_pod_that_takes_long_holds_no_other_up() {
    let (node, mut ztunnel) = Node::ambient().await;
    let (slow, stuck) = node.place("slow", "10.1.0.1").await;
    node.kernel.slow(Some(&stuck));
    let (handle, attachment) = (node.handle.clone(), stuck.attachment("slow", &slow));
    let adding = tokio::spawn(async move { handle.add(attachment).await });
    node.reaches(&slow, Phase::Entering(Step::Rules)).await;
    for (name, address) in [("one", "10.1.0.2"), ("two", "10.1.0.3")] {
        let (uid, net) = node.place(name, address).await;
        assert!(node.add(name, &uid, &net).await.unwrap().enrolled);
        node.is_in_mesh(&uid, &net, &mut ztunnel).await;
    }
    assert!(!adding.is_finished());
    node.kernel.slow(None);
    assert!(adding.await.unwrap().unwrap().enrolled);
}

#[tokio::test]
async fn a_new_ztunnel_that_refuses_a_pod_in_the_mesh_is_noticed() {
    let (node, mut old) = Node::ambient().await;
    let (uid, net) = node.bring_in("web", "10.1.0.1", &mut old).await;
    node.shows("web", Some("enabled")).await;
    let mut new = node.refusing_ztunnel();
    node.reaches(&uid, Phase::Entering(Step::Ztunnel)).await;
    node.shows("web", Some("pending")).await;
    new.refuse(false);
    node.is_in_mesh(&uid, &net, &mut new).await;
    node.shows("web", Some("enabled")).await;
}

#[tokio::test]
async fn a_pod_whose_namespace_is_there_without_its_file_is_not_cut_off() {
    let (node, mut ztunnel) = Node::ambient().await;
    let (uid, net) = node.place("web", "10.1.0.1").await;
    let link = node.proc.path().join("link");
    std::os::unix::fs::symlink(net.namespace.path(), &link).unwrap();
    let attachment = Attachment {
        netns: link.to_str().unwrap().to_owned(),
        ..net.attachment("web", &uid)
    };
    let note = node.note(&attachment);
    node.handle.add(attachment).await.unwrap();
    node.status("web", "Running", "10.1.0.1").await;
    node.is_in_mesh(&uid, &net, &mut ztunnel).await;
    ztunnel.served.mark_unchanged();
    std::fs::remove_file(link).unwrap();
    let forgotten = testkit_net::eventually("the note's end", DEADLINE, || !note.exists()).await;
    forgotten.unwrap();
    let looks = node.kernel.looks();
    let later = |kernel: &Kernel| kernel.looks() > looks + 2;
    node.kernel.until("more looks", later).await;
    assert!(
        !ztunnel.served.has_changed().unwrap(),
        "ztunnel was told otherwise"
    );
    node.is_in_mesh(&uid, &net, &mut ztunnel).await;
}

#[tokio::test]
async fn the_plugin_waits_for_a_ztunnel_that_takes_its_time() {
    let (node, mut ztunnel) = Node::ambient().await;
    ztunnel.answer(false);
    let (uid, net) = node.place("web", "10.1.0.1").await;
    let (handle, attachment) = (node.handle.clone(), net.attachment("web", &uid));
    let adding = tokio::spawn(async move { handle.add(attachment).await });
    node.reaches(&uid, Phase::Entering(Step::Ztunnel)).await;
    // A pod that does not belong in the mesh does not wait for it.
    let none = json!({"metadata": {"labels": {MODE: "none"}}});
    let (other, elsewhere) = (node.pod("other", none).await, Net::new("10.1.0.2"));
    assert!(
        !node
            .add("other", &other, &elsewhere)
            .await
            .unwrap()
            .enrolled
    );
    assert!(!adding.is_finished());
    ztunnel.answer(true);
    assert!(adding.await.unwrap().unwrap().enrolled);
    node.is_in_mesh(&uid, &net, &mut ztunnel).await;
}

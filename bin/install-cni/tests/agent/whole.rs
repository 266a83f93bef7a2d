//! The agent with the real kernel: what it says is what namespaces hold.

use install_cni::{
    agent::{Phase, Withdrawn},
    kernel::{Kernel, Mechanism},
};
use testkit_net::{Namespace, filters};

use crate::{
    kernel::kernel,
    node::{DEADLINE, Node, eventually},
};

async fn mk_node() -> (Node<Kernel>, Namespace) {
    let host = Namespace::new("host").unwrap();
    let kernel = kernel(&host, Mechanism::Nftables).await;
    let mut node = Node::with(kernel).await;
    node.run().await;
    (node, host)
}

/// Everything that nftables holds, with the number of each rule: a rule that is made anew has another.
fn ruleset(namespace: &Namespace) -> String {
    let arguments = ["--handle", "--stateless", "list", "ruleset"];
    namespace.exec("nft", &arguments, "").unwrap()
}

#[tokio::test]
async fn what_the_agent_says_is_what_the_kernel_holds() {
    let (mut node, host) = mk_node().await;
    let mut ztunnel = node.ztunnel();
    ztunnel.synced().await;
    let (uid, net) = node.place("web", "10.1.0.1").await;
    let before = ruleset(&net.namespace);
    assert!(!node.add("web", &uid, &net).await.unwrap().enrolled);
    node.status("web", "Running", "10.1.0.1").await;
    assert_eq!(ruleset(&net.namespace), before);

    node.label("demo", Some("ambient")).await;
    node.is_enrolled(&uid, &net).await;
    ztunnel.serves(&uid, Some(&net)).await;
    let enrolled = (ruleset(&net.namespace), ruleset(&host));
    assert!(enrolled.0.contains("15001"), "{}", enrolled.0);
    assert!(
        enrolled.1.contains("10.1.0.1") && enrolled.1.contains(&*uid),
        "{}",
        enrolled.1
    );
    let rules = net.namespace.ip("rule").unwrap();
    assert!(rules.contains("lookup 100"), "{rules}");

    // A restart makes nothing anew.
    node.run().await;
    node.is_enrolled(&uid, &net).await;
    ztunnel.synced().await;
    assert_eq!((ruleset(&net.namespace), ruleset(&host)), enrolled);

    // What somebody destroys is put back.
    net.namespace
        .exec("nft", &["flush", "ruleset"], "")
        .unwrap();
    net.namespace.ip("rule del pref 32764").unwrap();
    let state = || async { (ruleset(&net.namespace), net.namespace.ip("rule").unwrap()) };
    let back = |(rules, routes): &(String, String)| {
        rules.contains("15001") && routes.contains("lookup 100")
    };
    eventually("the rules are back", state, back).await;

    node.label("demo", None).await;
    node.reaches(&uid, Phase::Outside).await;
    ztunnel.serves(&uid, None).await;
    assert_eq!(ruleset(&net.namespace), before);
    let rules = net.namespace.ip("rule").unwrap();
    assert!(!rules.contains("lookup 100"), "{rules}");
    assert!(!ruleset(&host).contains("10.1.0.1"));
}

#[tokio::test]
async fn the_mesh_leaves_a_real_node_as_it_found_it() {
    let (node, host) = mk_node().await;
    let ztunnel = node.ztunnel();
    ztunnel.synced().await;
    node.label("demo", Some("ambient")).await;
    let (uid, net) = node.place("web", "10.1.0.1").await;
    // The host has the probe set by now; one that never had an agent shows how it was.
    let untouched = Namespace::new("untouched").unwrap();
    let held = |namespace: &Namespace| filters::snapshot(namespace).unwrap();
    let before = [held(&net.namespace), held(&untouched)];
    assert!(node.add("web", &uid, &net).await.unwrap().enrolled);
    for (now, before) in [held(&net.namespace), held(&host)].iter().zip(&before) {
        assert_ne!(now, before);
    }
    assert_eq!(node.handle.withdraw(DEADLINE).await, Withdrawn::default());
    assert_eq!([held(&net.namespace), held(&host)], before);
}

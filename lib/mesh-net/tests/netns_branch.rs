//! Rules for pods on branch interfaces, on a node that is set up as Amazon's CNI plugin does it.
#![expect(
    clippy::unwrap_used,
    reason = "what a test needs is there or the test fails"
)]

use std::net::IpAddr;

use mesh_net::branch;
use testkit_net::Namespace;

const PODS: [&str; 2] = ["10.1.0.5", "fd00:1::5"];

/// A node with a pod whose table routes its address to its own interface.
fn mk_node() -> Namespace {
    let node = Namespace::new("node").unwrap();
    for (name, peer) in [("vlan7", "trunk"), ("eni-a", "pod-a")] {
        node.ip_batch(&format!(
            "link add {name} type veth peer name {peer}\nlink set {peer} up\nlink set {name} up\n"
        ))
        .unwrap();
    }
    for (option, pod, via) in [("-4", PODS[0], "10.1.0.1"), ("-6", PODS[1], "fd00:1::1")] {
        let length = if option == "-4" { 32 } else { 128 };
        for words in [
            format!("{option} route add {pod}/{length} dev eni-a table 107"),
            format!("{option} route add {via}/{length} dev vlan7 table 107"),
            format!("{option} rule add iif eni-a lookup 107 pref 10"),
            format!("{option} rule add iif vlan7 lookup 107 pref 10"),
        ] {
            node.ip(&words).unwrap();
        }
    }
    node
}

fn rules(node: &Namespace) -> Vec<String> {
    let mut rules = Vec::new();
    for option in ["-4", "-6"] {
        let listed = node.ip(&format!("{option} rule show")).unwrap();
        rules.extend(listed.lines().map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            words.join(" ")
        }));
    }
    rules
}

fn ensure(node: &Namespace, pod: &str) -> bool {
    let pod: IpAddr = pod.parse().unwrap();
    node.enter(|| branch::ensure(pod)).unwrap().unwrap()
}

fn remove(node: &Namespace, pod: &str) {
    let pod: IpAddr = pod.parse().unwrap();
    node.enter(|| branch::remove(pod)).unwrap().unwrap();
}

#[test]
fn a_pod_on_a_branch_gets_two_rules_that_go_with_it() {
    let node = mk_node();
    let before = rules(&node);
    for pod in PODS {
        for _again in 0..2 {
            assert!(ensure(&node, pod));
            let mut more = rules(&node);
            more.retain(|rule| !before.contains(rule));
            let expected = [
                "9: from all iif eni-a lookup local proto 107".to_owned(),
                format!("512: from all to {pod} lookup 107 proto 107"),
            ];
            assert_eq!(more, expected);
        }
        for _again in 0..2 {
            remove(&node, pod);
            assert_eq!(rules(&node), before);
        }
    }
}

#[test]
fn a_pod_on_no_branch_gets_none() {
    let node = mk_node();
    let before = rules(&node);
    for pod in ["10.1.0.6", "fd00:1::6"] {
        assert!(!ensure(&node, pod), "{pod}");
        assert_eq!(rules(&node), before, "{pod}");
    }
}

#[test]
fn rules_of_a_pod_whose_interface_has_gone_are_found_without_memory() {
    let node = mk_node();
    let before = rules(&node);
    ensure(&node, PODS[0]);
    ensure(&node, PODS[1]);
    // The plugin has taken its rules and the interface away.
    node.ip_batch("rule del iif eni-a lookup 107\nlink del eni-a\n")
        .unwrap();
    remove(&node, PODS[0]);
    remove(&node, PODS[1]);
    let left: Vec<_> = rules(&node)
        .into_iter()
        .filter(|rule| !before.contains(rule))
        .collect();
    assert!(
        left.iter().all(|rule| !rule.contains("proto 107")),
        "{left:?}"
    );
}

#[test]
fn an_address_that_moves_to_another_table_takes_its_rule_along() {
    let node = mk_node();
    ensure(&node, PODS[0]);
    node.ip_batch(
        "rule del iif eni-a lookup 107\nroute flush table 107\n\
         route add 10.1.0.5/32 dev eni-a table 108\nrule add iif eni-a lookup 108 pref 10\n",
    )
    .unwrap();
    assert!(ensure(&node, PODS[0]));
    let to_pod: Vec<_> = rules(&node)
        .into_iter()
        .filter(|rule| rule.contains(PODS[0]))
        .collect();
    assert_eq!(to_pod, ["512: from all to 10.1.0.5 lookup 108 proto 107"]);
}

#[test]
fn clearing_removes_ours_and_nothing_else() {
    let node = mk_node();
    node.ip("rule add to 10.1.0.9 lookup 107 pref 512").unwrap();
    let before = rules(&node);
    for pod in PODS {
        ensure(&node, pod);
    }
    assert_ne!(rules(&node), before);
    node.enter(branch::clear).unwrap().unwrap();
    assert_eq!(rules(&node), before);
}

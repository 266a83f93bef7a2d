//! The other commands, and what is wrong with a call.

use std::time::Duration;

use istio_cni::Patience;
use serde_json::{Value, json};

use crate::fake::{Node, POD, Reply, Server, call, patience, pod};

fn done() -> Reply {
    Reply::Says(200, Value::Null)
}

fn refused() -> Reply {
    Reply::Says(
        409,
        json!({"message": "no rules in the pod", "again": false}),
    )
}

#[test]
fn check_is_the_agents_word() {
    let node = Node::new();
    let config = node.config(
        "1.0.0",
        json!({"prevResult": {"ips": [{"address": "10.1.0.5/16"}]}}),
    );
    let agent = node.agent([done(), refused()]);
    assert_eq!(pod("CHECK", &config), (0, Value::Null));
    let (status, said) = pod("CHECK", &config);
    assert_eq!((status, &said["msg"]), (1, &json!("no rules in the pod")));
    let asked = agent.asked();
    assert_eq!(
        (asked[0].0.as_str(), &asked[0].1["addresses"]),
        ("/v1/check", &json!(["10.1.0.5"]))
    );
    drop(agent);
    let (status, said) = pod("CHECK", &config);
    assert_eq!((status, &said["code"]), (1, &json!(11)), "{said}");
}

#[test]
fn deletion_never_fails() {
    let node = Node::new();
    let config = node.config("1.0.0", json!({}));
    assert_eq!(pod("DEL", &config), (0, Value::Null));
    let agent = node.agent([done(), refused(), Reply::Dies, Reply::Silent]);
    let gone = [POD[0], POD[2], POD[3]];
    for _ in 0..3 {
        assert_eq!(call(patience(), "DEL", &gone, &config), (0, Value::Null));
    }
    let brief = Patience {
        brief: Duration::from_millis(20),
        ..patience()
    };
    assert_eq!(call(brief, "DEL", &gone, &config), (0, Value::Null));
    let asked = agent.asked();
    assert_eq!(
        (asked[0].0.as_str(), &asked[0].1["netns"]),
        ("/v1/del", &json!(""))
    );
    // Also in a namespace that is excluded by now.
    let config = node.config("1.0.0", json!({"exclude_namespaces": ["shop"]}));
    drop(agent);
    std::fs::remove_file(node.path().join("pluginevent.sock")).unwrap();
    let agent = node.agent([done()]);
    assert_eq!(call(patience(), "DEL", &gone, &config), (0, Value::Null));
    assert_eq!(agent.asked().len(), 1);
}

#[test]
fn garbage_collection_names_what_is_left_of_the_network() {
    let node = Node::new();
    let valid =
        json!([{"containerID": "a", "ifname": "eth0"}, {"containerID": "b", "ifname": "net1"}]);
    let config = node.config("1.1.0", json!({"cni.dev/valid-attachments": valid}));
    let agent = node.agent([done(), refused()]);
    assert_eq!(call(patience(), "GC", &[], &config), (0, Value::Null));
    let attachments = json!([
        {"containerId": "a", "interface": "eth0"}, {"containerId": "b", "interface": "net1"},
    ]);
    let valid = json!({"network": "net", "attachments": attachments});
    assert_eq!(agent.asked(), [("/v1/gc".to_owned(), valid)]);
    assert_eq!(call(patience(), "GC", &[], &config).1["code"], 100);
    drop(agent);
    assert_eq!(call(patience(), "GC", &[], &config).1["code"], 11);
}

#[test]
fn status_keeps_a_node_from_being_ready_only_where_that_is_asked_for() {
    let node = Node::new();
    let config = node.config("1.1.0", json!({}));
    let strict = node.config("1.1.0", json!({"status_needs_agent": true}));
    let agent = node.agent([done(), refused(), done(), refused()]);
    for _answer in ["done", "refused"] {
        assert_eq!(call(patience(), "STATUS", &[], &config), (0, Value::Null));
    }
    assert_eq!(call(patience(), "STATUS", &[], &strict), (0, Value::Null));
    let (status, said) = call(patience(), "STATUS", &[], &strict);
    assert_eq!(
        (status, &said["code"], &said["msg"]),
        (1, &json!(50), &json!("no rules in the pod"))
    );
    drop(agent);
    assert_eq!(call(patience(), "STATUS", &[], &config), (0, Value::Null));
    let (status, said) = call(patience(), "STATUS", &[], &strict);
    assert_eq!((status, &said["code"]), (1, &json!(50)), "{said}");
}

#[test]
fn version_is_answered_whatever_comes() {
    let all = json!([
        "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"
    ]);
    for (config, version) in [
        (Value::Null, "1.1.0"),
        (json!({"cniVersion": "0.4.0"}), "0.4.0"),
        (json!({"cniVersion": "9.0.0"}), "1.1.0"),
    ] {
        let (status, said) = call(patience(), "VERSION", &[], &config);
        let expected = json!({"cniVersion": version, "supportedVersions": all});
        assert_eq!((status, said), (0, expected), "{config}");
    }
}

#[test]
fn wrong_call_gets_an_error_object_in_the_runtimes_version() {
    let node = Node::new();
    let good = node.config("0.4.0", json!({}));
    for (command, variables, config, code, version) in [
        ("ADD", &POD[1..], good.clone(), 4, "0.4.0"),
        ("EAT", &POD[..], good.clone(), 4, "0.4.0"),
        ("GC", &[], good.clone(), 1, "0.4.0"),
        ("STATUS", &[], good.clone(), 1, "0.4.0"),
        ("CHECK", &POD[..], good, 7, "0.4.0"),
        (
            "CHECK",
            &POD[..],
            node.config("0.3.1", json!({"prevResult": {}})),
            1,
            "0.3.1",
        ),
        ("ADD", &POD[..], node.config("2.0.0", json!({})), 1, "1.1.0"),
        (
            "ADD",
            &POD[..],
            node.config("1.0.0", json!({"name": "../x"})),
            7,
            "1.0.0",
        ),
        ("DEL", &POD[..], json!([]), 6, "1.1.0"),
        ("DEL", &POD[..], Value::Null, 6, "1.1.0"),
    ] {
        let (status, said) = call(patience(), command, variables, &config);
        assert_eq!(status, 1, "{command} {said}");
        assert_eq!(
            (&said["code"], &said["cniVersion"]),
            (&json!(code), &json!(version)),
            "{said}"
        );
        assert!(!said["msg"].as_str().unwrap().is_empty());
    }
}

#[test]
fn failures_are_logged_through_the_agent() {
    let node = Node::new();
    let log = Server::start(node.path().join("log.sock"), vec![done()]);
    let (status, _) = pod(
        "ADD",
        &node.config("1.0.0", json!({"plugin_log_level": "warn"})),
    );
    assert_eq!(status, 1);
    let asked = log.asked();
    let [(path, Value::Array(lines))] = asked.as_slice() else {
        unreachable!("one request with a list: {asked:?}");
    };
    assert_eq!(path, "/log");
    let [Value::String(line)] = lines.as_slice() else {
        unreachable!("one line: {lines:?}");
    };
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!(
        (&line["level"], &line["pod"]),
        (&json!("error"), &json!("shop/web"))
    );
    assert!(
        line["msg"]
            .as_str()
            .unwrap()
            .starts_with("ADD failed: pod shop/web may belong")
    );
    assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line}");
}

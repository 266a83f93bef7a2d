//! Our plugin where Istio's agent listens: it replaces ours, and has not yet replaced the plugin.

use serde_json::{Value, json};

use crate::fake::{Node, Reply, Server, call, patience, pod};

/// What a server of Go says of a path that it does not know.
const UNKNOWN: Reply = Reply::Raw(
    b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n\
      Content-Length: 19\r\nConnection: close\r\n\r\n404 page not found\n",
);
/// What it says of a pod that it knows and leaves outside.
const OUTSIDE: Reply = Reply::Raw(
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 76\r\nConnection: close\r\n\r\n\
      pod shop/web is unexpectedly not eligible for ambient enrollment, whatever.\n",
);
/// What it says while its ztunnel is away.
const FAILED: Reply = Reply::Raw(
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 22\r\nConnection: close\r\n\r\nno ztunnel connection\n",
);

fn config(node: &Node) -> Value {
    let addresses = json!([{"address": "10.1.0.5/16"}, {"address": "fd00::5/64"}]);
    node.config("1.0.0", json!({"prevResult": {"ips": addresses}}))
}

fn added(second: Reply) -> ((u8, Value), Vec<(String, Value)>) {
    let node = Node::new();
    let agent: Server = node.agent([UNKNOWN, second]);
    let said = pod("ADD", &config(&node));
    (said, agent.asked())
}

#[test]
fn pod_is_added_by_istios_agent_with_its_call() {
    let ((status, said), asked) = added(Reply::Says(200, Value::Null));
    assert_eq!(status, 0, "{said}");
    assert_eq!(said["ips"][0]["address"], "10.1.0.5/16");
    let event = json!({
        "Netns": "/var/run/netns/none", "PodName": "web", "PodNamespace": "shop",
        "IPs": [{"Address": {"IP": "10.1.0.5"}}, {"Address": {"IP": "fd00::5"}}],
    });
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[1], ("/cmdadd".to_owned(), event));
}

#[test]
fn pod_that_istios_agent_cannot_add_does_not_start() {
    let ((status, said), _) = added(FAILED);
    assert_eq!((status, &said["code"]), (1, &json!(11)), "{said}");
    let text = said["msg"].as_str().unwrap();
    assert!(text.contains("no ztunnel connection"), "{text}");
}

#[test]
fn pod_that_istios_agent_leaves_outside_starts() {
    let ((status, said), _) = added(OUTSIDE);
    assert_eq!(status, 0, "{said}");
}

#[test]
fn istios_agent_that_goes_away_meanwhile_counts_as_away() {
    let ((status, said), _) = added(Reply::Dies);
    assert_eq!((status, &said["code"]), (1, &json!(11)), "{said}");
}

#[test]
fn what_istios_plugin_does_nothing_for_passes() {
    let node = Node::new();
    let _agent = node.agent([UNKNOWN]);
    let config = node.config(
        "1.1.0",
        json!({"prevResult": {}, "status_needs_agent": true}),
    );
    for command in ["CHECK", "DEL"] {
        assert_eq!(pod(command, &config), (0, Value::Null), "{command}");
    }
    for command in ["STATUS", "GC"] {
        let (status, said) = call(patience(), command, &[], &config);
        assert_eq!((status, said), (0, Value::Null), "{command}");
    }
}

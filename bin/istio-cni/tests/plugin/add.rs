//! ADD: in the mesh, or not at all.

use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use istio_cni::Patience;
use serde_json::{Value, json};

use crate::fake::{Node, POD, Reply, call, patience, pod};

fn enrolled() -> Reply {
    Reply::Says(200, json!({"enrolled": true}))
}

fn ambient_namespace() -> Value {
    json!([{"namespaceSelector": {"matchLabels": {"mesh": "on"}}}])
}

#[test]
fn agent_is_told_all_that_is_known_and_the_result_passed_on() {
    let node = Node::new();
    let agent = node.agent([enrolled()]);
    let previous = json!({
        "cniVersion": "1.0.0", "dns": {}, "more": [1],
        "interfaces": [{"name": "cni0"}, {"name": "eth0", "sandbox": "/x"}],
        "ips": [{"address": "10.1.0.5/16", "interface": 1}, {"address": "fd00::5/64", "interface": 1}],
    });
    let config = node.config("1.0.0", json!({"prevResult": previous}));
    assert_eq!(pod("ADD", &config), (0, previous));
    let attachment = json!({
        "network": "net", "containerId": "0a1b", "interface": "eth0", "netns": "/var/run/netns/none",
        "podName": "web", "podNamespace": "shop", "podUid": "6f-1",
        "addresses": ["10.1.0.5", "fd00::5"],
    });
    assert_eq!(agent.asked(), [("/v1/add".to_owned(), attachment)]);
}

#[test]
fn answer_of_a_newer_agent_is_understood() {
    let node = Node::new();
    let _agent = node.agent([Reply::Says(200, json!({"enrolled": true, "news": [1]}))]);
    assert_eq!(pod("ADD", &node.config("0.3.1", json!({}))).0, 0);
}

#[test]
fn result_is_passed_on_in_every_version() {
    let node = Node::new();
    let _agent = node.agent([enrolled()]);
    for version in ["0.1.0", "0.2.0"] {
        let previous = json!({"cniVersion": version, "ip4": {"ip": "10.1.0.5/16"}});
        let config = node.config(version, json!({"prevResult": previous}));
        assert_eq!(pod("ADD", &config), (0, previous));
    }
    for version in ["0.3.0", "0.3.1", "0.4.0"] {
        let previous =
            json!({"cniVersion": version, "ips": [{"version": "4", "address": "10.1.0.5/16"}]});
        let config = node.config(version, json!({"prevResult": previous}));
        assert_eq!(pod("ADD", &config), (0, previous));
    }
    for version in ["1.0.0", "1.1.0"] {
        let previous = json!({"cniVersion": version, "ips": [{"address": "10.1.0.5/16"}]});
        let config = node.config(version, json!({"prevResult": previous}));
        assert_eq!(pod("ADD", &config), (0, previous));
    }
}

#[test]
fn alone_it_reports_an_empty_network() {
    let node = Node::new();
    let _agent = node.agent([enrolled()]);
    let (status, said) = pod("ADD", &node.config("0.3.1", json!({})));
    assert_eq!(
        (status, said),
        (0, json!({"cniVersion": "0.3.1", "dns": {}}))
    );
}

#[test]
fn own_pods_excluded_namespaces_and_what_is_no_pod_pass_without_asking() {
    let node = Node::new();
    let agent = node.agent([Reply::Dies]);
    let config = node.config("1.0.0", json!({}));
    for args in [
        "K8S_POD_NAME=istio-cni-node-x7k2p;K8S_POD_NAMESPACE=mesh",
        "K8S_POD_NAME=coredns;K8S_POD_NAMESPACE=kube-system",
        "K8S_POD_NAME=web",
        "",
    ] {
        let variables = [POD[0], POD[1], POD[2], ("CNI_ARGS", args)];
        for command in ["ADD", "CHECK"] {
            let config = node.config("1.0.0", json!({"prevResult": {}}));
            let (status, said) = call(patience(), command, &variables, &config);
            assert_eq!(status, 0, "{command} {args}: {said}");
        }
    }
    assert_eq!(agent.asked(), []);
    // Somebody else's pod of that name is not the agent's, and neither is one whose name only resembles it.
    for args in [
        "K8S_POD_NAME=istio-cni-node-x7k2p;K8S_POD_NAMESPACE=shop",
        "K8S_POD_NAME=istio-cni-nodes;K8S_POD_NAMESPACE=mesh",
    ] {
        let variables = [POD[0], POD[1], POD[2], ("CNI_ARGS", args)];
        let (status, _) = call(patience(), "ADD", &variables, &config);
        assert_eq!(status, 1, "{args}");
    }
}

#[test]
fn refusal_is_told_with_its_words_and_whether_to_repeat() {
    for (again, code) in [(true, 11), (false, 100)] {
        let node = Node::new();
        let refusal = json!({"message": "ztunnel is not connected", "again": again});
        let agent = node.agent([Reply::Says(503, refusal)]);
        let (status, said) = pod("ADD", &node.config("0.4.0", json!({})));
        let expected =
            json!({"cniVersion": "0.4.0", "code": code, "msg": "ztunnel is not connected"});
        assert_eq!((status, said), (1, expected));
        // What the agent has decided is not asked again.
        assert_eq!(agent.asked().len(), 1);
    }
}

#[test]
fn pod_that_may_belong_in_the_mesh_does_not_start_without_the_agent() {
    let node = Node::new();
    let config = node.config("1.0.0", json!({}));
    let closed = |why: &str| {
        let (status, said) = pod("ADD", &config);
        assert_eq!((status, &said["code"]), (1, &json!(11)), "{said}");
        let text = said["msg"].as_str().unwrap();
        assert!(text.starts_with(&format!("pod shop/web {why}")), "{text}");
        assert!(text.contains("DaemonSet mesh/istio-cni-node"), "{text}");
        said["details"].as_str().unwrap().to_owned()
    };
    let details = closed("may belong");
    assert!(details.contains("pluginevent.sock"), "{details}");
    assert!(details.contains("enrolment.json"), "{details}");
    node.snapshot(&ambient_namespace(), &json!({"shop": {"mesh": "on"}}));
    closed("belongs");
    // A namespace that the agent has not seen.
    node.snapshot(&ambient_namespace(), &json!({"other": {}}));
    closed("may belong");
    // One label of the pod, which is not known, may put it in the mesh.
    let by_pod = json!([{"podSelector": {"matchLabels": {"mesh": "on"}}}]);
    node.snapshot(&by_pod, &json!({"shop": {}}));
    closed("may belong");
    fs::write(node.path().join("enrolment.json"), "{").unwrap();
    closed("may belong");
}

#[test]
fn pod_that_does_not_belong_in_the_mesh_starts_without_the_agent() {
    let node = Node::new();
    node.snapshot(&ambient_namespace(), &json!({"shop": {"mesh": "off"}}));
    let config = node.config("1.0.0", json!({}));
    assert_eq!(pod("ADD", &config).0, 0);
    // What others can write decides nothing.
    let file = node.path().join("enrolment.json");
    fs::set_permissions(file, fs::Permissions::from_mode(0o666)).unwrap();
    let (status, said) = pod("ADD", &config);
    assert_eq!(status, 1);
    let details = said["details"].as_str().unwrap();
    assert!(
        details.contains("others than root can write it"),
        "{details}"
    );
}

#[test]
fn agent_that_starts_or_is_replaced_meanwhile_is_asked_again() {
    let node = Node::new();
    let garbage = Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{");
    let agent = node.agent([Reply::Dies, garbage, enrolled()]);
    let patience = Patience {
        absence: Duration::from_secs(10),
        ..patience()
    };
    let config = node.config("1.0.0", json!({}));
    let (status, said) = call(patience, "ADD", &POD, &config);
    assert_eq!(status, 0, "{said}");
    let asked = agent.asked();
    assert_eq!(asked.len(), 3);
    assert!(asked.iter().all(|request| *request == asked[0]));
}

#[test]
fn agent_that_we_do_not_understand_counts_as_away() {
    for reply in [
        Reply::Says(404, Value::Null),
        Reply::Says(200, json!({"enroled": true})),
        Reply::Says(200, Value::Null),
        Reply::Raw(b"SSH-2.0\r\n\r\n"),
        Reply::Dies,
    ] {
        let node = Node::new();
        let _agent = node.agent([reply.clone()]);
        let (status, said) = pod("ADD", &node.config("1.0.0", json!({})));
        assert_eq!(
            (status, &said["code"]),
            (1, &json!(11)),
            "{reply:?}: {said}"
        );
    }
}

#[test]
fn agent_that_hangs_ends_the_call_at_its_deadline() {
    let node = Node::new();
    let _agent = node.agent([Reply::Silent]);
    let patience = Patience {
        call: Duration::from_millis(50),
        ..patience()
    };
    let (status, said) = call(patience, "ADD", &POD, &node.config("1.0.0", json!({})));
    assert_eq!((status, &said["code"]), (1, &json!(11)), "{said}");
    assert!(
        said["details"].as_str().unwrap().contains("in time"),
        "{said}"
    );
}

#[test]
fn nodes_own_network_is_never_given_to_the_agent() {
    let node = Node::new();
    let agent = node.agent([enrolled()]);
    let variables = [POD[0], ("CNI_NETNS", "/proc/self/ns/net"), POD[2], POD[3]];
    let (status, said) = call(
        patience(),
        "ADD",
        &variables,
        &node.config("1.0.0", json!({})),
    );
    assert_eq!((status, &said["code"]), (1, &json!(4)), "{said}");
    assert_eq!(agent.asked(), []);
}

#[test]
fn unreadable_result_of_the_plugins_before_fails() {
    let node = Node::new();
    let agent = node.agent([enrolled()]);
    let config = node.config(
        "1.0.0",
        json!({"prevResult": {"ips": [{"address": "pod"}]}}),
    );
    let (status, said) = pod("ADD", &config);
    assert_eq!((status, &said["code"]), (1, &json!(6)), "{said}");
    assert_eq!(agent.asked(), []);
}

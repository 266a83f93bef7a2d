//! Pods to workloads.

use mesh_core::{
    address::NamespacedHostname,
    workload::{Health, NetworkMode, PortMap, TunnelProtocol},
};

use super::*;

#[track_caller]
fn assert_pod(over: Value, differs: impl FnOnce(Workload) -> Workload) {
    let mesh = Mesh::of([pod("web", over)]);
    assert_eq!(*mesh.workload("web"), differs(pod_workload("web")));
    assert_eq!(mesh.problems, Vec::<String>::new());
}

fn key(service: &str) -> NamespacedHostname {
    NamespacedHostname {
        namespace: "shop".into(),
        hostname: format!("{service}.shop.svc.cluster.local").into(),
    }
}

#[test]
fn a_ready_pod_of_the_mesh_is_a_healthy_workload_behind_a_tunnel() {
    assert_pod(json!({}), |w| w);
}

#[test]
fn a_pod_that_has_ended_or_has_no_address_is_no_workload() {
    for over in [
        json!({"status": {"phase": "Succeeded"}}),
        json!({"status": {"phase": "Failed"}}),
        json!({"status": {"podIP": null, "podIPs": null}}),
        json!({"status": null}),
    ] {
        assert!(
            Mesh::of([pod("web", over.clone())]).workloads.is_empty(),
            "{over}"
        );
    }
}

#[test]
fn a_pending_pod_with_an_address_is_known_before_it_is_ready() {
    let pending = json!({"status": {"phase": "Pending", "conditions": []}});
    assert_pod(pending, |w| Workload {
        status: Health::Unhealthy,
        ..w
    });
}

#[test]
fn a_pod_that_is_going_away_takes_no_more_traffic() {
    let deleted = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    assert_pod(deleted, |w| Workload {
        status: Health::Unhealthy,
        ..w
    });
}

#[test]
fn a_pod_outside_of_the_mesh_is_reached_in_plain_text() {
    assert_pod(
        annotated(json!({"ambient.istio.io/redirection": "pending"})),
        |w| Workload {
            protocol: TunnelProtocol::None,
            ..w
        },
    );
}

#[test]
fn a_pod_that_terminates_tunnels_itself_says_so_by_label() {
    let over = json!({"metadata": {
        "labels": {"networking.istio.io/tunnel": "http"}, "annotations": null,
    }});
    assert_pod(over, |w| Workload {
        native_tunnel: true,
        ..w
    });
}

#[test]
fn both_families_host_network_and_the_default_account_are_kept() {
    let over = json!({
        "spec": {"hostNetwork": true, "serviceAccountName": null},
        "status": {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "2001:db8::1"}]},
    });
    assert_pod(over, |w| Workload {
        network_mode: NetworkMode::HostNetwork,
        service_account: "default".into(),
        addresses: vec!["10.0.0.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        ..w
    });
}

#[test]
fn labels_name_the_application_and_its_version() {
    for (labels, name, revision) in [
        (json!({"app": "a", "version": "v1"}), "a", "v1"),
        (
            json!({"app": "a", "app.kubernetes.io/name": "n", "app.kubernetes.io/version": "v2", "version": "v1"}),
            "n",
            "v2",
        ),
        (
            json!({"app": "a", "service.istio.io/canonical-name": "c", "service.istio.io/canonical-revision": "r"}),
            "c",
            "r",
        ),
        (json!({"app": null}), "web", "latest"),
    ] {
        assert_pod(labelled(labels), |w| Workload {
            canonical_name: name.into(),
            canonical_revision: revision.into(),
            ..w
        });
    }
}

#[test]
fn the_workload_is_what_people_made_and_not_what_it_made() {
    let cases = [
        (
            "ReplicaSet",
            "web-5d4f",
            json!({"pod-template-hash": "5d4f"}),
            "web",
            WorkloadType::Deployment,
        ),
        (
            "ReplicaSet",
            "plain",
            json!({}),
            "plain",
            WorkloadType::Deployment,
        ),
        (
            "StatefulSet",
            "db",
            json!({}),
            "db",
            WorkloadType::Deployment,
        ),
        (
            "DaemonSet",
            "agent",
            json!({}),
            "agent",
            WorkloadType::Deployment,
        ),
        ("Job", "import", json!({}), "import", WorkloadType::Job),
        (
            "Job",
            "nightly-28123456",
            json!({}),
            "nightly",
            WorkloadType::CronJob,
        ),
        ("Node", "n1", json!({}), "web", WorkloadType::Pod),
    ];
    for (kind, owner, labels, name, workload_type) in cases {
        let over = json!({"metadata": {
            "labels": labels,
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Other", "name": "other", "uid": "1"},
                {"apiVersion": "v1", "kind": kind, "name": owner, "uid": "2", "controller": true},
            ],
        }});
        assert_pod(over, |w| Workload {
            workload_name: name.into(),
            workload_type,
            ..w
        });
    }
}

#[test]
fn the_node_tells_where_a_pod_is_whichever_comes_first() {
    let expected = Workload {
        locality: locality(),
        ..pod_workload("web")
    };
    for objects in [
        [pod("web", json!({})), node("n1", json!({}))],
        [node("n1", json!({})), pod("web", json!({}))],
    ] {
        assert_eq!(*Mesh::of(objects).workload("web"), expected);
    }
}

#[test]
fn pods_of_a_lost_node_take_no_traffic_until_it_returns() {
    let mut mesh = Mesh::of([node("n1", json!({})), pod("web", json!({}))]);
    for (status, health) in [
        ("Unknown", Health::Unhealthy),
        ("True", Health::Healthy),
        ("False", Health::Unhealthy),
    ] {
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": status}]}});
        let output = mesh.apply(node("n1", ready));
        assert_eq!(output.changes.len(), 1);
        assert_eq!(mesh.workload("web").status, health, "{status}");
    }
}

#[test]
fn the_network_of_the_cluster_is_a_label_of_the_system_namespace() {
    let mut mesh = Mesh::of([pod("web", json!({})), service("web", json!({}))]);
    mesh.apply(namespace(
        "istio-system",
        labelled(json!({"topology.istio.io/network": "east"})),
    ));
    assert_eq!(&*mesh.workload("web").network, "east");
    assert_eq!(
        &*mesh.service("shop/web.shop.svc.cluster.local").vips[0].network,
        "east"
    );
}

#[test]
fn a_service_s_selector_finds_its_pods_and_their_named_ports() {
    let ports = json!({"spec": {
        "containers": [{"name": "c", "ports": [
            {"name": "http", "containerPort": 8080},
            {"name": "udp", "containerPort": 53, "protocol": "UDP"},
        ]}],
        "initContainers": [
            {"name": "sidecar", "restartPolicy": "Always", "ports": [{"name": "metrics", "containerPort": 9000}]},
            {"name": "setup", "ports": [{"name": "setup", "containerPort": 9001}]},
        ],
    }});
    let named = json!({"spec": {"ports": [
        {"name": "a", "port": 80, "targetPort": "http"},
        {"name": "b", "port": 81, "targetPort": "metrics"},
        {"name": "c", "port": 82, "targetPort": "setup"},
        {"name": "d", "port": 83, "targetPort": "udp"},
        {"name": "e", "port": 84},
        {"name": "f", "port": 85, "protocol": "UDP"},
    ]}});
    let mesh = Mesh::of([
        pod("web", ports),
        service("web", named),
        service("other", json!({})),
    ]);
    let expected = PortMap::from([(80, 8080), (81, 9000), (84, 84)]);
    assert_eq!(
        mesh.workload("web").services,
        [(key("web"), expected)].into()
    );
}

#[test]
fn a_pod_follows_its_labels_from_service_to_service() {
    let mut mesh = Mesh::of([
        service("blue", json!({})),
        service("green", json!({})),
        pod("web", labelled(json!({"app": "blue"}))),
    ]);
    let ports = PortMap::from([(80, 8080)]);
    assert_eq!(
        mesh.workload("web").services,
        [(key("blue"), ports.clone())].into()
    );
    mesh.apply(pod("web", labelled(json!({"app": "green"}))));
    assert_eq!(
        mesh.workload("web").services,
        [(key("green"), ports)].into()
    );
    mesh.delete(Kind::Service, "shop", "green");
    assert!(mesh.workload("web").services.is_empty());
}

#[test]
fn endpoints_of_a_service_without_a_selector_name_its_pods() {
    let named = |pods: &[&str]| {
        let endpoint = |pod: &&str| {
            json!({
                "addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "name": pod, "namespace": "shop"},
            })
        };
        let endpoints: Vec<_> = pods.iter().map(endpoint).collect();
        slice("web-1", "web", json!({"endpoints": endpoints}))
    };
    let mut mesh = Mesh::of([
        pod("a", json!({})),
        pod("b", json!({})),
        named(&["a"]),
        service("web", json!({"spec": {"selector": null}})),
    ]);
    let backed = [(key("web"), PortMap::from([(80, 9090)]))].into();
    assert_eq!(mesh.workload("/a").services, backed);
    let output = mesh.apply(named(&["b"]));
    assert_eq!(output.changes.len(), 2);
    assert!(mesh.workload("/a").services.is_empty());
    assert_eq!(mesh.workload("/b").services, backed);
    // With a selector the labels count, and the slice only repeats them.
    mesh.apply(service("web", json!({})));
    assert!(mesh.workload("/b").services.is_empty());
}

#[test]
fn an_endpoint_cannot_name_a_pod_of_another_namespace() {
    let endpoint = json!({
        "addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "name": "a", "namespace": "bank"},
    });
    let mesh = Mesh::of([
        pod("a", json!({})),
        slice("web-1", "web", json!({"endpoints": [endpoint]})),
        service("web", json!({"spec": {"selector": null}})),
    ]);
    assert!(mesh.workload("/a").services.is_empty());
    assert_eq!(mesh.problems.len(), 1, "{:?}", mesh.problems);
}

#[test]
fn a_pod_that_goes_is_removed_by_its_uid() {
    let mut mesh = Mesh::of([pod("web", json!({}))]);
    let removed = Change::RemoveAddress("Kubernetes//Pod/shop/web".into());
    let output = mesh.delete(Kind::Pod, "shop", "web");
    assert_eq!(output.changes.iter().collect::<Vec<_>>(), [&removed]);
    assert_eq!(mesh.delete(Kind::Pod, "shop", "web").changes, []);
    mesh.apply(pod("web", json!({})));
    let ended = mesh.apply(pod("web", json!({"status": {"phase": "Succeeded"}})));
    assert_eq!(ended.changes, [removed]);
}

#[test]
fn a_reset_removes_what_it_does_not_hold() {
    let mut mesh = Mesh::of([pod("a", json!({})), pod("b", json!({}))]);
    mesh.index
        .reset(Kind::Pod, vec![pod("b", json!({})), pod("c", json!({}))]);
    let output = mesh.hear();
    assert_eq!(
        output.changes,
        [
            Change::Workload(pod_workload("c")),
            Change::RemoveAddress("Kubernetes//Pod/shop/a".into()),
        ]
    );
}

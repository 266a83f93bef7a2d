//! What says nothing new costs nobody anything.

use super::*;

/// Everything at once, so that each object has something to be computed from.
fn cluster() -> Vec<Object> {
    vec![
        namespace("shop", labelled(json!({"istio.io/use-waypoint": "wp"}))),
        node("n1", json!({})),
        class("istio-waypoint", json!({})),
        gateway("wp", json!({})),
        service("web", json!({})),
        entry("api", json!({"spec": {"resolution": "DNS"}})),
        workload_entry("vm", json!({})),
        slice(
            "web-1",
            "web",
            json!({"endpoints": [{"addresses": ["192.0.2.7"]}]}),
        ),
        authorization_policy("all", json!({})),
        peer_authentication("default", json!({})),
        pod("web", json!({})),
    ]
}

fn changed(object: &Object, over: Value) -> Object {
    macro_rules! change {
        ($($kind:ident),*) => {
            match object {
                $(Object::$kind(object) => {
                    let object = serde_json::to_value(object).unwrap();
                    Object::$kind(read(merged(object, over)))
                })*
            }
        };
    }
    change!(
        Pod,
        Node,
        Namespace,
        Service,
        EndpointSlice,
        ServiceEntry,
        WorkloadEntry,
        Gateway,
        GatewayClass,
        AuthorizationPolicy,
        PeerAuthentication
    )
}

#[test]
fn a_new_resource_version_or_managed_field_says_nothing() {
    let mut mesh = Mesh::of(cluster());
    let noise = json!({"metadata": {
        "resourceVersion": "77", "managedFields": [{"manager": "kubectl"}],
        "annotations": {"unrelated": "yes"},
    }});
    for object in cluster() {
        assert_eq!(
            mesh.apply(changed(&object, noise.clone())),
            Output::default(),
            "{object:?}"
        );
    }
}

#[test]
fn a_relist_of_the_same_objects_says_nothing() {
    let mut mesh = Mesh::of(cluster());
    for kind in Kind::ALL {
        let of_kind = |object: &Object| object.kind() == kind;
        mesh.index
            .reset(kind, cluster().into_iter().filter(of_kind).collect());
        assert_eq!(mesh.hear(), Output::default(), "{kind}");
    }
}

#[test]
fn a_node_s_heartbeat_says_nothing() {
    let mut mesh = Mesh::of(cluster());
    let beat = json!({"status": {
        "conditions": [{
            "type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z",
        }, {
            "type": "MemoryPressure", "status": "False",
        }],
        "images": [{"names": ["a"]}],
    }});
    assert_eq!(mesh.apply(node("n1", beat)), Output::default());
    assert!(mesh.index.marked.is_empty());
}

#[test]
fn churn_leaves_nothing_behind() {
    let mut mesh = Mesh::of([]);
    for round in 0..2000 {
        let labels = labelled(json!({"app": "web", "round": format!("{round}")}));
        mesh.apply(pod("web", labels));
    }
    assert!(
        mesh.index.texts.len() < 1500,
        "{} texts",
        mesh.index.texts.len()
    );
    for object in cluster() {
        mesh.apply(object);
    }
    for kind in Kind::ALL {
        mesh.index.reset(kind, Vec::new());
    }
    mesh.hear();
    assert!(mesh.workloads.is_empty() && mesh.services.is_empty() && mesh.policies.is_empty());
    assert!(
        mesh.index.cluster.spaces.is_empty(),
        "{:?}",
        mesh.index.cluster.spaces
    );
    assert!(mesh.index.cluster.pods_on.is_empty());
    assert!(mesh.index.cluster.entries_of.is_empty());
    assert!(mesh.index.problems.is_empty());
    assert!(
        mesh.index.published.is_empty(),
        "{:?}",
        mesh.index.published
    );
}

#[test]
fn the_summary_counts_what_is_known() {
    let mesh = Mesh::of(cluster());
    let dump = serde_json::to_value(mesh.index.dump()).unwrap();
    assert_eq!(dump["objects"]["Pod"], 1);
    assert_eq!(dump["namespaces"][0]["name"], "shop");
    assert_eq!(dump["namespaces"][0]["waypoint"], "shop/wp");
}

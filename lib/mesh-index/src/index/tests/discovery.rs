//! Which namespaces are looked at, and what settings change.

use super::*;

fn selecting(label: &str) -> Settings {
    let selector = serde_json::from_value(json!({"matchLabels": {label: "on"}})).unwrap();
    Settings {
        discovery_selectors: vec![selector],
        ..Settings::default()
    }
}

fn on(label: &str) -> Value {
    labelled(json!({label: "on"}))
}

#[test]
fn objects_of_a_namespace_come_and_go_with_its_labels() {
    let mut mesh = Mesh::with(
        selecting("mesh"),
        [
            pod("web", json!({})),
            service("web", json!({})),
            entry("api", json!({"spec": {"resolution": "DNS"}})),
            authorization_policy("all", json!({})),
        ],
    );
    assert_eq!(
        mesh.statuses.len(),
        0,
        "an unknown namespace is not looked at"
    );
    let output = mesh.apply(namespace("shop", on("mesh")));
    assert_eq!(output.changes.len(), 5);
    let output = mesh.apply(namespace("shop", json!({})));
    assert_eq!(output.changes.len(), 5);
    assert!(mesh.workloads.is_empty() && mesh.services.is_empty() && mesh.policies.is_empty());
}

#[test]
fn a_waypoint_in_a_namespace_that_is_not_looked_at_does_not_exist() {
    let user = json!({"metadata": {"namespace": "bank", "labels": {
        "istio.io/use-waypoint": "wp", "istio.io/use-waypoint-namespace": "shop",
    }}});
    let open = json!({"spec": {"listeners": [{
        "name": "mesh", "port": 15008, "protocol": "HBONE",
        "allowedRoutes": {"namespaces": {"from": "All"}},
    }]}});
    let mut mesh = Mesh::with(
        selecting("mesh"),
        [
            namespace("bank", on("mesh")),
            namespace("shop", json!({})),
            gateway("wp", open),
            service("web", user),
        ],
    );
    let reasons = |mesh: &Mesh| mesh.reasons(Kind::Service, "bank", "web");
    assert_eq!(reasons(&mesh), ["WaypointBound=false/WaypointIsNotReady"]);
    mesh.apply(namespace("shop", on("mesh")));
    assert_eq!(reasons(&mesh), ["WaypointBound=true/WaypointAccepted"]);
}

#[test]
fn policies_of_the_root_count_only_while_it_is_looked_at() {
    let root = json!({"metadata": {"namespace": "istio-system"}});
    let selected = json!({"spec": {"selector": {"matchLabels": {"app": "web"}}}});
    let strict = json!({"spec": {"mtls": {"mode": "STRICT"}}});
    let mut mesh = Mesh::with(
        selecting("mesh"),
        [
            namespace("shop", on("mesh")),
            pod("web", json!({})),
            authorization_policy("wide", merged(root.clone(), selected)),
            peer_authentication("strict", merged(root, strict)),
        ],
    );
    assert!(mesh.workload("web").authorization_policies.is_empty());
    mesh.apply(namespace("istio-system", on("mesh")));
    let named: Vec<_> = mesh
        .workload("web")
        .authorization_policies
        .iter()
        .map(|p| &**p)
        .collect();
    assert_eq!(
        named,
        [
            "istio-system/istio_converted_static_strict",
            "istio-system/wide"
        ]
    );
    mesh.apply(namespace("istio-system", json!({})));
    assert!(mesh.workload("web").authorization_policies.is_empty());
    assert!(mesh.policies.is_empty());
}

#[test]
fn new_settings_are_as_good_as_old_ones() {
    let objects = || {
        [
            namespace("shop", on("mesh")),
            namespace("root", json!({})),
            pod("web", json!({})),
            service("web", json!({})),
            peer_authentication("strict", json!({"spec": {"mtls": {"mode": "STRICT"}}})),
            authorization_policy(
                "all",
                json!({"spec": {"selector": {"matchLabels": {"app": "web"}}}}),
            ),
        ]
    };
    let settings = Settings {
        cluster_id: "west".into(),
        domain: "example".into(),
        trust_domain: "td".into(),
        root_namespace: "root".into(),
        ..selecting("mesh")
    };
    let mut mesh = Mesh::of(objects());
    mesh.index.configure(settings.clone());
    mesh.hear();
    let fresh = Mesh::with(settings.clone(), objects());
    assert_eq!(mesh.workloads, fresh.workloads);
    assert_eq!(mesh.services, fresh.services);
    assert_eq!(mesh.policies, fresh.policies);
    mesh.index.configure(settings);
    assert_eq!(mesh.hear(), Output::default());
}

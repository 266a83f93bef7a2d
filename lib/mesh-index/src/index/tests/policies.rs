//! Which policies are published, and which workloads name them.

use super::*;

fn selecting(app: &str) -> Value {
    json!({"spec": {"selector": {"matchLabels": {"app": app}}}})
}

fn named(mesh: &Mesh, workload: &str) -> Vec<String> {
    let names = mesh.workload(workload).authorization_policies.iter();
    names.map(ToString::to_string).collect()
}

#[test]
fn a_workload_names_the_policies_that_select_it() {
    let root = json!({"metadata": {"namespace": "istio-system"}});
    let mut mesh = Mesh::of([
        pod("web", json!({})),
        pod("db", json!({})),
        workload_entry("vm", json!({})),
        authorization_policy("b", selecting("web")),
        authorization_policy("a", selecting("vm")),
        authorization_policy("everyone", json!({})),
        authorization_policy("wide", merged(root, selecting("web"))),
    ]);
    assert_eq!(
        named(&mesh, "Pod/shop/web"),
        ["istio-system/wide", "shop/b"]
    );
    assert_eq!(named(&mesh, "vm"), ["shop/a"]);
    assert_eq!(named(&mesh, "db"), Vec::<String>::new());
    assert_eq!(mesh.policies.len(), 4);
    let output = mesh.apply(authorization_policy("b", selecting("db")));
    assert_eq!(
        output.changes.len(),
        2,
        "the policy itself is the same to proxies"
    );
    assert_eq!(named(&mesh, "Pod/shop/web"), ["istio-system/wide"]);
    assert_eq!(named(&mesh, "db"), ["shop/b"]);
    let output = mesh.delete(Kind::AuthorizationPolicy, "shop", "b");
    assert_eq!(
        output.changes.last(),
        Some(&Change::RemovePolicy("shop/b".into()))
    );
    assert_eq!(named(&mesh, "db"), Vec::<String>::new());
}

#[test]
fn refusing_plain_text_is_a_policy_that_workloads_name() {
    let mode = |mode: &str| json!({"spec": {"mtls": {"mode": mode}}});
    let mut mesh = Mesh::of([
        pod("web", json!({})),
        pod("db", json!({})),
        peer_authentication("default", mode("STRICT")),
    ]);
    let strict = "istio-system/istio_converted_static_strict";
    assert_eq!(named(&mesh, "web"), [strict]);
    assert!(mesh.policies.contains_key(strict));
    let ports = merged(
        merged(selecting("db"), mode("STRICT")),
        json!({"spec": {"portLevelMtls": {"5432": {"mode": "DISABLE"}}}}),
    );
    mesh.apply(peer_authentication("db", ports));
    let own = "shop/converted_peer_authentication_db";
    assert_eq!(named(&mesh, "db"), [own]);
    assert!(mesh.policies.contains_key(own));
    mesh.delete(Kind::PeerAuthentication, "shop", "default");
    mesh.delete(Kind::PeerAuthentication, "shop", "db");
    assert!(mesh.policies.is_empty());
    assert_eq!(named(&mesh, "web"), Vec::<String>::new());
}

#[test]
fn the_author_of_a_policy_is_told_what_is_enforced() {
    let paths = json!({"spec": {"rules": [{"to": [{"operation": {"paths": ["/a"]}}]}]}});
    let targeted = json!({"spec": {"targetRefs": [{"kind": "Service", "name": "web"}]}});
    let mesh = Mesh::of([
        authorization_policy("plain", json!({})),
        authorization_policy("paths", paths),
        authorization_policy("targeted", targeted),
    ]);
    let told = |name| mesh.reasons(Kind::AuthorizationPolicy, "shop", name);
    assert_eq!(told("plain"), ["ZtunnelAccepted=true/Accepted"]);
    assert_eq!(told("paths"), ["ZtunnelAccepted=false/UnsupportedValue"]);
    assert_eq!(told("targeted"), Vec::<String>::new());
}

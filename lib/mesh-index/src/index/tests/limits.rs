//! Input that is malformed or hostile: bounded, told, and never an opening.

use super::*;

#[test]
fn long_lists_are_cut_and_told() {
    let many = |n: usize, make: &dyn Fn(usize) -> Value| (0..n).map(make).collect::<Vec<_>>();
    let ips = many(
        5000,
        &|i| json!({"ip": format!("10.0.{}.{}", i / 250, i % 250)}),
    );
    let hosts = many(100_000, &|i| json!(format!("h{i}.example")));
    let ports = many(
        60_000,
        &|i| json!({"number": i + 1, "name": format!("p{i}")}),
    );
    let service_ports = many(60_000, &|i| json!({"port": i + 1, "name": format!("p{i}")}));
    let addresses = many(50_000, &|i| json!(format!("10.1.{}.{}", i / 250, i % 250)));
    let mesh = Mesh::of([
        pod("web", json!({"status": {"podIPs": ips}})),
        service("web", json!({"spec": {"ports": service_ports}})),
        entry(
            "api",
            json!({"spec": {"hosts": hosts, "ports": ports, "addresses": addresses}}),
        ),
    ]);
    assert_eq!(mesh.workload("web").addresses.len(), 8);
    assert_eq!(
        mesh.service("shop/web.shop.svc.cluster.local").ports.len(),
        1024
    );
    let entry = mesh.service("shop/h0.example");
    assert_eq!((entry.ports.len(), entry.vips.len()), (256, 256));
    assert_eq!(mesh.services.len(), 257);
    assert_eq!(mesh.problems.len(), 5, "{:#?}", mesh.problems);
    assert_eq!(
        mesh.problems[0],
        "Pod shop/web: status.podIPs: has 5000 entries, and only the first 8 are in force: split the object"
    );
}

#[test]
fn values_that_make_no_sense_are_left_out_and_told() {
    let mesh = Mesh::of([
        pod(
            "web",
            json!({"status": {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "ten"}]}}),
        ),
        entry(
            "api",
            json!({"spec": {
                "hosts": ["ok.example", "a/b", "", "-x.example", "*", "a..b"],
                "addresses": ["300.1.1.1", "10.0.0.0/99"],
                "ports": [{"number": 0, "name": "a"}, {"number": 80, "name": "b", "targetPort": 70000}],
            }}),
        ),
        entry("other", json!({"spec": {"resolution": "MAGIC"}})),
    ]);
    assert_eq!(mesh.workload("web").addresses.len(), 1);
    assert_eq!(
        mesh.services.keys().collect::<Vec<_>>(),
        ["shop/ok.example"]
    );
    assert!(mesh.service("shop/ok.example").ports.is_empty());
    let fields: Vec<_> = (mesh.problems.iter())
        .filter_map(|problem| problem.split(": ").nth(1))
        .collect();
    assert_eq!(
        fields,
        [
            "status.podIPs[1]",
            "spec.hosts[1]",
            "spec.hosts[2]",
            "spec.hosts[3]",
            "spec.hosts[4]",
            "spec.hosts[5]",
            "spec.addresses[0]",
            "spec.addresses[1]",
            "spec.ports[0].number",
            "spec.ports[1].targetPort",
            "spec.resolution",
        ]
    );
}

#[test]
fn a_problem_is_told_once_and_again_when_it_changes() {
    let ip = |text: &str| json!({"status": {"podIPs": [{"ip": "10.0.0.1"}, {"ip": text}]}});
    let mut mesh = Mesh::of([]);
    assert_eq!(mesh.apply(pod("web", ip("ten"))).problems.len(), 1);
    assert_eq!(mesh.apply(pod("web", ip("ten"))).problems.len(), 0);
    assert_eq!(mesh.apply(pod("web", ip("eleven"))).problems.len(), 1);
    assert_eq!(mesh.index.dump().problems.len(), 1);
    mesh.apply(pod("web", ip("10.0.0.2")));
    assert_eq!(mesh.index.dump().problems.len(), 0);
}

#[test]
fn an_object_without_anything_does_no_harm() {
    let mut index = Index::new(Settings::default());
    for object in [
        Object::Pod(Box::default()),
        Object::Node(Box::default()),
        Object::Namespace(Box::default()),
        Object::Service(Box::default()),
        Object::EndpointSlice(Box::default()),
        Object::ServiceEntry(Box::default()),
        Object::WorkloadEntry(Box::default()),
        Object::Gateway(Box::default()),
        Object::GatewayClass(Box::default()),
        Object::AuthorizationPolicy(Box::default()),
        Object::PeerAuthentication(Box::default()),
    ] {
        index.apply(object);
    }
    drop(index.drain());
}

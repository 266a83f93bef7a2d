//! ServiceEntries and WorkloadEntries.

use mesh_core::{
    address::{NamespacedHostname, NetworkAddress, NetworkCidr},
    service::{
        AppProtocol, BalancingMode, HealthPolicy, LoadBalancing, Service as CoreService, Visibility,
    },
    workload::{Health, PortMap, TunnelProtocol},
};

use super::*;

const API: &str = "shop/api.example";

fn key(hostname: &str) -> NamespacedHostname {
    NamespacedHostname {
        namespace: "shop".into(),
        hostname: hostname.into(),
    }
}

fn vip(address: &str) -> NetworkAddress {
    NetworkAddress {
        network: "".into(),
        address: address.parse().unwrap(),
    }
}

/// An entry as old as `second` says.
fn aged(namespace: &str, name: &str, second: u8, over: Value) -> Object {
    let created = format!("2026-01-01T00:00:{second:02}Z");
    let base = json!({
        "metadata": {"namespace": namespace, "creationTimestamp": created},
        "spec": {"hosts": ["api.example"]},
    });
    entry(name, merged(base, over))
}

#[test]
fn without_resolution_connections_go_where_they_were_going() {
    let mesh = Mesh::of([entry(
        "api",
        json!({"spec": {
            "addresses": ["192.0.2.0/24", "198.51.100.7", "2001:db8::/32"],
            "subjectAltNames": ["spiffe://td/ns/a/sa/b"],
        }}),
    )]);
    let cidr = |cidr: &str| NetworkCidr {
        network: "".into(),
        cidr: cidr.parse().unwrap(),
    };
    let expected = CoreService {
        vips: vec![vip("198.51.100.7")],
        cidr_vips: vec![cidr("192.0.2.0/24"), cidr("2001:db8::/32")],
        ports: PortMap::from([(443, 443)]),
        app_protocols: [(443, AppProtocol::Tls)].into(),
        subject_alt_names: vec!["spiffe://td/ns/a/sa/b".into()],
        load_balancing: Some(LoadBalancing {
            routing_preference: vec![],
            mode: BalancingMode::Passthrough,
            health_policy: HealthPolicy::AllowAll,
        }),
        canonical: true,
        ..CoreService::named("api", "shop", "api.example")
    };
    assert_eq!(*mesh.service(API), expected);
    assert!(mesh.workloads.is_empty());
}

#[test]
fn inline_endpoints_are_workloads_with_their_own_ports() {
    let mesh = Mesh::of([entry(
        "api",
        json!({"spec": {
            "resolution": "STATIC",
            "ports": [
                {"number": 443, "name": "tls", "targetPort": 8443},
                {"number": 80, "name": "http"},
                {"number": 53, "name": "dns", "protocol": "UDP"},
            ],
            "endpoints": [{
                "address": "192.0.2.1", "ports": {"http": 8080}, "weight": 3, "network": "west",
                "locality": "r/z/s", "serviceAccount": "ext", "labels": {"app": "ext", "version": "v2"},
            }],
        }}),
    )]);
    let expected = Workload {
        name: "api".into(),
        namespace: "shop".into(),
        service_account: "ext".into(),
        network: "west".into(),
        addresses: vec!["192.0.2.1".parse().unwrap()],
        canonical_name: "ext".into(),
        canonical_revision: "v2".into(),
        workload_name: "api".into(),
        workload_type: WorkloadType::Pod,
        locality: Locality {
            region: "r".into(),
            zone: "z".into(),
            subzone: "s".into(),
        },
        capacity: 3,
        services: [(key("api.example"), PortMap::from([(443, 8443), (80, 8080)]))].into(),
        ..Workload::with_uid("Kubernetes/networking.istio.io/ServiceEntry/shop/api/192.0.2.1")
    };
    assert_eq!(*mesh.workload("192.0.2.1"), expected);
}

#[test]
fn names_to_resolve_stand_for_the_endpoints_that_are_not_there() {
    for resolution in ["DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"] {
        let mesh = Mesh::of([entry(
            "api",
            json!({"spec": {
                "resolution": resolution, "hosts": ["a.example", "*.b.example"],
            }}),
        )]);
        let expected = Workload {
            name: "api".into(),
            namespace: "shop".into(),
            hostname: Some("a.example".into()),
            canonical_name: "api".into(),
            canonical_revision: "latest".into(),
            workload_name: "api".into(),
            workload_type: WorkloadType::Pod,
            services: [(key("a.example"), PortMap::from([(443, 443)]))].into(),
            ..Workload::with_uid("Kubernetes/networking.istio.io/ServiceEntry/shop/api/a.example")
        };
        assert_eq!(mesh.workloads.values().collect::<Vec<_>>(), [&expected]);
        assert_eq!(mesh.services.len(), 2);
    }
}

#[test]
fn an_endpoint_that_stands_twice_is_used_once_and_told() {
    let mesh = Mesh::of([entry(
        "api",
        json!({"spec": {
            "resolution": "STATIC",
            "endpoints": [
                {"address": "192.0.2.1", "weight": 2}, {"address": "192.0.2.1"},
                {"address": "name.example"}, {"address": "unix:///run/x"},
            ],
        }}),
    )]);
    assert_eq!(mesh.workload("192.0.2.1").capacity, 2);
    assert_eq!(mesh.workloads.len(), 1);
    assert_eq!(
        mesh.problems,
        [
            "ServiceEntry shop/api: spec.endpoints[1].address: stands here twice; the first one is used",
            "ServiceEntry shop/api: spec.endpoints[2].address: is no IP address, as resolution STATIC needs",
            "ServiceEntry shop/api: spec.endpoints[3].address: is a Unix socket, which no tunnel leads to",
        ]
    );
}

#[test]
fn a_selector_finds_pods_and_workload_entries() {
    let mut mesh = Mesh::of([
        pod("web", json!({})),
        workload_entry("web", json!({"spec": {"ports": {"tls": 9443}}})),
        entry(
            "api",
            json!({"spec": {
                "resolution": "STATIC", "workloadSelector": {"labels": {"app": "web"}},
                "ports": [{"number": 443, "name": "tls", "targetPort": 8443}],
            }}),
        ),
    ]);
    let backed = |port| [(key("api.example"), PortMap::from([(443, port)]))].into();
    assert_eq!(mesh.workload("Pod/shop/web").services, backed(8443));
    assert_eq!(
        mesh.workload("WorkloadEntry/shop/web").services,
        backed(9443)
    );
    mesh.delete(Kind::ServiceEntry, "shop", "api");
    assert!(mesh.workloads.values().all(|w| w.services.is_empty()));
}

#[test]
fn a_selector_without_labels_selects_nothing() {
    let mesh = Mesh::of([
        pod("web", json!({})),
        entry(
            "api",
            json!({"spec": {"resolution": "DNS", "workloadSelector": {"labels": {}}}}),
        ),
    ]);
    assert!(mesh.workload("web").services.is_empty());
    assert_eq!(mesh.workloads.len(), 1, "and the host stands for nobody");
    assert_eq!(mesh.problems.len(), 1);
}

#[test]
fn a_workload_entry_is_a_workload_with_what_it_says() {
    let mut mesh = Mesh::of([
        service("vm", json!({})),
        workload_entry(
            "vm",
            json!({
                "metadata": {"labels": {"version": "v3", "networking.istio.io/tunnel": "http"}},
                "spec": {"weight": 5, "network": "west", "serviceAccount": "vm", "locality": "r/z"},
            }),
        ),
    ]);
    let service = NamespacedHostname {
        namespace: "shop".into(),
        hostname: "vm.shop.svc.cluster.local".into(),
    };
    let expected = Workload {
        name: "vm".into(),
        namespace: "shop".into(),
        service_account: "vm".into(),
        network: "west".into(),
        addresses: vec!["192.0.2.1".parse().unwrap()],
        protocol: TunnelProtocol::Hbone,
        native_tunnel: true,
        canonical_name: "vm".into(),
        canonical_revision: "v3".into(),
        workload_name: "vm".into(),
        workload_type: WorkloadType::Pod,
        locality: Locality {
            region: "r".into(),
            zone: "z".into(),
            subzone: "".into(),
        },
        capacity: 5,
        services: [(service, PortMap::from([(80, 8080)]))].into(),
        ..Workload::with_uid("Kubernetes/networking.istio.io/WorkloadEntry/shop/vm")
    };
    assert_eq!(*mesh.workload("vm"), expected);
    let ill = json!({"status": {"conditions": [{"type": "Healthy", "status": "False"}]}});
    mesh.apply(workload_entry("vm", ill));
    assert_eq!(mesh.workload("vm").status, Health::Unhealthy);
}

#[test]
fn the_oldest_public_entry_of_a_host_is_preferred_and_in_a_namespace_the_oldest() {
    let mut mesh = Mesh::of([
        aged("shop", "young", 9, json!({})),
        aged("shop", "old", 5, json!({})),
        aged("bank", "older", 3, json!({})),
        aged("mail", "oldest", 1, json!({"spec": {"exportTo": ["."]}})),
    ]);
    assert_eq!(&*mesh.service(API).name, "old");
    let canonical = |mesh: &Mesh| {
        let canonical = mesh.services.values().filter(|service| service.canonical);
        canonical
            .map(|s| s.namespace.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(canonical(&mesh), ["bank"]);
    assert_eq!(
        mesh.service("mail/api.example").visibility,
        Visibility::Namespace
    );
    mesh.delete(Kind::ServiceEntry, "bank", "older");
    assert_eq!(canonical(&mesh), ["shop"]);
}

#[test]
fn a_service_comes_before_an_entry_of_the_same_name() {
    let host =
        json!({"spec": {"hosts": ["web.shop.svc.cluster.local"], "addresses": ["192.0.2.9"]}});
    let mut mesh = Mesh::of([
        entry("api", host.clone()),
        entry(
            "api",
            merged(host, json!({"metadata": {"namespace": "bank"}})),
        ),
        service("web", json!({})),
    ]);
    let shop = "shop/web.shop.svc.cluster.local";
    assert_eq!(&*mesh.service(shop).name, "web");
    assert!(mesh.service(shop).canonical);
    assert!(!mesh.service("bank/web.shop.svc.cluster.local").canonical);
    mesh.delete(Kind::Service, "shop", "web");
    assert_eq!(&*mesh.service(shop).name, "api");
    assert!(mesh.service("bank/web.shop.svc.cluster.local").canonical);
}

#[test]
fn who_sees_an_entry_is_the_narrower_of_what_it_and_the_mesh_say() {
    use mesh_api::mesh_config::{ServiceEntryVisibility, Visibility as Mesh_, VisibilityPolicy};
    let settings = |default, policy| Settings {
        service_entry_visibility: ServiceEntryVisibility {
            default,
            policies: vec![VisibilityPolicy {
                visibility: policy,
                namespaces: vec![
                    serde_json::from_value(json!({"matchLabels": {"team": "a"}})).unwrap(),
                ],
            }],
        },
        ..Settings::default()
    };
    let seen = |settings, export: Value| {
        let mesh = Mesh::with(
            settings,
            [
                namespace("shop", labelled(json!({"team": "a"}))),
                entry("api", json!({"spec": {"exportTo": export}})),
            ],
        );
        mesh.services.get(API).map(|service| service.visibility)
    };
    let (public, own) = (Some(Visibility::Public), Some(Visibility::Namespace));
    let all = Settings::default;
    assert_eq!(seen(all(), json!(["*"])), public);
    assert_eq!(seen(all(), json!(["."])), own);
    assert_eq!(seen(all(), json!(["shop"])), own);
    assert_eq!(seen(all(), json!(["bank"])), own);
    assert_eq!(seen(all(), json!(["~"])), None);
    assert_eq!(
        seen(settings(Mesh_::None, Mesh_::Public), json!([])),
        public
    );
    assert_eq!(
        seen(settings(Mesh_::Public, Mesh_::Namespace), json!(["*"])),
        own
    );
    assert_eq!(
        seen(settings(Mesh_::Public, Mesh_::None), json!(["*"])),
        None
    );
}

#[test]
fn an_entry_without_addresses_gets_them_from_its_status_and_from_nowhere_else() {
    let resolved = json!({"spec": {"resolution": "DNS"}});
    let mut mesh = Mesh::of([entry("api", resolved.clone())]);
    assert_eq!(mesh.service(API).vips, []);
    let wanted = mesh.statuses[&(
        Kind::ServiceEntry,
        Key::new("shop", "api"),
        crate::output::ADDRESS_REPORTER,
    )]
        .addresses
        .clone();
    assert_eq!(wanted.len(), 2, "one of each family");
    let status: Vec<_> = (wanted.iter())
        .map(|a| json!({"host": &*a.host, "value": a.value.to_string()}))
        .collect();
    let written = merged(
        resolved,
        json!({"status": {
            "addresses": status,
            "conditions": [{"type": "istio.io/VisibilityApplied", "status": "True"}],
        }}),
    );
    let output = mesh.apply(entry("api", written.clone()));
    assert_eq!(output.statuses, [], "what is written is not written again");
    let vips: Vec<_> = wanted.iter().map(|a| vip(&a.value.to_string())).collect();
    assert_eq!(mesh.service(API).vips, vips);
    // An address of its own counts instead, and what was allocated is given back.
    let stated = merged(written, json!({"spec": {"addresses": ["192.0.2.1"]}}));
    let output = mesh.apply(entry("api", stated));
    assert_eq!(mesh.service(API).vips, [vip("192.0.2.1")]);
    assert_eq!(output.statuses.len(), 1);
    assert!(output.statuses[0].addresses.is_empty());
}

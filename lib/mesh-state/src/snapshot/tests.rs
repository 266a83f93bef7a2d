//! What an address stands for.

use mesh_core::{
    address::NetworkCidr, change::Change, service::Visibility, workload::TunnelProtocol,
};

use super::*;
use crate::{
    fixtures::{at, backing, ip, mk_config, mk_pod, mk_service, mk_snapshot, range},
    store::Store,
};

/// The name of what an address stands for to a client of a namespace.
fn resolved(snapshot: &Snapshot, address: &str, namespace: &str) -> Option<String> {
    let name = match snapshot.resolve("", ip(address), Some(namespace))? {
        Destination::Service(entry) => {
            format!("{}/{}", entry.service.namespace, entry.service.name)
        }
        Destination::Workload(known) => known.workload.name.to_string(),
    };
    Some(name)
}

fn ranged(name: &str, cidr: &str) -> Service {
    Service {
        vips: Vec::new(),
        cidr_vips: vec![range(cidr)],
        ..mk_service(name, "0.0.0.0")
    }
}

#[test]
fn pod_s_address_cannot_be_taken_over_by_a_service() {
    let pod = mk_pod("pod", "10.0.0.1");
    let claim = mk_service("evil/claim", "10.0.0.1");
    let wide = ranged("evil/wide", "10.0.0.0/8");
    let snapshot = mk_snapshot(&[&pod], &[&claim, &wide]);
    assert_eq!(
        resolved(&snapshot, "10.0.0.1", "evil").as_deref(),
        Some("pod")
    );
}

#[test]
fn service_s_address_may_be_its_own_endpoint_s() {
    let service = mk_service("entry", "10.0.0.1");
    let pod = backing(mk_pod("pod", "10.0.0.1"), &service, &[]);
    let snapshot = mk_snapshot(&[&pod], &[&service]);
    assert_eq!(
        resolved(&snapshot, "10.0.0.1", "app").as_deref(),
        Some("app/entry")
    );
}

#[test]
fn shared_address_is_told_apart_by_namespace_then_canonical_then_preferred_then_name() {
    let named = |name| mk_service(name, "10.96.0.1");
    let canonical = Service {
        canonical: true,
        ..named("c/web")
    };
    let services = [named("a/web"), named("b/web"), canonical];
    let config = Config {
        preferred_service_namespace: Some("b".into()),
        ..mk_config()
    };
    let store = Store::new(config);
    let seen = |services: &[Service], client| {
        store.apply(services.iter().cloned().map(Change::Service));
        resolved(&store.snapshot(), "10.96.0.1", client)
    };
    assert_eq!(seen(&services, "a").as_deref(), Some("a/web"));
    assert_eq!(seen(&services, "z").as_deref(), Some("c/web"));
    assert_eq!(seen(&[named("c/web")], "z").as_deref(), Some("b/web"));
    store.apply([Change::RemoveAddress("b/web.example".into())]);
    assert_eq!(seen(&[], "z").as_deref(), Some("a/web"));
}

#[test]
fn hidden_service_falls_through_to_the_next_rule() {
    let hidden = Service {
        visibility: Visibility::Namespace,
        ..mk_service("own/web", "240.0.0.1")
    };
    let wide = ranged("other/wide", "240.0.0.0/8");
    let snapshot = mk_snapshot(&[], &[&hidden, &wide]);
    assert_eq!(
        resolved(&snapshot, "240.0.0.1", "own").as_deref(),
        Some("own/web")
    );
    assert_eq!(
        resolved(&snapshot, "240.0.0.1", "app").as_deref(),
        Some("other/wide")
    );
    assert_eq!(resolved(&snapshot, "241.0.0.1", "app"), None);
}

#[test]
fn longest_range_wins_within_the_client_s_namespace_before_others() {
    let services = [
        ranged("a/wide", "10.0.0.0/8"),
        ranged("a/narrow", "10.1.0.0/16"),
        ranged("b/wider", "0.0.0.0/0"),
        ranged("a/six", "fd00::/8"),
        ranged("a/narrow-six", "fd00::/64"),
    ];
    let snapshot = mk_snapshot(&[], &services.iter().collect::<Vec<_>>());
    for (address, client, expected) in [
        ("10.1.2.3", "z", "a/narrow"),
        ("10.2.2.3", "z", "a/wide"),
        ("10.1.2.3", "b", "b/wider"),
        ("11.1.2.3", "a", "b/wider"),
        ("fd00::1", "z", "a/narrow-six"),
        ("fd01::1", "z", "a/six"),
    ] {
        let seen = resolved(&snapshot, address, client);
        assert_eq!(seen.as_deref(), Some(expected), "{address} for {client}");
    }
}

#[test]
fn exact_address_wins_over_any_range() {
    let exact = mk_service("z/exact", "10.96.0.1");
    let wide = ranged("a/all", "10.96.0.1/32");
    let snapshot = mk_snapshot(&[], &[&exact, &wide]);
    assert_eq!(
        resolved(&snapshot, "10.96.0.1", "a").as_deref(),
        Some("z/exact")
    );
}

#[test]
fn addresses_of_different_networks_are_different() {
    let cidr = NetworkCidr {
        network: "net2".into(),
        cidr: "240.0.0.0/8".parse().unwrap(),
    };
    let service = Service {
        cidr_vips: vec![cidr],
        ..mk_service("web", "10.96.0.1")
    };
    let mut service = service;
    service.vips[0].network = "net2".into();
    let pod = Workload {
        network: "net2".into(),
        ..mk_pod("pod", "10.0.0.1")
    };
    let snapshot = mk_snapshot(&[&pod], &[&service]);
    for address in ["240.0.0.1", "10.96.0.1", "10.0.0.1"] {
        assert_eq!(resolved(&snapshot, address, "app"), None, "{address}");
        assert!(
            snapshot.resolve("net2", ip(address), None).is_some(),
            "{address}"
        );
    }
}

#[test]
fn of_two_workloads_at_one_address_pods_then_hbone_go_first() {
    let entry = Workload {
        uid: "a/WorkloadEntry".into(),
        name: "entry".into(),
        ..mk_pod("x", "10.0.0.1")
    };
    let plain = Workload {
        protocol: TunnelProtocol::None,
        ..mk_pod("a-plain", "10.0.0.1")
    };
    let mesh = mk_pod("b-mesh", "10.0.0.1");
    let seen = |pods: &[&Workload]| {
        mk_snapshot(pods, &[])
            .workload_at("", ip("10.0.0.1"))
            .map(|w| w.name.to_string())
    };
    assert_eq!(seen(&[&entry, &plain, &mesh]).as_deref(), Some("b-mesh"));
    assert_eq!(seen(&[&entry, &plain]).as_deref(), Some("a-plain"));
    assert_eq!(seen(&[&entry]).as_deref(), Some("entry"));
}

#[test]
fn removed_range_leaves_the_others() {
    let store = Store::new(mk_config());
    let services = [
        ranged("a/wide", "240.0.0.0/8"),
        ranged("b/same", "240.0.0.0/8"),
    ];
    store.apply(services.map(Change::Service));
    store.apply([Change::RemoveAddress("a/wide.example".into())]);
    assert_eq!(
        resolved(&store.snapshot(), "240.0.0.1", "a").as_deref(),
        Some("b/same")
    );
    store.apply([Change::RemoveAddress("b/same.example".into())]);
    assert_eq!(resolved(&store.snapshot(), "240.0.0.1", "a"), None);
    assert_eq!(store.snapshot().services, Services::default());
}

#[test]
fn telemetry_finds_services_by_key_and_by_a_workload_s_host_name() {
    let web = mk_service("web", "10.96.0.1");
    let other = Service {
        vips: vec![at("10.96.0.2")],
        ..mk_service("other/web", "10.96.0.2")
    };
    let pod = backing(mk_pod("pod", "10.0.0.1"), &other, &[]);
    let snapshot = mk_snapshot(&[&pod], &[&web, &other]);
    let own = snapshot.service_of(&pod, "web.example").unwrap();
    assert_eq!(&*own.namespace, "other");
    assert_eq!(
        snapshot.service_ref(&web.key()).map(|r| &*r.namespace),
        Some("app")
    );
    assert_eq!(snapshot.services_by_host("web.example").count(), 2);
    assert!(snapshot.service_by_host("nowhere", "web.example").is_none());
}

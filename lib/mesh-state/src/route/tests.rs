//! The decision table of outbound routing, row by row.

use std::collections::BTreeSet;

use mesh_core::{
    address::{GatewayAddress, NetworkAddress},
    change::Change,
    service::{BalancingMode, HealthPolicy, LoadBalancing, Scope, Service, WeightedWaypoint},
    workload::{ApplicationProtocol, ApplicationTunnel, Health, NetworkMode},
};

use super::*;
use crate::{
    fixtures::{
        at, backing, balanced, gateway_at, gateway_named, identity_of, ip, mk_pod, mk_service,
        mk_snapshot, range,
    },
    store::{Config, Store},
};

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn client() -> Workload {
    mk_pod("client", "10.0.0.9")
}

fn tcp(pod: Workload) -> Workload {
    Workload {
        protocol: TunnelProtocol::None,
        ..pod
    }
}

fn reference(service: &Service) -> Arc<ServiceRef> {
    Arc::new(ServiceRef {
        name: service.name.clone(),
        namespace: service.namespace.clone(),
        hostname: service.hostname.clone(),
    })
}

/// A tunnel to a workload's own ztunnel.
fn tunnel(workload: &Workload, authority: &str, service: Option<&Service>) -> Route {
    let authority = addr(authority);
    Route::Hbone {
        workload: Arc::new(workload.clone()),
        waypoint: false,
        gateway: SocketAddr::new(authority.ip(), 15008),
        authority,
        expected: [identity_of(workload)].into(),
        service: service.map(reference),
    }
}

/// A tunnel to a waypoint's pod.
fn via(waypoint: &Workload, gateway: &str, authority: &str, service: Option<&Service>) -> Route {
    Route::Hbone {
        workload: Arc::new(waypoint.clone()),
        waypoint: true,
        gateway: addr(gateway),
        authority: addr(authority),
        expected: [identity_of(waypoint)].into(),
        service: service.map(reference),
    }
}

/// The waypoint service of these tests, and its one pod.
fn mk_waypoint() -> (Service, Workload) {
    let service = Service {
        ports: [(15008, 15008)].into(),
        ..mk_service("waypoint", "10.96.0.99")
    };
    let pod = backing(
        mk_pod("waypoint-0", "10.0.0.99"),
        &service,
        &[(15008, 15008)],
    );
    (service, pod)
}

/// All endpoints that connections to `to` reach, by name.
fn endpoints(snapshot: &Snapshot, source: &Workload, to: &str) -> BTreeSet<String> {
    let names = (0..100).filter_map(|_| match snapshot.route(source, addr(to)) {
        Ok(Route::Hbone { workload, .. } | Route::Direct { workload, .. }) => {
            Some(workload.name.to_string())
        }
        _ => None,
    });
    names.collect()
}

fn no_upstream(service: &Service, port: u16) -> Result<Route, RouteError> {
    Err(RouteError::NoHealthyUpstream {
        service: service.key(),
        port,
    })
}

#[test]
fn unknown_destination_passes_through() {
    let snapshot = mk_snapshot(&[], &[]);
    let target = addr("1.2.3.4:443");
    let expected = Route::Passthrough {
        target,
        service: None,
    };
    assert_eq!(snapshot.route(&client(), target), Ok(expected));
}

#[test]
fn workload_address_leads_to_its_ztunnel_or_to_itself() {
    let (mesh, plain) = (mk_pod("mesh", "10.0.0.1"), tcp(mk_pod("plain", "10.0.0.2")));
    let snapshot = mk_snapshot(&[&mesh, &plain], &[]);
    let to_mesh = snapshot.route(&client(), addr("10.0.0.1:80"));
    assert_eq!(to_mesh, Ok(tunnel(&mesh, "10.0.0.1:80", None)));
    let mapped = snapshot.route(&client(), addr("[::ffff:10.0.0.1]:80"));
    assert_eq!(mapped, to_mesh);
    let direct = Route::Direct {
        workload: Arc::new(plain),
        target: addr("10.0.0.2:80"),
        service: None,
    };
    assert_eq!(snapshot.route(&client(), addr("10.0.0.2:80")), Ok(direct));
}

#[test]
fn workload_without_valid_identity_is_not_reached_by_a_tunnel() {
    let pod = Workload {
        service_account: "not/valid".into(),
        ..mk_pod("pod", "10.0.0.1")
    };
    let source = pod.identity().unwrap_err();
    let snapshot = mk_snapshot(&[&pod], &[]);
    let expected = RouteError::Identity {
        workload: pod.uid,
        source,
    };
    assert_eq!(
        snapshot.route(&client(), addr("10.0.0.1:80")),
        Err(expected)
    );
}

#[test]
fn host_network_workload_is_not_found_by_address() {
    let node = Workload {
        network_mode: NetworkMode::HostNetwork,
        ..mk_pod("node", "10.0.0.1")
    };
    let snapshot = mk_snapshot(&[&node], &[]);
    let target = addr("10.0.0.1:80");
    assert_eq!(
        snapshot.route(&client(), target),
        Ok(Route::Passthrough {
            target,
            service: None
        })
    );
}

#[test]
fn service_port_becomes_target_port() {
    let service = mk_service("web", "10.96.0.1");
    let by_service = backing(mk_pod("a", "10.0.0.1"), &service, &[]);
    let snapshot = mk_snapshot(&[&by_service], &[&service]);
    let route = snapshot.route(&client(), addr("10.96.0.1:80"));
    assert_eq!(
        route,
        Ok(tunnel(&by_service, "10.0.0.1:8080", Some(&service)))
    );

    let by_endpoint = backing(mk_pod("a", "10.0.0.1"), &service, &[(80, 9090)]);
    let snapshot = mk_snapshot(&[&by_endpoint], &[&service]);
    let route = snapshot.route(&client(), addr("10.96.0.1:80"));
    assert_eq!(
        route,
        Ok(tunnel(&by_endpoint, "10.0.0.1:9090", Some(&service)))
    );
}

#[test]
fn named_port_needs_the_endpoint_s_word() {
    let service = Service {
        ports: [(80, 0)].into(),
        ..mk_service("web", "10.96.0.1")
    };
    let silent = backing(mk_pod("silent", "10.0.0.1"), &service, &[]);
    let knows = backing(mk_pod("knows", "10.0.0.2"), &service, &[(80, 9090)]);
    let snapshot = mk_snapshot(&[&silent, &knows], &[&service]);
    assert_eq!(
        endpoints(&snapshot, &client(), "10.96.0.1:80"),
        ["knows".to_owned()].into()
    );
    let snapshot = mk_snapshot(&[&silent], &[&service]);
    assert_eq!(
        snapshot.route(&client(), addr("10.96.0.1:80")),
        no_upstream(&service, 80)
    );
}

#[test]
fn application_tunnel_takes_ports_nobody_lists() {
    let service = mk_service("web", "10.96.0.1");
    let tunnel_port = ApplicationTunnel {
        protocol: ApplicationProtocol::None,
        port: Some(15088),
    };
    let pod = backing(mk_pod("a", "10.0.0.1"), &service, &[]);
    let pod = Workload {
        application_tunnel: Some(tunnel_port),
        ..pod
    };
    let snapshot = mk_snapshot(&[&pod], &[&service]);
    let route = snapshot.route(&client(), addr("10.96.0.1:7777"));
    assert_eq!(route, Ok(tunnel(&pod, "10.0.0.1:7777", Some(&service))));
}

#[test]
fn only_ready_endpoints_with_capacity_take_connections() {
    let service = mk_service("web", "10.96.0.1");
    let ready = backing(mk_pod("ready", "10.0.0.1"), &service, &[]);
    let failing = backing(mk_pod("failing", "10.0.0.2"), &service, &[]);
    let failing = Workload {
        status: Health::Unhealthy,
        ..failing
    };
    let idle = Workload {
        capacity: 0,
        ..backing(mk_pod("idle", "10.0.0.3"), &service, &[])
    };
    let pods = [&ready, &failing, &idle];
    let snapshot = mk_snapshot(&pods, &[&service]);
    assert_eq!(
        endpoints(&snapshot, &client(), "10.96.0.1:80"),
        ["ready".to_owned()].into()
    );
    let snapshot = mk_snapshot(&pods[1..], &[&service]);
    assert_eq!(
        snapshot.route(&client(), addr("10.96.0.1:80")),
        no_upstream(&service, 80)
    );

    let all = LoadBalancing {
        routing_preference: Vec::new(),
        mode: BalancingMode::Standard,
        health_policy: HealthPolicy::AllowAll,
    };
    let service = Service {
        load_balancing: Some(all),
        ..service
    };
    let snapshot = mk_snapshot(&pods, &[&service]);
    let both = ["failing".to_owned(), "ready".to_owned()];
    assert_eq!(endpoints(&snapshot, &client(), "10.96.0.1:80"), both.into());
}

#[test]
fn strict_service_without_an_endpoint_at_the_client_s_place_has_none() {
    let service = balanced(
        mk_service("web", "10.96.0.1"),
        BalancingMode::Strict,
        &[Scope::Node],
    );
    let far = backing(mk_pod("far", "10.0.0.1"), &service, &[]);
    let far = Workload {
        node: "node2".into(),
        ..far
    };
    let near = backing(mk_pod("near", "10.0.0.2"), &service, &[]);
    let snapshot = mk_snapshot(&[&far, &near], &[&service]);
    assert_eq!(
        endpoints(&snapshot, &client(), "10.96.0.1:80"),
        ["near".to_owned()].into()
    );
    let snapshot = mk_snapshot(&[&far], &[&service]);
    assert_eq!(
        snapshot.route(&client(), addr("10.96.0.1:80")),
        no_upstream(&service, 80)
    );
    let service = balanced(service, BalancingMode::Failover, &[Scope::Node]);
    let snapshot = mk_snapshot(&[&far], &[&service]);
    assert_eq!(
        endpoints(&snapshot, &client(), "10.96.0.1:80"),
        ["far".to_owned()].into()
    );
}

#[test]
fn passthrough_service_keeps_the_original_destination() {
    let service = balanced(
        mk_service("web", "10.96.0.1"),
        BalancingMode::Passthrough,
        &[],
    );
    let service = Service {
        cidr_vips: vec![range("240.0.0.0/8")],
        ..service
    };
    let pod = backing(mk_pod("a", "10.0.0.1"), &service, &[]);
    let snapshot = mk_snapshot(&[&pod], &[&service]);
    for target in [addr("10.96.0.1:80"), addr("240.1.2.3:443")] {
        let expected = Route::Passthrough {
            target,
            service: Some(reference(&service)),
        };
        assert_eq!(snapshot.route(&client(), target), Ok(expected));
    }
}

#[test]
fn alternative_names_of_a_service_are_expected_besides_the_endpoint_s_own() {
    let other = "spiffe://cluster.local/ns/vm/sa/web";
    let names = vec![other.into(), "not an identity".into()];
    let service = Service {
        subject_alt_names: names,
        ..mk_service("web", "10.96.0.1")
    };
    let pod = backing(mk_pod("a", "10.0.0.1"), &service, &[]);
    let snapshot = mk_snapshot(&[&pod], &[&service]);
    let Ok(Route::Hbone { expected, .. }) = snapshot.route(&client(), addr("10.96.0.1:80")) else {
        panic!("no tunnel");
    };
    assert_eq!(*expected, [identity_of(&pod), other.parse().unwrap()]);
}

#[test]
fn endpoint_s_address_follows_the_service_s_families_then_the_client_s() {
    let service = mk_service("web", "10.96.0.1");
    let service = Service {
        vips: vec![at("10.96.0.1"), at("fd00::1")],
        ..service
    };
    let mut pod = backing(mk_pod("a", "10.0.0.1"), &service, &[]);
    pod.addresses.push(ip("fd00::a"));
    let to = |families, vip: &str| {
        let service = Service {
            ip_families: families,
            ..service.clone()
        };
        let snapshot = mk_snapshot(&[&pod], &[&service]);
        match snapshot.route(&client(), addr(vip)) {
            Ok(Route::Hbone { authority, .. }) => authority.to_string(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(to(IpFamilies::Automatic, "10.96.0.1:80"), "10.0.0.1:8080");
    assert_eq!(to(IpFamilies::Automatic, "[fd00::1]:80"), "[fd00::a]:8080");
    assert_eq!(to(IpFamilies::Ipv6Only, "10.96.0.1:80"), "[fd00::a]:8080");
    assert_eq!(to(IpFamilies::Ipv4Only, "[fd00::1]:80"), "10.0.0.1:8080");
}

#[test]
fn endpoint_with_only_a_host_name_has_no_address_yet() {
    let service = mk_service("web", "10.96.0.1");
    let pod = backing(mk_pod("a", "10.0.0.1"), &service, &[]);
    let external = Workload {
        addresses: Vec::new(),
        hostname: Some("db.example".into()),
        ..pod
    };
    let snapshot = mk_snapshot(&[&external], &[&service]);
    let expected = RouteError::NoAddress {
        workload: external.uid,
    };
    assert_eq!(
        snapshot.route(&client(), addr("10.96.0.1:80")),
        Err(expected)
    );
}

#[test]
fn service_s_waypoint_comes_before_its_endpoints() {
    let (waypoint, pod) = mk_waypoint();
    let web = mk_service("web", "10.96.0.1");
    let endpoint = backing(mk_pod("a", "10.0.0.1"), &web, &[]);
    for gateway in [
        gateway_at("10.96.0.99"),
        gateway_named(&waypoint.key()),
        gateway_at("10.0.0.99"),
    ] {
        let web = Service {
            waypoint: Some(gateway),
            ..web.clone()
        };
        let snapshot = mk_snapshot(&[&pod, &endpoint], &[&waypoint, &web]);
        let route = snapshot.route(&client(), addr("10.96.0.1:80"));
        assert_eq!(
            route,
            Ok(via(&pod, "10.0.0.99:15008", "10.96.0.1:80", Some(&web)))
        );
    }
}

#[test]
fn waypoint_reaches_what_it_stands_in_front_of() {
    let (waypoint, pod) = mk_waypoint();
    let unready = Workload {
        status: Health::Unhealthy,
        ..mk_pod("waypoint-1", "10.0.0.98")
    };
    let unready = backing(unready, &waypoint, &[]);
    let gateway = Some(gateway_named(&waypoint.key()));
    let web = Service {
        waypoint: gateway.clone(),
        ..mk_service("web", "10.96.0.1")
    };
    let endpoint = Workload {
        waypoint: gateway,
        ..backing(mk_pod("a", "10.0.0.1"), &web, &[])
    };
    let snapshot = mk_snapshot(&[&pod, &unready, &endpoint], &[&waypoint, &web]);
    for source in [&pod, &unready] {
        let by_service = snapshot.route(source, addr("10.96.0.1:80"));
        assert_eq!(
            by_service,
            Ok(tunnel(&endpoint, "10.0.0.1:8080", Some(&web)))
        );
        let by_workload = snapshot.route(source, addr("10.0.0.1:8080"));
        assert_eq!(by_workload, Ok(tunnel(&endpoint, "10.0.0.1:8080", None)));
    }
}

#[test]
fn workload_s_waypoint_counts_only_when_the_workload_is_addressed() {
    let (waypoint, pod) = mk_waypoint();
    let web = mk_service("web", "10.96.0.1");
    let endpoint = backing(mk_pod("a", "10.0.0.1"), &web, &[]);
    let endpoint = Workload {
        waypoint: Some(gateway_named(&waypoint.key())),
        ..endpoint
    };
    let snapshot = mk_snapshot(&[&pod, &endpoint], &[&waypoint, &web]);
    let by_workload = snapshot.route(&client(), addr("10.0.0.1:8080"));
    assert_eq!(
        by_workload,
        Ok(via(&pod, "10.0.0.99:15008", "10.0.0.1:8080", None))
    );
    let by_service = snapshot.route(&client(), addr("10.96.0.1:80"));
    assert_eq!(
        by_service,
        Ok(tunnel(&endpoint, "10.0.0.1:8080", Some(&web)))
    );
}

#[test]
fn unknown_or_empty_waypoint_is_an_error_and_never_bypassed() {
    let (waypoint, _) = mk_waypoint();
    let gateway = Some(gateway_named(&waypoint.key()));
    let web = Service {
        waypoint: gateway.clone(),
        ..mk_service("web", "10.96.0.1")
    };
    let endpoint = Workload {
        waypoint: gateway,
        ..backing(mk_pod("a", "10.0.0.1"), &web, &[])
    };
    for services in [&[&web][..], &[&web, &waypoint][..]] {
        let snapshot = mk_snapshot(&[&endpoint], services);
        let refused = |destination: &str| {
            Err(RouteError::NoWaypoint {
                destination: destination.into(),
            })
        };
        let by_service = snapshot.route(&client(), addr("10.96.0.1:80"));
        assert_eq!(by_service, refused("service app/web.example"));
        let by_workload = snapshot.route(&client(), addr("10.0.0.1:8080"));
        assert_eq!(by_workload, refused("workload Kubernetes//Pod/app/a"));
    }
}

#[test]
fn weighted_waypoints_replace_the_plain_one_unless_all_weights_are_zero() {
    let plain = mk_pod("plain", "10.0.0.97");
    let canary = mk_pod("canary", "10.0.0.98");
    let retired = mk_pod("retired", "10.0.0.99");
    let routed = |canary_weight, retired_weight| {
        let waypoint = |ip, weight| WeightedWaypoint {
            destination: gateway_at(ip),
            weight,
        };
        let service = Service {
            waypoint: Some(gateway_at("10.0.0.97")),
            weighted_waypoints: vec![
                waypoint("10.0.0.98", canary_weight),
                waypoint("10.0.0.99", retired_weight),
            ],
            ..mk_service("web", "10.96.0.1")
        };
        let snapshot = mk_snapshot(&[&plain, &canary, &retired], &[&service]);
        endpoints(&snapshot, &client(), "10.96.0.1:80")
    };
    assert_eq!(routed(1, 0), ["canary".to_owned()].into());
    assert_eq!(
        routed(1, 1),
        ["canary".to_owned(), "retired".to_owned()].into()
    );
    assert_eq!(routed(0, 0), ["plain".to_owned()].into());
}

#[test]
fn waypoint_s_port_is_the_gateway_s() {
    let (waypoint, pod) = mk_waypoint();
    let waypoint = Service {
        ports: [(15009, 25009)].into(),
        ..waypoint
    };
    let pod = backing(
        Workload {
            services: [].into(),
            ..pod
        },
        &waypoint,
        &[],
    );
    let gateway = GatewayAddress {
        hbone_mtls_port: 15009,
        ..gateway_named(&waypoint.key())
    };
    let web = Service {
        waypoint: Some(gateway),
        ..mk_service("web", "10.96.0.1")
    };
    let snapshot = mk_snapshot(&[&pod], &[&waypoint, &web]);
    let route = snapshot.route(&client(), addr("10.96.0.1:80"));
    assert_eq!(
        route,
        Ok(via(&pod, "10.0.0.99:25009", "10.96.0.1:80", Some(&web)))
    );
}

#[test]
fn other_networks_are_named_and_not_reached() {
    let other = Workload {
        network: "net2".into(),
        network_gateway: Some(gateway_at("1.1.1.1")),
        ..mk_pod("far", "10.0.0.1")
    };
    let web = mk_service("web", "10.96.0.1");
    let far = backing(other, &web, &[]);
    let unreachable = |destination: &str| {
        let (destination, network) = (destination.into(), "net2".into());
        Err(RouteError::UnreachableNetwork {
            destination,
            network,
        })
    };
    let snapshot = mk_snapshot(&[&far], &[&web]);
    assert_eq!(
        snapshot.route(&client(), addr("10.96.0.1:80")),
        unreachable(&far.uid)
    );
    let near = backing(mk_pod("near", "10.0.0.2"), &web, &[]);
    let snapshot = mk_snapshot(&[&far, &near], &[&web]);
    assert_eq!(
        endpoints(&snapshot, &client(), "10.96.0.1:80"),
        ["near".to_owned()].into()
    );

    let at = NetworkAddress {
        network: "net2".into(),
        address: ip("10.0.0.1"),
    };
    let gateway = GatewayAddress {
        destination: GatewayDestination::Address(at),
        hbone_mtls_port: 15008,
    };
    let web = Service {
        waypoint: Some(gateway),
        ..web
    };
    let snapshot = mk_snapshot(&[&far, &near], &[&web]);
    let expected = unreachable("waypoint of service app/web.example");
    assert_eq!(snapshot.route(&client(), addr("10.96.0.1:80")), expected);

    let source = Workload {
        network: "net2".into(),
        ..client()
    };
    let store = Store::new(Config::default());
    store.apply([Change::Workload(near.clone())]);
    let expected = Err(RouteError::UnreachableNetwork {
        destination: near.uid,
        network: "".into(),
    });
    assert_eq!(
        store.snapshot().route(&source, addr("10.0.0.2:80")),
        expected
    );
}

#[test]
fn endpoint_that_cannot_be_reached_is_not_chosen() {
    let web = mk_service("web", "10.96.0.1");
    let lost = Workload {
        addresses: Vec::new(),
        ..backing(mk_pod("lost", "10.0.0.1"), &web, &[])
    };
    let far = Workload {
        network: "net2".into(),
        ..backing(mk_pod("far", "10.0.0.2"), &web, &[])
    };
    let snapshot = mk_snapshot(&[&lost, &far], &[&web]);
    assert_eq!(
        snapshot.route(&client(), addr("10.96.0.1:80")),
        no_upstream(&web, 80)
    );
    let near = backing(mk_pod("near", "10.0.0.3"), &web, &[]);
    let snapshot = mk_snapshot(&[&lost, &far, &near], &[&web]);
    assert_eq!(
        endpoints(&snapshot, &client(), "10.96.0.1:80"),
        ["near".to_owned()].into()
    );
}

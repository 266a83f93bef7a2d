//! What a CONNECT may ask for, and where it ends.

use mesh_core::{
    service::Service,
    workload::{ApplicationProtocol, ApplicationTunnel},
};

use super::*;
use crate::fixtures::{backing, gateway_named, mk_pod, mk_service, mk_snapshot, range};

const ILLEGAL: &[u16] = &[15001, 15006, 15008];

fn by_address(text: &str) -> Authority {
    Authority::Address(text.parse().unwrap())
}

fn by_name(service: &Service, port: u16) -> Authority {
    Authority::Hostname(service.hostname.clone(), port)
}

fn accept(
    snapshot: &Snapshot,
    local: &Workload,
    authority: &Authority,
) -> Result<InboundTarget, InboundError> {
    let accepted = SocketAddr::new(local.addresses[0], 15008);
    snapshot.inbound_target(local, authority, accepted, ILLEGAL)
}

/// The address and port in the pod, after everything else is as for plain delivery.
fn delivered(target: Result<InboundTarget, InboundError>) -> String {
    let target = target.unwrap();
    assert_eq!(target.upstream, target.policy_destination);
    assert_eq!(target.tunnel, None);
    target.upstream.to_string()
}

fn tunnelled(pod: Workload, port: Option<u16>) -> Workload {
    let tunnel = ApplicationTunnel {
        protocol: ApplicationProtocol::Proxy,
        port,
    };
    Workload {
        application_tunnel: Some(tunnel),
        ..pod
    }
}

#[test]
fn own_address_is_delivered_and_named_by_its_service() {
    let web = mk_service("web", "10.96.0.1");
    let pod = backing(mk_pod("a", "10.0.0.1"), &web, &[(81, 9090)]);
    let snapshot = mk_snapshot(&[&pod], &[&web]);
    for (port, service) in [(8080, Some("web")), (9090, Some("web")), (5000, None)] {
        let target = accept(&snapshot, &pod, &by_address(&format!("10.0.0.1:{port}"))).unwrap();
        let name = target.service.as_ref().map(|service| &*service.name);
        assert_eq!((target.upstream.port(), name), (port, service));
    }
    let mapped = accept(&snapshot, &pod, &by_address("[::ffff:10.0.0.1]:8080"));
    assert_eq!(delivered(mapped), "10.0.0.1:8080");
}

#[test]
fn address_of_another_pod_is_a_mismatch() {
    let (pod, other) = (mk_pod("a", "10.0.0.1"), mk_pod("b", "10.0.0.2"));
    let snapshot = mk_snapshot(&[&pod, &other], &[]);
    let expected = InboundError::IpMismatch {
        asked: "10.0.0.2:80".parse().unwrap(),
        actual: pod.addresses[0],
    };
    assert_eq!(
        accept(&snapshot, &pod, &by_address("10.0.0.2:80")),
        Err(expected)
    );
}

#[test]
fn waypoint_takes_what_it_stands_in_front_of_and_nothing_else() {
    let waypoint = mk_service("waypoint", "10.96.0.99");
    let pod = backing(mk_pod("waypoint-0", "10.0.0.99"), &waypoint, &[]);
    let gateway = Some(gateway_named(&waypoint.key()));
    let web = Service {
        waypoint: gateway.clone(),
        ..mk_service("web", "10.96.0.1")
    };
    let wide = Service {
        waypoint: gateway.clone(),
        cidr_vips: vec![range("240.0.0.0/8")],
        ..mk_service("wide", "10.96.0.2")
    };
    let behind = Workload {
        waypoint: gateway,
        ..mk_pod("behind", "10.0.0.3")
    };
    let other = mk_service("other", "10.96.0.4");
    let snapshot = mk_snapshot(&[&pod, &behind], &[&waypoint, &web, &wide, &other]);
    for asked in ["10.96.0.1:80", "240.1.1.1:80", "10.0.0.3:80"] {
        assert_eq!(
            delivered(accept(&snapshot, &pod, &by_address(asked))),
            "10.0.0.99:80"
        );
    }
    let refused = accept(&snapshot, &pod, &by_address("10.96.0.4:80"));
    assert!(
        matches!(refused, Err(InboundError::IpMismatch { .. })),
        "{refused:?}"
    );
    let stranger = mk_pod("stranger", "10.0.0.50");
    let refused = accept(&snapshot, &stranger, &by_address("10.96.0.1:80"));
    assert!(
        matches!(refused, Err(InboundError::IpMismatch { .. })),
        "{refused:?}"
    );
}

#[test]
fn application_tunnel_takes_any_address_and_may_replace_the_port() {
    let pod = tunnelled(mk_pod("a", "10.0.0.1"), Some(15088));
    let snapshot = mk_snapshot(&[&pod], &[]);
    let expected = InboundTarget {
        upstream: "10.0.0.1:15088".parse().unwrap(),
        policy_destination: "10.0.0.1:80".parse().unwrap(),
        tunnel: pod.application_tunnel,
        service: None,
    };
    assert_eq!(
        accept(&snapshot, &pod, &by_address("10.96.0.7:80")),
        Ok(expected)
    );
}

#[test]
fn host_name_leads_to_the_target_port() {
    let web = Service {
        ports: [(80, 8080), (81, 0), (82, 0)].into(),
        ..mk_service("web", "10.96.0.1")
    };
    let pod = backing(mk_pod("a", "10.0.0.1"), &web, &[(81, 9090)]);
    let snapshot = mk_snapshot(&[&pod], &[&web]);
    assert_eq!(
        delivered(accept(&snapshot, &pod, &by_name(&web, 80))),
        "10.0.0.1:8080"
    );
    assert_eq!(
        delivered(accept(&snapshot, &pod, &by_name(&web, 81))),
        "10.0.0.1:9090"
    );
    for port in [82, 83] {
        let expected = InboundError::NoPort {
            host: web.hostname.clone(),
            port,
        };
        assert_eq!(accept(&snapshot, &pod, &by_name(&web, port)), Err(expected));
    }
}

#[test]
fn host_name_must_be_one_the_pod_serves() {
    let (web, foreign) = (
        mk_service("web", "10.96.0.1"),
        mk_service("other/web", "10.96.0.2"),
    );
    let pod = backing(mk_pod("a", "10.0.0.1"), &foreign, &[]);
    let snapshot = mk_snapshot(&[&pod], &[&web, &foreign]);
    for host in ["web.example", "nobody.example"] {
        let refused = accept(&snapshot, &pod, &Authority::Hostname(host.into(), 80));
        assert_eq!(
            refused,
            Err(InboundError::UnknownHost { host: host.into() })
        );
    }
}

#[test]
fn proxy_s_own_ports_are_refused_however_they_are_asked_for() {
    let web = Service {
        ports: [(80, 15008)].into(),
        ..mk_service("web", "10.96.0.1")
    };
    let pod = backing(mk_pod("a", "10.0.0.1"), &web, &[]);
    let snapshot = mk_snapshot(&[&pod], &[&web]);
    for authority in [by_address("10.0.0.1:15008"), by_name(&web, 80)] {
        let refused = accept(&snapshot, &pod, &authority);
        assert_eq!(refused, Err(InboundError::SelfCall { port: 15008 }));
    }
    let looping = tunnelled(pod, Some(15001));
    let refused = accept(&snapshot, &looping, &by_address("10.0.0.1:80"));
    assert_eq!(refused, Err(InboundError::SelfCall { port: 15001 }));
}

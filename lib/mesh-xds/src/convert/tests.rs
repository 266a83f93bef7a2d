use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mesh_core::{
    address::{
        GatewayAddress, GatewayDestination, NamespacedHostname, NetworkAddress, NetworkCidr,
    },
    policy::{
        Action, Authorization, Clause, Match, PolicyScope, Rule, ServiceAccountMatch, StringMatch,
    },
    service::{
        AppProtocol, BalancingMode, HealthPolicy, IpFamilies, LoadBalancing, Scope, Service,
        Visibility, WeightedWaypoint,
    },
    workload::{
        ApplicationProtocol, ApplicationTunnel, Health, Locality, NetworkMode, PortMap,
        TunnelProtocol, Workload, WorkloadType,
    },
};
use mesh_proto::security;
use proptest::{collection::vec, option, prelude::*, sample::select};

use super::*;

// === what the values of the mesh can be ===

fn name() -> impl Strategy<Value = Arc<str>> {
    "[a-z][a-z0-9.-]{0,12}".prop_map(Into::into)
}

fn maybe_empty() -> impl Strategy<Value = Arc<str>> {
    "[a-z0-9./-]{0,8}".prop_map(Into::into)
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<Ipv4Addr>().prop_map(IpAddr::from),
        any::<Ipv6Addr>().prop_map(IpAddr::from),
    ]
    .prop_map(|address: IpAddr| address.to_canonical())
}

fn cidr() -> impl Strategy<Value = IpNet> {
    let v4 = (any::<Ipv4Addr>(), 0..=32_u8);
    let v6 = (any::<u128>(), 0..=128_u8);
    prop_oneof![
        v4.prop_map(|(address, length)| IpNet::V4(Ipv4Net::new(address, length).unwrap())),
        // The first bit keeps clear of the mapped addresses, which have another canonical form.
        v6.prop_map(|(bits, length)| {
            let address = Ipv6Addr::from(bits | 1 << 127);
            IpNet::V6(Ipv6Net::new(address, length).unwrap())
        }),
    ]
    .prop_map(|net: IpNet| net.trunc())
}

fn hostname() -> impl Strategy<Value = NamespacedHostname> {
    (name(), name()).prop_map(|(namespace, hostname)| NamespacedHostname {
        namespace,
        hostname,
    })
}

fn network_address() -> impl Strategy<Value = NetworkAddress> {
    (maybe_empty(), address()).prop_map(|(network, address)| NetworkAddress { network, address })
}

fn gateway() -> impl Strategy<Value = GatewayAddress> {
    let destination = prop_oneof![
        network_address().prop_map(GatewayDestination::Address),
        hostname().prop_map(GatewayDestination::Hostname),
    ];
    (destination, 1..=u16::MAX).prop_map(|(destination, hbone_mtls_port)| GatewayAddress {
        destination,
        hbone_mtls_port,
    })
}

fn ports() -> impl Strategy<Value = PortMap> {
    proptest::collection::btree_map(1..=u16::MAX, any::<u16>(), 0..3)
}

/// Ports of a service, and what is spoken on some of them.
fn ports_and_protocols() -> impl Strategy<Value = (PortMap, BTreeMap<u16, AppProtocol>)> {
    let protocol = option::of(select(vec![
        AppProtocol::Http11,
        AppProtocol::Http2,
        AppProtocol::Grpc,
        AppProtocol::Tcp,
        AppProtocol::Tls,
    ]));
    let ports = proptest::collection::btree_map(1..=u16::MAX, (any::<u16>(), protocol), 0..3);
    ports.prop_map(|ports| {
        let targets = ports.iter().map(|(number, (target, _))| (*number, *target));
        let spoken = ports
            .iter()
            .filter_map(|(number, (_, spoken))| Some((*number, (*spoken)?)));
        (targets.collect(), spoken.collect())
    })
}

prop_compose! {
    fn names()(
        uid in name(), name in maybe_empty(), namespace in maybe_empty(),
        service_account in name(), trust_domain in name(), network in maybe_empty(),
        cluster_id in name(), node in maybe_empty(), canonical_name in maybe_empty(),
        workload_name in maybe_empty(), hostname in option::of(name()),
    ) -> Workload {
        Workload {
            name, namespace, service_account, trust_domain, network, cluster_id, node,
            canonical_revision: canonical_name.clone(), canonical_name, workload_name, hostname,
            ..Workload::with_uid(uid)
        }
    }
}

prop_compose! {
    fn workload()(
        names in names(),
        addresses in vec(address(), 0..3),
        gateways in (option::of(gateway()), option::of(gateway())),
        kinds in (
            select(vec![TunnelProtocol::None, TunnelProtocol::Hbone]),
            select(vec![NetworkMode::Standard, NetworkMode::HostNetwork]),
            select(vec![WorkloadType::Deployment, WorkloadType::CronJob, WorkloadType::Pod, WorkloadType::Job]),
            select(vec![Health::Healthy, Health::Unhealthy]),
            any::<bool>(),
        ),
        tunnel in option::of((
            select(vec![ApplicationProtocol::None, ApplicationProtocol::Proxy]),
            option::of(1..=u16::MAX),
        )),
        authorization_policies in vec(name(), 0..3),
        locality in (maybe_empty(), maybe_empty(), maybe_empty()),
        capacity in any::<u32>(),
        services in proptest::collection::btree_map(hostname(), ports(), 0..3),
    ) -> Workload {
        Workload {
            addresses, authorization_policies, capacity, services,
            waypoint: gateways.0,
            network_gateway: gateways.1,
            protocol: kinds.0,
            network_mode: kinds.1,
            workload_type: kinds.2,
            status: kinds.3,
            native_tunnel: kinds.4,
            application_tunnel: tunnel.map(|(protocol, port)| ApplicationTunnel { protocol, port }),
            locality: Locality { region: locality.0, zone: locality.1, subzone: locality.2 },
            ..names
        }
    }
}

fn load_balancing() -> impl Strategy<Value = LoadBalancing> {
    let scope = select(vec![
        Scope::Region,
        Scope::Zone,
        Scope::Subzone,
        Scope::Node,
        Scope::Cluster,
        Scope::Network,
    ]);
    let mode = select(vec![
        BalancingMode::Standard,
        BalancingMode::Strict,
        BalancingMode::Failover,
        BalancingMode::Passthrough,
    ]);
    let health = select(vec![HealthPolicy::OnlyHealthy, HealthPolicy::AllowAll]);
    (vec(scope, 0..4), mode, health).prop_map(|(routing_preference, mode, health_policy)| {
        LoadBalancing {
            routing_preference,
            mode,
            health_policy,
        }
    })
}

prop_compose! {
    fn service()(
        key in hostname(), name in maybe_empty(),
        vips in vec(network_address(), 0..3),
        cidr_vips in vec((maybe_empty(), cidr()), 0..3),
        (ports, app_protocols) in ports_and_protocols(),
        subject_alt_names in vec(name(), 0..2),
        waypoint in option::of(gateway()),
        weighted in vec((gateway(), any::<u32>()), 0..3),
        load_balancing in option::of(load_balancing()),
        ip_families in select(vec![
            IpFamilies::Automatic, IpFamilies::Ipv4Only, IpFamilies::Ipv6Only, IpFamilies::Dual,
        ]),
        (canonical, ingress_use_waypoint) in any::<(bool, bool)>(),
        visibility in select(vec![Visibility::Public, Visibility::Namespace]),
    ) -> Service {
        Service {
            name, vips, ports, app_protocols, subject_alt_names, waypoint, load_balancing, ip_families,
            canonical, ingress_use_waypoint, visibility,
            namespace: key.namespace,
            hostname: key.hostname,
            cidr_vips: cidr_vips.into_iter().map(|(network, cidr)| NetworkCidr { network, cidr }).collect(),
            weighted_waypoints: weighted.into_iter()
                .map(|(destination, weight)| WeightedWaypoint { destination, weight })
                .collect(),
        }
    }
}

fn texts() -> impl Strategy<Value = Vec<StringMatch>> {
    let text = prop_oneof![
        maybe_empty().prop_map(StringMatch::Exact),
        maybe_empty().prop_map(StringMatch::Prefix),
        maybe_empty().prop_map(StringMatch::Suffix),
        Just(StringMatch::Presence),
    ];
    vec(text, 0..2)
}

fn accounts() -> impl Strategy<Value = Vec<ServiceAccountMatch>> {
    let account = (name(), name());
    vec(
        account.prop_map(|(namespace, service_account)| ServiceAccountMatch {
            namespace,
            service_account,
        }),
        0..2,
    )
}

prop_compose! {
    fn attributes()(
        namespaces in texts(), not_namespaces in texts(),
        principals in texts(), not_principals in texts(),
        source_ips in vec(cidr(), 0..2), not_source_ips in vec(cidr(), 0..2),
        destination_ips in vec(cidr(), 0..2), not_destination_ips in vec(cidr(), 0..2),
        ports in (vec(any::<u16>(), 0..2), vec(any::<u16>(), 0..2)),
        service_accounts in accounts(), not_service_accounts in accounts(),
    ) -> Match {
        Match {
            namespaces, not_namespaces, principals, not_principals, source_ips, not_source_ips,
            destination_ips, not_destination_ips, service_accounts, not_service_accounts,
            destination_ports: ports.0,
            not_destination_ports: ports.1,
        }
    }
}

fn policy() -> impl Strategy<Value = Authorization> {
    let clause = vec(attributes(), 0..3).prop_map(|matches| Clause { matches });
    let rule = vec(clause, 0..3).prop_map(|clauses| Rule { clauses });
    let scope = select(vec![
        PolicyScope::Global,
        PolicyScope::Namespace,
        PolicyScope::WorkloadSelector,
    ]);
    let action = select(vec![Action::Allow, Action::Deny]);
    let named = (name(), name(), scope, action, any::<bool>());
    (named, vec(rule, 0..3)).prop_map(|((name, namespace, scope, action, dry_run), rules)| {
        Authorization {
            name,
            namespace,
            scope,
            action,
            rules,
            dry_run,
        }
    })
}

fn encoded(change: &Change) -> (Arc<str>, Bytes) {
    let (_, name, content) = change_to_proto(change);
    (name, content.unwrap())
}

proptest! {
    #[test]
    fn workload_survives_the_wire(workload in workload()) {
        let change = Change::Workload(workload);
        let (name, content) = encoded(&change);
        prop_assert_eq!(address_from_proto(content, &mut Interner::default()), Ok((name, change)));
    }

    #[test]
    fn service_survives_the_wire(service in service()) {
        let change = Change::Service(service);
        let (name, content) = encoded(&change);
        prop_assert_eq!(address_from_proto(content, &mut Interner::default()), Ok((name, change)));
    }

    #[test]
    fn policy_survives_the_wire(policy in policy()) {
        let change = Change::Policy(policy);
        let (name, content) = encoded(&change);
        prop_assert_eq!(policy_from_proto(content, &mut Interner::default()), Ok((name, change)));
    }

    #[test]
    fn no_bytes_make_the_conversion_panic(bytes in vec(any::<u8>(), 0..200)) {
        drop(address_from_proto(bytes.clone().into(), &mut Interner::default()));
        drop(policy_from_proto(bytes.into(), &mut Interner::default()));
    }
}

// === what is filled in ===

#[test]
fn absent_fields_get_the_defaults_of_the_wire() {
    let message = proto::Workload {
        uid: "u".into(),
        waypoint: Some(proto::GatewayAddress {
            destination: Some(proto::gateway_address::Destination::Hostname(
                proto::NamespacedHostname {
                    namespace: "ns".into(),
                    hostname: "waypoint".into(),
                },
            )),
            hbone_mtls_port: 0,
        }),
        ..proto::Workload::default()
    };
    let workload = workload::from_proto(message, &mut Interner::default()).unwrap();
    assert_eq!(workload.waypoint.as_ref().unwrap().hbone_mtls_port, 15008);
    let expected = Workload {
        waypoint: workload.waypoint.clone(),
        ..Workload::with_uid("u")
    };
    assert_eq!(workload, expected);
}

#[test]
fn mapped_addresses_and_ranges_become_ipv4() {
    let mapped = Ipv4Addr::new(10, 1, 2, 3).to_ipv6_mapped().octets();
    assert_eq!(ip(&mapped), Ok("10.1.2.3".parse().unwrap()));
    assert_eq!(range(&mapped, 112), Ok("10.1.0.0/16".parse().unwrap()));
    assert_eq!(range(&mapped, 80), Ok("::/80".parse().unwrap()));
    assert_eq!(range(&[10, 1, 2, 3], 8), Ok("10.0.0.0/8".parse().unwrap()));
}

// === what is refused ===

fn workload_error(change: impl FnOnce(&mut proto::Workload)) -> String {
    let mut message = proto::Workload {
        uid: "u".into(),
        ..proto::Workload::default()
    };
    change(&mut message);
    workload::from_proto(message, &mut Interner::default())
        .unwrap_err()
        .to_string()
}

#[test]
fn workload_that_cannot_be_understood_is_refused_with_the_field() {
    let errors = [
        workload_error(|w| w.uid.clear()),
        workload_error(|w| w.addresses = vec![vec![1, 2, 3, 4].into(), vec![1].into()]),
        workload_error(|w| w.tunnel_protocol = 2),
        workload_error(|w| w.tunnel_protocol = 9),
        workload_error(|w| w.status = -1),
        workload_error(|w| w.waypoint = Some(proto::GatewayAddress::default())),
        workload_error(|w| {
            w.services
                .insert("no-slash".into(), proto::PortList::default());
        }),
        workload_error(|w| {
            let port = |service_port| proto::Port {
                service_port,
                ..proto::Port::default()
            };
            let ports = vec![port(80), port(65_536 + 80)];
            w.services
                .insert("ns/host".into(), proto::PortList { ports });
        }),
    ];
    assert_eq!(
        errors,
        [
            "uid: must be set",
            "addresses[1]: an IP address has 4 or 16 bytes, not 1",
            "tunnel_protocol: the mutual TLS of sidecars is not supported",
            "tunnel_protocol: value 9 is not known to this version",
            "status: value -1 is not known to this version",
            "waypoint.destination: must be set",
            "services[no-slash]: `no-slash` is not of the form namespace/hostname",
            "services[ns/host].ports[1].service_port: 65616 is not a port",
        ]
    );
}

#[test]
fn service_that_cannot_be_understood_is_refused_with_the_field() {
    let error = |change: fn(&mut proto::Service)| {
        let mut message = service::to_proto(&Service::named("n", "ns", "host"));
        change(&mut message);
        service::from_proto(message, &mut Interner::default())
            .unwrap_err()
            .to_string()
    };
    let errors = [
        error(|s| s.hostname.clear()),
        error(|s| {
            s.addresses = vec![proto::NetworkAddress {
                address: vec![10, 0, 0, 0].into(),
                length: Some(33),
                ..proto::NetworkAddress::default()
            }];
        }),
        error(|s| {
            s.load_balancing = Some(proto::LoadBalancing {
                routing_preference: vec![1, 0],
                ..proto::LoadBalancing::default()
            });
        }),
        error(|s| s.weighted_waypoints = vec![proto::WeightedWaypoint::default()]),
    ];
    assert_eq!(
        errors,
        [
            "hostname: must be set",
            "addresses[0]: prefix length 33 does not fit 10.0.0.0",
            "load_balancing.routing_preference[1]: must be set",
            "weighted_waypoints[0].destination: must be set",
        ]
    );
}

#[test]
fn service_whose_protocol_is_newer_than_this_version_is_reached_all_the_same() {
    let mut message = service::to_proto(&Service {
        ports: [(80, 8080), (81, 8081)].into(),
        app_protocols: [(80, AppProtocol::Http2), (81, AppProtocol::Grpc)].into(),
        ..Service::named("n", "ns", "host")
    });
    message.ports[1].app_protocol = 99;
    let service = service::from_proto(message, &mut Interner::default()).unwrap();
    assert_eq!(service.ports, [(80, 8080), (81, 8081)].into());
    assert_eq!(service.app_protocols, [(80, AppProtocol::Http2)].into());
}

#[test]
fn policy_with_one_bad_value_is_refused_as_a_whole() {
    let error = |change: fn(&mut security::Match)| {
        let mut bad = security::Match::default();
        change(&mut bad);
        let clause = security::Clause {
            matches: vec![security::Match::default(), bad],
        };
        let message = security::Authorization {
            name: "p".into(),
            namespace: "ns".into(),
            rules: vec![security::Rule {
                clauses: vec![clause],
            }],
            ..security::Authorization::default()
        };
        let error = policy::from_proto(message, &mut Interner::default()).unwrap_err();
        error
            .to_string()
            .replace("rules[0].clauses[0].matches[1].", "")
    };
    let errors = [
        error(|m| m.not_source_ips = vec![mk_range(&[10, 0, 0], 8)]),
        error(|m| m.source_ips = vec![mk_range(&[10, 0, 0, 0], 8), mk_range(&[10, 0, 0, 0], 40)]),
        error(|m| m.destination_ips = vec![mk_range(&[0; 16], 300)]),
        error(|m| m.destination_ports = vec![65_536 + 80]),
        error(|m| m.not_destination_ports = vec![u32::MAX]),
        error(|m| m.principals = vec![security::StringMatch::default()]),
        error(|m| m.service_accounts = vec![security::ServiceAccountMatch::default()]),
    ];
    assert_eq!(
        errors,
        [
            "not_source_ips[0]: an IP address has 4 or 16 bytes, not 3",
            "source_ips[1]: prefix length 40 does not fit 10.0.0.0",
            "destination_ips[0]: prefix length 300 does not fit ::",
            "destination_ports[0]: 65616 is not a port",
            "not_destination_ports[0]: 4294967295 is not a port",
            "principals[0]: must be set",
            "service_accounts[0].namespace: must be set",
        ]
    );
}

fn mk_range(bytes: &'static [u8], length: u32) -> security::Address {
    security::Address {
        address: Bytes::from_static(bytes),
        length,
    }
}

#[test]
fn bytes_that_are_no_message_are_refused_by_type() {
    let error =
        address_from_proto(Bytes::from_static(b"\x0a\xff"), &mut Interner::default()).unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("not a valid istio.workload.Address message"),
        "{text}"
    );
    let nothing = address_from_proto(Bytes::new(), &mut Interner::default()).unwrap_err();
    assert_eq!(nothing.to_string(), "type: must be set");
}

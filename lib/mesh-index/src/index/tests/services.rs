//! Services and endpoints that are no pods.

use mesh_core::{
    address::{NamespacedHostname, NetworkAddress},
    service::{
        AppProtocol, BalancingMode, HealthPolicy, IpFamilies, LoadBalancing, Scope,
        Service as CoreService,
    },
    workload::{Health, NetworkMode, PortMap},
};

use super::*;

const WEB: &str = "shop/web.shop.svc.cluster.local";

fn web() -> CoreService {
    CoreService {
        vips: vec![vip("10.96.0.1")],
        ports: PortMap::from([(80, 8080)]),
        app_protocols: [(80, AppProtocol::Http11)].into(),
        ip_families: IpFamilies::Ipv4Only,
        canonical: true,
        ..CoreService::named("web", "shop", "web.shop.svc.cluster.local")
    }
}

fn vip(address: &str) -> NetworkAddress {
    NetworkAddress {
        network: "".into(),
        address: address.parse().unwrap(),
    }
}

#[track_caller]
fn assert_service(over: Value, differs: impl FnOnce(CoreService) -> CoreService) {
    let mesh = Mesh::of([service("web", over)]);
    assert_eq!(*mesh.service(WEB), differs(web()));
}

fn zones() -> LoadBalancing {
    LoadBalancing {
        routing_preference: vec![Scope::Network, Scope::Region, Scope::Zone],
        mode: BalancingMode::Failover,
        health_policy: HealthPolicy::OnlyHealthy,
    }
}

#[test]
fn a_service_keeps_its_addresses_and_ports() {
    assert_service(json!({}), |s| s);
}

#[test]
fn an_alias_of_an_external_name_is_no_service_of_the_mesh() {
    let alias = json!({"spec": {"type": "ExternalName", "externalName": "example.com"}});
    let mut mesh = Mesh::of([service("web", alias.clone())]);
    assert!(mesh.services.is_empty());
    mesh.apply(service("web", json!({})));
    let output = mesh.apply(service("web", alias));
    assert_eq!(output.changes, [Change::RemoveAddress(WEB.into())]);
}

#[test]
fn a_headless_service_has_no_address() {
    let headless = json!({"spec": {"clusterIP": "None", "clusterIPs": ["None"]}});
    assert_service(headless, |s| CoreService { vips: vec![], ..s });
}

#[test]
fn both_families_are_offered() {
    let dual = json!({"spec": {
        "clusterIPs": ["10.96.0.1", "2001:db8::1"], "ipFamilies": ["IPv4", "IPv6"],
    }});
    assert_service(dual, |s| CoreService {
        vips: vec![vip("10.96.0.1"), vip("2001:db8::1")],
        ip_families: IpFamilies::Dual,
        ..s
    });
}

#[test]
fn a_named_target_is_left_to_the_endpoints_and_other_protocols_out() {
    let ports = json!({"spec": {"ports": [
        {"name": "a", "port": 80, "targetPort": "http"},
        {"name": "b", "port": 53, "protocol": "UDP"},
        {"name": "c", "port": 81},
    ]}});
    assert_service(ports, |s| CoreService {
        ports: PortMap::from([(80, 0), (81, 81)]),
        app_protocols: [].into(),
        ..s
    });
}

#[test]
fn a_port_says_what_is_spoken_on_it() {
    let ports = json!({"spec": {"ports": [
        {"name": "http-web", "port": 80, "targetPort": 8080},
        {"name": "http-api", "port": 81, "targetPort": 8081, "appProtocol": "grpc"},
        {"name": "other", "port": 82, "targetPort": 8082},
    ]}});
    assert_service(ports, |s| CoreService {
        ports: PortMap::from([(80, 8080), (81, 8081), (82, 8082)]),
        app_protocols: [(80, AppProtocol::Http11), (81, AppProtocol::Grpc)].into(),
        ..s
    });
}

#[test]
fn distribution_is_the_service_s_own_before_its_annotation_before_the_namespace_s() {
    let near = annotated(json!({"networking.istio.io/traffic-distribution": "PreferClose"}));
    let same_node = LoadBalancing {
        routing_preference: vec![
            Scope::Network,
            Scope::Region,
            Scope::Zone,
            Scope::Subzone,
            Scope::Node,
        ],
        ..zones()
    };
    let local = LoadBalancing {
        routing_preference: vec![Scope::Node],
        mode: BalancingMode::Strict,
        health_policy: HealthPolicy::OnlyHealthy,
    };
    let any = annotated(json!({"networking.istio.io/traffic-distribution": "Any"}));
    for (own, of_namespace, expected) in [
        (json!({}), json!({}), None),
        (json!({}), near.clone(), Some(zones())),
        (any, near.clone(), None),
        (near.clone(), json!({}), Some(zones())),
        (
            merged(
                near.clone(),
                json!({"spec": {"trafficDistribution": "PreferSameNode"}}),
            ),
            json!({}),
            Some(same_node),
        ),
        (
            json!({"spec": {"trafficDistribution": "PreferSameZone"}}),
            json!({}),
            Some(zones()),
        ),
        (
            json!({"spec": {"trafficDistribution": "PreferClose", "internalTrafficPolicy": "Local"}}),
            near,
            Some(local),
        ),
    ] {
        let mut mesh = Mesh::of([service("web", own)]);
        mesh.apply(namespace("shop", of_namespace));
        assert_eq!(mesh.service(WEB).load_balancing, expected);
    }
}

#[test]
fn a_service_may_publish_endpoints_that_are_not_ready() {
    let publish = json!({"spec": {"publishNotReadyAddresses": true}});
    assert_service(publish.clone(), |s| CoreService {
        load_balancing: Some(LoadBalancing {
            routing_preference: vec![],
            mode: BalancingMode::Standard,
            health_policy: HealthPolicy::AllowAll,
        }),
        ..s
    });
    let near = merged(
        publish,
        json!({"spec": {"trafficDistribution": "PreferClose"}}),
    );
    assert_service(near, |s| CoreService {
        load_balancing: Some(LoadBalancing {
            health_policy: HealthPolicy::AllowAll,
            ..zones()
        }),
        ..s
    });
}

#[test]
fn an_endpoint_that_is_no_pod_is_a_workload_that_no_address_finds() {
    let endpoints = json!({"endpoints": [
        {"addresses": ["192.0.2.7"], "conditions": {"ready": false}},
        {"addresses": ["192.0.2.8"]},
        {"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "name": "web"}},
    ]});
    let mesh = Mesh::of([
        slice("web-1", "web", endpoints),
        service("web", json!({"spec": {"selector": null}})),
    ]);
    let key = NamespacedHostname {
        namespace: "shop".into(),
        hostname: "web.shop.svc.cluster.local".into(),
    };
    let expected = Workload {
        name: "web-1".into(),
        namespace: "shop".into(),
        addresses: vec!["192.0.2.7".parse().unwrap()],
        network_mode: NetworkMode::HostNetwork,
        canonical_name: "web".into(),
        canonical_revision: "latest".into(),
        workload_name: "web".into(),
        workload_type: WorkloadType::Pod,
        status: Health::Unhealthy,
        services: [(key, PortMap::from([(80, 9090)]))].into(),
        ..Workload::with_uid("Kubernetes/discovery.k8s.io/EndpointSlice/shop/web-1/192.0.2.7")
    };
    assert_eq!(*mesh.workload("192.0.2.7"), expected);
    assert_eq!(mesh.workload("192.0.2.8").status, Health::Healthy);
    assert_eq!(mesh.workloads.len(), 2);
}

#[test]
fn endpoints_need_their_service_and_real_addresses() {
    let endpoints =
        json!({"endpoints": [{"addresses": ["192.0.2.7"]}, {"addresses": ["nonsense"]}]});
    let mut mesh = Mesh::of([slice("web-1", "web", endpoints.clone())]);
    assert!(mesh.workloads.is_empty());
    assert_eq!(mesh.problems.len(), 1);
    mesh.apply(service("web", json!({})));
    assert_eq!(mesh.workloads.len(), 1);
    mesh.apply(slice(
        "web-1",
        "web",
        merged(endpoints, json!({"addressType": "FQDN"})),
    ));
    assert!(mesh.workloads.is_empty());
}

#[test]
fn services_are_said_before_the_workloads_that_name_them() {
    let mut index = Index::new(Settings::default());
    index.apply(pod("web", json!({})));
    index.apply(service("web", json!({})));
    index.apply(authorization_policy("all", json!({})));
    let kinds: Vec<_> = (index.drain().changes.iter())
        .map(|change| match change {
            Change::Policy(_) => "policy",
            Change::Service(_) => "service",
            Change::Workload(_) => "workload",
            _ => "removal",
        })
        .collect();
    assert_eq!(kinds, ["policy", "service", "workload"]);
}

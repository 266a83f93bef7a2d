//! Waypoints: who has which, and what happens when one cannot take traffic.

use mesh_core::{
    address::{GatewayAddress, GatewayDestination, NamespacedHostname, NetworkAddress},
    service::WeightedWaypoint,
    workload::{ApplicationProtocol, ApplicationTunnel},
};

use super::*;
use crate::settings::WaypointUnready;

const WEB: &str = "shop/web.shop.svc.cluster.local";

fn to(namespace: &str, hostname: &str) -> GatewayAddress {
    GatewayAddress {
        destination: GatewayDestination::Hostname(NamespacedHostname {
            namespace: namespace.into(),
            hostname: hostname.into(),
        }),
        hbone_mtls_port: 15008,
    }
}

#[expect(clippy::unnecessary_wraps, reason = "compared with optional waypoints")]
fn to_wp() -> Option<GatewayAddress> {
    Some(to("shop", "wp.shop.svc.cluster.local"))
}

fn using(waypoint: &str) -> Value {
    labelled(json!({"istio.io/use-waypoint": waypoint}))
}

fn waypoint_of(mesh: &Mesh) -> Option<GatewayAddress> {
    mesh.service(WEB).waypoint.clone()
}

fn bound(mesh: &Mesh) -> Vec<String> {
    mesh.reasons(Kind::Service, "shop", "web")
}

const NOT_READY: &str = "WaypointBound=false/WaypointIsNotReady";
const ACCEPTED: &str = "WaypointBound=true/WaypointAccepted";
const DENIED: &str = "WaypointBound=false/AttachmentDenied";
const UNSUPPORTED: &str = "WaypointBound=false/UnsupportedTrafficType";

#[test]
fn a_service_goes_through_the_waypoint_that_it_names() {
    let mesh = Mesh::of([gateway("wp", json!({})), service("web", using("wp"))]);
    assert_eq!(waypoint_of(&mesh), to_wp());
    assert_eq!(bound(&mesh), [ACCEPTED]);
}

#[test]
fn a_waypoint_with_an_address_only_is_reached_by_it() {
    let ip = json!({"status": {"addresses": [{"value": "10.96.0.99"}]}});
    let mesh = Mesh::of([gateway("wp", ip), service("web", using("wp"))]);
    let expected = GatewayAddress {
        destination: GatewayDestination::Address(NetworkAddress {
            network: "".into(),
            address: "10.96.0.99".parse().unwrap(),
        }),
        hbone_mtls_port: 15008,
    };
    assert_eq!(waypoint_of(&mesh), Some(expected));
}

#[test]
fn the_namespace_s_waypoint_is_inherited_replaced_or_refused() {
    let all = labelled(json!({"istio.io/waypoint-for": "all"}));
    let mut mesh = Mesh::of([
        gateway("wp", all),
        gateway("own", json!({})),
        service("web", json!({})),
        service("mine", using("own")),
        service("none", using("none")),
        entry("api", json!({})),
        pod("web", json!({})),
    ]);
    let output = mesh.apply(namespace("shop", using("wp")));
    assert_eq!(output.changes.len(), 3);
    assert_eq!(waypoint_of(&mesh), to_wp());
    assert_eq!(mesh.service("shop/api.example").waypoint, to_wp());
    assert_eq!(mesh.workload("Pod/shop/web").waypoint, to_wp());
    let mine = mesh.service("shop/mine.shop.svc.cluster.local");
    assert_eq!(
        mine.waypoint,
        Some(to("shop", "own.shop.svc.cluster.local"))
    );
    assert_eq!(
        mesh.service("shop/none.shop.svc.cluster.local").waypoint,
        None
    );
    mesh.apply(namespace("shop", json!({})));
    assert_eq!(waypoint_of(&mesh), None);
    assert_eq!(bound(&mesh), Vec::<String>::new());
}

#[test]
fn a_missing_or_unready_waypoint_closes_and_says_so() {
    let mut mesh = Mesh::of([service("web", using("wp"))]);
    assert_eq!(
        (waypoint_of(&mesh), bound(&mesh)),
        (to_wp(), vec![NOT_READY.into()])
    );
    mesh.apply(gateway("wp", json!({"status": null})));
    assert_eq!(
        (waypoint_of(&mesh), bound(&mesh)),
        (to_wp(), vec![NOT_READY.into()])
    );
    let ip = json!({"status": {"addresses": [{"value": "10.96.0.99"}]}});
    mesh.apply(gateway("wp", ip));
    assert_ne!(waypoint_of(&mesh), to_wp());
    assert_eq!(bound(&mesh), [ACCEPTED]);
    mesh.delete(Kind::Gateway, "shop", "wp");
    assert_eq!(
        (waypoint_of(&mesh), bound(&mesh)),
        (to_wp(), vec![NOT_READY.into()])
    );
    let message = &mesh.conditions(Kind::Service, "shop", "web")[0].message;
    assert_eq!(
        message,
        "waypoint shop/wp does not exist; traffic is closed until it can take it"
    );
}

#[test]
fn to_go_past_a_waypoint_is_a_choice_of_the_object_the_namespace_or_the_mesh() {
    let bypass = || json!({"mesh.lateen.io/waypoint-unready": "bypass"});
    let close = || json!({"mesh.lateen.io/waypoint-unready": "close"});
    let mesh_wide = Settings {
        waypoint_unready: WaypointUnready::Bypass,
        ..Settings::default()
    };
    for (settings, of_namespace, own, expected) in [
        (Settings::default(), json!({}), annotated(bypass()), None),
        (Settings::default(), json!({}), labelled(bypass()), None),
        (Settings::default(), annotated(bypass()), json!({}), None),
        (
            Settings::default(),
            annotated(bypass()),
            annotated(close()),
            to_wp(),
        ),
        (mesh_wide.clone(), json!({}), json!({}), None),
        (mesh_wide, json!({}), annotated(close()), to_wp()),
        (
            Settings::default(),
            json!({}),
            annotated(json!({"mesh.lateen.io/waypoint-unready": "perhaps"})),
            to_wp(),
        ),
    ] {
        let mesh = Mesh::with(
            settings,
            [
                namespace("shop", of_namespace),
                service("web", merged(using("wp"), own)),
            ],
        );
        assert_eq!(waypoint_of(&mesh), expected);
        assert_eq!(bound(&mesh), [NOT_READY]);
    }
}

#[test]
fn a_listener_decides_which_namespaces_may_attach() {
    let from = |from: Value| {
        json!({"spec": {"listeners": [{
            "name": "mesh", "port": 15008, "protocol": "HBONE", "allowedRoutes": {"namespaces": from},
        }]}})
    };
    let selector = json!({"from": "Selector", "selector": {"matchLabels": {"team": "a"}}});
    let user = merged(
        json!({"metadata": {"namespace": "bank"}}),
        labelled(json!({"istio.io/use-waypoint": "wp", "istio.io/use-waypoint-namespace": "shop"})),
    );
    for (allowed, labels, own, other) in [
        (json!(null), json!({}), ACCEPTED, DENIED),
        (json!({"from": "Same"}), json!({}), ACCEPTED, DENIED),
        (json!({"from": "All"}), json!({}), ACCEPTED, ACCEPTED),
        (json!({"from": "None"}), json!({}), DENIED, DENIED),
        (selector.clone(), json!({"team": "a"}), DENIED, ACCEPTED),
        (selector, json!({"team": "b"}), DENIED, DENIED),
        (json!({"from": "Selector"}), json!({}), DENIED, DENIED),
        (json!({"from": "Everywhere"}), json!({}), DENIED, DENIED),
    ] {
        let mesh = Mesh::of([
            namespace("bank", labelled(labels)),
            gateway("wp", from(allowed.clone())),
            service("web", using("wp")),
            service("web", user.clone()),
        ]);
        assert_eq!(bound(&mesh), [own], "{allowed}");
        assert_eq!(
            mesh.reasons(Kind::Service, "bank", "web"),
            [other],
            "{allowed}"
        );
        // Denied or not, nothing goes past it.
        assert_eq!(
            mesh.service(
                "bank/web.shop.svc.cluster.local"
                    .replace(".shop", ".bank")
                    .as_str()
            )
            .waypoint,
            to_wp()
        );
    }
}

#[test]
fn an_entry_that_its_namespace_alone_sees_has_no_waypoint_elsewhere() {
    let all = json!({"spec": {"listeners": [{
        "name": "mesh", "port": 15008, "protocol": "HBONE",
        "allowedRoutes": {"namespaces": {"from": "All"}},
    }]}});
    let elsewhere = merged(
        merged(
            json!({"metadata": {"namespace": "bank"}}),
            json!({"spec": {"resolution": "STATIC", "endpoints": [{"address": "192.0.2.1"}]}}),
        ),
        labelled(json!({"istio.io/use-waypoint": "wp", "istio.io/use-waypoint-namespace": "shop"})),
    );
    let confined = merged(elsewhere.clone(), json!({"spec": {"exportTo": ["."]}}));
    let mut mesh = Mesh::of([
        gateway(
            "wp",
            merged(
                all,
                json!({"status": {"addresses": [{"value": "10.96.0.99"}]}}),
            ),
        ),
        entry("api", elsewhere),
    ]);
    let told = |mesh: &Mesh| mesh.reasons(Kind::ServiceEntry, "bank", "api")[0].clone();
    assert_eq!(told(&mesh), ACCEPTED);
    let open = mesh.service("bank/api.example").waypoint.clone();
    assert_ne!(open, to_wp());
    mesh.apply(entry("api", confined.clone()));
    assert_eq!(
        told(&mesh),
        "WaypointBound=false/CrossNamespaceWaypointForbidden"
    );
    // Neither the service nor its endpoints go to the waypoint, nor past it.
    assert_eq!(mesh.service("bank/api.example").waypoint, to_wp());
    assert_ne!(mesh.workload("192.0.2.1").waypoint, open);
    // Whether the waypoint would take it makes no difference.
    mesh.delete(Kind::Gateway, "shop", "wp");
    assert_eq!(
        told(&mesh),
        "WaypointBound=false/CrossNamespaceWaypointForbidden"
    );
    // In its own namespace it may.
    mesh.apply(entry(
        "api",
        merged(confined, json!({"metadata": {"namespace": "shop"}})),
    ));
    mesh.apply(gateway("wp", json!({})));
    assert_eq!(mesh.reasons(Kind::ServiceEntry, "shop", "api")[0], ACCEPTED);
}

#[test]
fn ingress_goes_through_the_waypoint_if_the_service_or_its_namespace_says_so() {
    let ingress = |value: &str| labelled(json!({"istio.io/ingress-use-waypoint": value}));
    for (of_namespace, own, expected) in [
        (json!({}), json!({}), false),
        (json!({}), ingress("true"), true),
        (ingress("True"), json!({}), true),
        (ingress("true"), ingress("false"), false),
        (ingress("0"), ingress("1"), true),
        // Not past the waypoint because of a slip of the pen.
        (json!({}), ingress("yes"), true),
    ] {
        let of_service = merged(using("wp"), own.clone());
        let mut mesh = Mesh::of([
            namespace("shop", of_namespace.clone()),
            gateway("wp", json!({})),
            service("web", of_service.clone()),
            entry("api", of_service),
        ]);
        for key in [WEB, "shop/api.example"] {
            let said = mesh.service(key).ingress_use_waypoint;
            assert_eq!(said, expected, "{of_namespace} {own}");
        }
        let message = &mesh.conditions(Kind::Service, "shop", "web")[0].message;
        assert_eq!(
            message.ends_with("; that of ingress gateways too"),
            expected
        );
        let slip = usize::from(own == ingress("yes"));
        assert_eq!(mesh.problems.len(), 2 * slip);
        // While the waypoint cannot take traffic, ingress waits for it as everybody does.
        mesh.apply(gateway("wp", json!({"status": null})));
        assert_eq!(mesh.service(WEB).ingress_use_waypoint, expected);
    }
}

#[test]
fn ingress_uses_no_waypoint_where_there_is_none_or_it_is_passed_by() {
    let ingress = || labelled(json!({"istio.io/ingress-use-waypoint": "true"}));
    let bypass = annotated(json!({"mesh.lateen.io/waypoint-unready": "bypass"}));
    let bypassed = merged(merged(using("missing"), ingress()), bypass);
    for over in [ingress(), merged(using("none"), ingress()), bypassed] {
        let mesh = Mesh::of([namespace("shop", json!({})), service("web", over)]);
        assert!(!mesh.service(WEB).ingress_use_waypoint);
    }
}

#[test]
fn a_waypoint_takes_the_traffic_that_it_is_for() {
    for (traffic, service_side, workload_side) in [
        (None, true, false),
        (Some("service"), true, false),
        (Some("workload"), false, true),
        (Some("all"), true, true),
        (Some("none"), false, false),
    ] {
        let labels = labelled(json!({"istio.io/waypoint-for": traffic}));
        let labels = if traffic.is_some() { labels } else { json!({}) };
        let mesh = Mesh::of([
            namespace("shop", using("wp")),
            gateway("wp", labels),
            service("web", json!({})),
            pod("web", json!({})),
        ]);
        assert_eq!(waypoint_of(&mesh).is_some(), service_side, "{traffic:?}");
        assert_eq!(
            mesh.workload("Pod/shop/web").waypoint.is_some(),
            workload_side,
            "{traffic:?}"
        );
        assert_eq!(
            bound(&mesh),
            [if service_side { ACCEPTED } else { UNSUPPORTED }]
        );
    }
}

#[test]
fn the_class_says_what_its_gateways_do_not() {
    let workload = labelled(json!({"istio.io/waypoint-for": "workload"}));
    let mut mesh = Mesh::of([gateway("wp", json!({})), pod("web", using("wp"))]);
    assert_eq!(
        mesh.workload("Pod/shop/web").waypoint,
        to_wp(),
        "closed: named, and for services"
    );
    let ip = json!({"status": {"addresses": [{"value": "10.96.0.99"}]}});
    mesh.apply(gateway("wp", ip));
    assert_eq!(mesh.workload("Pod/shop/web").waypoint, to_wp());
    mesh.apply(class("istio-waypoint", workload));
    assert_ne!(mesh.workload("Pod/shop/web").waypoint, to_wp(), "open");
}

#[test]
fn waypoints_and_their_services_have_no_waypoint() {
    let all = labelled(json!({"istio.io/waypoint-for": "all"}));
    let named = labelled(json!({"gateway.networking.k8s.io/gateway-name": "wp"}));
    let managed = labelled(json!({
        "gateway.networking.k8s.io/gateway-name": "gone",
        "gateway.istio.io/managed": "istio.io-mesh-controller",
    }));
    let mesh = Mesh::of([
        namespace("shop", using("wp")),
        gateway("wp", all),
        pod("wp-0", named.clone()),
        pod("gone-0", managed.clone()),
        service("gone", managed),
        // Its own service, even without a label.
        service("wp", json!({})),
        // And even if somebody labels it.
        service("other", merged(named, using("wp"))),
    ]);
    let of_workloads = mesh.workloads.values().map(|w| &w.waypoint);
    let of_services = mesh.services.values().map(|s| &s.waypoint);
    assert!(of_workloads.chain(of_services).all(Option::is_none));
}

#[test]
fn a_service_of_the_name_of_a_missing_waypoint_is_not_closed_by_itself() {
    let mesh = Mesh::of([namespace("shop", using("web")), service("web", json!({}))]);
    assert_eq!(waypoint_of(&mesh), None);
}

#[test]
fn the_mesh_s_own_components_inherit_no_waypoint() {
    let system = |name: &str, over: Value| {
        pod(
            name,
            merged(json!({"metadata": {"namespace": "istio-system"}}), over),
        )
    };
    let all = labelled(json!({"istio.io/waypoint-for": "all"}));
    let mesh = Mesh::of([
        namespace("istio-system", using("wp")),
        gateway(
            "wp",
            merged(all, json!({"metadata": {"namespace": "istio-system"}})),
        ),
        system("istiod", json!({})),
        system("ztunnel", json!({})),
        system(
            "istio-cni-node",
            labelled(json!({"app": null, "k8s-app": "istio-cni-node"})),
        ),
        system(
            "labelled",
            labelled(json!({"app": "istiod", "istio.io/use-waypoint": "wp"})),
        ),
        system("dashboard", json!({})),
    ]);
    let has = |name: &str| mesh.workload(name).waypoint.is_some();
    assert!(!has("/istiod") && !has("/ztunnel") && !has("/istio-cni-node"));
    assert!(has("/labelled") && has("/dashboard"));
    // Elsewhere the label means nothing.
    let mesh = Mesh::of([namespace("shop", using("wp")), pod("istiod", json!({}))]);
    assert!(mesh.workload("/istiod").waypoint.is_some());
}

#[test]
fn a_second_waypoint_takes_its_share() {
    let canary = |weight: &str| {
        merged(
            labelled(json!({"istio.io/use-waypoint": "wp", "istio.io/use-waypoint-canary": "new"})),
            annotated(json!({"istio.io/use-waypoint-canary-weight": weight})),
        )
    };
    let mut mesh = Mesh::of([
        gateway("wp", json!({})),
        gateway("new", json!({})),
        service("web", canary("20")),
    ]);
    let weighted = |hostname, weight| WeightedWaypoint {
        destination: to("shop", hostname),
        weight,
    };
    let expected = [
        weighted("wp.shop.svc.cluster.local", 80),
        weighted("new.shop.svc.cluster.local", 20),
    ];
    assert_eq!(mesh.service(WEB).weighted_waypoints, expected);
    assert_eq!(waypoint_of(&mesh), to_wp());
    assert_eq!(bound(&mesh), [ACCEPTED]);
    // One that cannot take its share leaves it to the first.
    mesh.apply(gateway("new", json!({"status": null})));
    assert_eq!(mesh.service(WEB).weighted_waypoints, []);
    assert_eq!(
        (waypoint_of(&mesh), bound(&mesh)),
        (to_wp(), vec![NOT_READY.into()])
    );
    mesh.apply(service("web", canary("120")));
    assert_eq!(bound(&mesh), ["WaypointBound=false/CanaryInvalidWeight"]);
    let same = labelled(json!({"istio.io/use-waypoint-canary": "wp"}));
    mesh.apply(service("web", merged(canary("20"), same)));
    assert_eq!(bound(&mesh), ["WaypointBound=false/CanarySameAsPrimary"]);
}

#[test]
fn pods_of_a_gateway_are_handed_connections_as_it_wants() {
    let binding = annotated(json!({"ambient.istio.io/waypoint-inbound-binding": "PROXY/15088"}));
    let named = labelled(json!({"gateway.networking.k8s.io/gateway-name": "wp"}));
    let mut mesh = Mesh::of([gateway("wp", json!({})), pod("wp-0", named)]);
    assert_eq!(mesh.workload("wp-0").application_tunnel, None);
    mesh.apply(class("istio-waypoint", binding));
    assert_eq!(
        mesh.workload("wp-0").application_tunnel,
        Some(ApplicationTunnel {
            protocol: ApplicationProtocol::Proxy,
            port: Some(15088),
        })
    );
    let none = annotated(json!({"ambient.istio.io/waypoint-inbound-binding": "NONE"}));
    mesh.apply(gateway("wp", none));
    assert_eq!(
        mesh.workload("wp-0").application_tunnel,
        Some(ApplicationTunnel {
            protocol: ApplicationProtocol::None,
            port: None,
        })
    );
}

//! The shape that `istioctl ztunnel-config` reads, and that nothing is left out of it.

use mesh_core::{
    change::Change,
    policy::{
        Action, Authorization, Clause, Match, PolicyScope, Rule, ServiceAccountMatch, StringMatch,
    },
    service::WeightedWaypoint,
};
use proptest::{collection::btree_set, prelude::*};
use serde_json::{Value, json};

use super::*;
use crate::{
    fixtures::{
        backing, balanced, gateway_at, gateway_named, mk_config, mk_pod, mk_policy, mk_service,
        mk_snapshot, range,
    },
    store::Store,
};

fn dumped(snapshot: &Snapshot) -> Value {
    serde_json::to_value(snapshot.dump()).unwrap()
}

#[test]
fn workload_is_dumped_in_the_contract_s_form() {
    let mut pod = Workload {
        waypoint: Some(gateway_at("10.96.0.9")),
        application_tunnel: Some(ApplicationTunnel {
            protocol: ApplicationProtocol::Proxy,
            port: Some(15088),
        }),
        authorization_policies: vec!["app/p".into()],
        ..backing(
            mk_pod("a", "10.0.0.1"),
            &mk_service("web", "10.96.0.1"),
            &[],
        )
    };
    pod.locality.region = "r".into();
    let expected = json!({
        "uid": "Kubernetes//Pod/app/a", "workloadIps": ["10.0.0.1"],
        "waypoint": {"destination": "/10.96.0.9", "hboneMtlsPort": 15008},
        "protocol": "HBONE", "name": "a", "namespace": "app", "serviceAccount": "a",
        "workloadName": "", "workloadType": "deployment", "canonicalName": "", "canonicalRevision": "",
        "clusterId": "Kubernetes", "trustDomain": "cluster.local",
        "locality": {"region": "r", "zone": "", "subzone": ""},
        "node": "node1", "network": "", "networkMode": "Standard", "status": "Healthy",
        "hostname": "", "capacity": 1, "applicationTunnel": {"protocol": "PROXY", "port": 15088},
        "authorizationPolicies": ["app/p"], "services": ["app/web.example"],
        "nativeTunnel": false,
    });
    assert_eq!(
        dumped(&mk_snapshot(&[&pod], &[]))["workloads"],
        json!([expected])
    );
}

#[test]
fn service_is_dumped_with_its_endpoints_in_the_contract_s_form() {
    let web = balanced(
        mk_service("web", "10.96.0.1"),
        BalancingMode::Failover,
        &[Scope::Network, Scope::Zone],
    );
    let web = Service {
        cidr_vips: vec![range("240.0.0.0/8")],
        subject_alt_names: vec!["spiffe://td/ns/a/sa/b".into()],
        waypoint: Some(gateway_named(&web.key())),
        weighted_waypoints: vec![WeightedWaypoint {
            destination: gateway_at("10.0.0.9"),
            weight: 3,
        }],
        ip_families: IpFamilies::Ipv4Only,
        ..web
    };
    let pod = backing(mk_pod("a", "10.0.0.1"), &web, &[(80, 9090)]);
    let pod = Workload {
        status: Health::Unhealthy,
        ..pod
    };
    let expected = json!({
        "name": "web", "namespace": "app", "hostname": "web.example", "vips": ["/10.96.0.1"],
        "cidrVips": [{"network": "", "cidr": "240.0.0.0/8"}], "ports": {"80": 8080},
        "endpoints": {"Kubernetes//Pod/app/a": {
            "workloadUid": "Kubernetes//Pod/app/a", "port": {"80": 9090}, "status": "Unhealthy"}},
        "subjectAltNames": ["spiffe://td/ns/a/sa/b"],
        "waypoint": {"destination": "app/web.example", "hboneMtlsPort": 15008},
        "weightedWaypoints": [{"destination": {"destination": "/10.0.0.9", "hboneMtlsPort": 15008}, "weight": 3}],
        "loadBalancer": {"routingPreferences": ["Network", "Zone"], "mode": "Failover", "healthPolicy": "OnlyHealthy"},
        "ipFamilies": "IPv4", "canonical": false, "visibility": "Public",
    });
    let dump = dumped(&mk_snapshot(&[&pod], &[&web]));
    assert_eq!(dump["services"], json!([expected]));
    assert_eq!(dump["stagedServices"], json!({}));
    let staged = dumped(&mk_snapshot(&[&pod], &[]));
    assert_eq!(
        staged["stagedServices"],
        json!({"app/web.example": expected["endpoints"]})
    );
}

#[test]
fn policy_is_dumped_as_rules_of_clauses_of_matches() {
    let m = Match {
        principals: vec![
            StringMatch::Exact("td/ns/a/sa/b".into()),
            StringMatch::Presence,
        ],
        not_source_ips: vec!["10.0.0.0/8".parse().unwrap()],
        destination_ports: vec![80],
        service_accounts: vec![ServiceAccountMatch {
            namespace: "a".into(),
            service_account: "b".into(),
        }],
        ..Match::default()
    };
    let rules = vec![Rule {
        clauses: vec![Clause { matches: vec![m] }],
    }];
    let policy = Authorization {
        rules,
        ..mk_policy("p", PolicyScope::WorkloadSelector, Action::Deny)
    };
    let store = Store::new(mk_config());
    store.apply([Change::Policy(policy)]);
    let expected = json!({
        "name": "p", "namespace": "app", "scope": "WorkloadSelector", "action": "Deny", "dryRun": false,
        "rules": [[[{
            "principals": [{"Exact": "td/ns/a/sa/b"}, {"Presence": []}],
            "notSourceIps": ["10.0.0.0/8"], "destinationPorts": [80],
            "serviceAccounts": [{"namespace": "a", "serviceAccount": "b"}],
        }]]],
    });
    assert_eq!(dumped(&store.snapshot())["policies"], json!([expected]));
}

/// The values of one field in an array of the dump.
fn column(dump: &Value, array: &str, field: &str) -> Vec<String> {
    let rows = dump[array].as_array().unwrap();
    rows.iter()
        .map(|row| row[field].as_str().unwrap().to_owned())
        .collect()
}

proptest! {
    #[test]
    fn everything_is_dumped_once_and_in_order(
        pods in btree_set("[a-z\"\\\\]{1,6}", 0..6),
        services in btree_set("[a-z\u{e9}]{1,6}", 0..6),
        policies in btree_set("[a-z]{1,6}", 0..6),
    ) {
        let store = Store::new(mk_config());
        let backed: Vec<_> = services.iter().map(|name| mk_service(name, "10.96.0.1")).collect();
        store.apply(pods.iter().rev().map(|name| {
            let pod = mk_pod(name, "10.0.0.1");
            Change::Workload(backed.iter().fold(pod, |pod, service| backing(pod, service, &[])))
        }));
        store.apply(policies.iter().rev().map(|name| {
            Change::Policy(mk_policy(name, PolicyScope::Namespace, Action::Deny))
        }));
        let staged = dumped(&store.snapshot());
        store.apply(backed.iter().rev().cloned().map(Change::Service));
        let text = serde_json::to_string(&store.snapshot().dump()).unwrap();
        let dump: Value = serde_json::from_str(&text).unwrap();

        let names = |set: &std::collections::BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>();
        prop_assert_eq!(column(&dump, "workloads", "name"), names(&pods));
        prop_assert_eq!(column(&dump, "policies", "name"), names(&policies));
        let hosts = column(&dump, "services", "hostname");
        let mut expected: Vec<_> = services.iter().map(|name| format!("{name}.example")).collect();
        expected.sort_unstable();
        prop_assert_eq!(&hosts, &expected);
        let endpoints = |row: &Value| row.as_object().map_or(0, serde_json::Map::len);
        for row in dump["services"].as_array().unwrap() {
            prop_assert_eq!(endpoints(&row["endpoints"]), pods.len());
        }
        let waiting = if pods.is_empty() { 0 } else { services.len() };
        prop_assert_eq!(endpoints(&staged["stagedServices"]), waiting);
        prop_assert_eq!(endpoints(&dump["stagedServices"]), 0);
    }
}

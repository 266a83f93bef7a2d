use proptest::prelude::*;

use super::*;

/// The same network in the three forms.
fn forms() -> [(Version, Value); 3] {
    [
        (
            Version::V0_2_0,
            json!({
                "cniVersion": "0.2.0",
                "ip4": {
                    "ip": "10.1.0.5/16", "gateway": "10.1.0.1",
                    "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}],
                },
                "ip6": {"ip": "fd00::5/64"},
                "dns": {"nameservers": ["10.1.0.10"]},
            }),
        ),
        (
            Version::V0_4_0,
            json!({
                "cniVersion": "0.4.0",
                "ips": [
                    {"version": "4", "address": "10.1.0.5/16", "gateway": "10.1.0.1"},
                    {"version": "6", "address": "fd00::5/64"},
                ],
                "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}],
                "dns": {"nameservers": ["10.1.0.10"]},
            }),
        ),
        (
            Version::V1_0_0,
            json!({
                "cniVersion": "1.0.0",
                "ips": [
                    {"address": "10.1.0.5/16", "gateway": "10.1.0.1"},
                    {"address": "fd00::5/64"},
                ],
                "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}],
                "dns": {"nameservers": ["10.1.0.10"]},
            }),
        ),
    ]
}

fn said(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.to_json()).unwrap()
}

#[test]
fn result_says_the_same_in_every_form() {
    for (from, written) in forms() {
        for (to, expected) in forms() {
            let outcome = Outcome::parse(written.clone(), Version::V1_1_0).unwrap();
            assert_eq!(said(&outcome.into_version(to)), expected, "{from} to {to}");
        }
    }
}

#[test]
fn addresses_are_found_in_every_form() {
    let expected: [IpAddr; 2] = ["10.1.0.5".parse().unwrap(), "fd00::5".parse().unwrap()];
    for (version, written) in forms() {
        let outcome = Outcome::parse(written, Version::V1_1_0).unwrap();
        assert_eq!(outcome.addresses(), expected, "{version}");
    }
}

#[test]
fn addresses_of_the_nodes_end_are_not_the_pods() {
    let written = json!({
        "interfaces": [{"name": "veth1"}, {"name": "eth0", "sandbox": "/run/netns/x"}, {"name": "cni0", "sandbox": ""}],
        "ips": [
            {"address": "10.1.0.1/16", "interface": 2},
            {"address": "10.1.0.2/16", "interface": 0},
            {"address": "10.1.0.5/16", "interface": 1},
            {"address": "::ffff:10.1.0.5/112", "interface": 1},
            {"address": "10.1.0.6/16"},
            {"address": "10.1.0.7/16", "interface": 9},
        ],
    });
    let outcome = Outcome::parse(written, Version::V1_0_0).unwrap();
    let found = outcome
        .addresses()
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>();
    assert_eq!(found, ["10.1.0.5", "10.1.0.6", "10.1.0.7"]);
}

#[test]
fn what_is_not_known_is_passed_on() {
    let written = json!({
        "cniVersion": "1.1.0", "someday": {"a": 1},
        "interfaces": [{"name": "eth0", "sandbox": "/x", "mtu": 1400, "socketPath": "/s", "pciID": "0", "more": true}],
        "ips": [{"address": "10.1.0.5/16", "more": true}],
        "routes": [{"dst": "0.0.0.0/0", "priority": 1, "scope": 0, "more": true}],
    });
    let outcome = Outcome::parse(written.clone(), Version::V1_1_0).unwrap();
    assert_eq!(
        said(&outcome.clone().into_version(Version::V1_1_0)),
        written
    );
    let older = said(&outcome.into_version(Version::V1_0_0));
    assert_eq!(
        older,
        json!({
            "cniVersion": "1.0.0", "someday": {"a": 1},
            "interfaces": [{"name": "eth0", "sandbox": "/x", "more": true}],
            "ips": [{"address": "10.1.0.5/16", "more": true}],
            "routes": [{"dst": "0.0.0.0/0", "more": true}],
        })
    );
}

#[test]
fn result_without_a_version_is_of_the_configurations() {
    let outcome = Outcome::parse(json!({"ip4": {"ip": "10.0.0.1/8"}}), Version::V0_1_0).unwrap();
    assert_eq!(outcome.addresses(), ["10.0.0.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(
        said(&Outcome::empty(Version::V0_2_0)),
        json!({"cniVersion": "0.2.0"})
    );
    let empty = said(&Outcome::empty(Version::V1_0_0));
    assert_eq!(empty, json!({"cniVersion": "1.0.0", "dns": {}}));
}

#[test]
fn what_is_no_result_is_refused() {
    for (written, code) in [
        (json!(1), 6),
        (json!({"cniVersion": "3.0.0"}), 1),
        (json!({"cniVersion": 1}), 6),
        (json!({"ips": {}}), 6),
        (json!({"ips": [1]}), 6),
        (json!({"ips": [{"address": "10.0.0.1/33"}]}), 6),
        (json!({"ips": [{"address": "pod"}]}), 6),
        (json!({"interfaces": "eth0"}), 6),
        (json!({"cniVersion": "0.2.0", "ip4": []}), 6),
        (json!({"cniVersion": "0.2.0", "ip4": {"ip": "x"}}), 6),
    ] {
        let error = Outcome::parse(written.clone(), Version::V1_0_0).unwrap_err();
        assert_eq!(error.code().number(), code, "{written}: {error}");
    }
}

fn any_result() -> impl Strategy<Value = Value> {
    let v4 = (any::<[u8; 4]>(), 0..=32u8).prop_map(|(a, l)| format!("{}/{l}", IpAddr::from(a)));
    let v6 = (any::<[u16; 8]>(), 0..=128u8).prop_map(|(a, l)| format!("{}/{l}", IpAddr::from(a)));
    let ips = prop::collection::vec(prop_oneof![v4, v6], 0..5);
    ips.prop_map(|ips| {
        let ips: Vec<_> = ips
            .into_iter()
            .map(|address| json!({"address": address}))
            .collect();
        json!({"cniVersion": "1.1.0", "ips": ips, "dns": {}})
    })
}

proptest! {
    #[test]
    fn addresses_survive_every_form_that_can_hold_them(
        written in any_result(),
        through in prop::sample::select(&Version::ALL[2..]),
    ) {
        let outcome = Outcome::parse(written, Version::V1_1_0).unwrap();
        let there = outcome.clone().into_version(through);
        prop_assert_eq!(there.addresses(), outcome.addresses());
        // What we say is what we would accept.
        let again = Outcome::parse(said(&there), Version::V0_1_0).unwrap();
        prop_assert_eq!(again.into_version(Version::V1_1_0), outcome);
    }

    #[test]
    fn oldest_form_holds_one_address_of_each_family(written in any_result()) {
        let outcome = Outcome::parse(written, Version::V1_1_0).unwrap();
        let all = outcome.addresses();
        let old = outcome.into_version(Version::V0_1_0);
        prop_assert!(old.addresses().len() <= 2);
        prop_assert!(old.addresses().iter().all(|address| all.contains(address)));
        prop_assert_eq!(old.addresses().is_empty(), all.is_empty());
    }
}

//! PeerAuthentications as users write them, and what workloads and ztunnel get.

use mesh_core::{identity::Identity, rbac};
use proptest::{option, prelude::*, sample::select};
use serde_json::{Value, json};

use super::*;

const STATIC: &str = "istio-system/istio_converted_static_strict";

fn object(namespace: &str, name: &str, created: u32, spec: Value) -> PeerAuthentication {
    let created = format!("2026-01-01T00:00:{created:02}Z");
    let mut object = json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": { "name": name, "namespace": namespace, "creationTimestamp": created },
    });
    object["spec"] = spec;
    serde_json::from_value(object).unwrap()
}

fn mode(mode: &str) -> Value {
    json!({ "mtls": { "mode": mode } })
}

/// A spec for `app: pay` with these ports.
fn pay(mode: &str, ports: Value) -> Value {
    let selector = json!({ "matchLabels": { "app": "pay" } });
    let mut spec = json!({ "selector": selector, "mtls": { "mode": mode } });
    spec["portLevelMtls"] = ports;
    spec
}

fn peers(objects: &[PeerAuthentication]) -> Peers {
    let mut peers = Peers::new("istio-system");
    for object in objects {
        peers.apply(object);
    }
    peers
}

fn policy_of(peers: &Peers, namespace: &str, app: &'static str) -> Option<String> {
    let found = peers.policy_of(namespace, |key| (key == "app").then_some(app));
    found.map(|key| key.to_string())
}

/// The policies that are published after all changes so far.
fn published(peers: &mut Peers) -> BTreeMap<String, Match> {
    let mut all = BTreeMap::new();
    for change in peers.clone().drain() {
        let PolicyChange::Publish(policy) = change else {
            panic!("nothing was published that could be withdrawn");
        };
        assert_eq!(
            (policy.scope, policy.action),
            (PolicyScope::WorkloadSelector, Action::Deny)
        );
        let [rule] = &policy.rules[..] else {
            panic!("one rule")
        };
        let [clause] = &rule.clauses[..] else {
            panic!("one clause")
        };
        let [matched] = &clause.matches[..] else {
            panic!("one match")
        };
        all.insert(policy.key().to_string(), matched.clone());
    }
    all
}

const OWN: &str = "shop/converted_peer_authentication_pay";

#[test]
fn plain_text_is_accepted_where_nobody_says_otherwise() {
    let mut peers = peers(&[]);
    assert_eq!(policy_of(&peers, "shop", "pay"), None);
    assert_eq!(peers.drain(), []);
}

#[test]
fn strict_for_the_mesh_reaches_every_namespace() {
    let mut peers = peers(&[object("istio-system", "mesh", 1, mode("STRICT"))]);
    for namespace in ["shop", "istio-system"] {
        assert_eq!(policy_of(&peers, namespace, "pay").as_deref(), Some(STATIC));
    }
    assert_eq!(
        published(&mut peers),
        [(STATIC.to_owned(), plain_text())].into()
    );
}

#[test]
fn the_shared_policy_is_there_as_soon_as_one_object_is_and_goes_with_the_last() {
    let mut peers = peers(&[object("shop", "all", 1, mode("PERMISSIVE"))]);
    assert_eq!(peers.drain().len(), 1);
    assert_eq!(peers.delete("shop", "all"), Affected::Nothing);
    assert_eq!(peers.drain(), [PolicyChange::Withdraw(STATIC.into())]);
    assert_eq!(peers.drain(), []);
}

#[test]
fn the_narrower_object_wins_and_unset_inherits() {
    let mesh = object("istio-system", "mesh", 1, mode("STRICT"));
    let namespace = |value| object("shop", "all", 2, mode(value));
    let workload = |value| object("shop", "pay", 3, pay(value, json!({})));
    let of = |objects: &[PeerAuthentication]| policy_of(&peers(objects), "shop", "pay").is_some();
    assert!(of(&[mesh.clone(), namespace("UNSET"), workload("UNSET")]));
    assert!(!of(&[
        mesh.clone(),
        namespace("PERMISSIVE"),
        workload("UNSET")
    ]));
    assert!(!of(&[
        mesh.clone(),
        namespace("DISABLE"),
        workload("UNSET")
    ]));
    assert!(of(&[
        mesh.clone(),
        namespace("PERMISSIVE"),
        workload("STRICT")
    ]));
    assert!(!of(&[
        mesh.clone(),
        namespace("STRICT"),
        workload("PERMISSIVE")
    ]));
    let others = peers(&[mesh, namespace("STRICT"), workload("PERMISSIVE")]);
    assert_eq!(policy_of(&others, "shop", "till").as_deref(), Some(STATIC));
}

#[test]
fn among_equals_the_oldest_wins_whatever_the_order_of_arrival() {
    let old = object("shop", "z", 1, mode("STRICT"));
    let young = object("shop", "a", 2, mode("PERMISSIVE"));
    let same_age = object("shop", "b", 1, mode("PERMISSIVE"));
    for order in [[&old, &young], [&young, &old]] {
        let peers = peers(&order.map(Clone::clone));
        assert_eq!(policy_of(&peers, "shop", "pay").as_deref(), Some(STATIC));
    }
    let by_name = peers(&[old, same_age]);
    assert_eq!(policy_of(&by_name, "shop", "pay"), None);
}

#[test]
fn ports_make_a_policy_of_their_own() {
    let cases = [
        (
            pay(
                "STRICT",
                json!({ "80": { "mode": "PERMISSIVE" }, "81": { "mode": "DISABLE" } }),
            ),
            Match {
                not_destination_ports: vec![80, 81],
                ..plain_text()
            },
        ),
        (
            pay(
                "PERMISSIVE",
                json!({ "80": { "mode": "STRICT" }, "90": { "mode": "UNSET" } }),
            ),
            Match {
                destination_ports: vec![80],
                ..plain_text()
            },
        ),
        (
            pay("UNSET", json!({ "80": { "mode": "STRICT" } })),
            Match {
                destination_ports: vec![80],
                ..plain_text()
            },
        ),
    ];
    for (spec, expected) in cases {
        let mut peers = peers(&[object("shop", "pay", 1, spec)]);
        assert_eq!(policy_of(&peers, "shop", "pay").as_deref(), Some(OWN));
        assert_eq!(policy_of(&peers, "shop", "till"), None);
        let published = published(&mut peers);
        assert_eq!(published.get(OWN), Some(&expected));
    }
}

#[test]
fn ports_that_agree_need_no_policy_of_their_own() {
    let strict = pay(
        "STRICT",
        json!({ "80": { "mode": "STRICT" }, "81": { "mode": "UNSET" } }),
    );
    let mut strict = peers(&[object("shop", "pay", 1, strict)]);
    assert_eq!(policy_of(&strict, "shop", "pay").as_deref(), Some(STATIC));
    assert_eq!(published(&mut strict).len(), 1);
    let permissive = pay("PERMISSIVE", json!({ "80": { "mode": "DISABLE" } }));
    let permissive = peers(&[object("shop", "pay", 1, permissive)]);
    assert_eq!(policy_of(&permissive, "shop", "pay"), None);
}

#[test]
fn a_wider_change_changes_the_policies_that_inherit() {
    let inheriting = pay("UNSET", json!({ "80": { "mode": "STRICT" } }));
    let mut peers = peers(&[object("shop", "pay", 1, inheriting)]);
    peers.drain();
    let applied = peers.apply(&object("istio-system", "mesh", 2, mode("STRICT")));
    assert_eq!(applied.affected, Affected::Mesh);
    let key: Arc<str> = OWN.into();
    assert_eq!(peers.drain(), [PolicyChange::Withdraw(key)]);
    assert_eq!(policy_of(&peers, "shop", "pay").as_deref(), Some(STATIC));
    assert_eq!(peers.delete("istio-system", "mesh"), Affected::Mesh);
    assert!(matches!(&peers.drain()[..], [PolicyChange::Publish(_)]));
}

#[test]
fn a_change_of_the_namespace_changes_the_policies_that_inherit() {
    let inheriting = pay("UNSET", json!({ "80": { "mode": "PERMISSIVE" } }));
    let elsewhere = object("bank", "pay", 1, inheriting.clone());
    let mut peers = peers(&[object("shop", "pay", 1, inheriting), elsewhere]);
    peers.drain();
    let applied = peers.apply(&object("shop", "all", 2, mode("STRICT")));
    assert_eq!(applied.affected, Affected::Namespace("shop".into()));
    let [PolicyChange::Publish(policy)] = &peers.drain()[..] else {
        panic!("one policy is published")
    };
    assert_eq!(*policy.key(), *OWN);
}

#[test]
fn a_change_concerns_no_more_workloads_than_it_must() {
    let mut peers = peers(&[object("istio-system", "mesh", 1, mode("STRICT"))]);
    let mut affected = |object: &PeerAuthentication| peers.apply(object).affected;
    let shop = || Affected::Namespace("shop".into());
    assert_eq!(
        affected(&object("istio-system", "younger", 2, mode("PERMISSIVE"))),
        Affected::Nothing
    );
    assert_eq!(
        affected(&object("shop", "all", 3, mode("UNSET"))),
        Affected::Nothing
    );
    assert_eq!(
        affected(&object("shop", "all", 3, mode("PERMISSIVE"))),
        shop()
    );
    assert_eq!(
        affected(&object("shop", "all", 3, mode("PERMISSIVE"))),
        Affected::Nothing
    );
    assert_eq!(
        affected(&object("shop", "pay", 4, pay("STRICT", json!({})))),
        shop()
    );
    assert_eq!(peers.delete("shop", "pay"), shop());
    assert_eq!(peers.delete("shop", "pay"), Affected::Nothing);
    assert_eq!(peers.keys().count(), 3);
}

#[test]
fn in_the_root_namespace_workloads_cannot_be_selected() {
    let mut peers = Peers::new("istio-system");
    let applied = peers.apply(&object("istio-system", "pay", 1, pay("STRICT", json!({}))));
    assert_eq!(applied.affected, Affected::Nothing);
    assert!(!applied.report.accepted);
    assert!(applied.report.message.contains("in the root namespace"));
    assert_eq!(policy_of(&peers, "istio-system", "pay"), None);
    assert_eq!(policy_of(&peers, "shop", "pay"), None);
}

#[test]
fn what_is_malformed_is_strict_and_named() {
    let cases = [
        (mode("STRIKT"), "spec.mtls.mode"),
        (
            pay("PERMISSIVE", json!({ "http": { "mode": "STRICT" } })),
            "spec.portLevelMtls[http]",
        ),
        (
            json!({ "mtls": { "mode": "PERMISSIVE" }, "portLevelMtls": { "80": { "mode": "STRICT" } } }),
            "spec.portLevelMtls",
        ),
    ];
    for (spec, field) in cases {
        let mut peers = Peers::new("istio-system");
        let applied = peers.apply(&object("shop", "pay", 1, spec));
        assert_eq!(applied.findings[0].field, field);
        assert_eq!(applied.report.reason, "Invalid");
        assert_eq!(
            policy_of(&peers, "shop", "pay").as_deref(),
            Some(STATIC),
            "{field}"
        );
    }
}

// === the meaning, word by word ===

/// Whether plain text reaches a port of a workload, straight from the objects.
fn accepts(objects: &[PeerAuthentication], namespace: &str, app: &str, port: u16) -> bool {
    let oldest = |namespace: &str, selected: bool| {
        let of = objects
            .iter()
            .filter(|o| o.metadata.namespace.as_deref() == Some(namespace));
        let labels = |o: &PeerAuthentication| {
            let labels = o
                .spec
                .selector
                .as_ref()
                .map(|s| s.match_labels.clone())
                .unwrap_or_default();
            (!labels.is_empty()).then(|| labels.get("app").cloned())
        };
        let fits = of.filter(|o| match labels(o) {
            Some(wanted) => selected && wanted.as_deref() == Some(app),
            None => !selected,
        });
        fits.min_by_key(|o| {
            (
                o.metadata.creation_timestamp.clone(),
                o.metadata.name.clone(),
            )
        })
        .cloned()
    };
    let set = |mode: Option<String>| mode.filter(|mode| mode != "UNSET");
    let of = |o: &Option<PeerAuthentication>| set(o.as_ref()?.spec.mtls.as_ref()?.mode.clone());
    let workload = (namespace != "istio-system")
        .then(|| oldest(namespace, true))
        .flatten();
    let ports = workload.as_ref().map(|o| &o.spec.port_level_mtls);
    let port = ports.and_then(|ports| set(ports.get(&port.to_string())?.mode.clone()));
    let modes = [
        port,
        of(&workload),
        of(&oldest(namespace, false)),
        of(&oldest("istio-system", false)),
    ];
    modes.into_iter().flatten().next().as_deref() != Some("STRICT")
}

/// The same, as ztunnel would decide with the policies that are published and named.
fn lets_through(peers: &Peers, namespace: &str, app: &'static str, port: u16) -> bool {
    let published = peers
        .clone()
        .drain()
        .into_iter()
        .filter_map(|change| match change {
            PolicyChange::Publish(policy) => Some((policy.key(), policy)),
            PolicyChange::Withdraw(_) => None,
        });
    let published: BTreeMap<_, _> = published.collect();
    let connection = |identity| rbac::Connection {
        source_identity: identity,
        source_ip: [10, 0, 0, 9].into(),
        destination: ([10, 0, 0, 1], port).into(),
    };
    let Some(key) = peers.policy_of(namespace, |key| (key == "app").then_some(app)) else {
        return true;
    };
    let policy = rbac::CompiledPolicy::compile(&published[&key]);
    let identity = Identity::try_new("cluster.local", "shop", "till").unwrap();
    assert!(
        !policy.matches(&connection(Some(identity))),
        "an identity is never refused"
    );
    !policy.matches(&connection(None))
}

fn any_object() -> impl Strategy<Value = PeerAuthentication> {
    let mode = || select(vec!["UNSET", "DISABLE", "PERMISSIVE", "STRICT"]);
    let selector = select(vec![
        json!(null),
        json!({}),
        json!({ "matchLabels": { "app": "pay" } }),
    ]);
    let ports = (option::of(mode()), option::of(mode()));
    let place = (
        select(vec!["istio-system", "shop", "bank"]),
        select(vec!["a", "b", "c"]),
        0..3_u32,
    );
    (place, selector, option::of(mode()), ports).prop_map(
        |((namespace, name, created), selector, mode, (http, tls))| {
            let mut spec = json!({ "selector": selector, "mtls": { "mode": mode } });
            if spec["selector"].get("matchLabels").is_some() {
                let port = |mode| json!({ "mode": mode });
                spec["portLevelMtls"] = json!({ "80": port(http), "443": port(tls) });
            }
            object(namespace, name, created, spec)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn ztunnel_accepts_plain_text_exactly_where_the_objects_say(
        objects in prop::collection::vec(any_object(), 0..7),
        removed in option::of(0..7_usize),
    ) {
        let mut peers = peers(&objects);
        let mut objects: Vec<_> = objects
            .into_iter()
            .map(|o| ((o.metadata.namespace.clone(), o.metadata.name.clone()), o))
            .collect::<BTreeMap<_, _>>()
            .into_values()
            .collect();
        if let Some(removed) = removed.filter(|i| *i < objects.len()) {
            let gone = objects.remove(removed).metadata;
            let gone_root = gone.namespace.as_deref() == Some("istio-system");
            let affected = peers.delete(&gone.namespace.unwrap(), &gone.name.unwrap());
            prop_assert!(affected != Affected::Mesh || gone_root);
        }
        for namespace in ["istio-system", "shop", "bank", "other"] {
            for (app, port) in [("pay", 80), ("pay", 443), ("pay", 9000), ("till", 80)] {
                prop_assert_eq!(
                    lets_through(&peers, namespace, app, port),
                    accepts(&objects, namespace, app, port),
                    "{} {} {}", namespace, app, port
                );
            }
        }
    }

    #[test]
    fn changes_one_by_one_come_to_the_same_as_all_at_once(
        steps in prop::collection::vec((any_object(), any::<bool>()), 0..12),
    ) {
        let mut peers = Peers::new("istio-system");
        let mut known = BTreeMap::new();
        let mut names: BTreeMap<(&str, &'static str), Option<Arc<str>>> = BTreeMap::new();
        for (object, delete) in steps {
            let affected = if delete {
                let meta = &object.metadata;
                peers.delete(meta.namespace.as_deref().unwrap(), meta.name.as_deref().unwrap())
            } else {
                peers.apply(&object).affected
            };
            for change in peers.drain() {
                match change {
                    PolicyChange::Publish(policy) => known.insert(policy.key(), policy),
                    PolicyChange::Withdraw(key) => known.remove(&key),
                };
            }
            for namespace in ["istio-system", "shop", "bank", "other"] {
                for app in ["pay", "till"] {
                    let now = peers.policy_of(namespace, |key| (key == "app").then_some(app));
                    let named = now.iter().all(|key| known.contains_key(key));
                    prop_assert!(named, "a workload names {:?}, which is not published", now);
                    let before = names.insert((namespace, app), now.clone()).flatten();
                    let told = match &affected {
                        Affected::Nothing => false,
                        Affected::Namespace(affected) => **affected == *namespace,
                        Affected::Mesh => true,
                    };
                    prop_assert!(told || before == now, "{} changed and was not told", namespace);
                }
            }
        }
        let mut fresh = Peers::new("istio-system");
        let all: Vec<_> = peers.keys().map(|(a, b)| (a.clone(), b.clone())).collect();
        fresh.namespaces.clone_from(&peers.namespaces);
        fresh.stale.all = true;
        let fresh: BTreeMap<_, _> = fresh.drain().into_iter().filter_map(|change| match change {
            PolicyChange::Publish(policy) => Some((policy.key(), policy)),
            PolicyChange::Withdraw(_) => None,
        }).collect();
        prop_assert_eq!(known, fresh, "{:?}", all);
    }
}

//! However the mesh came to be what it is, the snapshot is the one of what it is.

use std::collections::{BTreeMap, BTreeSet};

use mesh_core::{
    policy::Authorization,
    service::{BalancingMode, Scope, WeightedWaypoint},
    workload::Health,
};
use proptest::{collection::vec, prelude::*, sample};

use super::*;
use crate::fixtures::{balanced, gateway_at, gateway_named, range};

const SERVICES: u8 = 3;

fn service(n: u8) -> Service {
    mk_service(&format!("web{n}"), &format!("10.96.0.{n}"))
}

fn arb_workload() -> impl Strategy<Value = Workload> {
    let backed = vec((0..SERVICES, any::<bool>()), 0..3);
    let named = sample::subsequence(vec!["app/p0", "app/p1", "app/p2"], 0..=2);
    let traits = (any::<bool>(), any::<bool>(), any::<bool>(), 0..3_u32);
    (0..4_u8, 0..3_u8, backed, named, traits).prop_map(|(n, address, backed, named, traits)| {
        let (local, ready, hbone, capacity) = traits;
        let pod = mk_pod(&format!("pod{n}"), &format!("10.0.0.{address}"));
        let pod = backed.into_iter().fold(pod, |pod, (n, own_port)| {
            let ports: &[_] = if own_port {
                &[(80, 9090), (81, 1)]
            } else {
                &[]
            };
            backing(pod, &service(n), ports)
        });
        Workload {
            node: if local { "node1" } else { "node2" }.into(),
            status: if ready {
                Health::Healthy
            } else {
                Health::Unhealthy
            },
            protocol: if hbone {
                TunnelProtocol::Hbone
            } else {
                TunnelProtocol::None
            },
            capacity,
            hostname: (n == 0).then(|| "pod.example".into()),
            authorization_policies: named.into_iter().map(Arc::from).collect(),
            ..pod
        }
    })
}

fn arb_service() -> impl Strategy<Value = Service> {
    let traits = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (0..SERVICES, 0..2_u8, traits).prop_map(|(n, vip, (ranged, strict, weighted, other))| {
        let mut service = Service {
            vips: mk_service("x", &format!("10.96.1.{vip}")).vips,
            ..service(n)
        };
        if ranged {
            service.cidr_vips = vec![range("240.0.0.0/8"), range(&format!("240.{vip}.0.0/16"))];
        }
        if strict {
            service = balanced(service, BalancingMode::Strict, &[Scope::Node]);
        }
        if weighted {
            let destination = gateway_at("10.0.0.1");
            service.weighted_waypoints = vec![WeightedWaypoint {
                destination,
                weight: u32::from(vip),
            }];
        }
        if other {
            service.waypoint = Some(gateway_named(&self::service(0).key()));
        }
        service
    })
}

fn arb_policy() -> impl Strategy<Value = Authorization> {
    let scopes = vec![
        PolicyScope::Global,
        PolicyScope::Namespace,
        PolicyScope::WorkloadSelector,
    ];
    (0..4_u8, sample::select(scopes), any::<bool>()).prop_map(|(n, scope, deny)| {
        let action = if deny { Action::Deny } else { Action::Allow };
        mk_policy(&format!("p{n}"), scope, action)
    })
}

fn arb_update() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => arb_workload().prop_map(Change::Workload),
        3 => arb_service().prop_map(Change::Service),
        2 => arb_policy().prop_map(Change::Policy),
        1 => (0..4_u8).prop_map(|n| Change::RemoveAddress(mk_pod(&format!("pod{n}"), "::").uid)),
        1 => (0..SERVICES).prop_map(|n| Change::RemoveAddress(service(n).key().to_string().into())),
        1 => (0..4_u8).prop_map(|n| Change::RemovePolicy(format!("app/p{n}").into())),
    ]
}

/// What is left of a history: the last word on each thing, in the order of their names.
fn outcome(history: &[Change]) -> Vec<Change> {
    let mut last = BTreeMap::new();
    for update in history {
        let (kind, key) = match update {
            Change::Workload(workload) => ("address", workload.uid.clone()),
            Change::Service(service) => ("address", service.key().to_string().into()),
            Change::Policy(policy) => ("policy", policy.key()),
            Change::RemoveAddress(name) => ("address", name.clone()),
            Change::RemovePolicy(key) => ("policy", key.clone()),
        };
        match update {
            Change::RemoveAddress(_) | Change::RemovePolicy(_) => last.remove(&(kind, key)),
            _ => last.insert((kind, key), update.clone()),
        };
    }
    last.into_values().collect()
}

/// A snapshot without its number.
fn shown(store: &Store) -> Snapshot {
    Snapshot {
        generation: Generation::default(),
        ..Snapshot::clone(&store.load())
    }
}

proptest! {
    #[test]
    fn order_of_arrival_does_not_matter(
        (updates, shuffled) in vec(arb_update(), 0..12)
            .prop_map(|history| outcome(&history))
            .prop_flat_map(|updates| (Just(updates.clone()), Just(updates).prop_shuffle())),
        batch in 1..5_usize,
    ) {
        let (together, apart) = (mk_store(), mk_store());
        together.apply(updates);
        for batch in shuffled.chunks(batch) {
            apart.apply(batch.iter().cloned());
        }
        prop_assert_eq!(shown(&together), shown(&apart));
    }

    #[test]
    fn nothing_of_the_past_remains(history in vec(arb_update(), 0..24), batch in 1..5_usize) {
        let (grown, fresh) = (mk_store(), mk_store());
        for batch in history.chunks(batch) {
            grown.apply(batch.iter().cloned());
        }
        fresh.apply(outcome(&history));
        prop_assert_eq!(shown(&grown), shown(&fresh));
    }

    #[test]
    fn certificate_edges_add_up_to_the_identities_in_use(history in vec(arb_update(), 0..24), batch in 1..5_usize) {
        let store = mk_store();
        let mut held = BTreeSet::new();
        for batch in history.chunks(batch) {
            let applied = store.apply(batch.iter().cloned());
            for identity in applied.identities_removed {
                prop_assert!(held.remove(&identity), "{} was not held", identity);
            }
            for identity in applied.identities_added {
                prop_assert!(held.insert(identity.clone()), "{} was held", identity);
            }
            let in_use: BTreeSet<_> = store.load().node_local_identities().cloned().collect();
            prop_assert_eq!(&held, &in_use);
        }
    }

    #[test]
    fn policy_generation_grows_whenever_a_verdict_changes(history in vec(arb_update(), 0..24)) {
        let store = mk_store();
        let pods: Vec<_> = (0..4).map(|n| mk_pod(&format!("pod{n}"), "10.0.0.1")).collect();
        let verdicts = || pods.iter()
            .filter(|pod| store.load().policies_for(pod).policies().next().is_some())
            .map(|pod| (pod.uid.clone(), verdict(&store, pod)))
            .collect::<BTreeMap<_, _>>();
        let local = || store.load().workloads.local().cloned().collect::<BTreeSet<_>>();
        let mut before = (verdicts(), local(), 0);
        for update in history {
            let generation = store.apply([update]).generation.policy;
            let now = (verdicts(), local(), generation);
            for uid in before.1.intersection(&now.1) {
                let changed = before.0.get(uid) != now.0.get(uid);
                prop_assert!(!changed || now.2 > before.2, "{} changed unnoticed", uid);
            }
            before = now;
        }
    }
}

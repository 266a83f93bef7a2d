//! The ranking, against the contract's own words: count the scopes that agree, best rank wins.

use fastrand::Rng;
use proptest::{prelude::*, sample};

use super::*;
use crate::service::HealthPolicy;

fn mk_workload(region: &str, zone: &str, node: &str, network: &str) -> Workload {
    let mut workload = Workload::with_uid("uid");
    workload.locality.region = region.into();
    workload.locality.zone = zone.into();
    workload.node = node.into();
    workload.network = network.into();
    workload
}

fn mk_policy(mode: BalancingMode, preference: &[Scope]) -> LoadBalancing {
    LoadBalancing {
        routing_preference: preference.to_vec(),
        mode,
        health_policy: HealthPolicy::OnlyHealthy,
    }
}

fn mk_balancer(policy: &LoadBalancing, endpoints: &[Workload]) -> Balancer<usize> {
    let candidate = |(value, workload)| Candidate { value, workload };
    let candidates: Vec<_> = endpoints.iter().enumerate().map(candidate).collect();
    Balancer::new(Some(policy), &candidates)
}

/// Everything a client may get, in ascending order.
fn reachable(balancer: &Balancer<usize>, client: &Workload) -> Vec<usize> {
    let mut rng = Rng::with_seed(3);
    let mut chosen: Vec<_> = (0..200)
        .filter_map(|_| balancer.choose(client, &mut rng))
        .collect();
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

/// How many scopes agree before the first that does not.
fn consecutive(scopes: &[Scope], client: &Workload, endpoint: &Workload) -> usize {
    let region = client.locality.region == endpoint.locality.region;
    let agrees = |scope: &&Scope| match scope {
        Scope::Zone => region && client.locality.zone == endpoint.locality.zone,
        scope => place(**scope, client) == place(**scope, endpoint),
    };
    scopes.iter().take_while(agrees).count()
}

/// The rank of an endpoint as the contract words it; `None` is not eligible.
fn rank(policy: &LoadBalancing, client: &Workload, endpoint: &Workload) -> Option<usize> {
    let scopes = &policy.routing_preference[..];
    match (policy.mode, scopes) {
        (BalancingMode::Standard | BalancingMode::Passthrough, _) => Some(0),
        (BalancingMode::Strict, _) => {
            (consecutive(scopes, client, endpoint) == scopes.len()).then_some(0)
        }
        (BalancingMode::Failover, [Scope::Network, rest @ ..]) if !rest.is_empty() => {
            let own = if client.network == endpoint.network {
                rest.len()
            } else {
                0
            };
            Some(own + consecutive(rest, client, endpoint))
        }
        (BalancingMode::Failover, _) => Some(consecutive(scopes, client, endpoint)),
    }
}

#[test]
fn strict_without_a_match_chooses_none() {
    let policy = mk_policy(BalancingMode::Strict, &[Scope::Node]);
    let balancer = mk_balancer(&policy, &[mk_workload("r", "z", "other", "")]);
    assert!(!balancer.is_empty());
    assert_eq!(
        reachable(&balancer, &mk_workload("r", "z", "node", "")),
        [0_usize; 0]
    );
}

#[test]
fn failover_widens_scope_by_scope() {
    let policy = mk_policy(BalancingMode::Failover, &[Scope::Region, Scope::Zone]);
    let far = mk_workload("far", "z1", "", "");
    let region = mk_workload("r", "z2", "", "");
    let zone = mk_workload("r", "z1", "", "");
    let client = mk_workload("r", "z1", "", "");
    let all = [far, region, zone];
    assert_eq!(reachable(&mk_balancer(&policy, &all), &client), [2]);
    assert_eq!(reachable(&mk_balancer(&policy, &all[..2]), &client), [1]);
    assert_eq!(reachable(&mk_balancer(&policy, &all[..1]), &client), [0]);
}

#[test]
fn equal_names_of_zones_in_two_regions_are_two_zones() {
    let policy = mk_policy(BalancingMode::Strict, &[Scope::Zone]);
    let balancer = mk_balancer(&policy, &[mk_workload("r2", "z", "", "")]);
    assert_eq!(
        reachable(&balancer, &mk_workload("r1", "z", "", "")),
        [0_usize; 0]
    );
}

#[test]
fn endpoint_without_capacity_does_not_hold_back_failover() {
    let policy = mk_policy(BalancingMode::Failover, &[Scope::Node]);
    let near = Workload {
        capacity: 0,
        ..mk_workload("", "", "here", "")
    };
    let balancer = mk_balancer(&policy, &[near, mk_workload("", "", "there", "")]);
    assert_eq!(reachable(&balancer, &mk_workload("", "", "here", "")), [1]);
}

#[test]
fn other_network_with_all_else_equal_ranks_with_own_network_with_nothing_else() {
    let policy = mk_policy(
        BalancingMode::Failover,
        &[Scope::Network, Scope::Region, Scope::Zone],
    );
    let own = mk_workload("far", "far", "", "n1");
    let elsewhere = mk_workload("r", "z", "", "n2");
    let both = mk_balancer(&policy, &[own.clone(), elsewhere.clone()]);
    let client = mk_workload("r", "z", "", "n1");
    assert_eq!(reachable(&both, &client), [0, 1]);
    let nearer = mk_workload("r", "far", "", "n1");
    let three = mk_balancer(&policy, &[own, elsewhere, nearer]);
    assert_eq!(reachable(&three, &client), [2]);
}

#[test]
fn two_equal_pools_are_drawn_from_by_their_totals() {
    let policy = mk_policy(BalancingMode::Failover, &[Scope::Network, Scope::Region]);
    let own = Workload {
        capacity: 3,
        ..mk_workload("far", "", "", "n1")
    };
    let balancer = mk_balancer(&policy, &[own, mk_workload("r", "", "", "n2")]);
    let client = mk_workload("r", "", "", "n1");
    let mut rng = Rng::with_seed(11);
    let own = (0..4000)
        .filter(|_| balancer.choose(&client, &mut rng) == Some(0))
        .count();
    assert!((2850..3150).contains(&own), "{own} of 4000, expected 3000");
}

fn arb_workload() -> impl Strategy<Value = Workload> {
    let name = || sample::select(&["a", "b"][..]);
    (name(), name(), name(), name(), 0..3_u32).prop_map(
        |(region, zone, node, network, capacity)| Workload {
            capacity,
            ..mk_workload(region, zone, node, network)
        },
    )
}

fn arb_policy() -> impl Strategy<Value = LoadBalancing> {
    let scopes = [Scope::Network, Scope::Region, Scope::Zone, Scope::Node];
    let modes = [
        BalancingMode::Standard,
        BalancingMode::Strict,
        BalancingMode::Failover,
    ];
    let preference = sample::subsequence(scopes.to_vec(), 0..=4);
    (sample::select(modes.to_vec()), preference, any::<bool>()).prop_map(
        |(mode, mut scopes, turn)| {
            if turn {
                scopes.reverse();
            }
            mk_policy(mode, &scopes)
        },
    )
}

proptest! {
    #[test]
    fn exactly_the_best_ranked_endpoints_are_chosen(
        policy in arb_policy(),
        endpoints in prop::collection::vec(arb_workload(), 0..6),
        client in arb_workload(),
    ) {
        let ranked = || endpoints.iter().enumerate()
            .filter(|(_, endpoint)| endpoint.capacity > 0)
            .filter_map(|(index, endpoint)| Some((index, rank(&policy, &client, endpoint)?)));
        let best = ranked().map(|(_, rank)| rank).max();
        let expected: Vec<_> = ranked().filter(|(_, rank)| Some(*rank) == best).map(|(i, _)| i).collect();
        prop_assert_eq!(reachable(&mk_balancer(&policy, &endpoints), &client), expected);
    }
}

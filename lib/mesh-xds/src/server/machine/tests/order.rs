//! Policies before the workloads that name them, and their removal after.

use super::*;
use crate::server::Resource;

fn of(type_url: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: type_url.into(),
        ..DeltaDiscoveryRequest::default()
    }
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "as the catalog takes it; none withdraws"
)]
fn mk_policy(content: &'static str, by_name_only: bool) -> Option<Resource> {
    Some(Resource {
        by_name_only,
        ..Bytes::from_static(content.as_bytes()).into()
    })
}

impl World {
    fn policy(&mut self, name: &str, policy: Option<Resource>) {
        self.catalog.set(AUTHORIZATION, name.into(), policy);
    }

    fn address(&mut self, name: &str, content: &'static str) {
        let content = Bytes::from_static(content.as_bytes());
        self.catalog.set(ADDRESS, name.into(), Some(content.into()));
    }

    fn acknowledge(&mut self, type_url: &str, nonce: &str) {
        self.request(DeltaDiscoveryRequest {
            response_nonce: nonce.into(),
            ..of(type_url)
        });
    }

    /// All that is ready, in order, acknowledged one by one: the type, and what is told.
    fn all(&mut self) -> Vec<(&'static str, Told)> {
        let mut all = Vec::new();
        while let Some(response) = self.ready() {
            self.acknowledge(&response.type_url.clone(), &response.nonce.clone());
            let kind = match response.type_url.as_str() {
                ADDRESS => "addresses",
                AUTHORIZATION => "policies",
                _ => "others",
            };
            all.push((kind, told(response)));
        }
        all
    }

    fn connected() -> Self {
        let mut world = Self::default();
        world.request(of(ADDRESS));
        world.request(of(AUTHORIZATION));
        world.all();
        world
    }
}

fn named(present: &[(&str, &'static str)], removed: &[&str]) -> Told {
    expected(present, removed).unwrap()
}

#[test]
fn addresses_wait_until_the_client_has_asked_for_policies() {
    let mut world = World::default();
    world.policy("p", mk_policy("1", true));
    world.address("w", "1");
    world.request(of(ADDRESS));
    assert_eq!(world.ready(), None);
    assert!(world.machine.is_unsettled());
    world.request(of(AUTHORIZATION));
    assert!(!world.machine.is_unsettled());
    assert_eq!(
        world.all(),
        [
            ("policies", named(&[("p", "1")], &[])),
            ("addresses", named(&[("w", "1")], &[])),
        ]
    );
}

#[test]
fn a_client_that_never_asks_for_policies_is_served_in_the_end() {
    let mut world = World::default();
    world.address("w", "1");
    world.request(of(ADDRESS));
    world.machine.settle();
    assert_eq!(world.all(), [("addresses", named(&[("w", "1")], &[]))]);

    // One that may not read policies does not wait at all.
    let mut world = World {
        machine: Machine::new(&Client {
            may_read: Readable::Only(&[ADDRESS]),
            ..Client::default()
        }),
        ..World::default()
    };
    world.request(of(ADDRESS));
    assert_eq!(world.all(), [("addresses", named(&[], &[]))]);
}

#[test]
fn addresses_wait_while_policies_are_held_back_by_an_outstanding_response() {
    let mut world = World::connected();
    world.policy("p", mk_policy("1", true));
    let first = world.ready().unwrap();
    assert_eq!(first.type_url, AUTHORIZATION);
    world.policy("q", mk_policy("1", true));
    world.address("w", "names q");
    assert_eq!(world.ready(), None);
    world.acknowledge(AUTHORIZATION, &first.nonce);
    // Both go at once then; the policies need not be acknowledged first.
    let policies = world.ready().unwrap();
    let addresses = world.ready().unwrap();
    assert_eq!(policies.type_url, AUTHORIZATION);
    assert_eq!(addresses.type_url, ADDRESS);
}

#[test]
fn a_policy_is_removed_after_the_workloads_that_named_it() {
    let mut world = World::connected();
    world.policy("old", mk_policy("1", true));
    world.address("w", "names old");
    world.all();
    world.policy("old", None);
    world.policy("new", mk_policy("1", true));
    world.address("w", "names new");
    assert_eq!(
        world.all(),
        [
            ("policies", named(&[("new", "1")], &[])),
            ("addresses", named(&[("w", "names new")], &[])),
            ("policies", named(&[], &["old"])),
        ]
    );
    // When no address waits, one response has it all.
    world.policy("new", None);
    world.policy("other", mk_policy("1", true));
    let all = world.all();
    assert_eq!(all, [("policies", named(&[("other", "1")], &["new"]))]);
}

#[test]
fn a_policy_that_will_hold_for_fewer_changes_after_the_workloads_that_will_name_it() {
    let mut world = World::connected();
    world.policy("p", mk_policy("namespace", false));
    world.address("w", "names nothing");
    world.all();
    world.policy("p", mk_policy("selector", true));
    world.address("w", "names p");
    let (before, after) = (
        named(&[("w", "names p")], &[]),
        named(&[("p", "selector")], &[]),
    );
    assert_eq!(world.all(), [("addresses", before), ("policies", after)]);

    // The other way round it is an ordinary change.
    world.policy("p", mk_policy("namespace", false));
    world.address("w", "names nothing");
    let (before, after) = (
        named(&[("p", "namespace")], &[]),
        named(&[("w", "names nothing")], &[]),
    );
    assert_eq!(world.all(), [("policies", before), ("addresses", after)]);

    // One that comes and narrows unseen is new.
    world.policy("q", mk_policy("namespace", false));
    world.policy("q", mk_policy("selector", true));
    world.address("w", "names q");
    let (before, after) = (
        named(&[("q", "selector")], &[]),
        named(&[("w", "names q")], &[]),
    );
    assert_eq!(world.all(), [("policies", before), ("addresses", after)]);
}

#[test]
fn after_a_reconnection_the_order_is_the_same() {
    let mut world = World::default();
    world.policy("kept", mk_policy("1", true));
    world.policy("changed", mk_policy("2", true));
    world.policy("new", mk_policy("1", true));
    world.address("w", "1");
    let table = world.catalog.table(AUTHORIZATION).unwrap();
    let kept = table.get("kept").unwrap().version().to_string();
    let held = [("kept", kept.as_str()), ("changed", "v"), ("gone", "v")];
    let held = held.map(|(name, version)| (name.to_owned(), version.to_owned()));
    world.request(DeltaDiscoveryRequest {
        initial_resource_versions: held.into(),
        ..of(AUTHORIZATION)
    });
    world.request(of(ADDRESS));
    assert_eq!(
        world.all(),
        [
            ("policies", named(&[("new", "1")], &[])),
            ("addresses", named(&[("w", "1")], &[])),
            ("policies", named(&[("changed", "2")], &["gone"])),
        ]
    );
}

#[test]
fn a_policy_that_returns_before_its_removal_was_told_is_not_removed() {
    let mut world = World::connected();
    world.policy("p", mk_policy("1", true));
    world.address("w", "names p");
    world.all();
    world.policy("p", None);
    world.address("w", "names nothing");
    let addresses = world.ready().unwrap();
    assert_eq!(addresses.type_url, ADDRESS);
    // The removal waits no longer, but the policy is back.
    world.policy("p", mk_policy("2", true));
    let all = world.all();
    assert_eq!(all, [("policies", named(&[("p", "2")], &[]))]);
}

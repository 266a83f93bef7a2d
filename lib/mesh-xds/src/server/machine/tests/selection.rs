//! Clients that ask for names.

use super::*;
use crate::server::{Group, Precedence, Resource};

/// A workload of some addresses, services and a node.
fn workload(content: &'static str, addresses: &[&str], services: &[&str], node: &str) -> Resource {
    let services = services.iter().map(|name| Group::Of((*name).into()));
    Resource {
        aliases: addresses.iter().map(|alias| Arc::from(*alias)).collect(),
        groups: services.chain([Group::Node(node.into())]).collect(),
        ..Bytes::from_static(content.as_bytes()).into()
    }
}

fn service(content: &'static str, addresses: &[&str]) -> Resource {
    Resource {
        aliases: addresses.iter().map(|alias| Arc::from(*alias)).collect(),
        precedence: Precedence::Service,
        ..Bytes::from_static(content.as_bytes()).into()
    }
}

/// Where a client on node `n1` that asks for names has just begun.
fn mk_world() -> World {
    let client = Client {
        node: Some("n1".into()),
        ..Client::default()
    };
    World {
        catalog: Catalog::default(),
        machine: Machine::new(&client),
    }
}

fn nothing_at_first() -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        resource_names_subscribe: vec!["*".into()],
        ..drops(&["*"])
    }
}

impl World {
    fn put(&mut self, name: &str, resource: Resource) {
        self.catalog.set(TYPE, name.into(), Some(resource));
    }
}

#[test]
fn a_resource_is_found_by_its_address_and_told_under_both_names() {
    let mut world = mk_world();
    world.put("a", workload("1", &["/1", "/2"], &[], "n2"));
    world.request(nothing_at_first());
    assert_eq!(world.told(), expected(&[], &[]));

    world.request(asks(&["/1"]));
    let response = world.ready().unwrap();
    let named = |name: &str| response.resources.iter().find(|r| r.name == name).unwrap();
    assert_eq!(named("a").aliases, ["/1", "/2"]);
    assert_eq!(named("/1").version, named("a").version);
    assert_eq!(response.resources.len(), 2);
    let ack = DeltaDiscoveryRequest {
        response_nonce: response.nonce,
        ..asks(&[])
    };
    world.request(ack);

    world.put("a", workload("2", &["/1", "/2"], &[], "n2"));
    assert_eq!(world.told(), expected(&[("/1", "2"), ("a", "2")], &[]));
    world.remove("a");
    assert_eq!(world.told(), expected(&[], &["/1", "a"]));
}

#[test]
fn an_address_that_nobody_has_is_answered_at_once_and_told_when_somebody_gets_it() {
    let mut world = mk_world();
    world.request(nothing_at_first());
    world.told();
    world.request(asks(&["/1"]));
    assert_eq!(world.told(), expected(&[], &["/1"]));
    world.put("a", workload("1", &["/1"], &[], "n2"));
    assert_eq!(world.told(), expected(&[("/1", "1"), ("a", "1")], &[]));
}

#[test]
fn an_address_that_moves_is_told_with_what_it_now_stands_for() {
    let mut world = mk_world();
    world.put("old", workload("1", &["/1"], &[], "n2"));
    world.request(nothing_at_first());
    world.told();
    world.request(asks(&["/1"]));
    world.told();
    // The new pod is there before the old one is gone.
    world.put("new", workload("2", &["/1"], &[], "n2"));
    assert_eq!(
        world.told(),
        expected(&[("/1", "2"), ("new", "2")], &["old"])
    );
    world.remove("old");
    assert_eq!(world.told(), None);
    // A workload comes before a service, whenever it comes.
    world.put("service", service("3", &["/1"]));
    assert_eq!(world.told(), None);
    world.remove("new");
    assert_eq!(
        world.told(),
        expected(&[("/1", "3"), ("service", "3")], &["new"])
    );
}

#[test]
fn a_service_brings_its_workloads_by_name_and_by_address() {
    for name in ["s", "/vip"] {
        let mut world = mk_world();
        world.put("s", service("s1", &["/vip"]));
        world.put("a", workload("a1", &[], &["s"], "n2"));
        world.put("b", workload("b1", &[], &["other"], "n2"));
        world.request(nothing_at_first());
        world.told();
        world.request(asks(&[name]));
        let alias: &[(&str, &str)] = if name == "s" { &[] } else { &[("/vip", "s1")] };
        let present = [alias, &[("a", "a1"), ("s", "s1")]].concat();
        assert_eq!(world.told(), expected(&present, &[]));

        // One begins to back it, another ceases, and the first one changes.
        world.put("b", workload("b2", &[], &["other", "s"], "n2"));
        assert_eq!(world.told(), expected(&[("b", "b2")], &[]));
        world.put("a", workload("a2", &[], &[], "n2"));
        world.put("b", workload("b3", &[], &["s"], "n2"));
        assert_eq!(world.told(), expected(&[("b", "b3")], &["a"]));
        // Others are nobody's business.
        world.put("c", workload("c1", &["/c"], &["other"], "n2"));
        assert_eq!(world.told(), None);
    }
}

#[test]
fn an_address_that_moves_to_another_service_changes_the_workloads() {
    let mut world = mk_world();
    world.put("s", service("s1", &["/vip"]));
    world.put("t", service("t1", &[]));
    world.put("a", workload("a1", &[], &["s"], "n2"));
    world.put("b", workload("b1", &[], &["t"], "n2"));
    world.request(nothing_at_first());
    world.told();
    world.request(asks(&["/vip"]));
    world.told();
    world.put("s", service("s2", &[]));
    world.put("t", service("t2", &["/vip"]));
    assert_eq!(
        world.told(),
        expected(&[("/vip", "t2"), ("b", "b1"), ("t", "t2")], &["a", "s"])
    );
}

#[test]
fn workloads_of_the_client_s_own_node_come_unasked() {
    let mut world = mk_world();
    world.put("here", workload("1", &[], &[], "n1"));
    world.put("there", workload("1", &[], &[], "n2"));
    world.request(nothing_at_first());
    assert_eq!(world.told(), expected(&[("here", "1")], &[]));
    world.put("also here", workload("1", &[], &[], "n1"));
    world.put("here", workload("2", &[], &[], "n2"));
    assert_eq!(world.told(), expected(&[("also here", "1")], &["here"]));
}

#[test]
fn what_a_client_held_counts_as_asked_for_when_it_returns() {
    let mut world = mk_world();
    world.put("a", workload("1", &["/1"], &[], "n2"));
    world.put("b", workload("1", &[], &[], "n2"));
    let version = |world: &World, name: &str| {
        let table = world.catalog.table(TYPE).unwrap();
        table.get(name).unwrap().version().to_string()
    };
    let held = [
        ("a".to_owned(), version(&world, "a")),
        ("/1".to_owned(), version(&world, "a")),
        ("b".to_owned(), String::new()),
        ("gone".to_owned(), "v".to_owned()),
        ("/gone".to_owned(), String::new()),
    ];
    world.request(DeltaDiscoveryRequest {
        initial_resource_versions: held.into(),
        ..nothing_at_first()
    });
    assert_eq!(world.told(), expected(&[("b", "1")], &["/gone", "gone"]));
    world.put("a", workload("2", &["/1"], &[], "n2"));
    assert_eq!(world.told(), expected(&[("/1", "2"), ("a", "2")], &[]));
}

#[test]
fn what_a_dropped_name_had_brought_is_removed_unless_something_else_brings_it() {
    let mut world = mk_world();
    world.put("s", service("s1", &["/vip"]));
    world.put("a", workload("a1", &["/a"], &["s"], "n2"));
    world.put("b", workload("b1", &[], &["s"], "n2"));
    world.request(nothing_at_first());
    world.told();
    world.request(asks(&["s", "/vip", "/a"]));
    world.told();
    // By the address the client still wants the service: it is told again, for it may have lost it.
    world.request(drops(&["s"]));
    assert_eq!(world.told(), expected(&[("/vip", "s1"), ("s", "s1")], &[]));
    world.request(drops(&["/vip"]));
    assert_eq!(world.told(), expected(&[], &["b", "s"]));
    world.remove("b");
    assert_eq!(world.told(), None);
}

#[test]
fn from_names_to_everything_and_back_leaves_nothing_behind() {
    let mut world = mk_world();
    world.put("a", workload("1", &["/1"], &[], "n2"));
    world.put("b", workload("1", &[], &[], "n2"));
    world.request(nothing_at_first());
    world.told();
    world.request(asks(&["/1"]));
    world.told();
    world.remove("a");
    world.put("c", workload("1", &["/1"], &[], "n2"));
    // Under its alias nothing is told any more.
    world.request(asks(&["*"]));
    let told = world.told().unwrap();
    assert_eq!(
        told,
        expected(&[("b", "1"), ("c", "1")], &["/1", "a"]).unwrap()
    );
    world.request(drops(&["*"]));
    assert_eq!(world.told(), expected(&[("/1", "1"), ("c", "1")], &["b"]));
    world.put("b", workload("2", &[], &[], "n2"));
    assert_eq!(world.told(), None);
}

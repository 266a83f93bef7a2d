use std::collections::HashMap;

use bytes::Bytes;
use mesh_proto::discovery::DeltaDiscoveryResponse;

use super::*;

const TYPE: &str = "type.googleapis.com/a.Type";

/// A catalog and one stream to it.
#[derive(Default)]
struct World {
    catalog: Catalog,
    machine: Machine,
}

/// What a response says, in order of names.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    present: Vec<(String, Bytes)>,
    removed: Vec<String>,
}

impl World {
    fn set(&mut self, name: &str, content: &'static str) {
        let content = Bytes::from_static(content.as_bytes());
        self.catalog.set(TYPE, name.into(), Some(content.into()));
    }

    fn remove(&mut self, name: &str) {
        self.catalog.set(TYPE, name.into(), None);
    }

    fn request(&mut self, request: DeltaDiscoveryRequest) -> Option<Refusal> {
        self.machine.request(request).unwrap().refusal
    }

    fn ready(&mut self) -> Option<DeltaDiscoveryResponse> {
        let response = self.machine.respond(&self.catalog).unwrap();
        response.as_ref().map(DeltaDiscoveryResponse::from)
    }

    /// The next response, which the client accepts.
    fn told(&mut self) -> Option<Told> {
        let response = self.ready()?;
        let ack = DeltaDiscoveryRequest {
            response_nonce: response.nonce.clone(),
            ..asks(&[])
        };
        assert_eq!(self.request(ack), None);
        Some(told(response))
    }
}

fn told(response: DeltaDiscoveryResponse) -> Told {
    let mut told = Told {
        removed: response.removed_resources,
        ..Told::default()
    };
    for resource in response.resources {
        let content = resource.resource.unwrap();
        assert_eq!(content.type_url, response.type_url);
        told.present.push((resource.name, content.value));
    }
    told.present.sort();
    told.removed.sort();
    told
}

fn asks(names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: TYPE.into(),
        resource_names_subscribe: names.iter().map(ToString::to_string).collect(),
        ..DeltaDiscoveryRequest::default()
    }
}

fn drops(names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        resource_names_unsubscribe: names.iter().map(ToString::to_string).collect(),
        ..asks(&[])
    }
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "compared with what a stream says, if anything"
)]
fn expected(present: &[(&str, &'static str)], removed: &[&str]) -> Option<Told> {
    let content = |text: &'static str| Bytes::from_static(text.as_bytes());
    Some(Told {
        present: (present.iter())
            .map(|(name, text)| (ToString::to_string(name), content(text)))
            .collect(),
        removed: removed.iter().map(ToString::to_string).collect(),
    })
}

#[test]
fn naming_nothing_at_first_is_asking_for_everything() {
    for first in [asks(&[]), asks(&["*"])] {
        let mut world = World::default();
        world.set("a", "1");
        world.request(first);
        assert_eq!(world.told(), expected(&[("a", "1")], &[]));
        assert_eq!(world.told(), None);
    }
}

#[test]
fn a_push_holds_what_changed_and_nothing_else() {
    let mut world = World::default();
    world.set("a", "1");
    world.set("b", "1");
    world.request(asks(&[]));
    world.told();
    world.set("b", "2");
    world.set("c", "1");
    world.set("c", "2");
    world.remove("a");
    world.set("d", "1");
    world.remove("d");
    // `d` came and went unseen; saying that it is gone does no harm.
    assert_eq!(
        world.told(),
        expected(&[("b", "2"), ("c", "2")], &["a", "d"])
    );
    world.set("b", "2");
    assert_eq!(world.told(), None);
}

#[test]
fn one_response_of_a_type_is_on_its_way_at_a_time() {
    let mut world = World::default();
    world.set("a", "1");
    world.request(asks(&[]));
    let first = world.ready().unwrap();
    world.set("a", "2");
    world.set("a", "3");
    assert_eq!(world.ready(), None);
    let mut stale = asks(&[]);
    stale.response_nonce = "no such nonce".into();
    world.request(stale);
    assert_eq!(world.ready(), None);
    let mut ack = asks(&[]);
    ack.response_nonce = first.nonce;
    world.request(ack);
    assert_eq!(world.told(), expected(&[("a", "3")], &[]));
}

#[test]
fn what_the_client_holds_is_not_sent_again_and_what_is_gone_is_removed() {
    let mut world = World::default();
    world.set("same", "1");
    world.set("changed", "1");
    world.request(asks(&[]));
    let versions = world.ready().unwrap().resources;
    let held = versions.into_iter().map(|r| (r.name, r.version));
    let held: HashMap<_, _> = held.chain([("gone".into(), "v".into())]).collect();

    // Another stream, to another replica with the same content.
    let mut world = World::default();
    world.set("changed", "2");
    world.set("same", "1");
    world.set("new", "1");
    world.request(DeltaDiscoveryRequest {
        initial_resource_versions: held,
        ..asks(&[])
    });
    assert_eq!(
        world.told(),
        expected(&[("changed", "2"), ("new", "1")], &["gone"])
    );
}

#[test]
fn a_first_request_is_answered_even_if_there_is_nothing_to_say() {
    let mut world = World::default();
    world.request(asks(&[]));
    assert_eq!(world.told(), expected(&[], &[]));
    let unknown = DeltaDiscoveryRequest {
        type_url: "another type".into(),
        ..asks(&[])
    };
    world.request(unknown);
    assert_eq!(world.ready().unwrap().type_url, "another type");
}

#[test]
fn a_client_that_asks_for_names_is_told_of_those() {
    let mut world = World::default();
    world.set("a", "1");
    world.set("b", "1");
    world.request(asks(&["a", "missing"]));
    assert_eq!(world.told(), expected(&[("a", "1")], &["missing"]));
    world.set("b", "2");
    assert_eq!(world.told(), None);
    world.request(asks(&["b"]));
    assert_eq!(world.told(), expected(&[("b", "2")], &[]));
    world.request(drops(&["a"]));
    world.set("a", "2");
    assert_eq!(world.told(), None);
    world.set("missing", "1");
    world.remove("b");
    assert_eq!(world.told(), expected(&[("missing", "1")], &["b"]));
    // Asked for again: the client may have lost it.
    world.request(asks(&["missing"]));
    assert_eq!(world.told(), expected(&[("missing", "1")], &[]));
}

#[test]
fn an_on_demand_client_begins_with_nothing() {
    let mut world = World::default();
    world.set("a", "1");
    world.request(DeltaDiscoveryRequest {
        resource_names_subscribe: vec!["*".into()],
        ..drops(&["*"])
    });
    assert_eq!(world.told(), expected(&[], &[]));
    world.set("a", "2");
    assert_eq!(world.told(), None);
    world.request(asks(&["a"]));
    assert_eq!(world.told(), expected(&[("a", "2")], &[]));
    world.set("b", "1");
    world.request(asks(&["*"]));
    assert_eq!(world.told(), expected(&[("a", "2"), ("b", "1")], &[]));
}

#[test]
fn asking_for_everything_later_is_answered_even_if_there_is_nothing() {
    let mut world = World::default();
    world.request(asks(&["a"]));
    assert_eq!(world.told(), expected(&[], &["a"]));
    world.request(drops(&["a"]));
    assert_eq!(world.told(), None);
    world.request(asks(&["*"]));
    assert_eq!(world.told(), expected(&[], &[]));
}

#[test]
fn a_name_dropped_under_a_wildcard_is_told_again() {
    let mut world = World::default();
    world.set("a", "1");
    world.request(asks(&["*", "a"]));
    world.told();
    world.request(drops(&["a"]));
    assert_eq!(world.told(), expected(&[("a", "1")], &[]));
}

#[test]
fn a_refusal_is_reported_and_the_resource_not_sent_until_it_changes() {
    let mut world = World::default();
    world.set("a", "1");
    world.request(asks(&[]));
    let nonce = world.ready().unwrap().nonce;
    let refusal = DeltaDiscoveryRequest {
        response_nonce: nonce,
        error_detail: Some(mesh_proto::discovery::Status {
            code: 3,
            message: "a: bad".repeat(10_000),
            details: Vec::new(),
        }),
        ..asks(&[])
    };
    let reported = world.request(refusal).unwrap();
    assert_eq!(reported.type_url, TYPE);
    assert_eq!(reported.message.len(), MAX_MESSAGE);
    assert_eq!(world.told(), None);
    world.set("a", "2");
    assert_eq!(world.told(), expected(&[("a", "2")], &[]));
}

#[test]
fn a_client_too_far_behind_is_sent_away() {
    let mut world = World {
        catalog: Catalog::with_history(2),
        machine: Machine::default(),
    };
    for name in ["a", "b", "c"] {
        world.set(name, "1");
    }
    world.request(asks(&[]));
    world.told();
    for name in ["a", "b", "c"] {
        world.remove(name);
    }
    let error = world.machine.respond(&world.catalog).unwrap_err();
    assert_eq!(error, Error::Behind(TYPE.into()));
}

#[test]
fn types_and_names_of_one_stream_are_bounded() {
    let mut machine = Machine::default();
    let of_type = |i: usize| DeltaDiscoveryRequest {
        type_url: i.to_string(),
        ..DeltaDiscoveryRequest::default()
    };
    for i in 0..MAX_TYPES {
        machine.request(of_type(i)).unwrap();
    }
    assert_eq!(
        machine.request(of_type(MAX_TYPES)),
        Err(Error::TooManyTypes)
    );
    machine.request(of_type(0)).unwrap();

    let mut machine = Machine::default();
    let names = (0..=MAX_NAMES).map(|i| i.to_string()).collect();
    let request = DeltaDiscoveryRequest {
        resource_names_subscribe: names,
        ..asks(&[])
    };
    assert_eq!(
        machine.request(request),
        Err(Error::TooManyNames(TYPE.into()))
    );
}

#[test]
fn policies_are_told_before_workloads() {
    let mut world = World::default();
    for type_url in [ADDRESS, AUTHORIZATION] {
        world.request(DeltaDiscoveryRequest {
            type_url: type_url.into(),
            ..DeltaDiscoveryRequest::default()
        });
    }
    let first = world.ready().unwrap().type_url;
    assert_eq!(first, AUTHORIZATION);
}

#[test]
fn a_type_that_may_not_be_read_is_refused_with_a_remedy() {
    let mut machine = Machine::new(&Client {
        may_read: Readable::Only(&[AUTHORIZATION]),
        ..Client::default()
    });
    let of_type = |type_url: &str| DeltaDiscoveryRequest {
        type_url: type_url.into(),
        ..DeltaDiscoveryRequest::default()
    };
    machine.request(of_type(AUTHORIZATION)).unwrap();
    let error = machine.request(of_type(ADDRESS)).unwrap_err();
    assert_eq!(error, Error::Forbidden(ADDRESS.into()));
    let text = error.to_string();
    assert!(
        text.contains(ADDRESS) && text.contains("service account"),
        "{text}"
    );
}

#[test]
fn an_answer_to_another_response_is_stale() {
    let mut world = World::default();
    world.request(asks(&[]));
    let nonce = world.ready().unwrap().nonce;
    let answer = |nonce: &str| DeltaDiscoveryRequest {
        response_nonce: nonce.into(),
        ..asks(&[])
    };
    let other = world.machine.request(answer("other")).unwrap();
    assert!(other.stale && other.acknowledged.is_none());
    let heard = world.machine.request(answer(&nonce)).unwrap();
    assert_eq!(heard.acknowledged, Some(nonce.clone()));
    assert!(!heard.stale);
    assert!(world.machine.request(answer(&nonce)).unwrap().stale);
}

mod order;
mod selection;

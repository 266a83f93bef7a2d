use mesh_core::{
    policy::{Action, Authorization, PolicyScope},
    workload::Workload,
};
use mesh_proto::type_url::{ADDRESS, AUTHORIZATION};

use super::*;
use crate::client::Node;

fn mk_machine() -> Machine {
    Machine::new(Config::new(Node {
        id: "ztunnel~1.1.1.1~z.ns~ns.svc.cluster.local".into(),
        metadata: serde_json::Map::new(),
    }))
}

fn workload(uid: &str, node: &str) -> Change {
    Change::Workload(Workload {
        node: node.into(),
        ..Workload::with_uid(uid)
    })
}

fn policy(name: &str) -> Change {
    Change::Policy(Authorization {
        name: name.into(),
        namespace: "ns".into(),
        scope: PolicyScope::Namespace,
        action: Action::Deny,
        rules: Vec::new(),
        dry_run: false,
    })
}

fn resource(change: &Change, version: &str) -> proto::Resource {
    let (type_url, name, value) = convert::change_to_proto(change);
    proto::Resource {
        version: version.into(),
        resource: Some(proto::Any {
            type_url: type_url.into(),
            value: value.unwrap(),
        }),
        name: name.to_string(),
        aliases: Vec::new(),
    }
}

fn malformed(name: &str) -> proto::Resource {
    proto::Resource {
        version: "bad".into(),
        resource: Some(proto::Any {
            type_url: ADDRESS.into(),
            value: b"\xff\xff".to_vec().into(),
        }),
        name: name.into(),
        aliases: Vec::new(),
    }
}

fn response(nonce: &str, resources: Vec<proto::Resource>) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        nonce: nonce.into(),
        type_url: ADDRESS.into(),
        resources,
        ..DeltaDiscoveryResponse::default()
    }
}

fn removal(nonce: &str, names: &[&str]) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        removed_resources: names.iter().map(ToString::to_string).collect(),
        ..response(nonce, Vec::new())
    }
}

/// Versions that the client would name after a reconnect, for addresses.
fn held(machine: &mut Machine) -> Vec<(String, String)> {
    let versions = machine.connected().swap_remove(0).initial_resource_versions;
    let mut versions: Vec<_> = versions.into_iter().collect();
    versions.sort();
    versions
}

fn pair(name: &str, version: &str) -> (String, String) {
    (name.to_owned(), version.to_owned())
}

#[test]
fn the_first_requests_ask_for_everything_of_both_types() {
    let requests = mk_machine().connected();
    let types: Vec<_> = requests.iter().map(|r| r.type_url.as_str()).collect();
    assert_eq!(types, [ADDRESS, AUTHORIZATION]);
    for request in requests {
        assert_eq!(
            request.node.unwrap().id,
            "ztunnel~1.1.1.1~z.ns~ns.svc.cluster.local"
        );
        assert!(request.resource_names_subscribe.is_empty());
        assert!(request.initial_resource_versions.is_empty());
        assert_eq!(request.response_nonce, "");
    }
}

#[test]
fn a_good_response_is_acknowledged_by_its_nonce() {
    let mut machine = mk_machine();
    let change = workload("a", "n1");
    let received = machine.received(response("7", vec![resource(&change, "1")]));
    assert_eq!(received.changes, [change]);
    assert_eq!(
        received.reply,
        DeltaDiscoveryRequest {
            type_url: ADDRESS.into(),
            response_nonce: "7".into(),
            ..DeltaDiscoveryRequest::default()
        }
    );
}

#[test]
fn a_bad_resource_is_refused_by_name_and_the_others_count() {
    let mut machine = mk_machine();
    let good = workload("good", "n1");
    let mut nameless = resource(&workload("x", ""), "1");
    nameless.name.clear();
    let mut renamed = resource(&workload("x", ""), "1");
    renamed.name = "y".into();
    let mut empty = resource(&workload("e", ""), "1");
    empty.resource = None;
    let received = machine.received(response(
        "1",
        vec![
            malformed("bad"),
            nameless,
            resource(&good, "1"),
            renamed,
            empty,
        ],
    ));
    assert_eq!(received.changes, [good]);
    let error = received.reply.error_detail.unwrap();
    assert_eq!(error.code, 3);
    let texts: Vec<_> = error.message.split("; ").collect();
    assert!(texts[0].starts_with("bad: not a valid istio.workload.Address message"));
    assert_eq!(
        texts[1..],
        [
            "the resource has no name",
            "y: the content is called `x`",
            "e: the resource has no content",
        ]
    );
    assert_eq!(received.reply.response_nonce, "1");
    assert_eq!(held(&mut machine), [pair("good", "1")]);
}

#[test]
fn a_bad_update_keeps_the_last_good_value_and_its_version() {
    let mut machine = mk_machine();
    machine.received(response("1", vec![resource(&workload("a", "n1"), "1")]));
    let received = machine.received(response("2", vec![malformed("a")]));
    assert_eq!(received.changes, []);
    assert!(received.reply.error_detail.is_some());
    assert_eq!(held(&mut machine), [pair("a", "1")]);
}

#[test]
fn a_removal_is_passed_on_once_and_forgotten() {
    let mut machine = mk_machine();
    machine.received(response("1", vec![resource(&workload("a", ""), "1")]));
    let received = machine.received(removal("2", &["a", "never-seen", "a"]));
    assert_eq!(received.changes, [Change::RemoveAddress("a".into())]);
    assert!(received.reply.error_detail.is_none());
    assert_eq!(held(&mut machine), []);
}

#[test]
fn a_name_both_removed_and_present_is_present() {
    let mut machine = mk_machine();
    machine.received(response("1", vec![resource(&workload("a", "n1"), "1")]));
    let moved = workload("a", "n2");
    let mut both = removal("2", &["a"]);
    both.resources = vec![resource(&moved, "2")];
    let received = machine.received(both);
    assert_eq!(received.changes, [Change::RemoveAddress("a".into()), moved]);
    assert_eq!(held(&mut machine), [pair("a", "2")]);
}

#[test]
fn of_a_repeated_name_the_first_counts() {
    let mut machine = mk_machine();
    let first = workload("a", "n1");
    let second = resource(&workload("a", "n2"), "2");
    let received = machine.received(response("1", vec![resource(&first, "1"), second]));
    assert_eq!(received.changes, [first]);
    assert_eq!(
        received.reply.error_detail.unwrap().message,
        "a: the name occurs more than once in one response"
    );
    assert_eq!(held(&mut machine), [pair("a", "1")]);
}

#[test]
fn a_response_of_a_type_that_was_not_asked_for_is_refused() {
    let mut unknown = response("1", vec![resource(&workload("a", ""), "1")]);
    unknown.type_url = "type.googleapis.com/envoy.config.cluster.v3.Cluster".into();
    let received = mk_machine().received(unknown.clone());
    assert_eq!(received.changes, []);
    assert_eq!(received.reply.type_url, unknown.type_url);
    assert_eq!(
        received.reply.error_detail.unwrap().message,
        "type `type.googleapis.com/envoy.config.cluster.v3.Cluster` was not asked for"
    );
}

#[test]
fn content_of_another_type_than_the_response_is_refused() {
    let received = mk_machine().received(response("1", vec![resource(&policy("p"), "1")]));
    assert_eq!(
        received.rejected[0].reason,
        Reason::ContentType(AUTHORIZATION.into())
    );
}

#[test]
fn a_refusal_of_very_many_resources_stays_short() {
    let resources = (0..10_000).map(|i| malformed(&format!("workload-{i}")));
    let received = mk_machine().received(response("1", resources.collect()));
    let message = received.reply.error_detail.unwrap().message;
    assert!(message.len() < MAX_REFUSAL + 1024, "{}", message.len());
    assert!(message.starts_with("workload-0: "), "{message}");
    assert!(message.ends_with(" more"), "{message}");
    assert_eq!(received.rejected.len(), 10_000);
}

#[test]
fn sync_needs_an_answer_for_both_types_even_if_parts_were_refused() {
    let mut machine = mk_machine();
    machine.received(response("1", vec![malformed("a")]));
    assert!(!machine.is_synced());
    let mut policies = response("2", Vec::new());
    policies.type_url = AUTHORIZATION.into();
    machine.received(policies);
    assert!(machine.is_synced());
    machine.connected();
    assert!(machine.is_synced());
}

#[test]
fn a_resource_without_version_is_still_named_after_a_reconnect() {
    let mut machine = mk_machine();
    machine.received(response("1", vec![resource(&workload("a", ""), "")]));
    assert_eq!(held(&mut machine), [pair("a", "")]);
}

#[test]
fn more_names_than_fit_are_reconciled_from_the_full_response() {
    let mut config = Config::new(Node::default());
    config.request_limit = 1000;
    let mut machine = Machine::new(config);
    let name = |i: usize| format!("cluster1//Pod/ns/a-pod-{i:04}");
    let all = (0..100).map(|i| resource(&workload(&name(i), "n1"), "0123456789abcdef"));
    machine.received(response("1", all.clone().collect()));

    let request = machine.connected().swap_remove(0);
    assert!(request.encoded_len() <= 1000);
    let named = request.initial_resource_versions;
    assert!(named.len() > 10 && named.len() < 100, "{}", named.len());

    // Gone meanwhile: one that was named, which the server reports, and one that was not named.
    let told = named.keys().next().unwrap().clone();
    let untold = (0..100)
        .map(name)
        .find(|name| !named.contains_key(name))
        .unwrap();
    let mut full = removal("1", &[&told]);
    full.resources = all
        .filter(|r| !named.contains_key(&r.name) && r.name != untold)
        .collect();
    let resent = full.resources.len();
    let received = machine.received(full);
    let removed: HashSet<_> = [told, untold].into_iter().collect();
    let reported: HashSet<_> = (received.changes.iter())
        .filter_map(|change| match change {
            Change::RemoveAddress(name) => Some(name.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(reported, removed);
    assert_eq!(received.changes.len(), resent + 2);

    // Later responses are deltas again: what they do not mention stays.
    let received = machine.received(response("2", Vec::new()));
    assert_eq!(received.changes, []);
}

#[test]
fn a_full_response_with_a_bad_resource_does_not_remove_it() {
    let mut config = Config::new(Node::default());
    config.request_limit = 0;
    let mut machine = Machine::new(config);
    machine.received(response("1", vec![resource(&workload("a", ""), "1")]));
    machine.connected();
    let received = machine.received(response("1", vec![malformed("a")]));
    assert_eq!(received.changes, []);
    assert_eq!(received.rejected.len(), 1);
}

#[test]
fn forty_thousand_names_fit_into_what_istiod_accepts() {
    let mut machine = mk_machine();
    let uid = |i: u32| format!("cluster1//Pod/some-namespace/deployment-6cd6d9df6b-{i:05}");
    let all = (0..60_000).map(|i| resource(&workload(&uid(i), "n1"), "0123456789abcdef"));
    machine.received(response("1", all.collect()));
    let request = machine.connected().swap_remove(0);
    assert!(request.encoded_len() <= 4 * 1024 * 1024);
    assert!(request.initial_resource_versions.len() > 35_000);
}

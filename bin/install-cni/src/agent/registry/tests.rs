use mesh_cni::{
    enrolment::{Policy, Selector},
    protocol::Valid,
};
use mesh_redirect::{Families, Options};
use serde_json::{Value, json};

use super::*;
use crate::agent::{
    machine::{Phase, Report},
    pods::PodObject,
};

mod asked;
mod claims;

fn mk_registry() -> Registry {
    mk_registry_for(Options::default())
}

fn mk_registry_for(options: Options) -> Registry {
    let policy = Policy {
        selectors: Selector::defaults(),
        ..Policy::default()
    };
    let index = Index::new(policy, options, "istio-system".to_owned());
    let mut registry = Registry::new(index, Vec::new());
    let ambient = [("istio.io/dataplane-mode".to_owned(), "ambient".to_owned())];
    registry.apply_namespace(
        "demo".into(),
        Namespace::watched(BTreeMap::from(ambient), 5),
    );
    registry
}

fn mk_pod(uid: &str, version: u64, more: &Value) -> Pod {
    let mut object = json!({
        "metadata": {
            "name": format!("pod-{uid}"), "namespace": "demo", "uid": uid,
            "resourceVersion": version.to_string(),
        },
        "status": {"podIP": "10.0.0.1"},
    });
    json_patch::merge(&mut object, more);
    let object: PodObject = serde_json::from_value(object).unwrap();
    object.into_pod().unwrap()
}

fn mk_sandbox(uid: &str, container_id: &str, ino: u64, address: [u8; 4]) -> Sandbox {
    Sandbox {
        network: "cluster".into(),
        container_id: container_id.into(),
        interface: "eth0".into(),
        netns: format!("/run/netns/{container_id}"),
        dev: 4,
        ino,
        pod_uid: uid.into(),
        pod_name: format!("pod-{uid}"),
        pod_namespace: "demo".into(),
        addresses: vec![address.into()],
    }
}

fn shown(value: &str) -> Value {
    json!({"metadata": {"annotations": {"ambient.istio.io/redirection": value}}})
}

/// Takes all steps of a pod as if they went well.
fn enrol(registry: &mut Registry, uid: &str, ino: u64) {
    registry.introduce();
    let netns = NetNsId { dev: 4, ino };
    for _ in 0..20 {
        let Some(task) = registry.next(uid) else {
            return;
        };
        let outcome = match &task.action {
            Action::Find | Action::Recheck(_) => Outcome::Found(netns),
            Action::Verify(..) => Outcome::Holds(mesh_redirect::Verdict::Absent),
            _ => Outcome::Done,
        };
        registry.done(uid, &task.action, Ok((outcome, None)));
    }
}

fn addresses_of(registry: &Registry, uid: &str) -> Vec<String> {
    match registry.entry(uid).unwrap().machine.desired() {
        Desired::InMesh(enrolment) => enrolment
            .addresses
            .iter()
            .map(ToString::to_string)
            .collect(),
        Desired::Outside(_) => Vec::new(),
    }
}

#[test]
fn what_was_written_counts_for_more_than_what_was_seen_before_it() {
    let mut registry = mk_registry();
    registry.apply_pod(mk_pod("u1", 5, &json!({})));
    let entry = registry.entry_mut("u1").unwrap();
    entry.shown = (Shown::Enabled, 9);
    // A change of somebody else's, from before ours.
    registry.apply_pod(mk_pod(
        "u1",
        7,
        &json!({"metadata": {"labels": {"a": "b"}}}),
    ));
    assert_eq!(registry.entry("u1").unwrap().shown, (Shown::Enabled, 9));
    let woken = registry.apply_pod(mk_pod("u1", 11, &shown("pending")));
    assert_eq!(registry.entry("u1").unwrap().shown, (Shown::Pending, 11));
    assert_eq!(woken.len(), 1, "somebody has overwritten it");
}

#[test]
fn an_address_of_a_family_that_is_not_captured_is_in_no_probe_set() {
    let both =
        json!({"status": {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}});
    let captured = |families| {
        let mut registry = mk_registry_for(Options {
            families,
            ..Options::default()
        });
        registry.apply_pod(mk_pod("u1", 5, &both));
        addresses_of(&registry, "u1")
    };
    assert_eq!(captured(Families::Dual), ["10.0.0.1", "fd00::1"]);
    assert_eq!(captured(Families::Only(Family::V4)), ["10.0.0.1"]);
}

#[test]
fn an_answer_that_is_older_than_what_the_watch_told_is_not_taken() {
    let mut registry = mk_registry();
    registry.apply_pod(mk_pod("u1", 9, &json!({"status": {"phase": "Failed"}})));
    registry.answer_pod(mk_pod("u1", 5, &json!({})), Instant::now());
    assert_eq!(registry.entry("u1").unwrap().reason, Some(Reason::Ended));
}

#[test]
fn the_newest_sandbox_says_where_a_pod_is() {
    let mut registry = mk_registry();
    registry.apply_pod(mk_pod("u1", 5, &json!({})));
    assert_eq!(
        addresses_of(&registry, "u1"),
        ["10.0.0.1"],
        "the API server's"
    );
    registry.attached(&mk_sandbox("u1", "old", 1, [10, 0, 0, 1]));
    registry.attached(&mk_sandbox("u1", "new", 2, [10, 0, 0, 2]));
    assert_eq!(
        addresses_of(&registry, "u1"),
        ["10.0.0.2"],
        "the API server lags"
    );
    let task = registry.next("u1").unwrap();
    let paths: Vec<_> = task
        .paths
        .iter()
        .map(|sandbox| &*sandbox.container_id)
        .collect();
    assert_eq!((task.action, paths), (Action::Find, vec!["new", "old"]));
    // Of several networks the API server knows which is the cluster's.
    let second = Sandbox {
        interface: "net1".into(),
        ..mk_sandbox("u1", "new", 2, [192, 168, 0, 1])
    };
    registry.attached(&second);
    assert_eq!(addresses_of(&registry, "u1"), ["10.0.0.2"]);
    registry.apply_pod(mk_pod(
        "u1",
        6,
        &json!({"status": {"podIP": "192.168.0.1"}}),
    ));
    assert_eq!(addresses_of(&registry, "u1"), ["192.168.0.1"]);
}

#[test]
fn the_end_of_an_old_sandbox_does_not_concern_the_new_one() {
    let mut registry = mk_registry();
    registry.apply_pod(mk_pod("u1", 5, &json!({})));
    registry.attached(&mk_sandbox("u1", "old", 1, [10, 0, 0, 1]));
    registry.attached(&mk_sandbox("u1", "new", 2, [10, 0, 0, 1]));
    enrol(&mut registry, "u1", 2);
    registry.detached(&("old".to_owned(), "eth0".to_owned()));
    assert_eq!(
        registry.entry("u1").unwrap().machine.phase(),
        Phase::Enrolled
    );
    registry.detached(&("new".to_owned(), "eth0".to_owned()));
    assert_ne!(
        registry.entry("u1").unwrap().machine.phase(),
        Phase::Enrolled
    );
}

#[test]
fn a_collection_is_about_one_network() {
    let mut registry = mk_registry();
    registry.attached(&mk_sandbox("u1", "c1", 1, [10, 0, 0, 1]));
    let list = |network: &str| Valid {
        network: network.to_owned(),
        attachments: Vec::new(),
    };
    assert_eq!(registry.unaccounted(&list("other")), []);
    assert_eq!(registry.unaccounted(&list("cluster")).len(), 1);
}

#[test]
fn the_probe_set_is_compared_only_with_what_did_not_change_meanwhile() {
    let mut registry = mk_registry();
    registry.apply_pod(mk_pod("u1", 5, &json!({})));
    enrol(&mut registry, "u1", 1);
    let address = IpAddr::from([10, 0, 0, 1]);
    let changes = registry.probe_changes();
    let right = BTreeMap::from([(address, PodUid::from("u1"))]);
    let (wrong, strangers) = registry.probes_seen(&right, &changes);
    assert_eq!((wrong.len(), strangers.len()), (0, 0));

    let stolen = BTreeMap::from([(address, PodUid::from("u9"))]);
    let outdated = BTreeMap::from([(PodUid::from("u1"), 0)]);
    let (wrong, strangers) = registry.probes_seen(&stolen, &outdated);
    assert_eq!((wrong.len(), strangers), (0, vec![(address, "u9".into())]));
    let (wrong, _) = registry.probes_seen(&stolen, &changes);
    assert_eq!(wrong.len(), 1);
    let elsewhere = json!({
        "metadata": {"namespace": "not-known-yet"}, "status": {"podIP": "10.0.0.9"},
    });
    registry.apply_pod(mk_pod("u9", 5, &elsewhere));
    let (_, strangers) = registry.probes_seen(&stolen, &changes);
    assert_eq!(strangers, [], "that pod exists");
    assert_eq!(registry.next("u1").unwrap().action, Action::Admit(address));
}

#[test]
fn a_mesh_that_leaves_takes_every_pod_out_and_lets_none_in() {
    let mut registry = mk_registry();
    registry.apply_pod(mk_pod("u1", 5, &json!({})));
    enrol(&mut registry, "u1", 1);
    assert_eq!(registry.withdraw().len(), 1);
    enrol(&mut registry, "u1", 1);
    let entry = registry.entry("u1").unwrap();
    assert_eq!(
        (entry.machine.phase(), entry.machine.report()),
        (Phase::Outside, Report::Clear)
    );
    let later = Instant::now() + Duration::from_secs(3600);
    let looks = registry.begin("u1", later, Duration::from_secs(60));
    assert!(looks.is_none(), "it would seem to be on its way once more");
    let pod = mk_pod("u2", 5, &json!({}));
    let key = pod.key();
    registry.apply_pod(pod);
    let found = registry.find(&key, "u2");
    assert_eq!(found, Found::Outside("u2".into(), Reason::Withdrawn));
}

#[test]
fn a_terminating_pod_whose_network_was_taken_is_not_searched_for() {
    let mut registry = mk_registry();
    let ends = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    registry.apply_pod(mk_pod("u1", 5, &ends));
    registry.attached(&mk_sandbox("u1", "c1", 1, [10, 0, 0, 1]));
    enrol(&mut registry, "u1", 1);
    registry.detached(&("c1".to_owned(), "eth0".to_owned()));
    enrol(&mut registry, "u1", 1);
    let later = Instant::now() + Duration::from_secs(3600);
    assert!(
        registry
            .begin("u1", later, Duration::from_secs(60))
            .is_none()
    );
    // One that stays may get a network without our plugin.
    registry.apply_pod(mk_pod("u1", 6, &json!({})));
    let later = later + Duration::from_secs(3600);
    let task = registry
        .begin("u1", later, Duration::from_secs(60))
        .unwrap();
    assert_eq!(task.action, Action::Find);
}

#[tokio::test(start_paused = true)]
async fn who_changes_annotations_all_the_time_is_not_told_of_every_change() {
    let mut registry = mk_registry();
    registry.apply_pod(mk_pod("u1", 5, &json!({})));
    let (entry, now) = (registry.entry_mut("u1").unwrap(), Instant::now());
    let told = |entry: &mut Entry, now| (0..1000).filter(|_| entry.may_complain(now)).count();
    assert_eq!(told(entry, now), 3);
    assert_eq!(told(entry, now + Duration::from_secs(299)), 0);
    assert_eq!(told(entry, now + Duration::from_secs(300)), 3);
}

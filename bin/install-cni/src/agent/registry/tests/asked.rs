//! Pods that were asked for before the watch has shown them.

use super::*;

const CONFIRM: Duration = Duration::from_secs(120);

fn names(concerned: &Concerned) -> Vec<&str> {
    concerned.iter().map(|uid| &**uid).collect()
}

/// One of a StatefulSet: the name stays.
fn mk_web(uid: &str, version: u64) -> Pod {
    mk_pod(uid, version, &json!({"metadata": {"name": "web-0"}}))
}

fn web() -> ObjectKey {
    mk_web("any", 1).key()
}

#[test]
fn a_pod_that_the_watch_never_confirms_is_forgotten_when_it_does_not_exist() {
    let (mut registry, now) = (mk_registry(), Instant::now());
    for uid in ["u1", "u2", "u3"] {
        registry.answer_pod(mk_pod(uid, 5, &json!({})), now);
    }
    registry.apply_pod(mk_pod("u2", 5, &json!({})));
    assert!(registry.unconfirmed(now + CONFIRM / 2, CONFIRM).is_empty());
    let overdue = registry.unconfirmed(now + CONFIRM, CONFIRM);
    let overdue: Vec<_> = overdue.iter().map(|(uid, _)| &**uid).collect();
    assert_eq!(overdue, ["u1", "u3"]);
    registry.postpone(&"u3".into(), now + CONFIRM);
    assert_eq!(names(&registry.forget(&"u1".into())), ["u1"]);
    let watched = registry.forget(&"u2".into());
    assert!(watched.is_empty(), "the watch has it");
    assert!(registry.bury("u1") && !registry.bury("u2") && !registry.bury("u3"));
    assert!(registry.unconfirmed(now + CONFIRM, CONFIRM).is_empty());
    assert_eq!(registry.unconfirmed(now + CONFIRM * 2, CONFIRM).len(), 1);
}

#[test]
fn what_the_watch_says_late_of_a_predecessor_is_not_about_its_successor() {
    let mut registry = mk_registry();
    registry.apply_pod(mk_web("old", 5));
    registry.answer_pod(mk_web("new", 9), Instant::now());
    enrol(&mut registry, "new", 1);
    // The end of the old one: its last change, and that it is gone.
    assert!(registry.apply_pod(mk_web("old", 7)).is_empty());
    assert!(registry.delete_pod(&web()).is_empty());
    let phase = registry.entry("new").map(|entry| entry.machine.phase());
    assert_eq!(phase, Some(Phase::Enrolled));
    assert!(registry.apply_pod(mk_web("new", 9)).is_empty());
    assert_eq!(names(&registry.delete_pod(&web())), ["new"]);
}

#[test]
fn an_answer_about_a_predecessor_does_not_push_its_successor_out() {
    let mut registry = mk_registry();
    registry.apply_pod(mk_web("new", 9));
    let concerned = registry.answer_pod(mk_web("old", 5), Instant::now());
    assert!(concerned.is_empty());
    assert_eq!(registry.entry("new").unwrap().reason, None);
    assert!(registry.entry("old").is_none());
}

#[test]
fn of_answer_and_watch_about_a_namespace_the_later_word_counts() {
    let mut registry = mk_registry();
    registry.apply_pod(mk_pod("u1", 5, &json!({})));
    let labelled =
        || BTreeMap::from([("istio.io/dataplane-mode".to_owned(), "ambient".to_owned())]);
    let reason = |registry: &Registry| registry.entry("u1").unwrap().reason;
    for version in [0, 4, 5] {
        let concerned =
            registry.apply_namespace("demo".into(), Namespace::asked(BTreeMap::new(), version));
        assert!(concerned.is_empty(), "{version}: the watch knows version 5");
    }
    assert_eq!(reason(&registry), None);
    assert_eq!(
        registry
            .apply_namespace("demo".into(), Namespace::asked(BTreeMap::new(), 7))
            .len(),
        1
    );
    assert_eq!(reason(&registry), Some(Reason::NotSelected));
    assert!(
        registry
            .apply_namespace("demo".into(), Namespace::watched(labelled(), 6))
            .is_empty()
    );
    assert_eq!(reason(&registry), Some(Reason::NotSelected), "an older one");
    registry.apply_namespace("demo".into(), Namespace::watched(labelled(), 8));
    assert_eq!(reason(&registry), None);
    // What the watch tells counts, whatever it told before.
    registry.apply_namespace("demo".into(), Namespace::watched(BTreeMap::new(), 1));
    assert_eq!(reason(&registry), Some(Reason::NotSelected));
    registry.apply_namespace("other".into(), Namespace::asked(BTreeMap::new(), 0));
    assert!(registry.index().knows_namespace("other"));
}

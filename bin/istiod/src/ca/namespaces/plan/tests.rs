//! Which ConfigMaps are written, and when.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use proptest::prelude::*;

use super::*;

fn mk_plan() -> Plan {
    let scope = |_: &str, labels: &BTreeMap<String, String>| !labels.contains_key("left-out");
    Plan::new("roots", Arc::new(scope))
}

fn mk_namespace(name: &str, labels: &[&str]) -> Namespace {
    let labels = labels
        .iter()
        .map(|label| ((*label).to_owned(), String::new()));
    Namespace {
        metadata: ObjectMeta {
            name: Some(name.into()),
            labels: Some(labels.collect()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    }
}

fn mk_map(namespace: &str, roots: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            namespace: Some(namespace.into()),
            labels: Some([(LABEL.0.to_owned(), LABEL.1.to_owned())].into()),
            ..ObjectMeta::default()
        },
        data: Some([(KEY.to_owned(), roots.to_owned())].into()),
        ..ConfigMap::default()
    }
}

fn take(plan: &mut Plan) -> Vec<String> {
    let now = Instant::now();
    std::iter::from_fn(|| plan.take(now))
        .map(|task| task.namespace)
        .collect()
}

#[test]
fn namespaces_of_the_mesh_without_the_right_map_are_told() {
    let mut plan = mk_plan();
    for (name, labels) in [
        ("lacking", &[][..]),
        ("right", &[]),
        ("wrong", &[]),
        ("kube-system", &[]),
        ("kube-public", &[]),
        ("kube-node-lease", &[]),
        ("local-path-storage", &[]),
        ("outside", &["left-out"]),
    ] {
        plan.namespace(mk_namespace(name, labels));
    }
    plan.map(&mk_map("right", "roots"));
    plan.map(&mk_map("wrong", "other roots"));
    assert_eq!(take(&mut plan), ["kube-system", "lacking", "wrong"]);
    assert_eq!(take(&mut plan), [""; 0], "each once");
}

#[test]
fn a_map_without_its_label_is_not_right() {
    let mut map = mk_map("a", "roots");
    assert!(is_right(&map, "roots"));
    map.metadata.labels = None;
    assert!(!is_right(&map, "roots"));
}

#[test]
fn edits_and_deletions_are_repaired_and_our_own_writes_are_not() {
    let mut plan = mk_plan();
    plan.namespace(mk_namespace("a", &[]));
    let task = plan.take(Instant::now()).unwrap();
    assert!(!task.exists);
    plan.done(&task, true, Instant::now());
    assert_eq!(
        take(&mut plan),
        [""; 0],
        "it is known before the watch tells it"
    );
    plan.map(&mk_map("a", "roots"));
    assert_eq!(take(&mut plan), [""; 0]);
    plan.map(&mk_map("a", "edited"));
    let task = plan.take(Instant::now()).unwrap();
    assert!(task.exists);
    plan.done(&task, true, Instant::now());
    plan.no_map("a");
    assert_eq!(take(&mut plan), ["a"]);
}

#[test]
fn an_edit_that_is_heard_of_before_the_write_is_known_to_have_ended_is_repaired() {
    let mut plan = mk_plan();
    plan.namespace(mk_namespace("a", &[]));
    let task = plan.take(Instant::now()).unwrap();
    plan.map(&mk_map("a", "roots"));
    plan.map(&mk_map("a", "edited"));
    plan.done(&task, true, Instant::now());
    assert_eq!(take(&mut plan), ["a"]);
}

#[test]
fn other_roots_are_told_to_all_and_a_write_of_the_former_does_not_count() {
    let mut plan = mk_plan();
    plan.namespace(mk_namespace("a", &[]));
    plan.namespace(mk_namespace("b", &[]));
    plan.map(&mk_map("b", "roots"));
    let task = plan.take(Instant::now()).unwrap();
    plan.set_roots("new roots");
    assert_eq!(take(&mut plan), ["b"]);
    plan.done(&task, true, Instant::now());
    assert_eq!(take(&mut plan), ["a"]);
}

#[test]
fn a_namespace_that_cannot_be_told_waits_ever_longer_and_holds_up_nobody() {
    let mut plan = mk_plan();
    plan.namespace(mk_namespace("a", &[]));
    let begun = Instant::now();
    let mut now = begun;
    for wait in [2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
        let task = plan.take(now).unwrap();
        plan.done(&task, false, now);
        plan.namespace(mk_namespace("b", &[]));
        assert_eq!(plan.next_retry(), Some(now + Duration::from_secs(wait)));
        now += Duration::from_secs(wait);
    }
    let tasks: Vec<_> = std::iter::from_fn(|| plan.take(begun))
        .map(|t| t.namespace)
        .collect();
    assert_eq!(tasks, ["b"]);
}

#[test]
fn a_namespace_that_goes_is_left_alone_and_forgotten() {
    let mut plan = mk_plan();
    let mut namespace = mk_namespace("a", &[]);
    plan.namespace(namespace.clone());
    namespace.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
    plan.namespace(namespace);
    assert_eq!(take(&mut plan), [""; 0]);
    plan.namespace(mk_namespace("b", &[]));
    let task = plan.take(Instant::now()).unwrap();
    plan.no_namespace("b");
    plan.done(&task, false, Instant::now());
    assert!(plan.namespaces.is_empty() && plan.later.is_empty() && plan.due.is_empty());
}

#[test]
fn a_scope_that_widens_brings_in_what_was_left_out() {
    let wide = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let asked = wide.clone();
    let scope = move |_: &str, _: &BTreeMap<String, String>| {
        asked.load(std::sync::atomic::Ordering::SeqCst)
    };
    let mut plan = Plan::new("roots", Arc::new(scope));
    plan.namespace(mk_namespace("a", &[]));
    assert_eq!(take(&mut plan), [""; 0]);
    wide.store(true, std::sync::atomic::Ordering::SeqCst);
    plan.rescope();
    assert_eq!(take(&mut plan), ["a"]);
}

proptest! {
    /// Whatever happens in whatever order, in the end everything that lives is told once and nothing
    /// else is remembered.
    #[test]
    fn everything_is_told_in_the_end(steps in prop::collection::vec((0..6u8, 0..4u8), 0..60)) {
        let mut plan = mk_plan();
        let mut now = Instant::now();
        let mut lives = BTreeSet::new();
        let mut writing: Vec<Task> = Vec::new();
        for (what, which) in steps {
            let name = format!("n{which}");
            match what {
                0 => { lives.insert(name.clone()); plan.namespace(mk_namespace(&name, &[])); }
                1 => { lives.remove(&name); plan.no_namespace(&name); plan.no_map(&name); }
                2 => plan.map(&mk_map(&name, "edited")),
                3 => plan.no_map(&name),
                4 => writing.extend(plan.take(now)),
                _ => if let Some(task) = writing.pop() { plan.done(&task, which % 2 == 0, now) },
            }
        }
        for task in writing { plan.done(&task, false, now); }
        for name in ["n0", "n1", "n2", "n3"] {
            if !lives.contains(name) { plan.no_map(name); }
        }
        for name in &lives { plan.no_map(name); }
        now += MAX_RETRY;
        let told: BTreeSet<_> = std::iter::from_fn(|| plan.take(now)).map(|task| task.namespace).collect();
        prop_assert_eq!(&told, &lives);
        prop_assert_eq!(plan.namespaces.len(), lives.len());
    }
}

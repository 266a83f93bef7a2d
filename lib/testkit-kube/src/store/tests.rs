use proptest::prelude::*;
use serde_json::json;

use super::*;

const PODS: GroupResource = GroupResource::new("", "pods");

fn pod(namespace: &str, name: &str, data: u8) -> Value {
    json!({"metadata": {"namespace": namespace, "name": name}, "data": data})
}

fn names(items: &[Arc<Value>]) -> Vec<String> {
    items
        .iter()
        .map(|item| {
            let key = Key::of(item);
            format!("{}/{}", key.namespace, key.name)
        })
        .collect()
}

#[test]
fn uids_are_version_4_uuids() {
    let uid = new_uid();
    let parts: Vec<usize> = uid.split('-').map(str::len).collect();
    assert_eq!(parts, [8, 4, 4, 4, 12]);
    assert_eq!(uid.chars().nth(14), Some('4'));
    assert!(matches!(uid.chars().nth(19), Some('8' | '9' | 'a' | 'b')));
}

#[test]
fn an_older_version_shows_what_was_there() {
    let store = Store::default();
    store.put(&PODS, pod("a", "kept", 1));
    store.put(&PODS, pod("a", "gone", 1));
    let then = store.resource_version();
    store.put(&PODS, pod("a", "kept", 2));
    store.remove(&PODS, "a", "gone");
    store.put(&PODS, pod("a", "new", 1));

    let query = Query {
        at: Some(then),
        ..Query::default()
    };
    let page = store.page(&PODS, query, &|_| true).unwrap();
    assert_eq!(names(&page.items), ["a/gone", "a/kept"]);
    assert!(page.items.iter().all(|item| item["data"] == 1));
    assert_eq!(names(&store.list(&PODS, None)), ["a/kept", "a/new"]);
}

#[test]
fn what_is_forgotten_has_expired_and_the_present_has_not() {
    let store = Store::with_history(2);
    for data in 0..3 {
        store.put(&PODS, pod("a", "one", data));
    }
    assert!(store.events_after(&PODS, 1, 10).is_ok());
    let expired = store.events_after(&PODS, 0, 10).unwrap_err();
    assert_eq!(
        expired,
        Error::Expired {
            asked: 0,
            oldest: 1
        }
    );

    store.compact();
    assert!(store.events_after(&PODS, 2, 10).is_err());
    assert!(store.events_after(&PODS, 3, 10).is_ok());
    let other = GroupResource::new("", "nodes");
    assert!(store.events_after(&other, 2, 10).is_err());
}

#[test]
fn a_version_to_come_is_not_shown() {
    let query = Query {
        at: Some(5),
        ..Query::default()
    };
    let error = Store::default().page(&PODS, query, &|_| true).unwrap_err();
    assert_eq!(
        error,
        Error::Future {
            asked: 5,
            current: 0
        }
    );
}

#[test]
fn dependents_follow_the_references() {
    let store = Store::default();
    let mut object = pod("a", "one", 1);
    object["metadata"]["ownerReferences"] = json!([{"uid": "x"}, {"uid": "y"}]);
    store.put(&PODS, object.clone());
    assert_eq!(store.dependents("x"), [(PODS, Key::new("a", "one"))]);
    object["metadata"]["ownerReferences"] = json!([{"uid": "y"}]);
    store.put(&PODS, object);
    assert!(store.dependents("x").is_empty());
    store.remove(&PODS, "a", "one");
    assert!(store.dependents("y").is_empty());
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8, u8),
    Remove(u8, u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..3u8, 0..5u8, any::<u8>()).prop_map(|(ns, name, data)| Step::Put(ns, name, data)),
        1 => (0..3u8, 0..5u8).prop_map(|(ns, name)| Step::Remove(ns, name)),
    ];
    prop::collection::vec(step, 0..60)
}

fn take(store: &Store, step: &Step) {
    match step {
        Step::Put(ns, name, data) => {
            store.put(&PODS, pod(&format!("n{ns}"), &format!("p{name}"), *data));
        }
        Step::Remove(ns, name) => {
            store.remove(&PODS, &format!("n{ns}"), &format!("p{name}"));
        }
    }
}

proptest! {
    #[test]
    fn a_list_and_the_events_after_it_make_the_final_state(
        steps in steps(),
        cut in 0..60usize,
        batch in 1..5usize,
    ) {
        let store = Store::default();
        let cut = cut.min(steps.len());
        for step in &steps[..cut] {
            take(&store, step);
        }
        let version = store.resource_version();
        for step in &steps[cut..] {
            take(&store, step);
        }

        let query = Query { at: Some(version), ..Query::default() };
        let page = store.page(&PODS, query, &|_| true).unwrap();
        let mut state: BTreeMap<Key, Arc<Value>> =
            page.items.into_iter().map(|item| (Key::of(&item), item)).collect();
        let mut seen = version;
        loop {
            let (events, _) = store.events_after(&PODS, seen, batch).unwrap();
            for event in &events {
                prop_assert!(event.resource_version > seen);
                seen = event.resource_version;
                match event.change {
                    Change::Deleted => prop_assert!(state.remove(&event.key).is_some()),
                    Change::Added => {
                        prop_assert!(state.insert(event.key.clone(), event.object.clone()).is_none());
                    }
                    Change::Modified => {
                        prop_assert!(state.insert(event.key.clone(), event.object.clone()).is_some());
                    }
                }
            }
            if events.len() < batch {
                break;
            }
        }
        let present = store.list(&PODS, None);
        prop_assert_eq!(state.into_values().collect::<Vec<_>>(), present);
    }

    #[test]
    fn pages_show_one_moment_while_objects_change(
        before in steps(),
        during in steps(),
        limit in 1..4usize,
    ) {
        let store = Store::default();
        for step in &before {
            take(&store, step);
        }
        let whole = store.list(&PODS, None);
        let at = store.resource_version();

        let mut during = during.iter();
        let mut paged = Vec::new();
        let mut after = None;
        loop {
            let query = Query {
                at: Some(at),
                after: after.as_ref(),
                limit: Some(limit),
                namespace: None,
            };
            let page = store.page(&PODS, query, &|_| true).unwrap();
            paged.extend(page.items);
            prop_assert_eq!(page.remaining, whole.len() - paged.len());
            after = page.end;
            if after.is_none() {
                break;
            }
            for step in during.by_ref().take(3) {
                take(&store, step);
            }
        }
        prop_assert_eq!(paged, whole);
    }
}

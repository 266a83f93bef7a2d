use kube::core::GroupVersionKind;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Error, json, merge, strategic};
use crate::schema::Schema;

fn pod() -> &'static Schema {
    Schema::builtin(&GroupVersionKind::gvk("", "v1", "Pod")).unwrap()
}

fn spec(live: &Value, patch: &Value) -> Value {
    let merged = strategic(pod(), &json!({"spec": live}), &json!({"spec": patch}));
    merged.unwrap()["spec"].clone()
}

#[test]
fn a_json_patch_goes_step_by_step() {
    let live = json!({"a": [1, 2], "b": "x"});
    let patch = json!([
        {"op": "test", "path": "/b", "value": "x"},
        {"op": "add", "path": "/a/-", "value": 3},
        {"op": "remove", "path": "/a/0"},
        {"op": "replace", "path": "/b", "value": null},
        {"op": "copy", "from": "/a", "path": "/c"},
    ]);
    assert_eq!(
        json(&live, &patch).unwrap(),
        json!({"a": [2, 3], "b": null, "c": [2, 3]})
    );
}

#[test]
fn a_json_patch_that_does_not_fit_is_told_from_one_that_is_malformed() {
    let live = json!({"a": 1});
    for patch in [
        json!([{"op": "test", "path": "/a", "value": 2}]),
        json!([{"op": "remove", "path": "/b"}]),
        json!([{"op": "replace", "path": "/b/c", "value": 1}]),
    ] {
        assert!(
            matches!(json(&live, &patch), Err(Error::DoesNotFit(_))),
            "{patch}"
        );
    }
    for patch in [
        json!({}),
        json!([{"op": "explode", "path": "/a"}]),
        json!([{"op": "add", "path": "a"}]),
    ] {
        assert!(
            matches!(json(&live, &patch), Err(Error::Malformed(_))),
            "{patch}"
        );
    }
}

#[test]
fn a_json_patch_is_bounded() {
    let many = vec![json!({"op": "add", "path": "/a", "value": 1}); 10_001];
    assert!(matches!(
        json(&json!({}), &many.into()),
        Err(Error::Malformed(_))
    ));
    let doubling = vec![json!({"op": "copy", "from": "/a", "path": "/a/-"}); 40];
    let result = json(&json!({"a": ["x".repeat(1000)]}), &doubling.into());
    assert!(matches!(result, Err(Error::DoesNotFit(message)) if message.contains("copies more")));
}

#[test]
fn a_merge_patch_removes_by_null() {
    let live = json!({"a": {"b": 1, "c": [1]}, "d": 1});
    let patch = json!({"a": {"b": null, "c": [2]}, "e": {"f": null}});
    assert_eq!(
        merge(&live, &patch).unwrap(),
        json!({"a": {"c": [2]}, "d": 1, "e": {}})
    );
    assert!(merge(&live, &json!([])).is_err());
}

#[test]
fn lists_merge_by_their_keys() {
    let live = json!({"containers": [
        {"name": "a", "image": "x", "env": [{"name": "E", "value": "1"}], "args": ["1"]},
        {"name": "b", "image": "y"}]});
    let patch = json!({"containers": [
        {"name": "b", "image": "z"},
        {"name": "a", "env": [{"name": "F", "value": "2"}], "args": ["2", "3"]},
        {"name": "c", "image": "w", "tty": null}]});
    assert_eq!(
        spec(&live, &patch),
        json!({"containers": [
            {"name": "a", "image": "x", "env": [{"name": "E", "value": "1"}, {"name": "F", "value": "2"}],
             "args": ["2", "3"]},
            {"name": "b", "image": "z"},
            {"name": "c", "image": "w"}]})
    );
}

#[test]
fn directives_replace_and_delete() {
    let live = json!({"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "y"}],
                      "securityContext": {"runAsUser": 1, "fsGroup": 2}});
    let delete = json!({"containers": [{"name": "a", "$patch": "delete"}],
                        "securityContext": {"$patch": "replace", "runAsGroup": 3}});
    assert_eq!(
        spec(&live, &delete),
        json!({"containers": [{"name": "b", "image": "y"}], "securityContext": {"runAsGroup": 3}})
    );
    let replace = json!({"containers": [{"$patch": "replace"}, {"name": "c", "image": "z"}],
                         "securityContext": {"$patch": "delete"}});
    assert_eq!(
        spec(&live, &replace),
        json!({"containers": [{"name": "c", "image": "z"}], "securityContext": {}})
    );
}

#[test]
fn retained_keys_are_all_that_stay() {
    let live = json!({"volumes": [{"name": "v", "emptyDir": {}}]});
    let patch = json!({"volumes": [{"name": "v", "$retainKeys": ["name", "configMap"], "configMap": {"name": "c"}}]});
    assert_eq!(
        spec(&live, &patch),
        json!({"volumes": [{"name": "v", "configMap": {"name": "c"}}]})
    );
    let wrong =
        json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name"], "emptyDir": {}}]}});
    assert!(strategic(pod(), &json!({"spec": live}), &wrong).is_err());
}

#[test]
fn scalars_are_added_and_deleted_one_by_one() {
    let live = json!({"metadata": {"finalizers": ["a", "b"]}});
    let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c", "b"]}});
    assert_eq!(
        strategic(pod(), &live, &patch).unwrap(),
        json!({"metadata": {"finalizers": ["b", "c"]}})
    );
}

#[test]
fn the_order_of_a_list_can_be_set() {
    let live = json!({"containers": [{"name": "a"}, {"name": "server"}, {"name": "b"}]});
    let patch = json!({
        "$setElementOrder/containers": [{"name": "b"}, {"name": "c"}, {"name": "a"}],
        "containers": [{"name": "c", "image": "z"}]});
    assert_eq!(
        spec(&live, &patch),
        json!({"containers": [{"name": "server"}, {"name": "b"}, {"name": "c", "image": "z"}, {"name": "a"}]})
    );
    let alone = json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]});
    assert_eq!(
        spec(&live, &alone),
        json!({"containers": [{"name": "server"}, {"name": "b"}, {"name": "a"}]})
    );
}

#[test]
fn an_item_without_its_key_does_not_fit() {
    let live = json!({"spec": {"containers": [{"name": "a"}]}});
    let patch = json!({"spec": {"containers": [{"image": "x"}]}});
    assert!(matches!(
        strategic(pod(), &live, &patch),
        Err(Error::DoesNotFit(_))
    ));
}

#[test]
fn lists_without_a_strategy_are_replaced() {
    let live = json!({"tolerations": [{"key": "a"}]});
    assert_eq!(
        spec(&live, &json!({"tolerations": [{"key": "b"}]})),
        json!({"tolerations": [{"key": "b"}]})
    );
}

/// JSON with the words of patches in it.
fn patchy() -> impl Strategy<Value = Value> {
    let names = [
        "spec",
        "containers",
        "name",
        "$patch",
        "$retainKeys",
        "$setElementOrder/containers",
        "volumes",
        "$deleteFromPrimitiveList/finalizers",
        "finalizers",
        "metadata",
        "op",
        "path",
        "from",
        "value",
    ];
    let words = [
        "delete", "replace", "merge", "a", "b", "/spec", "/a/-", "copy", "move", "add", "name",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i8>().prop_map(Value::from),
        prop::sample::select(words.to_vec()).prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(prop::sample::select(names.to_vec()), inner, 0..5)
                .prop_map(|map| map
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect()),
        ]
    })
}

proptest! {
    #[test]
    fn no_patch_is_too_strange(live in patchy(), patch in patchy()) {
        drop(json(&live, &patch));
        drop(merge(&live, &patch));
        drop(strategic(pod(), &live, &patch));
    }

    #[test]
    fn a_strategic_patch_leaves_no_directives(live in patchy(), patch in patchy()) {
        prop_assume!(!live.to_string().contains('$'));
        if let Ok(merged) = strategic(pod(), &live, &patch) {
            prop_assert!(!merged.to_string().contains("$patch"), "{merged}");
        }
    }
}

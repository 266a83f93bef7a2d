use serde_json::json;

use super::*;
use crate::registry::Registry;

fn faults(plural: &str, metadata: &Value) -> Vec<String> {
    let resource = Registry::default().find("", "v1", plural).unwrap();
    let causes = validate(&resource, &json!({"metadata": metadata}));
    causes.into_iter().map(|cause| cause.field).collect()
}

#[test]
fn names_keep_to_the_rule_of_their_kind() {
    assert!(faults("pods", &json!({"name": "a.b-c"})).is_empty());
    assert!(faults("services", &json!({"name": "a-1"})).is_empty());
    for (plural, bad) in [
        ("pods", ""),
        ("pods", "A"),
        ("pods", "-a"),
        ("pods", "a..b"),
        ("namespaces", "a.b"),
        ("services", "1a"),
    ] {
        assert_eq!(
            faults(plural, &json!({"name": bad})),
            ["metadata.name"],
            "{plural} {bad}"
        );
    }
    let long = "a".repeat(64);
    assert_eq!(
        faults("namespaces", &json!({"name": long})),
        ["metadata.name"]
    );
    assert!(faults("pods", &json!({"name": long})).is_empty());
}

#[test]
fn labels_and_annotations_are_checked() {
    let good = json!({"name": "a", "labels": {"a.b/C_d": "", "x": "A.b-1"}, "annotations": {"a/B": "any\n"}});
    assert!(faults("pods", &good).is_empty());
    assert_eq!(
        faults("pods", &json!({"name": "a", "labels": {"a b": "x"}})),
        ["metadata.labels"]
    );
    assert_eq!(
        faults("pods", &json!({"name": "a", "labels": {"a": "-"}})),
        ["metadata.labels"]
    );
    let huge = json!({"name": "a", "annotations": {"a": "x".repeat(MAX_ANNOTATIONS)}});
    assert_eq!(faults("pods", &huge), ["metadata.annotations"]);
}

#[test]
fn owner_references_are_whole_and_have_one_controller() {
    let reference =
        json!({"apiVersion": "v1", "kind": "Node", "name": "a", "uid": "u", "controller": true});
    let two = json!({"name": "a", "ownerReferences": [reference, reference]});
    assert_eq!(faults("pods", &two), ["metadata.ownerReferences"]);
    let partial = json!({"name": "a", "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "a"}]});
    assert_eq!(faults("pods", &partial), ["metadata.ownerReferences.uid"]);
}

#[test]
fn what_the_server_sets_cannot_be_changed() {
    let old = json!({"metadata": {"name": "a", "uid": "u", "finalizers": ["a/b"]}});
    let mut new = old.clone();
    new["metadata"]["labels"] = json!({"a": "b"});
    assert!(validate_update(&new, &old).is_empty());
    new["metadata"]["uid"] = "v".into();
    assert_eq!(validate_update(&new, &old)[0].field, "metadata.uid");
}

#[test]
fn an_object_on_its_way_out_gets_no_new_finalizers() {
    let old = json!({"metadata": {"name": "a", "deletionTimestamp": "x", "finalizers": ["a/b"]}});
    let mut new = old.clone();
    set_finalizers(&mut new, vec![]);
    assert!(validate_update(&new, &old).is_empty());
    set_finalizers(&mut new, vec!["a/c".to_owned()]);
    assert_eq!(validate_update(&new, &old)[0].field, "metadata.finalizers");
}

#[test]
fn wrong_types_in_metadata_are_a_fault_of_encoding() {
    for bad in [
        json!({"labels": {"a": 1}}),
        json!({"labels": []}),
        json!({"finalizers": [1]}),
        json!({"ownerReferences": {}}),
        json!({"name": 1}),
        json!({"generation": "1"}),
        json!(1),
    ] {
        let error = check_shape(&mut json!({"metadata": bad})).unwrap_err();
        assert_eq!(error.code, 400, "{bad}");
    }
    assert!(check_shape(&mut json!({"metadata": {"labels": null}})).is_ok());
    assert!(check_shape(&mut json!([])).is_err());
}

//! Who owns what, case by case.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    super::managed::Managers, ApplyRequest, CUSTOM, Error, Writer, applied, apply, deployments,
    message, object, owned, track_update, try_apply, updated, writer,
};

#[test]
fn an_apply_creates_and_owns_what_it_says() {
    let made = applied(
        None,
        "m",
        &json!({
            "a": 1, "map": {"k": "v"}, "list": ["x"], "set": ["p"], "items": [{"name": "i", "x": 1}],
            "atomicMap": {"k": "v"}, "free": {"z": [1]}, "struct": {"x": 1},
        }),
    );
    assert_eq!(
        made["metadata"]["managedFields"],
        json!([{
            "manager": "m", "operation": "Apply", "apiVersion": "a/v1", "time": "2027-01-15T08:00:00Z",
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {
                "f:a": {},
                "f:map": {"f:k": {}},
                "f:list": {},
                "f:set": {"v:\"p\"": {}},
                "f:items": {"k:{\"name\":\"i\"}": {".": {}, "f:name": {}, "f:x": {}}},
                "f:atomicMap": {},
                "f:free": {"f:z": {}},
                "f:struct": {"f:x": {}},
            }},
        }])
    );
}

#[test]
fn the_same_apply_again_is_the_same_object() {
    let spec = json!({"a": 1, "items": [{"name": "i", "x": 1}]});
    let made = applied(None, "m", &spec);
    let later = Writer {
        now: Timestamp::from_second(1_900_000_000).unwrap(),
        ..writer(&CUSTOM, "m")
    };
    let again = apply(&ApplyRequest {
        writer: later,
        live: Some(&made),
        config: &object(&spec),
        force: false,
    });
    assert_eq!(again.unwrap(), made);
    let changed = apply(&ApplyRequest {
        writer: later,
        live: Some(&made),
        config: &object(&json!({"a": 2})),
        force: false,
    });
    assert_eq!(
        changed.unwrap()["metadata"]["managedFields"][0]["time"],
        "2030-03-17T17:46:40Z"
    );
}

#[test]
fn what_is_no_longer_applied_goes() {
    let made = applied(
        None,
        "m",
        &json!({
        "a": 1, "b": "x", "map": {"k": "v", "l": "w"}, "set": ["p", "q"],
        "items": [{"name": "i", "x": 1}, {"name": "j"}], "struct": {"x": 1}}),
    );
    let after = applied(
        Some(&made),
        "m",
        &json!({
        "a": 1, "map": {"k": "v"}, "set": ["q"], "items": [{"name": "j"}]}),
    );
    assert_eq!(
        after["spec"],
        json!({"a": 1, "map": {"k": "v"}, "set": ["q"], "items": [{"name": "j"}]})
    );
    assert_eq!(applied(Some(&after), "m", &Value::Null).get("spec"), None);
}

#[test]
fn what_others_own_too_stays() {
    let made = applied(
        None,
        "one",
        &json!({"a": 1, "items": [{"name": "i", "x": 1}], "map": {"k": "v"}}),
    );
    let both = applied(
        Some(&made),
        "two",
        &json!({"a": 1, "items": [{"name": "i", "y": 2}], "map": {"l": "w"}}),
    );
    assert_eq!(owned(&both, "two")["f:a"], json!({}));
    let left = applied(Some(&both), "one", &Value::Null);
    assert_eq!(
        left["spec"],
        json!({"a": 1, "items": [{"name": "i", "y": 2}], "map": {"l": "w"}})
    );
    assert_eq!(owned(&left, "one"), Value::Null);
}

#[test]
fn what_nobody_applied_stays() {
    let mut made = applied(None, "m", &json!({"a": 1, "struct": {"x": 1}}));
    made["spec"]["b"] = json!("set by a default");
    let after = applied(Some(&made), "m", &json!({"struct": {"x": 1}}));
    assert_eq!(
        after["spec"],
        json!({"b": "set by a default", "struct": {"x": 1}})
    );
}

#[test]
fn a_conflict_names_the_owner_and_the_field() {
    let made = applied(
        None,
        "one",
        &json!({"a": 1, "items": [{"name": "i", "x": 1}]}),
    );
    assert_eq!(
        message(try_apply(Some(&made), "two", &json!({"a": 2}), false)),
        r#"Apply failed with 1 conflict: conflict with "one": .spec.a"#
    );
    let error = try_apply(
        Some(&made),
        "two",
        &json!({"a": 2, "items": [{"name": "i", "x": 2}]}),
        false,
    );
    assert_eq!(
        message(error),
        "Apply failed with 2 conflicts: conflicts with \"one\":\n- .spec.a\n- .spec.items[name=\"i\"].x"
    );
    let edited = updated(
        &made,
        "kubectl-edit",
        &json!({"a": 3, "items": [{"name": "i", "x": 1}]}),
    );
    let Err(Error::Conflicts(conflicts)) = try_apply(Some(&edited), "one", &json!({"a": 1}), false)
    else {
        unreachable!("the edit owns the field");
    };
    assert_eq!(conflicts.len(), 1);
    assert_eq!(
        conflicts[0].message,
        r#"conflict with "kubectl-edit" using a/v1"#
    );
    assert_eq!(conflicts[0].field, ".spec.a");
}

#[test]
fn force_takes_the_field_from_its_owner() {
    let made = applied(None, "one", &json!({"a": 1, "b": "x"}));
    let forced = try_apply(Some(&made), "two", &json!({"a": 2}), true).unwrap();
    assert_eq!(forced["spec"], json!({"a": 2, "b": "x"}));
    assert_eq!(owned(&forced, "one"), json!({"f:b": {}}));
    assert_eq!(owned(&forced, "two"), json!({"f:a": {}}));
}

#[test]
fn equal_values_are_shared_without_a_conflict() {
    let made = applied(
        None,
        "one",
        &json!({"a": 1, "list": ["x"], "atomicMap": {"k": "v"}}),
    );
    let both = applied(
        Some(&made),
        "two",
        &json!({"a": 1, "list": ["x"], "atomicMap": {"k": "v"}}),
    );
    assert_eq!(owned(&both, "one"), owned(&both, "two"));
    assert!(try_apply(Some(&both), "two", &json!({"list": ["y"]}), false).is_err());
    assert!(try_apply(Some(&both), "two", &json!({"atomicMap": {"k": "w"}}), false).is_err());
}

#[test]
fn an_update_takes_what_it_changes() {
    let made = applied(None, "one", &json!({"a": 1, "map": {"k": "v"}}));
    let edited = updated(
        &made,
        "edit",
        &json!({"a": 2, "map": {"k": "v", "l": "w"}, "struct": {"x": 1}}),
    );
    assert_eq!(owned(&edited, "one"), json!({"f:map": {"f:k": {}}}));
    assert_eq!(
        owned(&edited, "edit"),
        json!({"f:a": {}, "f:map": {"f:l": {}}, "f:struct": {".": {}, "f:x": {}}})
    );
    let removed = updated(&edited, "other", &json!({"map": {"k": "v"}}));
    assert_eq!(owned(&removed, "edit"), Value::Null);
    assert_eq!(owned(&removed, "other"), Value::Null);
}

#[test]
fn an_update_that_changes_nothing_leaves_no_trace() {
    let made = applied(None, "one", &json!({"a": 1}));
    assert_eq!(updated(&made, "edit", &json!({"a": 1})), made);
}

#[test]
fn an_update_may_come_without_managed_fields_and_may_forget_them() {
    let made = applied(None, "one", &json!({"a": 1}));
    let mut new = object(&json!({"a": 1, "b": "x"}));
    track_update(&writer(&CUSTOM, "edit"), Some(&made), &mut new);
    assert_eq!(owned(&new, "one"), json!({"f:a": {}}));
    assert_eq!(owned(&new, "edit"), json!({"f:b": {}}));
    new["metadata"]["managedFields"] = json!([{}]);
    let live = new.clone();
    track_update(&writer(&CUSTOM, "edit"), Some(&live), &mut new);
    assert_eq!(new["metadata"].get("managedFields"), None);
}

#[test]
fn the_first_apply_meets_the_owner_of_what_was_there_before() {
    let live = object(&json!({"a": 1}));
    let same = applied(Some(&live), "m", &json!({"a": 1}));
    assert_eq!(
        owned(&same, "before-first-apply"),
        json!({".": {}, "f:a": {}})
    );
    assert_eq!(
        message(try_apply(Some(&live), "m", &json!({"a": 2}), false)),
        r#"Apply failed with 1 conflict: conflict with "before-first-apply" using a/v1: .spec.a"#
    );
}

#[test]
fn the_status_belongs_to_its_subresource() {
    let config = json!({"apiVersion": "a/v1", "kind": "K", "metadata": {"name": "n", "labels": {"l": "1"}},
                        "spec": {"a": 1}, "status": {"ready": true}});
    let main = |manager| writer(&CUSTOM, manager);
    let made = apply(&ApplyRequest {
        writer: main("m"),
        live: None,
        config: &config,
        force: false,
    })
    .unwrap();
    assert_eq!(made.get("status"), None);
    assert_eq!(
        made["metadata"]["managedFields"][0]["fieldsV1"],
        json!({"f:metadata": {"f:labels": {"f:l": {}}}, "f:spec": {"f:a": {}}})
    );
    let below = Writer {
        subresource: Some("status"),
        ..main("m")
    };
    let mut status = config.clone();
    status["metadata"] = json!({"name": "n"});
    status["spec"]["a"] = json!(9);
    let both = apply(&ApplyRequest {
        writer: below,
        live: Some(&made),
        config: &status,
        force: false,
    })
    .unwrap();
    assert_eq!(both["spec"]["a"], 1);
    assert_eq!(both["status"], json!({"ready": true}));
    let entries = both["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(entries.len(), 2);
    let entry = entries
        .iter()
        .find(|entry| entry["subresource"] == "status")
        .unwrap();
    assert_eq!(entry["fieldsV1"], json!({"f:status": {"f:ready": {}}}));
    // Without a subresource of its own the status is a field like others.
    let whole = Writer {
        status_apart: false,
        ..main("m")
    };
    let made = apply(&ApplyRequest {
        writer: whole,
        live: None,
        config: &config,
        force: false,
    })
    .unwrap();
    assert_eq!(made["status"], json!({"ready": true}));
}

#[test]
fn a_conflict_below_a_subresource_says_so() {
    let below = |manager| Writer {
        subresource: Some("status"),
        ..writer(&CUSTOM, manager)
    };
    let config = |ready| json!({"apiVersion": "a/v1", "kind": "K", "metadata": {"name": "n"}, "status": {"ready": ready}});
    let live = applied(None, "m", &json!({"a": 1}));
    let one = ApplyRequest {
        writer: below("one"),
        live: Some(&live),
        config: &config(true),
        force: false,
    };
    let live = apply(&one).unwrap();
    let two = ApplyRequest {
        writer: below("two"),
        live: Some(&live),
        config: &config(false),
        force: false,
    };
    assert_eq!(
        message(apply(&two)),
        r#"Apply failed with 1 conflict: conflict with "one" with subresource "status": .status.ready"#
    );
}

#[test]
fn bookkeeping_is_nobodys() {
    let mut config = object(&json!({"a": 1}));
    config["metadata"]["uid"] = json!("u");
    config["metadata"]["resourceVersion"] = json!("5");
    config["metadata"]["namespace"] = json!("ns");
    config["metadata"]["finalizers"] = json!(["f"]);
    let made = apply(&ApplyRequest {
        writer: writer(&CUSTOM, "m"),
        live: None,
        config: &config,
        force: false,
    })
    .unwrap();
    assert_eq!(
        made["metadata"]["managedFields"][0]["fieldsV1"],
        json!({"f:metadata": {"f:finalizers": {"v:\"f\"": {}}}, "f:spec": {"f:a": {}}})
    );
    assert_eq!(made["metadata"].get("resourceVersion"), None);
}

#[test]
fn metadata_outlives_its_owners() {
    let mut config = object(&json!({}));
    config["metadata"]["labels"] = json!({"l": "1"});
    let made = apply(&ApplyRequest {
        writer: writer(&CUSTOM, "m"),
        live: None,
        config: &config,
        force: false,
    })
    .unwrap();
    let mut live = made;
    live["metadata"]["uid"] = json!("u");
    let after = applied(Some(&live), "m", &json!({"a": 1}));
    assert_eq!(after["metadata"]["uid"], "u");
    assert_eq!(after["metadata"].get("labels"), None);
}

#[test]
fn a_list_is_merged_in_the_order_of_the_apply() {
    let made = applied(
        None,
        "one",
        &json!({"items": [{"name": "a"}, {"name": "b"}, {"name": "d"}]}),
    );
    let both = applied(
        Some(&made),
        "two",
        &json!({"items": [{"name": "d"}, {"name": "c"}, {"name": "a"}]}),
    );
    let names: Vec<&Value> = both["spec"]["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| &item["name"])
        .collect();
    assert_eq!(names, ["d", "b", "c", "a"]);
}

#[test]
fn ports_are_told_apart_by_number_and_protocol() {
    let config = |ports| {
        json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"template": {"spec": {"containers": [{"name": "c", "ports": ports}]}}}})
    };
    let run = |live: Option<&Value>, manager, config: &Value| {
        let writer = Writer {
            api_version: "apps/v1",
            ..writer(deployments(), manager)
        };
        apply(&ApplyRequest {
            writer,
            live,
            config,
            force: false,
        })
    };
    let made = run(None, "one", &config(json!([{"containerPort": 53}]))).unwrap();
    let entry = &made["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:template"]["f:spec"];
    assert_eq!(
        entry["f:containers"]["k:{\"name\":\"c\"}"]["f:ports"],
        json!({"k:{\"containerPort\":53,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}})
    );
    let both = run(
        Some(&made),
        "two",
        &config(json!([{"containerPort": 53, "protocol": "UDP"}])),
    )
    .unwrap();
    let ports = &both["spec"]["template"]["spec"]["containers"][0]["ports"];
    assert_eq!(ports.as_array().unwrap().len(), 2);
}

#[test]
fn an_apply_that_is_none_is_malformed() {
    let twice = json!({"items": [{"name": "i"}, {"name": "i"}]});
    assert_eq!(
        message(try_apply(None, "m", &twice, false)),
        r#".spec.items: duplicate entries for key [name="i"]"#
    );
    let no_key = json!({"items": [{"x": 1}]});
    assert_eq!(
        message(try_apply(None, "m", &no_key, false)),
        r#".spec.items: element 0: associative list with keys has an element that omits all keys ["name"]"#
    );
    let mut config = object(&json!({}));
    config["metadata"]["managedFields"] = json!([]);
    let request = ApplyRequest {
        writer: writer(&CUSTOM, "m"),
        live: None,
        config: &config,
        force: false,
    };
    assert_eq!(
        message(apply(&request)),
        "metadata.managedFields must be nil"
    );
    assert!(message(try_apply(None, "", &json!({}), false)).contains("fieldManager"));
}

#[test]
fn many_updaters_share_one_old_entry() {
    let mut live = object(&json!({"map": {}}));
    for index in 0..20 {
        let manager = format!("m{index:02}");
        let mut new = live.clone();
        new["spec"]["map"][&manager] = json!("x");
        let now = Timestamp::from_second(1_800_000_000 + index).unwrap();
        track_update(
            &Writer {
                now,
                ..writer(&CUSTOM, &manager)
            },
            Some(&live),
            &mut new,
        );
        live = new;
    }
    let managers = Managers::of(&live).unwrap();
    assert_eq!(managers.entries.len(), 10);
    let all = managers.all();
    assert_eq!(all.paths().len(), 20);
    assert_eq!(
        owned(&live, "ancient-changes")["f:map"]
            .as_object()
            .unwrap()
            .len(),
        11
    );
}

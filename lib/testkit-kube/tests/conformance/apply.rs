//! Server-side apply: who owns which field, and what becomes of it.

use serde_json::{Value, json};

use crate::harness::{APPLY, Case, MERGE, case, config_map, deployment, version};

fn data(data: &Value) -> Value {
    let mut object = config_map("a");
    object["data"] = data.clone();
    object
}

fn path(case: &Case) -> String {
    format!("{}/a", case.config_maps())
}

/// Manager, operation and fields of each entry.
fn managers(object: &Value) -> Vec<(&str, &str, &Value)> {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    let entries = entries.iter().map(|entry| {
        assert_eq!(entry["fieldsType"], "FieldsV1");
        let text = |key: &str| entry[key].as_str().unwrap();
        (text("manager"), text("operation"), &entry["fieldsV1"])
    });
    entries.collect()
}

#[tokio::test]
async fn what_is_applied_is_created_and_owned() {
    case(async |case| {
        let answer = case
            .apply(&path(case), "one", "", &data(&json!({ "k": "v" })))
            .await;
        assert_eq!(answer.status, 201);
        let object = answer.ok();
        assert_eq!(object["data"], json!({ "k": "v" }));
        let fields = json!({ "f:data": { "f:k": {} } });
        assert_eq!(managers(&object), [("one", "Apply", &fields)]);
        let entry = &object["metadata"]["managedFields"][0];
        assert_eq!(entry["apiVersion"], "v1");
        assert!(entry["time"].is_string());
    })
    .await;
}

#[tokio::test]
async fn applying_the_same_again_writes_nothing() {
    case(async |case| {
        let applied = data(&json!({ "k": "v" }));
        let first = case.apply(&path(case), "one", "", &applied).await.ok();
        let again = case.apply(&path(case), "one", "", &applied).await;
        assert_eq!(again.status, 200);
        assert_eq!(again.ok(), first);
    })
    .await;
}

#[tokio::test]
async fn a_field_of_another_is_a_conflict_unless_forced() {
    case(async |case| {
        case.apply(&path(case), "one", "", &data(&json!({ "k": "v" }))).await.ok();
        let other = data(&json!({ "k": "w" }));
        let refused = case.apply(&path(case), "two", "", &other).await;
        let message = refused.refused(409, "Conflict");
        let expected = "Apply failed with 1 conflict: conflict with \"one\": .data.k";
        assert_eq!(message, expected);
        let causes = json!([{
            "reason": "FieldManagerConflict", "message": "conflict with \"one\"", "field": ".data.k",
        }]);
        assert_eq!(refused.body["details"]["causes"], causes);
        let forced = case.apply(&path(case), "two", "&force=true", &other).await.ok();
        assert_eq!(forced["data"]["k"], "w");
        let fields = json!({ "f:data": { "f:k": {} } });
        assert_eq!(managers(&forced), [("two", "Apply", &fields)]);
    })
    .await;
}

#[tokio::test]
async fn the_same_value_is_shared() {
    case(async |case| {
        let applied = data(&json!({ "k": "v" }));
        case.apply(&path(case), "one", "", &applied).await.ok();
        let shared = case.apply(&path(case), "two", "", &applied).await.ok();
        assert_eq!(managers(&shared).len(), 2);
        // Whoever lets go leaves it to the other; the last one removes it.
        let none = data(&json!({}));
        let left = case.apply(&path(case), "one", "", &none).await.ok();
        assert_eq!(left["data"], json!({ "k": "v" }));
        let gone = case.apply(&path(case), "two", "", &none).await.ok();
        assert!(
            gone.get("data").is_none_or(|data| data == &json!({})),
            "{gone}"
        );
    })
    .await;
}

#[tokio::test]
async fn what_is_no_longer_applied_is_removed() {
    case(async |case| {
        let both = data(&json!({ "a": "1", "b": "2" }));
        case.apply(&path(case), "one", "", &both).await.ok();
        let merge = json!({ "data": { "c": "3" } });
        case.patch(&format!("{}?fieldManager=other", path(case)), MERGE, &merge)
            .await
            .ok();
        let object = case
            .apply(&path(case), "one", "", &data(&json!({ "a": "1" })))
            .await
            .ok();
        assert_eq!(object["data"], json!({ "a": "1", "c": "3" }));
        let (one, other) = (
            json!({ "f:data": { "f:a": {} } }),
            json!({ "f:data": { "f:c": {} } }),
        );
        let mut entries = managers(&object);
        entries.sort_by_key(|(manager, ..)| *manager);
        assert_eq!(
            entries,
            [("one", "Apply", &one), ("other", "Update", &other)]
        );
    })
    .await;
}

#[tokio::test]
async fn an_update_takes_what_it_changes() {
    case(async |case| {
        case.apply(
            &path(case),
            "one",
            "",
            &data(&json!({ "a": "1", "b": "2" })),
        )
        .await
        .ok();
        let merge = json!({ "data": { "a": "x" } });
        let by = format!("{}?fieldManager=editor", path(case));
        let object = case.patch(&by, MERGE, &merge).await.ok();
        let (one, editor) = (
            json!({ "f:data": { "f:b": {} } }),
            json!({ "f:data": { "f:a": {} } }),
        );
        let mut entries = managers(&object);
        entries.sort_by_key(|(manager, ..)| *manager);
        assert_eq!(
            entries,
            [("editor", "Update", &editor), ("one", "Apply", &one)]
        );
        let back = case
            .apply(
                &path(case),
                "one",
                "",
                &data(&json!({ "a": "1", "b": "2" })),
            )
            .await;
        let message = back.refused(409, "Conflict");
        assert!(message.contains("conflict with \"editor\""), "{message}");
    })
    .await;
}

#[tokio::test]
async fn a_create_is_owned_by_its_manager() {
    case(async |case| {
        let collection = format!("{}?fieldManager=maker", case.config_maps());
        let object = case
            .post(&collection, &data(&json!({ "k": "v" })))
            .await
            .ok();
        let fields = json!({ "f:data": { ".": {}, "f:k": {} } });
        assert_eq!(managers(&object), [("maker", "Update", &fields)]);
    })
    .await;
}

#[tokio::test]
async fn lists_are_owned_by_their_keys() {
    case(async |case| {
        let mut mine = deployment("a");
        let path = format!("{}/a", case.deployments());
        case.apply(&path, "one", "", &mine).await.ok();
        let side = json!([{ "name": "side", "image": "example.com/side:1" }]);
        let theirs = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "a" },
            "spec": { "template": { "spec": { "containers": side } } },
        });
        let object = case.apply(&path, "two", "", &theirs).await.ok();
        let containers = &object["spec"]["template"]["spec"]["containers"];
        assert_eq!(
            (&containers[0]["name"], &containers[1]["name"]),
            (&json!("main"), &json!("side"))
        );
        let two = managers(&object)
            .into_iter()
            .find(|(manager, ..)| *manager == "two");
        let fields = json!({ "f:spec": { "f:template": { "f:spec": { "f:containers": {
            "k:{\"name\":\"side\"}": { ".": {}, "f:image": {}, "f:name": {} },
        }}}}});
        assert_eq!(two.unwrap().2, &fields);
        // The others' containers stay when one changes its own.
        mine["spec"]["template"]["spec"]["containers"][0]["image"] = "example.com/main:2".into();
        let object = case.apply(&path, "one", "", &mine).await.ok();
        let containers = object["spec"]["template"]["spec"]["containers"]
            .as_array()
            .unwrap();
        assert_eq!(containers.len(), 2);
        assert_eq!(containers[0]["image"], "example.com/main:2");
    })
    .await;
}

#[tokio::test]
async fn an_element_without_its_key_is_refused() {
    case(async |case| {
        let mut object = deployment("a");
        object["spec"]["template"]["spec"]["containers"] = json!([{ "image": "x" }]);
        let path = format!("{}/a", case.deployments());
        let answer = case.apply(&path, "one", "", &object).await;
        assert!([400, 422, 500].contains(&answer.status), "{}", answer.body);
        assert!(answer.message().contains("name"), "{}", answer.body);
    })
    .await;
}

#[tokio::test]
async fn a_status_is_applied_on_its_own() {
    case(async |case| {
        case.post(&case.deployments(), &deployment("a")).await.ok();
        let path = format!("{}/a", case.deployments());
        let condition =
            json!({ "type": "Tested", "status": "True", "reason": "R", "message": "m" });
        let status = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "a" },
            "spec": { "replicas": 9 },
            "status": { "conditions": [condition] },
        });
        let object = case
            .apply(&format!("{path}/status"), "reporter", "", &status)
            .await
            .ok();
        assert_eq!(object["spec"]["replicas"], 1);
        assert_eq!(object["status"]["conditions"][0]["type"], "Tested");
        let entries = object["metadata"]["managedFields"].as_array().unwrap();
        let entry = entries
            .iter()
            .find(|entry| entry["manager"] == "reporter")
            .unwrap();
        assert_eq!(entry["subresource"], "status");
        assert_eq!(entry["fieldsV1"].get("f:spec"), None);
        let empty =
            json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "a" } });
        let object = case
            .apply(&format!("{path}/status"), "reporter", "", &empty)
            .await
            .ok();
        assert!(
            object["status"].get("conditions").is_none(),
            "{}",
            object["status"]
        );
    })
    .await;
}

#[tokio::test]
async fn an_apply_must_say_who_and_what() {
    case(async |case| {
        let object = data(&json!({}));
        let nobody = case.patch(&path(case), APPLY, &object).await;
        assert!([400, 422].contains(&nobody.status), "{}", nobody.body);
        assert!(
            nobody.message().contains("fieldManager"),
            "{}",
            nobody.message()
        );
        let mut managed = object.clone();
        managed["metadata"]["managedFields"] = json!([{ "manager": "x" }]);
        let answer = case.apply(&path(case), "one", "", &managed).await;
        let message = answer.refused(400, "BadRequest");
        assert!(
            message.contains("metadata.managedFields must be nil"),
            "{message}"
        );
        let kindless = json!({ "metadata": { "name": "a" } });
        let answer = case.apply(&path(case), "one", "", &kindless).await;
        assert_eq!(answer.status, 400, "{}", answer.body);
        let unknown = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" }, "daat": {},
        });
        let answer = case.apply(&path(case), "one", "", &unknown).await;
        assert!([400, 500].contains(&answer.status), "{}", answer.body);
        assert!(answer.message().contains("daat"), "{}", answer.message());
        let force = format!("{}?force=true", path(case));
        case.post(&case.config_maps(), &object).await.ok();
        let answer = case.patch(&force, MERGE, &json!({ "data": {} })).await;
        answer.refused(422, "Invalid");
    })
    .await;
}

#[tokio::test]
async fn an_apply_may_name_the_version_that_it_changes() {
    case(async |case| {
        let first = case
            .apply(&path(case), "one", "", &data(&json!({ "k": "1" })))
            .await
            .ok();
        let mut second = data(&json!({ "k": "2" }));
        second["metadata"]["resourceVersion"] = version(&first).into();
        case.apply(&path(case), "one", "", &second).await.ok();
        second["data"]["k"] = "3".into();
        case.apply(&path(case), "one", "", &second)
            .await
            .refused(409, "Conflict");
    })
    .await;
}

#[tokio::test]
async fn a_dry_run_of_an_apply_stores_nothing() {
    case(async |case| {
        let answer = case
            .apply(&path(case), "one", "&dryRun=All", &data(&json!({})))
            .await;
        assert_eq!(answer.status, 201);
        case.get(&path(case)).await.refused(404, "NotFound");
    })
    .await;
}

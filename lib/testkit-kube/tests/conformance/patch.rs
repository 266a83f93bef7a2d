//! The patches that are not server-side apply.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{
    Case, JSON_PATCH, MERGE, STRATEGIC, case, config_map, deployment, pod, version,
};

async fn seed(case: &Case) -> String {
    let mut object = config_map("a");
    object["data"] = json!({ "one": "1", "two": "2" });
    case.post(&case.config_maps(), &object).await.ok();
    format!("{}/a", case.config_maps())
}

#[tokio::test]
async fn a_merge_patch_sets_and_removes() {
    case(async |case| {
        let path = seed(case).await;
        let patch = json!({ "data": { "one": null, "three": "3" } });
        let patched = case.patch(&path, MERGE, &patch).await.ok();
        assert_eq!(patched["data"], json!({ "two": "2", "three": "3" }));
    })
    .await;
}

#[tokio::test]
async fn a_json_patch_is_all_or_nothing() {
    case(async |case| {
        let path = seed(case).await;
        let patch = json!([
            { "op": "test", "path": "/data/one", "value": "1" },
            { "op": "add", "path": "/data/three", "value": "3" },
            { "op": "remove", "path": "/data/one" },
            { "op": "replace", "path": "/data/two", "value": "zwei" },
        ]);
        let patched = case.patch(&path, JSON_PATCH, &patch).await.ok();
        assert_eq!(patched["data"], json!({ "two": "zwei", "three": "3" }));
        let patch = json!([
            { "op": "add", "path": "/data/four", "value": "4" },
            { "op": "test", "path": "/data/two", "value": "2" },
        ]);
        let refused = case.patch(&path, JSON_PATCH, &patch).await;
        refused.refused(422, "Invalid");
        assert_eq!(case.get(&path).await.ok(), patched);
        let missing = json!([{ "op": "remove", "path": "/data/none" }]);
        case.patch(&path, JSON_PATCH, &missing)
            .await
            .refused(422, "Invalid");
    })
    .await;
}

#[tokio::test]
async fn a_broken_patch_is_refused() {
    case(async |case| {
        let path = seed(case).await;
        for (kind, body) in [
            (JSON_PATCH, "{}"),
            (JSON_PATCH, "["),
            (MERGE, "[]"),
            (MERGE, "{"),
            (STRATEGIC, "{"),
        ] {
            let answer = case.send(Method::PATCH, &path, kind, body.into()).await;
            assert_eq!(answer.status, 400, "{kind} {body}: {}", answer.body);
        }
        let unknown = case
            .send(Method::PATCH, &path, "application/json", b"{}".to_vec())
            .await;
        unknown.refused(415, "UnsupportedMediaType");
    })
    .await;
}

#[tokio::test]
async fn a_patch_may_name_the_version_that_it_changes() {
    case(async |case| {
        let path = seed(case).await;
        let before = case.get(&path).await.ok();
        let patch = |to: &str| {
            json!({ "metadata": { "resourceVersion": version(&before) }, "data": { "one": to } })
        };
        case.patch(&path, MERGE, &patch("x")).await.ok();
        case.patch(&path, MERGE, &patch("y")).await.refused(409, "Conflict");
    })
    .await;
}

#[tokio::test]
async fn a_strategic_patch_merges_lists_by_their_keys() {
    case(async |case| {
        case.post(&case.deployments(), &deployment("a")).await.ok();
        let path = format!("{}/a", case.deployments());
        let containers = |patch: Value| json!({ "spec": { "template": { "spec": { "containers": patch } } } });
        let patch = containers(json!([
            { "name": "main", "env": [{ "name": "A", "value": "1" }, { "name": "B", "value": "2" }] },
            { "name": "side", "image": "example.com/side:1" },
        ]));
        let patched = case.patch(&path, STRATEGIC, &patch).await.ok();
        let of = |object: &Value, pointer: &str| {
            let whole = format!("/spec/template/spec/containers{pointer}");
            object.pointer(&whole).cloned().unwrap_or_default()
        };
        assert_eq!(of(&patched, "/0/image"), "example.com/main:1");
        assert_eq!(of(&patched, "/0/env/1"), json!({ "name": "B", "value": "2" }));
        assert_eq!(of(&patched, "/1/name"), "side");
        let patch = containers(json!([
            { "name": "main", "env": [{ "name": "A", "$patch": "delete" }] },
            { "name": "side", "$patch": "delete" },
        ]));
        let patched = case.patch(&path, STRATEGIC, &patch).await.ok();
        assert_eq!(of(&patched, "/0/env"), json!([{ "name": "B", "value": "2" }]));
        assert_eq!(of(&patched, "/1"), Value::Null);
    })
    .await;
}

#[tokio::test]
async fn a_strategic_patch_replaces_where_it_says_so() {
    case(async |case| {
        let path = seed(case).await;
        let patch = json!({ "data": { "$patch": "replace", "only": "this" } });
        let patched = case.patch(&path, STRATEGIC, &patch).await.ok();
        assert_eq!(patched["data"], json!({ "only": "this" }));
        let mut finalized = config_map("f");
        finalized["metadata"]["finalizers"] = json!(["example.com/a"]);
        case.post(&case.config_maps(), &finalized).await.ok();
        let path = format!("{}/f", case.config_maps());
        let patch = json!({ "metadata": { "finalizers": ["example.com/b"] } });
        let patched = case.patch(&path, STRATEGIC, &patch).await.ok();
        let mut finalizers: Vec<_> = patched["metadata"]["finalizers"]
            .as_array()
            .unwrap()
            .clone();
        finalizers.sort_by_key(ToString::to_string);
        assert_eq!(finalizers, ["example.com/a", "example.com/b"]);
        let patch = json!({ "metadata": {
            "$deleteFromPrimitiveList/finalizers": ["example.com/a", "example.com/b"],
        }});
        let patched = case.patch(&path, STRATEGIC, &patch).await.ok();
        assert_eq!(patched["metadata"].get("finalizers"), None);
    })
    .await;
}

#[tokio::test]
async fn a_patch_ends_in_a_valid_object() {
    case(async |case| {
        case.post(&case.pods(), &pod("a")).await.ok();
        let path = format!("{}/a", case.pods());
        let patch = json!({ "spec": { "containers": [] } });
        let answer = case.patch(&path, MERGE, &patch).await;
        answer.refused(422, "Invalid");
        let patch = json!({ "metadata": { "name": "b" } });
        let answer = case.patch(&path, MERGE, &patch).await;
        assert_eq!(answer.status, 400, "{}", answer.body);
        let patch = json!({ "spec": { "nodeName": 5 } });
        let answer = case.patch(&path, MERGE, &patch).await;
        assert!([400, 422].contains(&answer.status), "{}", answer.body);
    })
    .await;
}

//! Watches: what is told, in which order, and from where.

use serde_json::{Value, json};

use crate::harness::{Case, MERGE, TABLE, case, config_map, pod, uid, version};

async fn create(case: &Case, name: &str, labels: &Value) -> Value {
    let mut object = config_map(name);
    object["metadata"]["labels"] = labels.clone();
    case.post(&case.config_maps(), &object).await.ok()
}

async fn label(case: &Case, name: &str, labels: &Value) -> Value {
    let path = format!("{}/{name}", case.config_maps());
    let patch = json!({ "metadata": { "labels": labels } });
    case.patch(&path, MERGE, &patch).await.ok()
}

async fn now(case: &Case) -> String {
    let list = case.get(&case.config_maps()).await.ok();
    format!("&resourceVersion={}", version(&list))
}

#[tokio::test]
async fn changes_are_told_in_their_order() {
    case(async |case| {
        let from = now(case).await;
        let added = create(case, "a", &json!({})).await;
        let modified = label(case, "a", &json!({ "x": "y" })).await;
        case.delete(&format!("{}/a", case.config_maps())).await.ok();
        let mut watch = case.watch(&case.config_maps(), &from).await;
        assert_eq!(watch.expect("ADDED", "a").await, added);
        assert_eq!(watch.expect("MODIFIED", "a").await, modified);
        let deleted = watch.expect("DELETED", "a").await;
        assert_eq!(uid(&deleted), uid(&added));
        assert_eq!(deleted["metadata"]["labels"], json!({ "x": "y" }));
        let versions = [&added, &modified, &deleted].map(|o| version(o).parse::<u64>().unwrap());
        assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
    })
    .await;
}

#[tokio::test]
async fn a_watch_from_the_middle_tells_what_came_after() {
    case(async |case| {
        let first = create(case, "a", &json!({})).await;
        create(case, "b", &json!({})).await;
        let from = format!("&resourceVersion={}", version(&first));
        let mut watch = case.watch(&case.config_maps(), &from).await;
        watch.expect("ADDED", "b").await;
    })
    .await;
}

#[tokio::test]
async fn a_watch_from_nowhere_starts_with_what_there_is() {
    case(async |case| {
        create(case, "a", &json!({ "w": "x" })).await;
        create(case, "b", &json!({ "w": "x" })).await;
        for query in ["&labelSelector=w", "&labelSelector=w&resourceVersion=0"] {
            let mut watch = case.watch(&case.config_maps(), query).await;
            let mut seen = Vec::new();
            for _ in 0..2 {
                let event = watch.next().await.unwrap();
                assert_eq!(event["type"], "ADDED");
                seen.push(
                    event["object"]["metadata"]["name"]
                        .as_str()
                        .unwrap()
                        .to_owned(),
                );
            }
            seen.sort();
            assert_eq!(seen, ["a", "b"]);
        }
    })
    .await;
}

#[tokio::test]
async fn objects_come_into_a_selection_and_leave_it() {
    case(async |case| {
        let query = format!("{}&labelSelector=w%3Dx", now(case).await);
        let mut watch = case.watch(&case.config_maps(), &query).await;
        create(case, "a", &json!({})).await;
        label(case, "a", &json!({ "w": "x" })).await;
        watch.expect("ADDED", "a").await;
        label(case, "a", &json!({ "more": "1" })).await;
        watch.expect("MODIFIED", "a").await;
        let left = label(case, "a", &json!({ "w": "y" })).await;
        let deleted = watch.expect("DELETED", "a").await;
        // The last state that was selected, at the moment when it ceased to be.
        assert_eq!(deleted["metadata"]["labels"]["w"], "x");
        assert_eq!(version(&deleted), version(&left));
        case.delete(&format!("{}/a", case.config_maps())).await.ok();
        create(case, "b", &json!({ "w": "x" })).await;
        watch.expect("ADDED", "b").await;
    })
    .await;
}

#[tokio::test]
async fn fields_select_events_too() {
    case(async |case| {
        let query = format!("{}&fieldSelector=metadata.name%3Db", now(case).await);
        let mut watch = case.watch(&case.config_maps(), &query).await;
        create(case, "a", &json!({})).await;
        create(case, "b", &json!({})).await;
        watch.expect("ADDED", "b").await;
        let list = case.get(&case.pods()).await.ok();
        let query = format!(
            "&resourceVersion={}&fieldSelector=spec.nodeName%3Dn",
            version(&list)
        );
        let mut watch = case.watch(&case.pods(), &query).await;
        case.post(&case.pods(), &pod("nowhere")).await.ok();
        let mut on_node = pod("on-node");
        on_node["spec"]["nodeName"] = "n".into();
        case.post(&case.pods(), &on_node).await.ok();
        watch.expect("ADDED", "on-node").await;
    })
    .await;
}

#[tokio::test]
async fn one_watch_sees_all_namespaces() {
    case(async |case| {
        let list = case.get("/api/v1/configmaps?limit=1").await.ok();
        let label = format!("of-{}", case.namespace);
        let query = format!("&labelSelector={label}&resourceVersion={}", version(&list));
        let mut watch = case.watch("/api/v1/configmaps", &query).await;
        create(case, "a", &json!({ label: "x" })).await;
        let object = watch.expect("ADDED", "a").await;
        assert_eq!(object["metadata"]["namespace"], case.namespace.as_str());
    })
    .await;
}

#[tokio::test]
async fn a_streaming_list_ends_with_a_bookmark() {
    case(async |case| {
        create(case, "a", &json!({ "w": "x" })).await;
        let query = "&labelSelector=w&sendInitialEvents=true&allowWatchBookmarks=true\
                     &resourceVersionMatch=NotOlderThan";
        let path = format!("{}?watch=true&timeoutSeconds=1{query}", case.config_maps());
        if case
            .get(&path)
            .await
            .message()
            .contains("unless the WatchList feature gate is enabled")
        {
            return;
        }
        let mut watch = case.watch(&case.config_maps(), query).await;
        watch.expect("ADDED", "a").await;
        let bookmark = watch.expect("BOOKMARK", "").await;
        assert_eq!(
            (&bookmark["kind"], &bookmark["apiVersion"]),
            (&json!("ConfigMap"), &json!("v1"))
        );
        assert_eq!(
            bookmark["metadata"]["annotations"]["k8s.io/initial-events-end"],
            "true"
        );
        assert!(version(&bookmark).parse::<u64>().unwrap() > 0);
        create(case, "b", &json!({ "w": "x" })).await;
        watch.expect("ADDED", "b").await;
    })
    .await;
}

#[tokio::test]
async fn a_streaming_list_says_how_old_it_may_be() {
    case(async |case| {
        let path = format!("{}?watch=true&sendInitialEvents=true", case.config_maps());
        let answer = case.get(&path).await;
        let message = answer.refused(422, "Invalid");
        assert!(
            message.contains("sendInitialEvents requires setting resourceVersionMatch"),
            "{message}"
        );
        let path = format!(
            "{}?watch=true&resourceVersionMatch=NotOlderThan",
            case.config_maps()
        );
        let answer = case.get(&path).await;
        let message = answer.refused(422, "Invalid");
        assert!(
            message.contains("resourceVersionMatch is forbidden for watch"),
            "{message}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_moment_that_is_forgotten_is_gone() {
    case(async |case| {
        create(case, "a", &json!({})).await;
        if let Some(server) = &case.embedded {
            server.compact();
        }
        let mut watch = case.watch(&case.config_maps(), "&resourceVersion=1").await;
        let event = watch.next().await.unwrap();
        assert_eq!(event["type"], "ERROR");
        let status = &event["object"];
        assert_eq!(
            (&status["kind"], &status["code"]),
            (&json!("Status"), &json!(410))
        );
        assert_eq!(status["reason"], "Expired");
        let message = status["message"].as_str().unwrap();
        assert!(
            message.starts_with("too old resource version: 1 ("),
            "{message}"
        );
        assert_eq!(watch.next().await, None);
    })
    .await;
}

#[tokio::test]
async fn a_watch_ends_when_it_should() {
    case(async |case| {
        let query = format!("{}&timeoutSeconds=1", now(case).await);
        let mut watch = case.watch(&case.config_maps(), &query).await;
        assert_eq!(watch.next().await, None);
    })
    .await;
}

#[tokio::test]
async fn a_watched_table_names_its_columns_once() {
    case(async |case| {
        let caller = case.sending(http::header::ACCEPT, TABLE);
        let from = now(case).await;
        let mut watch = caller.watch(&case.config_maps(), &from).await;
        create(case, "a", &json!({})).await;
        create(case, "b", &json!({})).await;
        let first = watch.next().await.unwrap();
        assert_eq!(
            (&first["type"], &first["object"]["kind"]),
            (&json!("ADDED"), &json!("Table"))
        );
        assert_eq!(first["object"]["columnDefinitions"][0]["name"], "Name");
        assert_eq!(first["object"]["rows"][0]["cells"][0], "a");
        let second = watch.next().await.unwrap();
        assert_eq!(second["object"]["columnDefinitions"], Value::Null);
        assert_eq!(second["object"]["rows"][0]["cells"][0], "b");
    })
    .await;
}

#[tokio::test]
async fn a_bookmark_comes_to_those_who_ask_only() {
    case(async |case| {
        create(case, "a", &json!({})).await;
        let query = format!(
            "{}&allowWatchBookmarks=true&timeoutSeconds=2",
            now(case).await
        );
        let mut watch = case.watch(&case.config_maps(), &query).await;
        // Before a watch ends of itself, it says how far it got.
        while let Some(event) = watch.next().await {
            assert_eq!(event["type"], "BOOKMARK", "{event}");
            assert_eq!(event["object"]["metadata"].get("name"), None);
        }
        let query = format!("{}&timeoutSeconds=1", now(case).await);
        let mut watch = case.watch(&case.config_maps(), &query).await;
        assert_eq!(watch.next().await, None);
    })
    .await;
}

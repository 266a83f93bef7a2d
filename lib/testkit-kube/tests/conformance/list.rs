//! Lists: selectors, pages and moments.

use serde_json::{Value, json};

use crate::harness::{Case, TABLE, case, config_map, names, pod, version};

async fn seed(case: &Case) {
    for (name, labels) in [
        ("a", json!({ "tier": "web", "env": "prod" })),
        ("b", json!({ "tier": "web", "env": "test" })),
        ("c", json!({ "tier": "db" })),
        ("d", json!({})),
    ] {
        let mut object = config_map(name);
        object["metadata"]["labels"] = labels;
        case.post(&case.config_maps(), &object).await.ok();
    }
}

/// The seeded objects that a query finds. A real cluster has ConfigMaps of its own in every namespace.
async fn found(case: &Case, query: &str) -> Vec<String> {
    let list = case
        .get(&format!("{}?{query}", case.config_maps()))
        .await
        .ok();
    let names = names(&list).into_iter().filter(|name| name.len() == 1);
    names.map(str::to_owned).collect()
}

#[tokio::test]
async fn a_list_has_its_kind_its_version_and_its_order() {
    case(async |case| {
        seed(case).await;
        let list = case.get(&case.config_maps()).await.ok();
        assert_eq!(
            (&list["kind"], &list["apiVersion"]),
            (&json!("ConfigMapList"), &json!("v1"))
        );
        let item = &list["items"][0];
        assert_eq!(item.get("kind"), None, "items do not repeat the kind");
        let list_version: u64 = version(&list).parse().unwrap();
        assert!(list_version >= version(item).parse().unwrap());
        assert_eq!(found(case, "").await, ["a", "b", "c", "d"]);
    })
    .await;
}

#[tokio::test]
async fn labels_select() {
    case(async |case| {
        seed(case).await;
        for (selector, expected) in [
            ("tier=web", vec!["a", "b"]),
            ("tier==web,env=test", vec!["b"]),
            ("tier!=web", vec!["c", "d"]),
            ("tier in (web, db),env", vec!["a", "b"]),
            ("tier notin (web)", vec!["c", "d"]),
            ("!tier", vec!["d"]),
            ("tier", vec!["a", "b", "c"]),
        ] {
            let encoded: String = form(selector);
            let found = found(case, &format!("labelSelector={encoded}")).await;
            assert_eq!(found, expected, "{selector}");
        }
        let wrong = case
            .get(&format!("{}?labelSelector=%28", case.config_maps()))
            .await;
        wrong.refused(400, "BadRequest");
    })
    .await;
}

fn form(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

#[tokio::test]
async fn fields_select_where_the_resource_offers_it() {
    case(async |case| {
        seed(case).await;
        assert_eq!(found(case, "fieldSelector=metadata.name%3Db").await, ["b"]);
        let others = found(case, "fieldSelector=metadata.name%21%3Db").await;
        assert_eq!(others, ["a", "c", "d"]);
        let answer = case
            .get(&format!("{}?fieldSelector=data.a%3Db", case.config_maps()))
            .await;
        let message = answer.refused(400, "BadRequest");
        assert!(
            message.contains("\"data.a\" is not a known field selector: only \"metadata.name\""),
            "{message}"
        );
        let mut on_node = pod("on-node");
        on_node["spec"]["nodeName"] = "node-1".into();
        case.post(&case.pods(), &on_node).await.ok();
        case.post(&case.pods(), &pod("nowhere")).await.ok();
        for (selector, expected) in [
            ("spec.nodeName=node-1", vec!["on-node"]),
            ("spec.nodeName=", vec!["nowhere"]),
            ("status.phase=Pending", vec!["nowhere", "on-node"]),
            ("status.phase!=Pending", vec![]),
        ] {
            let path = format!("{}?fieldSelector={}", case.pods(), form(selector));
            assert_eq!(names(&case.get(&path).await.ok()), expected, "{selector}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_list_may_span_all_namespaces() {
    case(async |case| {
        seed(case).await;
        let path = "/api/v1/configmaps?labelSelector=tier";
        let list = case.get(path).await.ok();
        let items = list["items"].as_array().unwrap().iter();
        let here = items.filter(|item| item["metadata"]["namespace"] == case.namespace.as_str());
        assert_eq!(here.count(), 3);
    })
    .await;
}

#[tokio::test]
async fn pages_show_one_moment() {
    case(async |case| {
        seed(case).await;
        let base = format!("{}?labelSelector=tier&limit=1", case.config_maps());
        let first = case.get(&base).await.ok();
        assert_eq!(names(&first), ["a"]);
        let token = first["metadata"]["continue"].as_str().unwrap();
        // What happens between the pages is not in them.
        case.delete(&format!("{}/b", case.config_maps())).await.ok();
        let mut late = config_map("bb");
        late["metadata"]["labels"] = json!({ "tier": "web" });
        case.post(&case.config_maps(), &late).await.ok();
        let second = case
            .get(&format!("{base}&continue={}", form(token)))
            .await
            .ok();
        assert_eq!(names(&second), ["b"]);
        assert_eq!(version(&first), version(&second));
        let token = second["metadata"]["continue"].as_str().unwrap();
        let last = case
            .get(&format!("{base}&continue={}", form(token)))
            .await
            .ok();
        assert_eq!(names(&last), ["c"]);
        // Whether there is more of a selection is found out by looking.
        if let Some(token) = last["metadata"]["continue"].as_str() {
            let end = case
                .get(&format!("{base}&continue={}", form(token)))
                .await
                .ok();
            assert_eq!(
                (names(&end), end["metadata"].get("continue")),
                (vec![], None)
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_page_counts_what_remains_when_nothing_is_selected() {
    case(async |case| {
        for number in 0..5 {
            case.post(&case.pods(), &pod(&format!("p{number}")))
                .await
                .ok();
        }
        let page = case.get(&format!("{}?limit=2", case.pods())).await.ok();
        assert_eq!(names(&page), ["p0", "p1"]);
        assert_eq!(page["metadata"]["remainingItemCount"], 3);
        let token = page["metadata"]["continue"].as_str().unwrap();
        let rest = case
            .get(&format!("{}?limit=9&continue={}", case.pods(), form(token)))
            .await;
        let rest = rest.ok();
        assert_eq!(names(&rest), ["p2", "p3", "p4"]);
        assert_eq!(rest["metadata"].get("remainingItemCount"), None);
    })
    .await;
}

#[tokio::test]
async fn a_page_token_must_be_one_of_the_servers() {
    case(async |case| {
        let path = format!("{}?limit=1&continue=nonsense", case.config_maps());
        case.get(&path).await.refused(400, "BadRequest");
    })
    .await;
}

/// A real server forgets after minutes, so only the embedded one is made to.
#[tokio::test]
async fn a_page_token_expires_with_its_moment() {
    case(async |case| {
        let Some(server) = &case.embedded else { return };
        seed(case).await;
        let base = format!("{}?labelSelector=tier&limit=1", case.config_maps());
        let first = case.get(&base).await.ok();
        let token = form(first["metadata"]["continue"].as_str().unwrap());
        case.delete(&format!("{}/b", case.config_maps())).await.ok();
        server.compact();
        let expired = case.get(&format!("{base}&continue={token}")).await;
        let message = expired.refused(410, "Expired");
        assert!(
            message.contains("continue parameter is too old"),
            "{message}"
        );
        // The refusal offers to go on with what there is now.
        let token = form(expired.body["metadata"]["continue"].as_str().unwrap());
        let next = case.get(&format!("{base}&continue={token}")).await.ok();
        assert_eq!(names(&next), ["c"]);
    })
    .await;
}

#[tokio::test]
async fn a_list_may_be_asked_for_a_moment() {
    case(async |case| {
        let path = case.config_maps();
        let first = case.post(&path, &config_map("a")).await.ok();
        let then = version(&first);
        case.post(&path, &config_map("b")).await.ok();
        let exact = format!("resourceVersion={then}&resourceVersionMatch=Exact");
        assert_eq!(found(case, &exact).await, ["a"]);
        let newer = format!("resourceVersion={then}&resourceVersionMatch=NotOlderThan");
        assert!(found(case, &newer).await.contains(&"a".to_owned()));
        let cached = case.get(&format!("{path}?resourceVersion=0")).await.ok();
        assert_eq!(cached["kind"], "ConfigMapList");
        let alone = case
            .get(&format!("{path}?resourceVersionMatch=Exact"))
            .await;
        alone.refused(422, "Invalid");
        let wrong = case.get(&format!("{path}?resourceVersion=nonsense")).await;
        assert!(wrong.status == 400 || wrong.status == 422, "{}", wrong.body);
    })
    .await;
}

#[tokio::test]
async fn a_table_has_the_columns_that_people_read() {
    case(async |case| {
        case.post(&case.pods(), &pod("p")).await.ok();
        let caller = case.sending(http::header::ACCEPT, TABLE);
        let table = caller.get(&case.pods()).await.ok();
        assert_eq!(
            (&table["kind"], &table["apiVersion"]),
            (&json!("Table"), &json!("meta.k8s.io/v1"))
        );
        let columns = table["columnDefinitions"].as_array().unwrap();
        let shown: Vec<_> = columns
            .iter()
            .filter(|column| column["priority"] == 0)
            .map(|column| column["name"].as_str().unwrap())
            .collect();
        assert_eq!(shown, ["Name", "Ready", "Status", "Restarts", "Age"]);
        let cells = &table["rows"][0]["cells"];
        assert_eq!(
            (&cells[0], &cells[1], &cells[2]),
            (&json!("p"), &json!("0/1"), &json!("Pending"))
        );
        let object = &table["rows"][0]["object"];
        assert_eq!(object["kind"], "PartialObjectMetadata");
        assert_eq!(object["metadata"]["name"], "p");
        assert_eq!(object.get("spec"), None);
        let whole = caller
            .get(&format!("{}?includeObject=Object", case.pods()))
            .await
            .ok();
        assert_eq!(whole["rows"][0]["object"]["kind"], "Pod");
        let one = caller.get(&format!("{}/p", case.pods())).await.ok();
        assert_eq!(one["rows"].as_array().map(Vec::len), Some(1));
    })
    .await;
}

#[tokio::test]
async fn metadata_may_be_had_alone() {
    case(async |case| {
        case.post(&case.pods(), &pod("p")).await.ok();
        let accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
        let list = case
            .sending(http::header::ACCEPT, accept)
            .get(&case.pods())
            .await
            .ok();
        assert_eq!(list["kind"], "PartialObjectMetadataList");
        assert_eq!(names(&list), ["p"]);
        assert_eq!(list["items"][0].get("spec"), None::<&Value>);
    })
    .await;
}

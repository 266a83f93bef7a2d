//! Lists and their pages.

use std::time::Instant;

use futures::{AsyncBufReadExt as _, StreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api, ResourceExt,
    api::{ListParams, PostParams},
};
use serde_json::json;
use testkit_kube::{server::ApiServer, store::GroupResource};

use super::fixture::{DEADLINE, get, mk_map, send, start};

const PODS: GroupResource = GroupResource::new("", "pods");

fn seed(server: &ApiServer, count: usize) {
    for index in 0..count {
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": format!("p{index:05}"), "namespace": "default", "labels": {"odd": (index % 2).to_string()}},
            "spec": {"containers": [{"name": "c", "image": "i"}], "nodeName": "n"},
            "status": {"phase": "Running", "podIP": "10.0.0.1"},
        });
        server.store().put(&PODS, pod);
    }
}

#[tokio::test]
async fn pages_show_the_moment_of_the_first_one() {
    let (server, client) = start().await;
    seed(&server, 10);
    let pods: Api<Pod> = Api::all(client.clone());
    let mut params = ListParams::default().limit(4);
    let first = pods.list(&params).await.unwrap();
    assert_eq!(first.metadata.remaining_item_count, Some(6));
    for index in 4..8 {
        server
            .store()
            .remove(&PODS, "default", &format!("p{index:05}"));
    }
    params.continue_token = first.metadata.continue_.clone();
    let second = pods.list(&params).await.unwrap();
    assert_eq!(
        second.metadata.resource_version,
        first.metadata.resource_version
    );
    params.continue_token = second.metadata.continue_.clone();
    let third = pods.list(&params).await.unwrap();
    assert_eq!(third.metadata.continue_, None);
    let names = [first.items, second.items, third.items].concat();
    let names: Vec<String> = names.iter().map(ResourceExt::name_any).collect();
    assert_eq!(
        names,
        (0..10)
            .map(|index| format!("p{index:05}"))
            .collect::<Vec<_>>()
    );

    server.compact();
    params.continue_token = first.metadata.continue_;
    let kube::Error::Api(expired) = pods.list(&params).await.unwrap_err() else {
        panic!("not an answer of the API");
    };
    assert_eq!((expired.code, &*expired.reason), (410, "Expired"));
}

#[tokio::test]
async fn a_selection_is_paged_too() {
    let (server, client) = start().await;
    seed(&server, 10);
    let pods: Api<Pod> = Api::default_namespaced(client);
    let mut params = ListParams::default().labels("odd=1").limit(2);
    let mut names = Vec::new();
    loop {
        let page = pods.list(&params).await.unwrap();
        assert_eq!(page.metadata.remaining_item_count, None);
        names.extend(page.items.iter().map(ResourceExt::name_any));
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() {
            break;
        }
    }
    assert_eq!(names, ["p00001", "p00003", "p00005", "p00007", "p00009"]);
}

#[tokio::test]
async fn a_list_shows_the_version_that_it_is_asked_for() {
    let (server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    maps.create(&PostParams::default(), &mk_map("a"))
        .await
        .unwrap();
    let then = server.store().resource_version();
    maps.create(&PostParams::default(), &mk_map("b"))
        .await
        .unwrap();

    let path = "/api/v1/namespaces/default/configmaps";
    let count = async |query: String| {
        let (code, list) = get(&client, &format!("{path}?{query}")).await;
        assert_eq!(code, 200, "{query}: {list}");
        list["items"].as_array().unwrap().len()
    };
    assert_eq!(
        count(format!("resourceVersion={then}&resourceVersionMatch=Exact")).await,
        2
    );
    assert_eq!(
        count(format!(
            "resourceVersion={then}&resourceVersionMatch=NotOlderThan"
        ))
        .await,
        3
    );
    assert_eq!(count(format!("resourceVersion={then}")).await, 3);
    assert_eq!(count("resourceVersion=0".to_owned()).await, 3);

    for (query, expected, reason) in [
        ("resourceVersion=999999", 504, "Timeout"),
        ("resourceVersionMatch=Exact", 422, "Invalid"),
        (
            "resourceVersion=0&resourceVersionMatch=Exact",
            422,
            "Invalid",
        ),
        ("continue=nonsense", 400, "BadRequest"),
        ("limit=x", 400, "BadRequest"),
    ] {
        let (code, status) = get(&client, &format!("{path}?{query}")).await;
        assert_eq!(
            (code, &status["reason"]),
            (expected, &json!(reason)),
            "{query}"
        );
    }
}

#[tokio::test]
async fn metadata_comes_alone_when_that_is_asked_for() {
    let (server, client) = start().await;
    seed(&server, 3);
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let list = pods.list_metadata(&ListParams::default()).await.unwrap();
    assert_eq!(list.items.len(), 3);
    let headers = [(
        "accept",
        "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
    )];
    let path = "/api/v1/namespaces/default/pods/p00001";
    let (_, one) = send(&client, http::Method::GET, path, &headers, Vec::new()).await;
    assert_eq!(
        (&one["kind"], one.get("spec")),
        (&json!("PartialObjectMetadata"), None)
    );
}

#[tokio::test]
async fn protobuf_is_refused_so_that_clients_speak_json() {
    let (_server, client) = start().await;
    let path = "/api/v1/namespaces/default/configmaps";
    let protobuf = "application/vnd.kubernetes.protobuf";
    let (code, status) = send(
        &client,
        http::Method::GET,
        path,
        &[("accept", protobuf)],
        Vec::new(),
    )
    .await;
    assert_eq!((code, &status["reason"]), (406, &json!("NotAcceptable")));
    let headers = [("content-type", protobuf)];
    let (code, _) = send(&client, http::Method::POST, path, &headers, b"k8s\0".into()).await;
    assert_eq!(code, 415);
}

/// Thousands of objects are seeded, listed and watched within what a test can wait for.
#[tokio::test]
async fn many_objects_are_quick() {
    const MANY: usize = 5_000;
    let (server, client) = start().await;
    let version = server.store().resource_version();
    let begin = Instant::now();
    seed(&server, MANY);
    let seeded = begin.elapsed();
    let (code, list) = get(&client, "/api/v1/pods").await;
    assert_eq!((code, list["items"].as_array().unwrap().len()), (200, MANY));
    let listed = begin.elapsed();

    let watch = format!("/api/v1/pods?watch=1&resourceVersion={version}");
    let request = http::Request::get(watch).body(Vec::new()).unwrap();
    let events = client.request_stream(request).await.unwrap().lines();
    let watched = tokio::time::timeout(DEADLINE, events.take(MANY).count()).await;
    assert_eq!(watched.unwrap(), MANY);
    let watched = begin.elapsed();
    println!("seeded after {seeded:?}, listed after {listed:?}, watched after {watched:?}");
    assert!(watched < DEADLINE);
}

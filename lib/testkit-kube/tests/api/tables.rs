//! What kubectl asks for: tables, discovery, and the rest of the server's documents.

use http::{Method, Request};
use serde_json::{Value, json};

use super::fixture::{get, post, send, start};

const TABLE: [(&str, &str); 1] = [(
    "accept",
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
)];

#[tokio::test]
async fn a_list_is_shown_as_a_table() {
    let (_server, client) = start().await;
    let (code, table) = send(
        &client,
        Method::GET,
        "/api/v1/namespaces",
        &TABLE,
        Vec::new(),
    )
    .await;
    assert_eq!((code, &table["kind"]), (200, &json!("Table")));
    let names: Vec<&Value> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["name"])
        .collect();
    assert_eq!(names, ["Name", "Status", "Age"]);
    let rows = table["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 4);
    assert_eq!(rows[0]["cells"][0], "default");
    assert_eq!(rows[0]["object"]["metadata"]["name"], "default");
}

#[tokio::test]
async fn an_object_and_a_page_are_shown_as_tables() {
    let (_server, client) = start().await;
    let (_, table) = send(
        &client,
        Method::GET,
        "/api/v1/namespaces/default",
        &TABLE,
        Vec::new(),
    )
    .await;
    assert_eq!(table["rows"][0]["cells"][0], "default");
    let path = "/api/v1/namespaces?limit=1&includeObject=None";
    let (_, page) = send(&client, Method::GET, path, &TABLE, Vec::new()).await;
    assert_eq!(page["rows"].as_array().unwrap().len(), 1);
    assert_eq!(page["rows"][0].get("object"), None);
    assert!(page["metadata"]["continue"].is_string());
}

#[tokio::test]
async fn events_of_a_watch_are_tables_too() {
    use futures::AsyncBufReadExt as _;
    use futures::StreamExt as _;

    let (_server, client) = start().await;
    let mut request = Request::get("/api/v1/namespaces?watch=1")
        .body(Vec::new())
        .unwrap();
    request
        .headers_mut()
        .insert("accept", TABLE[0].1.parse().unwrap());
    let mut lines = client.request_stream(request).await.unwrap().lines();
    let mut next =
        async || -> Value { serde_json::from_str(&lines.next().await.unwrap().unwrap()).unwrap() };
    let first = next().await;
    assert_eq!(first["object"]["rows"][0]["cells"][0], "default");
    assert!(first["object"]["columnDefinitions"].is_array());
    assert!(next().await["object"]["columnDefinitions"].is_null());
}

#[tokio::test]
async fn discovery_is_served_in_pieces_and_in_one() {
    let (_server, client) = start().await;
    let (_, groups) = get(&client, "/apis").await;
    assert_eq!(groups["groups"][0]["name"], "apps");
    let (_, core) = get(&client, "/api/v1").await;
    let resources = core["resources"].as_array().unwrap();
    assert!(resources.iter().any(|it| it["name"] == "pods/log"));
    let (_, apps) = get(&client, "/apis/apps/v1").await;
    let scale = apps["resources"]
        .as_array()
        .unwrap()
        .iter()
        .find(|it| it["name"] == "deployments/scale");
    assert_eq!(scale.unwrap()["group"], "autoscaling");

    let accept = [(
        "accept",
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json",
    )];
    let (_, all) = send(&client, Method::GET, "/apis", &accept, Vec::new()).await;
    assert_eq!(all["kind"], "APIGroupDiscoveryList");
    assert_eq!(
        all["items"].as_array().unwrap().len(),
        groups["groups"].as_array().unwrap().len()
    );
    let (_, core) = send(&client, Method::GET, "/api", &accept, Vec::new()).await;
    assert_eq!(
        core["items"][0]["versions"][0]["resources"][0]["responseKind"]["kind"],
        "ConfigMap"
    );
}

#[tokio::test]
async fn kube_rs_discovers_everything() {
    let (_server, client) = start().await;
    let discovery = kube::Discovery::new(client).run().await.unwrap();
    assert!(discovery.has_group("apps") && discovery.has_group("discovery.k8s.io"));
}

#[tokio::test]
async fn health_and_version_are_told() {
    let (_server, client) = start().await;
    for path in ["/healthz", "/livez", "/readyz"] {
        assert_eq!(get(&client, path).await, (200, json!("ok")));
    }
    assert_eq!(client.apiserver_version().await.unwrap().major, "1");
}

#[tokio::test]
async fn what_is_not_implemented_is_named() {
    let (_server, client) = start().await;
    let certificates = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    for (path, name) in [
        ("/api/v1/persistentvolumes", "persistentvolumes"),
        ("/api/v1/namespaces/default/pods/a/exec", "pods/exec"),
        (certificates, "certificatesigningrequests"),
    ] {
        let (code, status) = get(&client, path).await;
        assert_eq!(
            (code, &status["reason"]),
            (501, &json!("NotImplemented")),
            "{path}"
        );
        let message = status["message"].as_str().unwrap();
        assert!(
            message.ends_with(&format!("does not implement {name}")),
            "{message}"
        );
    }
}

#[tokio::test]
async fn what_is_missing_is_said_clearly() {
    let (_server, client) = start().await;
    for (path, code, reason) in [
        ("/nothing", 404, "NotFound"),
        ("/api/v1/nothing", 404, "NotFound"),
        ("/apis/apps/v2/deployments", 404, "NotFound"),
        ("/api/v1/namespaces/default/nodes", 404, "NotFound"),
        (
            "/apis/authentication.k8s.io/v1/tokenreviews",
            405,
            "MethodNotAllowed",
        ),
    ] {
        let (found, status) = get(&client, path).await;
        assert_eq!((found, &status["reason"]), (code, &json!(reason)), "{path}");
        assert_eq!(status["kind"], "Status", "{path}");
    }
    let (code, _) = post(&client, "/api/v1/pods", json!({})).await;
    assert_eq!(code, 405);
}

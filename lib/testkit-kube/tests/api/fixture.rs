//! What the tests share: a server, clients, and answers that are not objects of a type.

use std::time::Duration;

use http::{Method, Request};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::{Api, Client, api::PostParams};
use serde_json::{Value, json};
use testkit_kube::server::{ApiServer, Options};

/// How long anything may take.
pub(super) const DEADLINE: Duration = Duration::from_secs(20);

pub(super) async fn start() -> (ApiServer, Client) {
    let server = ApiServer::start(Options::default()).await.unwrap();
    let client = server.admin_client().await.unwrap();
    (server, client)
}

pub(super) async fn mk_namespace(client: &Client, name: &str) {
    let namespace = mk::<Namespace>(json!({"metadata": {"name": name}}));
    Api::all(client.clone())
        .create(&PostParams::default(), &namespace)
        .await
        .unwrap();
}

pub(super) fn mk<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

pub(super) fn mk_map(name: &str) -> ConfigMap {
    mk(json!({"metadata": {"name": name}, "data": {"a": "1"}}))
}

/// A request as it is, and the whole answer, also when it is a refusal.
pub(super) async fn ask(
    client: &Client,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> (u16, Value) {
    let content_type = match method {
        Method::PATCH => "application/merge-patch+json",
        _ => "application/json",
    };
    let headers = [("content-type", content_type)];
    let body = body.map_or_else(Vec::new, |body| body.to_string().into_bytes());
    send(client, method, path, &headers, body).await
}

pub(super) async fn get(client: &Client, path: &str) -> (u16, Value) {
    ask(client, Method::GET, path, None).await
}

pub(super) async fn post(client: &Client, path: &str, body: Value) -> (u16, Value) {
    ask(client, Method::POST, path, Some(body)).await
}

pub(super) async fn send(
    client: &Client,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> (u16, Value) {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(kube::client::Body::from(body)).unwrap();
    let response = client.send(request).await.unwrap();
    let code = response.status().as_u16();
    let bytes = response.into_body().collect_bytes().await.unwrap();
    let value = serde_json::from_slice(&bytes)
        .unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into());
    (code, value)
}

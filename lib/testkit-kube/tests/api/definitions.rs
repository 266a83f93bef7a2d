//! Resources that come with a CRD.

use http::Method;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client,
    api::PostParams,
    runtime::{conditions, wait::await_condition},
};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::fixture::{DEADLINE, ask, get, mk, post, send, start};

const WIDGETS: &str = "/apis/example.org/v1/namespaces/default/widgets";
const CRD: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

fn mk_crd() -> Value {
    let schema = json!({"openAPIV3Schema": {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "required": ["size"],
                "properties": {
                    "size": {"type": "integer", "minimum": 1},
                    "color": {"type": "string", "default": "red"},
                },
            },
            "status": {"type": "object", "properties": {"ready": {"type": "boolean"}}},
        },
    }});
    let version = |name: &str, storage: bool| {
        json!({
            "name": name, "served": true, "storage": storage, "schema": schema,
            "subresources": {"status": {}},
            "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
            "selectableFields": [{"jsonPath": ".spec.color"}],
        })
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.org"},
        "spec": {
            "group": "example.org",
            "names": {"kind": "Widget", "plural": "widgets", "shortNames": ["wd"]},
            "scope": "Namespaced",
            "versions": [version("v1", true), version("v1beta1", false)],
        },
    })
}

async fn define(client: &Client) {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    crds.create(&PostParams::default(), &mk(mk_crd()))
        .await
        .unwrap();
    let established = await_condition(
        crds,
        "widgets.example.org",
        conditions::is_crd_established(),
    );
    timeout(DEADLINE, established).await.unwrap().unwrap();
}

fn mk_widget(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "example.org/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn a_crd_serves_its_resource() {
    let (_server, client) = start().await;
    assert_eq!(get(&client, WIDGETS).await.0, 404);
    define(&client).await;
    let (code, widget) = post(&client, WIDGETS, mk_widget("a", &json!({"size": 1}))).await;
    assert_eq!((code, &widget["spec"]["color"]), (201, &json!("red")));
    assert_eq!(widget["metadata"]["generation"], 1);

    let (code, status) = post(&client, WIDGETS, mk_widget("b", &json!({"size": 0}))).await;
    assert_eq!(
        (code, &status["details"]["causes"][0]["field"]),
        (422, &json!("spec.size"))
    );
    let (_, pruned) = post(
        &client,
        WIDGETS,
        mk_widget("c", &json!({"size": 1, "other": 2})),
    )
    .await;
    assert_eq!(pruned["spec"].get("other"), None);

    let (code, list) = get(
        &client,
        &format!("{WIDGETS}?fieldSelector=spec.color%3Dred"),
    )
    .await;
    assert_eq!((code, list["items"].as_array().unwrap().len()), (200, 2));
    let (_, found) = get(&client, "/apis/example.org").await;
    assert_eq!(found["preferredVersion"]["version"], "v1");
    let (_, found) = get(&client, "/apis/example.org/v1").await;
    assert_eq!(found["resources"][0]["shortNames"], json!(["wd"]));
    assert_eq!(found["resources"][1]["name"], "widgets/status");
}

#[tokio::test]
async fn status_is_written_apart_and_does_not_count() {
    let (_server, client) = start().await;
    define(&client).await;
    post(&client, WIDGETS, mk_widget("a", &json!({"size": 1}))).await;
    let both = json!({"spec": {"size": 2}, "status": {"ready": true}});
    let path = format!("{WIDGETS}/a/status");
    let (_, widget) = ask(&client, Method::PATCH, &path, Some(both.clone())).await;
    assert_eq!(
        (&widget["spec"]["size"], &widget["status"]["ready"]),
        (&json!(1), &json!(true))
    );
    assert_eq!(widget["metadata"]["generation"], 1);
    let path = format!("{WIDGETS}/a");
    let (_, widget) = ask(
        &client,
        Method::PATCH,
        &path,
        Some(json!({"spec": {"size": 2}, "status": {"ready": false}})),
    )
    .await;
    assert_eq!(
        (&widget["spec"]["size"], &widget["status"]["ready"]),
        (&json!(2), &json!(true))
    );
    assert_eq!(widget["metadata"]["generation"], 2);
}

#[tokio::test]
async fn versions_show_the_same_objects() {
    let (_server, client) = start().await;
    define(&client).await;
    post(&client, WIDGETS, mk_widget("a", &json!({"size": 1}))).await;
    let (_, list) = get(&client, "/apis/example.org/v1beta1/widgets").await;
    assert_eq!(list["apiVersion"], "example.org/v1beta1");
    assert_eq!(list["items"][0]["apiVersion"], "example.org/v1beta1");
}

#[tokio::test]
async fn an_update_must_name_the_version_that_it_replaces() {
    let (_server, client) = start().await;
    define(&client).await;
    post(&client, WIDGETS, mk_widget("a", &json!({"size": 1}))).await;
    let path = format!("{WIDGETS}/a");
    let (code, status) = ask(
        &client,
        Method::PUT,
        &path,
        Some(mk_widget("a", &json!({"size": 2}))),
    )
    .await;
    assert_eq!(
        (code, &status["details"]["causes"][0]["field"]),
        (422, &json!("metadata.resourceVersion"))
    );
    let headers = [("content-type", "application/strategic-merge-patch+json")];
    let (code, _) = send(&client, Method::PATCH, &path, &headers, b"{}".into()).await;
    assert_eq!(code, 415);
}

#[tokio::test]
async fn a_crd_takes_its_objects_along() {
    let (_server, client) = start().await;
    define(&client).await;
    post(&client, WIDGETS, mk_widget("a", &json!({"size": 1}))).await;
    let held = json!({"metadata": {"finalizers": ["example.org/hold"]}});
    ask(&client, Method::PATCH, &format!("{WIDGETS}/a"), Some(held)).await;
    let path = format!("{CRD}/widgets.example.org");
    ask(&client, Method::DELETE, &path, None).await;
    let (code, waiting) = get(&client, &path).await;
    assert_eq!(code, 200);
    assert!(waiting["metadata"]["deletionTimestamp"].is_string());
    let free = json!({"metadata": {"finalizers": null}});
    ask(&client, Method::PATCH, &format!("{WIDGETS}/a"), Some(free)).await;
    assert_eq!(get(&client, &path).await.0, 404);
    assert_eq!(get(&client, WIDGETS).await.0, 404);
}

#[tokio::test]
async fn a_bad_crd_is_refused() {
    let (_server, client) = start().await;
    let refused = async |change: fn(&mut Value), field: &str| {
        let mut crd = mk_crd();
        change(&mut crd);
        let (code, status) = post(&client, CRD, crd).await;
        assert_eq!(
            (code, &status["details"]["causes"][0]["field"]),
            (422, &json!(field)),
            "{status}"
        );
    };
    refused(
        |crd| crd["metadata"]["name"] = "other.example.org".into(),
        "metadata.name",
    )
    .await;
    refused(
        |crd| crd["spec"]["versions"][1]["storage"] = true.into(),
        "spec.versions",
    )
    .await;
    refused(
        |crd| crd["spec"]["conversion"] = json!({"strategy": "Webhook"}),
        "spec.conversion.strategy",
    )
    .await;
}

#[tokio::test]
async fn a_name_that_is_taken_is_not_accepted() {
    let (_server, client) = start().await;
    define(&client).await;
    let mut other = mk_crd();
    other["metadata"]["name"] = "gadgets.example.org".into();
    other["spec"]["names"]["plural"] = "gadgets".into();
    let (_, created) = post(&client, CRD, other).await;
    let name = created["metadata"]["name"].as_str().unwrap();
    let (_, crd) = get(&client, &format!("{CRD}/{name}")).await;
    assert_eq!(crd["status"]["conditions"][0]["status"], "False");
    assert_eq!(get(&client, "/apis/example.org/v1/gadgets").await.0, 404);
}

#[tokio::test]
async fn crds_are_installed_and_replaced_by_the_handle() {
    let (server, client) = start().await;
    server.install_crds(vec![mk(mk_crd())]).unwrap();
    let mut changed = mk_crd();
    changed["spec"]["names"]["shortNames"] = json!(["wi"]);
    server.install_crds(vec![mk(changed)]).unwrap();
    let (_, found) = get(&client, "/apis/example.org/v1").await;
    assert_eq!(found["resources"][0]["shortNames"], json!(["wi"]));
}

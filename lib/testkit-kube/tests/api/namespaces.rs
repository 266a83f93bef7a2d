//! Namespaces from their first moment to their last.

use http::Method;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::{
    Api,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::json;

use super::fixture::{ask, get, mk_map, mk_namespace, post, start};

#[tokio::test]
async fn the_system_namespaces_are_there() {
    let (_server, client) = start().await;
    let namespaces: Api<Namespace> = Api::all(client);
    let list = namespaces.list(&ListParams::default()).await.unwrap();
    let names: Vec<_> = list
        .items
        .iter()
        .filter_map(|it| it.metadata.name.as_deref())
        .collect();
    assert_eq!(
        names,
        ["default", "kube-node-lease", "kube-public", "kube-system"]
    );
    for protected in ["default", "kube-system", "kube-public"] {
        assert!(
            namespaces
                .delete(protected, &DeleteParams::default())
                .await
                .is_err()
        );
    }
}

#[tokio::test]
async fn a_namespace_comes_with_its_furniture() {
    let (server, client) = start().await;
    mk_namespace(&client, "a").await;
    let namespace = Api::<Namespace>::all(client.clone())
        .get("a")
        .await
        .unwrap();
    assert_eq!(namespace.status.unwrap().phase.as_deref(), Some("Active"));
    assert_eq!(namespace.spec.unwrap().finalizers.unwrap(), ["kubernetes"]);
    assert_eq!(
        namespace.metadata.labels.unwrap()["kubernetes.io/metadata.name"],
        "a"
    );
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "a");
    accounts.get("default").await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(client, "a");
    let root = maps.get("kube-root-ca.crt").await.unwrap();
    assert_eq!(root.data.unwrap()["ca.crt"], server.ca_pem());
    accounts
        .delete("default", &DeleteParams::default())
        .await
        .unwrap();
    accounts.get("default").await.unwrap();
}

#[tokio::test]
async fn nothing_is_created_in_a_namespace_that_is_missing_or_going() {
    let (_server, client) = start().await;
    let missing = "/api/v1/namespaces/a/configmaps";
    let (code, status) = post(&client, missing, json!({"metadata": {"name": "x"}})).await;
    assert_eq!(
        (code, &status["details"]["kind"]),
        (404, &json!("namespaces"))
    );

    mk_namespace(&client, "a").await;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "a");
    let mut held = mk_map("held");
    held.metadata.finalizers = Some(vec!["example.org/hold".to_owned()]);
    maps.create(&PostParams::default(), &held).await.unwrap();
    maps.create(&PostParams::default(), &mk_map("free"))
        .await
        .unwrap();
    let (code, going) = ask(&client, Method::DELETE, "/api/v1/namespaces/a", None).await;
    assert_eq!(
        (code, &going["status"]["phase"]),
        (200, &json!("Terminating"))
    );

    let left = maps.list(&ListParams::default()).await.unwrap();
    assert_eq!(left.items.len(), 1);
    let (code, status) = post(&client, missing, json!({"metadata": {"name": "x"}})).await;
    assert_eq!(code, 403);
    assert_eq!(
        status["details"]["causes"][0]["reason"],
        "NamespaceTerminating"
    );

    let release = json!({"metadata": {"finalizers": null}});
    ask(
        &client,
        Method::PATCH,
        "/api/v1/namespaces/a/configmaps/held",
        Some(release),
    )
    .await;
    assert_eq!(get(&client, "/api/v1/namespaces/a").await.0, 404);
}

#[tokio::test]
async fn an_empty_namespace_goes_at_once_and_its_name_is_free() {
    let (_server, client) = start().await;
    mk_namespace(&client, "a").await;
    let (code, _) = ask(&client, Method::DELETE, "/api/v1/namespaces/a", None).await;
    assert_eq!(code, 200);
    mk_namespace(&client, "a").await;
}

//! Owners and what becomes of their dependents.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, Resource as _,
    api::{DeleteParams, PostParams, PropagationPolicy},
};
use serde_json::json;

use super::fixture::{mk_map, start};

async fn create(client: &Client, name: &str, owners: &[&ConfigMap]) -> ConfigMap {
    let mut map = mk_map(name);
    let references = owners.iter().map(|owner| {
        let mut reference = owner.controller_owner_ref(&()).unwrap();
        reference.controller = None;
        reference.block_owner_deletion = Some(true);
        reference
    });
    map.metadata.owner_references = Some(references.collect());
    maps(client)
        .create(&PostParams::default(), &map)
        .await
        .unwrap()
}

fn maps(client: &Client) -> Api<ConfigMap> {
    Api::default_namespaced(client.clone())
}

async fn exists(client: &Client, name: &str) -> bool {
    maps(client).get_opt(name).await.unwrap().is_some()
}

fn policy(policy: PropagationPolicy) -> DeleteParams {
    DeleteParams {
        propagation_policy: Some(policy),
        ..DeleteParams::default()
    }
}

#[tokio::test]
async fn dependents_go_with_their_last_owner() {
    let (_server, client) = start().await;
    let one = create(&client, "one", &[]).await;
    let other = create(&client, "other", &[]).await;
    let child = create(&client, "child", &[&one, &other]).await;
    create(&client, "grandchild", &[&child]).await;
    maps(&client)
        .delete("one", &DeleteParams::default())
        .await
        .unwrap();
    let left = maps(&client).get("child").await.unwrap();
    assert_eq!(left.metadata.owner_references.unwrap()[0].name, "other");
    maps(&client)
        .delete("other", &DeleteParams::default())
        .await
        .unwrap();
    assert!(!exists(&client, "child").await && !exists(&client, "grandchild").await);
}

#[tokio::test]
async fn orphans_stay_without_their_owner() {
    let (_server, client) = start().await;
    let owner = create(&client, "owner", &[]).await;
    create(&client, "child", &[&owner]).await;
    maps(&client)
        .delete("owner", &policy(PropagationPolicy::Orphan))
        .await
        .unwrap();
    assert!(!exists(&client, "owner").await);
    let child = maps(&client).get("child").await.unwrap();
    assert_eq!(child.metadata.owner_references, None);
}

#[tokio::test]
async fn in_the_foreground_an_owner_waits_for_dependents_that_block_it() {
    let (_server, client) = start().await;
    let owner = create(&client, "owner", &[]).await;
    let mut child = create(&client, "child", &[&owner]).await;
    child.metadata.finalizers = Some(vec!["example.org/hold".to_owned()]);
    let child = maps(&client)
        .replace("child", &PostParams::default(), &child)
        .await
        .unwrap();
    maps(&client)
        .delete("owner", &policy(PropagationPolicy::Foreground))
        .await
        .unwrap();
    let waiting = maps(&client).get("owner").await.unwrap();
    assert_eq!(waiting.metadata.finalizers.unwrap(), ["foregroundDeletion"]);

    let mut child = maps(&client)
        .get(&child.metadata.name.unwrap())
        .await
        .unwrap();
    assert!(child.metadata.deletion_timestamp.is_some());
    child.metadata.finalizers = None;
    maps(&client)
        .replace("child", &PostParams::default(), &child)
        .await
        .unwrap();
    assert!(!exists(&client, "child").await && !exists(&client, "owner").await);
}

#[tokio::test]
async fn an_owner_does_not_wait_for_what_is_not_its_own_any_more() {
    let (_server, client) = start().await;
    let owner = create(&client, "owner", &[]).await;
    let mut child = create(&client, "child", &[&owner]).await;
    child.metadata.finalizers = Some(vec!["example.org/hold".to_owned()]);
    maps(&client)
        .replace("child", &PostParams::default(), &child)
        .await
        .unwrap();
    maps(&client)
        .delete("owner", &policy(PropagationPolicy::Foreground))
        .await
        .unwrap();
    assert!(exists(&client, "owner").await);
    let mut child = maps(&client).get("child").await.unwrap();
    child.metadata.owner_references = None;
    maps(&client)
        .replace("child", &PostParams::default(), &child)
        .await
        .unwrap();
    assert!(!exists(&client, "owner").await && exists(&client, "child").await);
}

#[tokio::test]
async fn an_object_of_an_owner_that_never_was_is_collected() {
    let (_server, client) = start().await;
    let mut stranger = mk_map("stranger");
    stranger.metadata.uid = Some("unknown".to_owned());
    let created = create(&client, "child", &[&stranger]).await;
    assert!(created.metadata.uid.is_some());
    assert!(!exists(&client, "child").await);
}

#[tokio::test]
async fn an_owner_of_an_unknown_kind_is_left_to_those_who_know_it() {
    let (_server, client) = start().await;
    let mut map = mk_map("child");
    map.metadata.owner_references = Some(vec![super::fixture::mk(json!({
        "apiVersion": "example.org/v1", "kind": "Unknown", "name": "x", "uid": "y",
    }))]);
    maps(&client)
        .create(&PostParams::default(), &map)
        .await
        .unwrap();
    assert!(exists(&client, "child").await);
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let (_server, client) = start().await;
    for (name, app) in [("a", "x"), ("b", "y"), ("c", "x")] {
        let mut map = mk_map(name);
        map.metadata.labels = Some([("app".to_owned(), app.to_owned())].into());
        maps(&client)
            .create(&PostParams::default(), &map)
            .await
            .unwrap();
    }
    let selected = kube::api::ListParams::default().labels("app=x");
    maps(&client)
        .delete_collection(&DeleteParams::default(), &selected)
        .await
        .unwrap();
    assert!(
        !exists(&client, "a").await && exists(&client, "b").await && !exists(&client, "c").await
    );
}

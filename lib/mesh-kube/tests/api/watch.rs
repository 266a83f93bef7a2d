//! Watches through everything that a server does to them.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::ConfigMap,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api,
    api::{ApiResource, DeleteParams, PostParams},
};
use mesh_kube::watch::Options;
use serde_json::json;
use testkit_kube::store::GroupResource;

use super::support::{
    MetadataAlone, Widget, config_map, create_config_map, create_widget, options, start, watch_all,
    watch_named, widget_crd,
};

#[tokio::test]
async fn an_index_follows_what_is_made_and_deleted() {
    let (_server, client) = start().await;
    create_config_map(&client, "before").await;
    let mut watched = watch_all::<ConfigMap>(client.clone(), options());
    watched.state(|state| state.synced).await;
    watched.holds(&["before"]).await;
    create_config_map(&client, "after").await;
    watched.holds(&["after", "before"]).await;
    let api = Api::<ConfigMap>::namespaced(client, "default");
    api.delete("before", &DeleteParams::default())
        .await
        .unwrap();
    watched.holds(&["after"]).await;
}

#[tokio::test]
async fn all_pages_of_a_list_arrive_before_it_is_synced() {
    let (_server, client) = start().await;
    for number in 0..12 {
        create_config_map(&client, &format!("n{number:02}")).await;
    }
    let options = Options {
        page: 5,
        ..options()
    };
    let mut watched = watch_all::<ConfigMap>(client, options);
    watched.state(|state| state.synced).await;
    let model = watched.model();
    let ours = model
        .objects
        .iter()
        .filter(|key| key.starts_with("default/n"));
    assert_eq!(ours.count(), 12);
}

#[tokio::test]
async fn a_selector_limits_what_is_told() {
    let (_server, client) = start().await;
    let mut labelled = config_map("labelled");
    labelled.metadata.labels = Some([("in".to_owned(), "yes".to_owned())].into());
    let options = Options {
        labels: Some("in=yes".to_owned()),
        ..options()
    };
    let mut watched = watch_all::<ConfigMap>(client.clone(), options);
    create_config_map(&client, "other").await;
    let api = Api::<ConfigMap>::namespaced(client, "default");
    api.create(&PostParams::default(), &labelled).await.unwrap();
    watched.holds(&["labelled"]).await;
    // It leaves the selection without being deleted.
    labelled.metadata.labels = None;
    api.replace("labelled", &PostParams::default(), &labelled)
        .await
        .unwrap();
    watched.holds(&[]).await;
}

#[tokio::test]
async fn a_server_that_was_away_is_followed_again_without_a_list() {
    let (server, client) = start().await;
    create_config_map(&client, "a").await;
    let mut watched = watch_all::<ConfigMap>(client.clone(), options());
    watched.holds(&["a"]).await;
    server.stop().await;
    watched.state(|state| state.trouble.is_some()).await;
    assert!(watched.state.borrow().synced);
    server.start_again().await.unwrap();
    watched.state(|state| state.trouble.is_none()).await;
    create_config_map(&client, "b").await;
    watched.holds(&["a", "b"]).await;
}

#[tokio::test]
async fn what_is_deleted_during_a_gap_is_gone_after_it() {
    let (server, client) = start().await;
    for name in ["a", "b", "c"] {
        create_config_map(&client, name).await;
    }
    let mut watched = watch_all::<ConfigMap>(client.clone(), options());
    watched.holds(&["a", "b", "c"]).await;
    server.stop().await;
    watched.state(|state| state.trouble.is_some()).await;
    let config_maps = GroupResource::named("", "configmaps");
    server.store().remove(&config_maps, "default", "b").unwrap();
    server.compact();
    server.start_again().await.unwrap();
    watched.holds(&["a", "c"]).await;
}

#[tokio::test]
async fn a_watch_survives_that_its_connection_is_cut() {
    let (server, client) = start().await;
    let mut watched = watch_all::<ConfigMap>(client.clone(), options());
    watched.state(|state| state.synced).await;
    for name in ["a", "b", "c"] {
        server.disconnect_watches();
        create_config_map(&client, name).await;
    }
    watched.holds(&["a", "b", "c"]).await;
}

#[tokio::test]
async fn an_unreadable_object_does_not_hide_the_others() {
    let (server, client) = start().await;
    server.install_crds(vec![widget_crd()]).unwrap();
    create_widget(&client, "a", json!({"size": 1})).await;
    create_widget(&client, "bad", json!({"size": "large"})).await;
    let mut watched = watch_all::<Widget>(client.clone(), options());
    watched.state(|state| state.synced).await;
    create_widget(&client, "worse", json!({})).await;
    create_widget(&client, "b", json!({"size": 2})).await;
    watched.holds(&["a", "b"]).await;
    let model = watched.until(|model| model.invalid.len() == 2).await;
    let reason = &model.invalid["default/bad"];
    assert!(reason.contains("large"), "{reason}");

    // Repaired and deleted like any other.
    let api = Api::<Widget>::namespaced(client.clone(), "default");
    api.delete("worse", &DeleteParams::default()).await.ok();
    api.delete("bad", &DeleteParams::default()).await.ok();
    create_widget(&client, "bad", json!({"size": 3})).await;
    watched.holds(&["a", "b", "bad"]).await;
    watched.until(|model| model.invalid.is_empty()).await;
}

#[tokio::test]
async fn a_kind_that_is_not_there_is_empty_until_it_appears() {
    let (server, client) = start().await;
    let mut watched = watch_all::<Widget>(client.clone(), options());
    let state = watched.state(|state| state.synced).await;
    assert!(state.absent && state.trouble.is_none(), "{state:?}");
    server.install_crds(vec![widget_crd()]).unwrap();
    create_widget(&client, "a", json!({"size": 1})).await;
    watched.holds(&["a"]).await;
    assert!(!watched.state.borrow().absent);
}

#[tokio::test]
async fn the_objects_of_a_kind_that_goes_away_go_with_it() {
    let (server, client) = start().await;
    server.install_crds(vec![widget_crd()]).unwrap();
    create_widget(&client, "a", json!({"size": 1})).await;
    let mut watched = watch_all::<Widget>(client.clone(), options());
    watched.holds(&["a"]).await;
    let crds = Api::<CustomResourceDefinition>::all(client.clone());
    crds.delete("widgets.test.example", &DeleteParams::default())
        .await
        .unwrap();
    watched.holds(&[]).await;
    watched.state(|state| state.absent).await;
    server.install_crds(vec![widget_crd()]).unwrap();
    create_widget(&client, "b", json!({"size": 1})).await;
    watched.holds(&["b"]).await;
}

#[tokio::test]
async fn of_a_collection_of_metadata_nothing_else_is_sent() {
    let (_server, client) = start().await;
    let mut map = config_map("a");
    map.data = Some([("large".to_owned(), "x".repeat(1000))].into());
    let api = Api::<ConfigMap>::namespaced(client.clone(), "default");
    api.create(&PostParams::default(), &map).await.unwrap();
    let mut watched = watch_all::<MetadataAlone>(client.clone(), options());
    watched.holds(&["a"]).await;
    create_config_map(&client, "b").await;
    watched.holds(&["a", "b"]).await;
    assert_eq!(watched.model().invalid, BTreeMap::new());
    api.delete("a", &DeleteParams::default()).await.unwrap();
    watched.holds(&["b"]).await;
}

#[tokio::test]
async fn a_kind_that_is_named_at_run_time_is_watched_like_any_other() {
    let (server, client) = start().await;
    let mut watched = watch_named(client.clone(), &ApiResource::erase::<Widget>(&()));
    watched.state(|state| state.absent).await;
    server.install_crds(vec![widget_crd()]).unwrap();
    create_widget(&client, "a", json!({"size": 1})).await;
    watched.holds(&["a"]).await;
}

//! Server-side apply: written once, conflicts named, statuses withdrawn.

use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::{Api, ResourceExt};
use mesh_kube::{
    apply::{Error, Manager, Owner, apply, apply_over},
    condition::{self, Condition},
    error::{Explained, Fault},
};
use serde_json::{Value, json};

use super::support::{Widget, create_widget, start, widget_crd};

fn mk_wanted(data: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"namespace": "default", "name": "x", "labels": {"ours": "yes"}},
        "data": data,
    })
}

#[tokio::test]
async fn what_is_applied_twice_is_written_once() {
    let (_server, client) = start().await;
    let api = Api::<ConfigMap>::namespaced(client, "default");
    let manager = Manager::owner("us");
    let wanted = mk_wanted(&json!({"a": "1", "b": "2"}));
    let first = apply(&api, &wanted, &manager).await.unwrap();
    let second = apply(&api, &wanted, &manager).await.unwrap();
    assert_eq!((first.changed, second.changed), (true, false));
    assert_eq!(first.object, second.object);
    let known = apply_over(&api, &wanted, &manager, second.object.clone())
        .await
        .unwrap();
    assert_eq!(known, second);

    // A field less, a field more, a field that somebody else has changed.
    let fewer = apply(&api, &mk_wanted(&json!({"a": "1"})), &manager)
        .await
        .unwrap();
    assert!(fewer.changed);
    assert_eq!(fewer.object.data, Some([("a".into(), "1".into())].into()));
    let other = Manager::owner("other");
    apply(&api, &mk_wanted(&json!({"a": "theirs"})), &other)
        .await
        .unwrap();
    let back = apply(&api, &mk_wanted(&json!({"a": "1"})), &manager)
        .await
        .unwrap();
    assert!(back.changed);
    assert_eq!(back.object.data.unwrap()["a"], "1");
}

#[tokio::test]
async fn what_the_server_fills_in_is_not_written_again() {
    let (_server, client) = start().await;
    let api = Api::<Service>::namespaced(client, "default");
    let wanted = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "default", "name": "web"},
        "spec": {
            "selector": {"app": "web"},
            // The protocol, a part of the key, has a default.
            "ports": [{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}],
        },
    });
    let manager = Manager::owner("us");
    let first = apply(&api, &wanted, &manager).await.unwrap();
    let second = apply(&api, &wanted, &manager).await.unwrap();
    assert_eq!((first.changed, second.changed), (true, false));
    assert!(second.object.spec.unwrap().cluster_ip.is_some());
}

#[tokio::test]
async fn a_conflict_names_the_other_manager_and_the_field() {
    let (_server, client) = start().await;
    let api = Api::<ConfigMap>::namespaced(client, "default");
    let theirs = mk_wanted(&json!({"a": "theirs"}));
    apply(&api, &theirs, &Manager::owner("kubectl"))
        .await
        .unwrap();
    let manager = Manager::owner("us").polite();
    let conflict = apply(&api, &mk_wanted(&json!({"a": "ours"})), &manager).await;
    let error = conflict.unwrap_err();
    let Error::Conflict { owners, .. } = &error else {
        panic!("{error:?}");
    };
    let owner = Owner {
        manager: "kubectl".into(),
        field: ".data.a".into(),
    };
    assert_eq!(
        (owners.as_slice(), error.fault()),
        ([owner].as_slice(), Fault::Conflict)
    );
    let text = Explained(&error).to_string();
    let expected =
        "applying ConfigMap default/x as us: a field is owned by others: .data.a by kubectl";
    assert!(text.starts_with(expected), "{text}");
    assert_eq!(api.get("x").await.unwrap().data.unwrap()["a"], "theirs");
}

#[tokio::test]
async fn a_status_is_reported_once_and_withdrawn() {
    let (server, client) = start().await;
    server.install_crds(vec![widget_crd()]).unwrap();
    create_widget(&client, "w", json!({"size": 1})).await;
    let api = Api::<Widget>::namespaced(client, "default");
    let manager = Manager::reporter("reporter");
    let wanted = |conditions: &[Condition]| {
        let mut wanted = json!({
            "apiVersion": "test.example/v1", "kind": "Widget",
            "metadata": {"namespace": "default", "name": "w"},
        });
        wanted["status"] = match conditions {
            [] => json!({}),
            _ => json!({"conditions": conditions}),
        };
        wanted
    };
    let live = apply::<Widget>(&api, &wanted(&[]), &manager).await.unwrap();
    assert!(!live.changed, "nothing to say, nothing written");

    let ready = Condition {
        type_: "Ready".into(),
        status: "True".into(),
        reason: "Fits".into(),
        observed_generation: live.object.metadata.generation,
        ..Condition::default()
    };
    let mut versions = Vec::new();
    for _ in 0..2 {
        let object = api.get("w").await.unwrap();
        let known = object.status.clone().unwrap_or_default().conditions;
        let now = jiff::Timestamp::now();
        let merged = condition::merge(&known, vec![ready.clone()], now);
        let applied = apply_over(&api, &wanted(&merged), &manager, object)
            .await
            .unwrap();
        versions.push((applied.changed, applied.object.resource_version()));
    }
    assert_eq!((versions[0].0, versions[1].0), (true, false));
    assert_eq!(versions[0].1, versions[1].1);
    let conditions = api.get("w").await.unwrap().status.unwrap().conditions;
    assert!(condition::is_true(
        &conditions,
        "Ready",
        live.object.metadata.generation
    ));

    let withdrawn = apply(&api, &wanted(&[]), &manager).await.unwrap();
    assert!(withdrawn.changed);
    assert_eq!(withdrawn.object.status.unwrap_or_default().conditions, []);
}

#[tokio::test]
async fn an_object_without_a_name_is_refused_before_anything_is_sent() {
    let (_server, client) = start().await;
    let api = Api::<ConfigMap>::namespaced(client, "default");
    let nameless = json!({"apiVersion": "v1", "kind": "ConfigMap"});
    let error = apply(&api, &nameless, &Manager::owner("us"))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Form { .. }), "{error:?}");
}

//! One object at a time.

use http::Method;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod, Secret, Service},
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::json;

use super::fixture::{ask, get, mk, mk_map, mk_namespace, post, send, start};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn an_object_is_created_read_replaced_and_deleted() {
    let (_server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let created = maps
        .create(&PostParams::default(), &mk_map("a"))
        .await
        .unwrap();
    assert!(created.uid().is_some() && created.creation_timestamp().is_some());
    assert_eq!(maps.get("a").await.unwrap(), created);

    let mut changed = created.clone();
    changed.data = Some([("a".to_owned(), "2".to_owned())].into());
    let replaced = maps
        .replace("a", &PostParams::default(), &changed)
        .await
        .unwrap();
    assert_ne!(replaced.resource_version(), created.resource_version());
    assert_eq!(replaced.uid(), created.uid());

    let stale = maps
        .replace("a", &PostParams::default(), &created)
        .await
        .unwrap_err();
    assert_eq!(code(&stale), (409, "Conflict".to_owned()));

    let deleted = maps.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(deleted.right().unwrap().is_success());
    assert_eq!(
        code(&maps.get("a").await.unwrap_err()),
        (404, "NotFound".to_owned())
    );
}

fn code(error: &kube::Error) -> (u16, String) {
    match error {
        kube::Error::Api(status) => (status.code, status.reason.clone()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_name_is_taken_once_and_can_be_generated() {
    let (_server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    maps.create(&PostParams::default(), &mk_map("a"))
        .await
        .unwrap();
    let again = maps
        .create(&PostParams::default(), &mk_map("a"))
        .await
        .unwrap_err();
    assert_eq!(code(&again), (409, "AlreadyExists".to_owned()));

    let mut generated = mk_map("");
    generated.metadata.name = None;
    generated.metadata.generate_name = Some("map-".to_owned());
    let one = maps
        .create(&PostParams::default(), &generated)
        .await
        .unwrap();
    let other = maps
        .create(&PostParams::default(), &generated)
        .await
        .unwrap();
    assert!(one.name_any().starts_with("map-") && one.name_any() != other.name_any());
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let (server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let before = server.store().resource_version();
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    maps.create(&dry, &mk_map("a")).await.unwrap();
    assert_eq!(code(&maps.get("a").await.unwrap_err()).0, 404);
    assert_eq!(server.store().resource_version(), before);

    maps.create(&PostParams::default(), &mk_map("a"))
        .await
        .unwrap();
    maps.delete("a", &DeleteParams::default().dry_run())
        .await
        .unwrap();
    maps.get("a").await.unwrap();
}

#[tokio::test]
async fn spec_and_status_are_written_apart() {
    let (_server, client) = start().await;
    let pods: Api<Pod> = Api::default_namespaced(client);
    let pod: Pod = mk(json!({
        "metadata": {"name": "a"},
        "spec": {"containers": [{"name": "c", "image": "i:1"}]},
        "status": {"phase": "Running"},
    }));
    let created = pods.create(&PostParams::default(), &pod).await.unwrap();
    assert_eq!(created.status.unwrap().phase.as_deref(), Some("Pending"));

    let status = json!({"status": {"phase": "Running"}, "spec": {"nodeName": "n"}});
    let params = PatchParams::default();
    let patched = pods
        .patch_status("a", &params, &Patch::Merge(&status))
        .await
        .unwrap();
    assert_eq!(
        patched.status.as_ref().unwrap().phase.as_deref(),
        Some("Running")
    );
    assert_eq!(patched.spec.unwrap().node_name, None);

    let patched = pods
        .patch(
            "a",
            &params,
            &Patch::Merge(json!({"status": {"phase": "Failed"}})),
        )
        .await
        .unwrap();
    assert_eq!(patched.status.unwrap().phase.as_deref(), Some("Running"));
}

#[tokio::test]
async fn the_generation_counts_changes_of_the_spec_alone() {
    let (_server, client) = start().await;
    let deployments: Api<Deployment> = Api::default_namespaced(client);
    let deployment: Deployment = mk(json!({
        "metadata": {"name": "a"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        },
    }));
    let generation = |it: &Deployment| it.metadata.generation;
    let created = deployments
        .create(&PostParams::default(), &deployment)
        .await
        .unwrap();
    assert_eq!(generation(&created), Some(1));
    let params = PatchParams::default();
    let labelled = json!({"metadata": {"labels": {"x": "y"}}});
    let labelled = deployments
        .patch("a", &params, &Patch::Merge(labelled))
        .await
        .unwrap();
    assert_eq!(generation(&labelled), Some(1));
    let status = json!({"status": {"replicas": 1}});
    let status = deployments
        .patch_status("a", &params, &Patch::Merge(status))
        .await
        .unwrap();
    assert_eq!(generation(&status), Some(1));
    let three = Patch::Merge(json!({"spec": {"replicas": 3}}));
    let scaled = deployments.patch_scale("a", &params, &three);
    assert_eq!(scaled.await.unwrap().spec.unwrap().replicas, Some(3));
    assert_eq!(generation(&deployments.get("a").await.unwrap()), Some(2));
}

#[tokio::test]
async fn a_write_that_changes_nothing_writes_nothing() {
    let (server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let created = maps
        .create(&PostParams::default(), &mk_map("a"))
        .await
        .unwrap();
    let before = server.store().resource_version();
    let same = maps
        .replace("a", &PostParams::default(), &created)
        .await
        .unwrap();
    assert_eq!(same.resource_version(), created.resource_version());
    let params = PatchParams::default();
    maps.patch("a", &params, &Patch::Merge(json!({"data": {"a": "1"}})))
        .await
        .unwrap();
    assert_eq!(server.store().resource_version(), before);
}

#[tokio::test]
async fn the_other_patches_are_carried_out() {
    let (_server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    maps.create(&PostParams::default(), &mk_map("a"))
        .await
        .unwrap();
    let path = format!("{MAPS}/a");
    let patch = |content_type: &'static str, body: serde_json::Value| {
        let (client, path) = (client.clone(), path.clone());
        async move {
            let headers = [("content-type", content_type)];
            send(
                &client,
                Method::PATCH,
                &path,
                &headers,
                body.to_string().into(),
            )
            .await
        }
    };
    let json_patch = "application/json-patch+json";
    let (code, map) = patch(
        json_patch,
        json!([{"op": "add", "path": "/data/b", "value": "2"}]),
    )
    .await;
    assert_eq!((code, &map["data"]["b"]), (200, &json!("2")));
    let (code, _) = patch(
        json_patch,
        json!([{"op": "test", "path": "/data/b", "value": "3"}]),
    )
    .await;
    assert_eq!(code, 422);
    let (code, map) = patch(
        "application/strategic-merge-patch+json",
        json!({"data": {"a": null}}),
    )
    .await;
    assert_eq!((code, &map["data"]), (200, &json!({"b": "2"})));
    let (code, _) = patch("application/cbor", json!({})).await;
    assert_eq!(code, 415);
}

#[tokio::test]
async fn an_applied_object_is_created_and_then_changed() {
    let (_server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let mut map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a": "1"}});
    let params = PatchParams::apply("me").force();
    let created = maps.patch("a", &params, &Patch::Apply(&map)).await.unwrap();
    map["data"]["a"] = "2".into();
    let changed = maps.patch("a", &params, &Patch::Apply(&map)).await.unwrap();
    assert_eq!(changed.uid(), created.uid());
    assert_eq!(changed.data.unwrap()["a"], "2");

    let headers = [("content-type", "application/apply-patch+yaml")];
    let (code, status) = send(
        &client,
        Method::PATCH,
        &format!("{MAPS}/b"),
        &headers,
        b"data: {}".into(),
    )
    .await;
    assert_eq!(
        (code, &status["details"]["causes"][0]["field"]),
        (422, &json!("fieldManager"))
    );
}

#[tokio::test]
async fn preconditions_protect_another_object_of_the_same_name() {
    let (_server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let created = maps
        .create(&PostParams::default(), &mk_map("a"))
        .await
        .unwrap();
    let only = |uid: &str| {
        DeleteParams::default().preconditions(Preconditions {
            uid: Some(uid.to_owned()),
            ..Preconditions::default()
        })
    };
    let other = maps.delete("a", &only("other")).await.unwrap_err();
    assert_eq!(code(&other), (409, "Conflict".to_owned()));
    maps.delete("a", &only(&created.uid().unwrap()))
        .await
        .unwrap();
}

#[tokio::test]
async fn finalizers_hold_an_object_until_they_are_removed() {
    let (_server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let mut map = mk_map("a");
    map.metadata.finalizers = Some(vec!["example.org/hold".to_owned()]);
    maps.create(&PostParams::default(), &map).await.unwrap();
    let pending = maps
        .delete("a", &DeleteParams::default())
        .await
        .unwrap()
        .left()
        .unwrap();
    assert!(pending.metadata.deletion_timestamp.is_some());
    let again = maps
        .delete("a", &DeleteParams::default())
        .await
        .unwrap()
        .left()
        .unwrap();
    assert_eq!(again.resource_version(), pending.resource_version());

    let another = json!({"metadata": {"finalizers": ["example.org/hold", "example.org/more"]}});
    let (code, _) = ask(&client, Method::PATCH, &format!("{MAPS}/a"), Some(another)).await;
    assert_eq!(code, 422);
    let none = json!({"metadata": {"finalizers": null}});
    let (code, _) = ask(&client, Method::PATCH, &format!("{MAPS}/a"), Some(none)).await;
    assert_eq!(code, 200);
    assert_eq!(get(&client, &format!("{MAPS}/a")).await.0, 404);
}

#[tokio::test]
async fn a_bad_object_is_refused_with_its_fields() {
    let (_server, client) = start().await;
    let bad = json!({"metadata": {"name": "A_b", "labels": {"a b": "x"}}});
    let (code, status) = post(&client, MAPS, bad).await;
    assert_eq!((code, &status["reason"]), (422, &json!("Invalid")));
    let fields: Vec<_> = status["details"]["causes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["field"])
        .collect();
    assert_eq!(fields, ["metadata.name", "metadata.labels"]);

    for (body, reason) in [
        (json!({"kind": "Secret", "metadata": {"name": "a"}}), "kind"),
        (
            json!({"metadata": {"name": "a", "namespace": "other"}}),
            "namespace",
        ),
        (
            json!({"metadata": {"name": "a", "labels": {"a": 1}}}),
            "labels",
        ),
        (json!([]), "object"),
    ] {
        let (code, status) = post(&client, MAPS, body).await;
        assert_eq!(code, 400, "{status}");
        assert!(
            status["message"].as_str().unwrap().contains(reason),
            "{status}"
        );
    }
    let huge = json!({
        "metadata": {"name": "a"},
        "spec": {"containers": [{"name": "c", "image": "i", "args": ["x".repeat(1_600_000)]}]},
    });
    assert_eq!(
        post(&client, "/api/v1/namespaces/default/pods", huge)
            .await
            .0,
        413
    );
    let bigger = json!({"metadata": {"name": "a"}, "data": {"a": "x".repeat(3_200_000)}});
    assert_eq!(post(&client, MAPS, bigger).await.0, 413);
}

#[tokio::test]
async fn services_get_addresses_and_keep_them() {
    let (_server, client) = start().await;
    let services: Api<Service> = Api::default_namespaced(client);
    let mk_service = |name: &str, spec: serde_json::Value| -> Service {
        mk(json!({"metadata": {"name": name}, "spec": spec}))
    };
    let params = PostParams::default();
    let ports = json!([{"port": 80}]);
    let one = services
        .create(&params, &mk_service("one", json!({"ports": ports})))
        .await
        .unwrap();
    let spec = one.spec.clone().unwrap();
    let address = spec.cluster_ip.clone().unwrap();
    assert!(address.starts_with("10.96.0."));
    assert_eq!(
        spec.cluster_ips.as_deref(),
        Some(std::slice::from_ref(&address))
    );
    assert_eq!(spec.ip_families.unwrap(), ["IPv4"]);

    let mut changed = one.clone();
    let spec = changed.spec.as_mut().unwrap();
    (spec.cluster_ip, spec.cluster_ips) = (None, None);
    spec.selector = Some([("a".to_owned(), "b".to_owned())].into());
    let changed = services.replace("one", &params, &changed).await.unwrap();
    assert_eq!(changed.spec.unwrap().cluster_ip, Some(address.clone()));

    let taken = mk_service("two", json!({"ports": ports, "clusterIP": address}));
    assert_eq!(
        code(&services.create(&params, &taken).await.unwrap_err()).0,
        422
    );
    let headless = mk_service("three", json!({"ports": ports, "clusterIP": "None"}));
    let headless = services.create(&params, &headless).await.unwrap();
    assert_eq!(headless.spec.unwrap().cluster_ip.as_deref(), Some("None"));
    let dual = mk_service(
        "four",
        json!({"ports": ports, "type": "NodePort", "ipFamilyPolicy": "PreferDualStack"}),
    );
    let dual = services.create(&params, &dual).await.unwrap().spec.unwrap();
    assert_eq!(dual.ip_families.unwrap(), ["IPv4", "IPv6"]);
    assert!(dual.cluster_ips.unwrap()[1].starts_with("fd00:"));
    assert!(dual.ports.unwrap()[0].node_port.unwrap() >= 30_000);
}

#[tokio::test]
async fn secrets_encode_plain_text_and_can_be_frozen() {
    let (_server, client) = start().await;
    let secrets: Api<Secret> = Api::default_namespaced(client);
    let secret: Secret = mk(json!({
        "metadata": {"name": "a"},
        "stringData": {"k": "text"},
        "immutable": true,
    }));
    let created = secrets
        .create(&PostParams::default(), &secret)
        .await
        .unwrap();
    assert_eq!(created.type_.as_deref(), Some("Opaque"));
    assert_eq!(created.data.unwrap()["k"].0, b"text");
    let change = json!({"stringData": {"k": "other"}});
    let refused = secrets
        .patch("a", &PatchParams::default(), &Patch::Merge(change))
        .await;
    assert_eq!(code(&refused.unwrap_err()).0, 422);
}

#[tokio::test]
async fn a_pod_needs_its_service_account() {
    let (_server, client) = start().await;
    mk_namespace(&client, "a").await;
    let pod = json!({
        "metadata": {"name": "p"},
        "spec": {"serviceAccountName": "missing", "containers": [{"name": "c", "image": "i"}]},
    });
    let (code, status) = post(&client, "/api/v1/namespaces/a/pods", pod).await;
    assert_eq!((code, &status["reason"]), (403, &json!("Forbidden")));
}

#[tokio::test]
async fn unknown_fields_are_told_or_refused() {
    let (_server, client) = start().await;
    let map = json!({"metadata": {"name": "a"}, "dta": {}});
    let (code, status) = post(
        &client,
        &format!("{MAPS}?fieldValidation=Strict"),
        map.clone(),
    )
    .await;
    assert_eq!(code, 400);
    assert!(
        status["message"]
            .as_str()
            .unwrap()
            .contains("unknown field \"dta\""),
        "{status}"
    );
    let (code, created) = post(&client, MAPS, map).await;
    assert_eq!((code, created.get("dta")), (201, None));
}

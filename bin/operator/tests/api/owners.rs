//! Objects of others under the names that the operator wants.

use k8s_openapi::api::core::v1::{ConfigMap, Event};
use mesh_api::sail::IstioCNI;
use operator::names::{MANAGED_BY, MANAGER};
use serde_json::{Value, json};

use super::{cluster::Cluster, rollouts::Rollouts, toys::reconcilers};

const CNI: Option<&str> = Some("istio-cni");

async fn with_config(metadata: Value) -> Cluster {
    let cluster = Cluster::start().await;
    let mut metadata = metadata;
    metadata["name"] = "istio-cni-config".into();
    metadata["namespace"] = "istio-cni".into();
    let map = json!({"metadata": metadata, "data": {"version": "theirs"}});
    cluster.create::<ConfigMap>(map).await;
    let spec = json!({"version": "v1.30.2", "namespace": "istio-cni"});
    let cni = json!({"metadata": {"name": "default"}, "spec": spec});
    cluster.create::<IstioCNI>(cni).await;
    cluster
}

fn version(cluster: &Cluster) -> Value {
    cluster.get::<ConfigMap>(CNI, "istio-cni-config").unwrap()["data"]["version"].clone()
}

async fn refusal(cluster: &Cluster) -> String {
    let cni = cluster
        .until_state::<IstioCNI>("default", "ReconcileError")
        .await;
    let condition = &cni["status"]["conditions"][0];
    assert_eq!(
        (&condition["type"], &condition["status"]),
        (&json!("Reconciled"), &json!("False"))
    );
    condition["message"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_of_another_controller_is_not_taken_and_is_named() {
    let cluster = Cluster::start().await;
    let owner = json!({"metadata": {"name": "owner", "namespace": "istio-cni"}});
    cluster.create::<ConfigMap>(owner).await;
    let uid = cluster.get::<ConfigMap>(CNI, "owner").unwrap()["metadata"]["uid"].clone();
    let owners = json!([{
        "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid, "controller": true,
    }]);
    let map = json!({
        "metadata": {"name": "istio-cni-config", "namespace": "istio-cni", "ownerReferences": owners},
        "data": {"version": "theirs"},
    });
    cluster.create::<ConfigMap>(map).await;
    let spec = json!({"version": "v1.30.2", "namespace": "istio-cni"});
    let cni = json!({"metadata": {"name": "default"}, "spec": spec});
    cluster.create::<IstioCNI>(cni).await;
    let _rollouts = Rollouts::of(&cluster);
    let _operator = cluster.operator(reconcilers()).await;
    let message = refusal(&cluster).await;
    let expected = "ConfigMap istio-cni/istio-cni-config exists and belongs to ConfigMap owner";
    assert!(message.starts_with(expected), "{message}");
    assert_eq!(version(&cluster), "theirs");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_nobody_owns_is_taken_over_when_it_is_handed_over() {
    let cluster = with_config(json!({
        "annotations": {"meta.helm.sh/release-name": "my-cni"},
    }))
    .await;
    let _rollouts = Rollouts::of(&cluster);
    let _operator = cluster.operator(reconcilers()).await;
    let message = refusal(&cluster).await;
    assert!(message.contains("the Helm release my-cni"), "{message}");
    assert!(message.contains("managed-by=sail-operator"), "{message}");
    assert_eq!(version(&cluster), "theirs");
    // An Event says the same.
    cluster
        .until_any::<Event>(|event| event["reason"] == "ReconcileError")
        .await;
    let label = json!({"metadata": {"labels": {"managed-by": "sail-operator"}}});
    cluster
        .patch::<ConfigMap>(CNI, "istio-cni-config", label)
        .await;
    cluster.until_state::<IstioCNI>("default", "Healthy").await;
    assert_eq!(version(&cluster), "v1.30.2");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_somebody_else_holds_elsewhere_does_not_keep_a_resource() {
    let cluster = Cluster::start().await;
    let spec = json!({"version": "v1.30.2", "namespace": "istio-cni"});
    let cni = json!({"metadata": {"name": "default"}, "spec": spec});
    cluster.create::<IstioCNI>(cni).await;
    let _rollouts = Rollouts::of(&cluster);
    let _operator = cluster.operator(reconcilers()).await;
    let cni = cluster.until_state::<IstioCNI>("default", "Healthy").await;
    let owners = json!([{
        "apiVersion": cni["apiVersion"], "kind": cni["kind"], "name": "default",
        "uid": cni["metadata"]["uid"], "controller": true,
    }]);
    cluster.create_namespace("tenant").await;
    cluster
        .create::<ConfigMap>(json!({"metadata": {
            "name": "forged", "namespace": "tenant", "ownerReferences": owners,
            "labels": {MANAGED_BY: MANAGER}, "finalizers": ["tenant.example/mine"],
        }}))
        .await;
    // It is known, and its deletion has no end.
    let pruned = |map: Option<&Value>| {
        map.is_some_and(|map| map["metadata"]["deletionTimestamp"].is_string())
    };
    cluster
        .until::<ConfigMap>(Some("tenant"), "forged", pruned)
        .await;
    cluster.delete::<IstioCNI>(None, "default").await;
    cluster.until_gone::<IstioCNI>(None, "default").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_sail_has_made_is_taken_over() {
    let cluster = with_config(json!({"labels": {"managed-by": "sail-operator"}})).await;
    let _rollouts = Rollouts::of(&cluster);
    let _operator = cluster.operator(reconcilers()).await;
    cluster.until_state::<IstioCNI>("default", "Healthy").await;
    assert_eq!(version(&cluster), "v1.30.2");
}

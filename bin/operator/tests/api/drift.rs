//! What others do to what the operator has made, and an operator that has nothing to do.

use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{ConfigMap, Pod, ServiceAccount},
    rbac::v1::ClusterRole,
};
use mesh_api::sail::{Istio, IstioCNI};
use operator::reconcile;
use serde_json::json;

use super::{
    cluster::{Cluster, Operator, SYSTEM, Start},
    kill,
    rollouts::Rollouts,
    toys::{NEEDED, reconcilers},
};

const CNI: Option<&str> = Some("istio-cni");

async fn install(cluster: &Cluster) {
    let spec = json!({"version": "v1.30.2", "namespace": "istio-cni"});
    let cni = json!({"metadata": {"name": "default"}, "spec": spec});
    cluster.create::<IstioCNI>(cni).await;
    let spec = json!({"version": "v1.30.2", "namespace": "istio-system"});
    let istio = json!({"metadata": {"name": "default"}, "spec": spec});
    cluster.create::<Istio>(istio).await;
    cluster.until_state::<Istio>("default", "Healthy").await;
    cluster.until_state::<IstioCNI>("default", "Healthy").await;
}

/// Waits until the operator has seen a change that asks for exactly one write of it, and has made that.
async fn settle(cluster: &Cluster) {
    let gone = json!({"metadata": {"labels": {"managed-by": null}}});
    cluster
        .patch::<ServiceAccount>(CNI, "istio-cni", gone)
        .await;
    let back = |account: Option<&serde_json::Value>| {
        account.is_some_and(|account| account["metadata"]["labels"]["managed-by"].is_string())
    };
    cluster
        .until::<ServiceAccount>(CNI, "istio-cni", back)
        .await;
}

async fn writes_of(operator: &Operator, cluster: &Cluster) -> Vec<String> {
    let before = operator.requests.log().len();
    settle(cluster).await;
    let mut log = operator.requests.log();
    log.drain(..before);
    log
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_mesh_is_not_written_to_also_after_a_restart() {
    let cluster = Cluster::start().await;
    let _rollouts = Rollouts::of(&cluster);
    let client = cluster.restricted().await;
    let start = || Start {
        client: Some(client.clone()),
        ..Start::of(reconcile::reconcilers())
    };
    let first = cluster.operator_with(start()).await;
    kill::install(&cluster).await;
    settle(&cluster).await;
    let one = writes_of(&first, &cluster).await;
    assert_eq!(
        one,
        ["PATCH /api/v1/namespaces/istio-cni/serviceaccounts/istio-cni"]
    );
    first.running.life.stop().await;
    let version = cluster.server.store().resource_version();

    let second = cluster.operator_with(start()).await;
    let one = writes_of(&second, &cluster).await;
    assert_eq!(
        one,
        ["PATCH /api/v1/namespaces/istio-cni/serviceaccounts/istio-cni"]
    );
    assert_eq!(cluster.server.store().resource_version(), version + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_change_or_delete_is_as_it_was() {
    let cluster = Cluster::start().await;
    let _rollouts = Rollouts::of(&cluster);
    let _operator = cluster.operator(reconcilers()).await;
    install(&cluster).await;
    let changed = json!({"data": {"version": "other"}});
    cluster
        .patch::<ConfigMap>(CNI, "istio-cni-config", changed)
        .await;
    cluster
        .until::<ConfigMap>(CNI, "istio-cni-config", |map| {
            map.is_some_and(|map| map["data"]["version"] == "v1.30.2")
        })
        .await;
    cluster.delete::<DaemonSet>(CNI, "istio-cni-node").await;
    cluster
        .until::<DaemonSet>(CNI, "istio-cni-node", |set| set.is_some())
        .await;
    cluster.delete::<ClusterRole>(None, "istiod-default").await;
    cluster
        .until::<ClusterRole>(None, "istiod-default", |role| role.is_some())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_add_stays() {
    let cluster = Cluster::start().await;
    let _rollouts = Rollouts::of(&cluster);
    let _operator = cluster.operator(reconcilers()).await;
    install(&cluster).await;
    // As OpenShift does with every ServiceAccount.
    let secret = json!({"imagePullSecrets": [{"name": "pull"}], "secrets": [{"name": "pull"}]});
    cluster
        .patch::<ServiceAccount>(CNI, "istio-cni", secret)
        .await;
    settle(&cluster).await;
    let account = cluster.get::<ServiceAccount>(CNI, "istio-cni").unwrap();
    assert_eq!(account["imagePullSecrets"][0]["name"], "pull");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_to_be_ignored_is_left_alone() {
    let cluster = Cluster::start().await;
    let _rollouts = Rollouts::of(&cluster);
    let operator = cluster.operator(reconcilers()).await;
    install(&cluster).await;
    let ignore = json!({
        "metadata": {"annotations": {"sailoperator.io/ignore": "true"}},
        "data": {"version": "mine"},
    });
    cluster
        .patch::<ConfigMap>(CNI, "istio-cni-config", ignore)
        .await;
    let writes = writes_of(&operator, &cluster).await;
    assert_eq!(writes.len(), 1, "{writes:?}");
    let map = cluster.get::<ConfigMap>(CNI, "istio-cni-config").unwrap();
    assert_eq!(map["data"]["version"], "mine");
    // Not ignored any more.
    let heed = json!({"metadata": {"annotations": {"sailoperator.io/ignore": null}}});
    cluster
        .patch::<ConfigMap>(CNI, "istio-cni-config", heed)
        .await;
    cluster
        .until::<ConfigMap>(CNI, "istio-cni-config", |map| {
            map.is_some_and(|map| map["data"]["version"] == "v1.30.2")
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_a_pod_that_uses_nothing_wakes_nobody() {
    let cluster = Cluster::start().await;
    let _rollouts = Rollouts::of(&cluster);
    let operator = cluster.operator(reconcilers()).await;
    install(&cluster).await;
    settle(&cluster).await;
    let count = |page: &str| super::metrics::sum(page, "controller_runtime_reconcile_total");
    let before = count(&super::metrics::scrape(&cluster, &operator).await);
    let spec = json!({"containers": [{"name": "c", "image": "i"}]});
    let pod = json!({"metadata": {"name": "p", "namespace": SYSTEM}, "spec": spec});
    cluster.create::<Pod>(pod).await;
    settle(&cluster).await;
    let after = count(&super::metrics::scrape(&cluster, &operator).await);
    // Those of the account alone: the change, and its repair.
    assert!(after - before <= 3, "{before} {after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_is_blocked_says_why_and_goes_on_when_it_may() {
    let cluster = Cluster::start().await;
    let _rollouts = Rollouts::of(&cluster);
    let _operator = cluster.operator(reconcilers()).await;
    install(&cluster).await;
    let needed = json!({"metadata": {"annotations": {NEEDED: "yes"}}});
    cluster.patch::<IstioCNI>(None, "default", needed).await;
    cluster.delete::<IstioCNI>(None, "default").await;
    let blocked = cluster
        .until_state::<IstioCNI>("default", "UninstallBlocked")
        .await;
    assert_eq!(
        blocked["status"]["conditions"][0]["message"],
        "somebody needs it"
    );
    assert!(cluster.get::<DaemonSet>(CNI, "istio-cni-node").is_some());
    let free = json!({"metadata": {"annotations": {NEEDED: null}}});
    cluster.patch::<IstioCNI>(None, "default", free).await;
    cluster.until_gone::<IstioCNI>(None, "default").await;
    assert!(cluster.get::<DaemonSet>(CNI, "istio-cni-node").is_none());
    assert!(cluster.get::<ServiceAccount>(CNI, "istio-cni").is_none());
}

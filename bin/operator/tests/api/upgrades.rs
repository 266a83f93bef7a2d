//! Upgrades and ways back, and what is refused, with the objects of a whole mesh.

use k8s_openapi::api::core::v1::{Event, Namespace};
use mesh_api::sail::{Istio, IstioCNI, IstioRevision, IstioRevisionTag, ZTunnel};
use operator::reconcile::reconcilers;
use serde_json::{Value, json};

use super::{
    cluster::{Cluster, Operator, SYSTEM},
    rollouts::Rollouts,
};

async fn install(cluster: &Cluster, version: &str) {
    let with = |namespace: &str| json!({"metadata": {"name": "default"}, "spec": {"version": version, "namespace": namespace}});
    cluster.create::<Istio>(with("istio-system")).await;
    cluster.create::<IstioCNI>(with("istio-cni")).await;
    cluster.create::<ZTunnel>(with("ztunnel")).await;
    healthy(cluster).await;
}

async fn change(cluster: &Cluster, version: &str) {
    let patch = || json!({"spec": {"version": version}});
    // In the worst of orders.
    cluster.patch::<ZTunnel>(None, "default", patch()).await;
    cluster.patch::<IstioCNI>(None, "default", patch()).await;
    cluster.patch::<Istio>(None, "default", patch()).await;
    cluster
        .until_state::<IstioRevision>("default", "Healthy")
        .await;
    healthy(cluster).await;
}

async fn healthy(cluster: &Cluster) {
    cluster.until_state::<Istio>("default", "Healthy").await;
    cluster.until_state::<IstioCNI>("default", "Healthy").await;
    cluster.until_state::<ZTunnel>("default", "Healthy").await;
}

/// The workloads that were written since, each once, in order.
fn workloads(operator: &Operator, since: usize) -> Vec<String> {
    let mut written = Vec::new();
    for line in &operator.requests.log()[since..] {
        let workload = line.contains("/deployments/") || line.contains("/daemonsets/");
        let name = line.rsplit('/').next().unwrap().to_owned();
        if workload && !written.contains(&name) {
            written.push(name);
        }
    }
    written
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_go_up_from_the_control_plane_and_down_from_the_nodes() {
    let cluster = Cluster::start().await;
    let operator = cluster.operator(reconcilers()).await;
    let _rollouts = Rollouts::of(&cluster);
    install(&cluster, "v1.29.6").await;
    let since = operator.requests.log().len();
    change(&cluster, "v1.30.3").await;
    assert_eq!(
        workloads(&operator, since),
        ["istiod", "istio-cni-node", "ztunnel"]
    );
    let since = operator.requests.log().len();
    change(&cluster, "v1.29.6").await;
    assert_eq!(
        workloads(&operator, since),
        ["ztunnel", "istio-cni-node", "istiod"]
    );
    operator.running.life.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_mesh_that_is_as_it_should_be_only_statuses_are_written() {
    let cluster = Cluster::start().await;
    let operator = cluster.operator(reconcilers()).await;
    let _rollouts = Rollouts::of(&cluster);
    install(&cluster, "v1.30.3").await;
    let since = operator.requests.log().len();
    let label = json!({"metadata": {"labels": {"istio.io/dataplane-mode": "ambient"}}});
    cluster.patch::<Namespace>(None, SYSTEM, label).await;
    let in_use = |object: Option<&Value>| {
        object.is_some_and(|object| object["status"]["revisions"]["inUse"] == 1)
    };
    cluster.until::<Istio>(None, "default", in_use).await;
    let log = operator.requests.log().split_off(since);
    assert!(log.iter().all(|line| line.ends_with("/status")), "{log:#?}");
    operator.running.life.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_skew_is_refused_and_told() {
    let cluster = Cluster::start().await;
    let operator = cluster.operator(reconcilers()).await;
    let _rollouts = Rollouts::of(&cluster);
    install(&cluster, "v1.29.6").await;
    let since = operator.requests.log().len();
    let patch = json!({"spec": {"version": "v1.30.3"}});
    cluster.patch::<ZTunnel>(None, "default", patch).await;
    cluster
        .until_state::<ZTunnel>("default", "VersionSkew")
        .await;
    told(&cluster, "ZTunnel", "VersionSkew").await;
    assert_eq!(workloads(&operator, since), [""; 0]);
    operator.running.life.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_told_by_condition_and_event() {
    let cluster = Cluster::start().await;
    let operator = cluster.operator(reconcilers()).await;
    let named = |spec: Value| json!({"metadata": {"name": "default"}, "spec": spec});
    let end_of_life = json!({"version": "v1.23.2", "namespace": "istio-system"});
    cluster.create::<Istio>(named(end_of_life)).await;
    cluster
        .until_state::<Istio>("default", "ReconcileError")
        .await;
    told(&cluster, "Istio", "ReconcileError").await;
    let remote = json!({"version": "v1.30.3", "namespace": "istio-cni", "profile": "remote"});
    cluster.create::<IstioCNI>(named(remote)).await;
    cluster
        .until_state::<IstioCNI>("default", "ReconcileError")
        .await;
    told(&cluster, "IstioCNI", "ReconcileError").await;
    let nowhere = json!({"version": "v1.30.3", "namespace": "nowhere"});
    cluster.create::<ZTunnel>(named(nowhere)).await;
    cluster
        .until_state::<ZTunnel>("default", "ReconcileError")
        .await;
    told(&cluster, "ZTunnel", "ReconcileError").await;
    let nobody = json!({"targetRef": {"kind": "Istio", "name": "nobody"}});
    cluster.create::<IstioRevisionTag>(named(nobody)).await;
    cluster
        .until_state::<IstioRevisionTag>("default", "RefNotFound")
        .await;
    told(&cluster, "IstioRevisionTag", "RefNotFound").await;

    // What was missing comes.
    cluster.create_namespace("nowhere").await;
    let _rollouts = Rollouts::of(&cluster);
    cluster.until_state::<ZTunnel>("default", "Healthy").await;
    operator.running.life.stop().await;
}

/// Waits for an Event about the kind for this reason.
async fn told(cluster: &Cluster, kind: &str, reason: &str) {
    cluster
        .until_any::<Event>(|event| {
            let about =
                event["regarding"]["kind"] == kind || event["involvedObject"]["kind"] == kind;
            about && event["reason"] == reason
        })
        .await;
}

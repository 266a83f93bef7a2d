//! Two replicas, of which one writes.

use k8s_openapi::api::coordination::v1::Lease;
use mesh_api::sail::IstioCNI;
use serde_json::json;

use super::{
    cluster::{Cluster, SYSTEM, Start},
    rollouts::Rollouts,
    toys::reconcilers,
};

async fn create(cluster: &Cluster, version: &str) {
    let spec = json!({"version": version, "namespace": "istio-cni"});
    let cni = json!({"metadata": {"name": "default"}, "spec": spec});
    cluster.create::<IstioCNI>(cni).await;
    cluster.until_state::<IstioCNI>("default", "Healthy").await;
}

fn candidate(pod: &'static str) -> Start {
    Start {
        pod,
        elect: true,
        ..Start::of(reconcilers())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_replica_writes_and_the_other_goes_on_when_it_stops() {
    let cluster = Cluster::start().await;
    let _rollouts = Rollouts::of(&cluster);
    let first = cluster.operator_with(candidate("operator-1")).await;
    let held = |lease: Option<&serde_json::Value>| {
        lease.is_some_and(|lease| lease["spec"]["holderIdentity"] == "operator-1")
    };
    cluster
        .until::<Lease>(Some(SYSTEM), "sail-operator-lock", held)
        .await;
    let second = cluster.operator_with(candidate("operator-2")).await;
    create(&cluster, "v1.30.2").await;
    assert!(first.requests.writes() > 0);
    assert_eq!(second.requests.log(), Vec::<String>::new());
    first.running.life.stop().await;
    let next = json!({"spec": {"version": "v1.30.3"}});
    cluster.patch::<IstioCNI>(None, "default", next).await;
    cluster.until_state::<IstioCNI>("default", "Healthy").await;
    assert!(second.requests.writes() > 0);
    second.running.life.stop().await;
}

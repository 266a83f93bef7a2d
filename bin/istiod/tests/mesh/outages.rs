//! Restarts, replicas and an API server that goes away: no proxy loses state, no removal is missed.

use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use testkit_kube::store::GroupResource;

use super::{
    cluster::{Cluster, Istiod, eventually},
    objects,
    proxy::{Proxy, workload},
};

const WEB: &str = "Kubernetes//Pod/demo/web";
const OTHER: &str = "Kubernetes//Pod/demo/other";

async fn with_two_pods(cluster: &Cluster) {
    cluster.add_pod("web", "node1", [10, 9, 1, 1]).await;
    cluster.add_pod("other", "node2", [10, 9, 2, 1]).await;
}

fn both(dump: &Value) -> bool {
    workload(dump, WEB).is_some() && workload(dump, OTHER).is_some()
}

/// Addresses that a replica has sent to its one proxy, once it has answered it.
async fn addresses_sent(istiod: &Istiod) -> u64 {
    let url = "type.googleapis.com/istio.workload.Address";
    let ask = || istiod.debug("/debug/syncz");
    let answered = |shown: &Value| shown[0]["types"][url]["status"] == "SYNCED";
    let shown = eventually("an answered proxy", ask, answered).await;
    shown[0]["types"][url]["resourcesSent"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_goes_while_the_control_plane_is_down_is_removed() {
    let cluster = Cluster::start().await;
    with_two_pods(&cluster).await;
    let first = cluster.istiod(&[]).await;
    let mut proxy = Proxy::of(&cluster, &first, "node1").await;
    proxy.until("both pods", both).await;
    first.running.life.stop().await;
    cluster.delete::<Pod>("demo", "web").await;
    assert!(
        both(&proxy.dump()),
        "a proxy keeps what it has while nobody speaks to it"
    );
    let second = cluster.istiod(&[]).await;
    proxy.lead_to(&second);
    let gone = |dump: &Value| workload(dump, WEB).is_none() && workload(dump, OTHER).is_some();
    proxy.until("the end of web", gone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_proxy_holds_is_not_sent_again_by_another_replica() {
    let cluster = Cluster::start().await;
    with_two_pods(&cluster).await;
    let first = cluster.replica("istiod-1", &[]).await;
    let second = cluster.replica("istiod-2", &[]).await;
    second.ready().await;
    let mut proxy = Proxy::of(&cluster, &first, "node1").await;
    proxy.until("both pods", both).await;
    assert!(addresses_sent(&first).await >= 4);
    proxy.lead_to(&second);
    first.running.life.stop().await;
    assert_eq!(addresses_sent(&second).await, 0);
    assert!(both(&proxy.dump()));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_replica_leads_and_another_takes_over_when_it_stops() {
    let cluster = Cluster::start().await;
    let leads = "pilot_leader{lock=\"istio-status-leader\"}";
    let first = cluster.replica("istiod-1", &[]).await;
    eventually("a leader", || first.metric(leads), |value| *value == 1).await;
    let second = cluster.replica("istiod-2", &[]).await;
    second.ready().await;
    assert_eq!(second.metric(leads).await, 0);
    first.running.life.stop().await;
    eventually("a successor", || second.metric(leads), |value| *value == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_while_the_api_server_is_away_is_learned_afterwards() {
    let cluster = Cluster::start().await;
    with_two_pods(&cluster).await;
    let istiod = cluster.istiod(&[]).await;
    let mut proxy = Proxy::of(&cluster, &istiod, "node1").await;
    proxy.until("both pods", both).await;
    cluster.server.stop().await;
    let pods = GroupResource::new("", "pods");
    let store = cluster.server.store();
    store.remove(&pods, "demo", "web").unwrap();
    let late = objects::pod("demo", "late", "node2", [10, 9, 2, 2]);
    let mut late = serde_json::to_value(late).unwrap();
    late["apiVersion"] = "v1".into();
    late["kind"] = "Pod".into();
    store.put(&pods, late);
    // The versions that the watches remember are gone too.
    cluster.server.compact();
    assert!(both(&proxy.dump()));
    cluster.server.start_again().await.unwrap();
    let learned = |dump: &Value| {
        workload(dump, WEB).is_none() && workload(dump, "Kubernetes//Pod/demo/late").is_some()
    };
    proxy.until("what happened meanwhile", learned).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn proxies_are_not_served_before_the_cluster_has_been_seen() {
    let cluster = Cluster::start().await;
    with_two_pods(&cluster).await;
    cluster.server.refuse_requests(true);
    let istiod = cluster.istiod(&[]).await;
    let page = istiod.debug("/ready").await;
    assert!(
        page.as_str().unwrap().contains("view of the cluster"),
        "{page}"
    );
    cluster.server.refuse_requests(false);
    istiod.ready().await;
}

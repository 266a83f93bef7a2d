//! Who may read the mesh, and who gets which certificate.

use serde_json::json;

use super::{
    cluster::{Cluster, SYSTEM, eventually},
    proxy::{Proxy, workload},
};

const WEB: &str = "spiffe://cluster.local/ns/demo/sa/web";

#[tokio::test(flavor = "multi_thread")]
async fn a_ztunnel_gets_certificates_for_the_pods_of_its_node_only() {
    let cluster = Cluster::start().await;
    let istiod = cluster.istiod(&[]).await;
    cluster.add_pod("web", "node1", [10, 9, 1, 1]).await;
    let here = Proxy::of(&cluster, &istiod, "node1").await;
    let elsewhere = Proxy::of(&cluster, &istiod, "node2").await;
    assert_eq!(here.certificate(WEB).await.as_deref(), Ok(WEB));
    let refused = elsewhere.certificate(WEB).await.unwrap_err();
    assert!(refused.contains("not granted"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_reads_nothing_of_the_mesh_and_impersonates_nobody() {
    let cluster = Cluster::start().await;
    let istiod = cluster.istiod(&[]).await;
    cluster.add_pod("web", "node1", [10, 9, 1, 1]).await;
    cluster.add_pod("other", "node1", [10, 9, 1, 2]).await;
    let token = cluster.token("demo", "web", Some("web"), &["istio-ca"]);
    let workload_proxy = Proxy::with_token(&cluster, &istiod, "node1", &token).await;
    let other = "spiffe://cluster.local/ns/demo/sa/other";
    workload_proxy.certificate(other).await.unwrap_err();
    let series = "pilot_xds_refused_streams_total";
    let refusals = || async { istiod.metrics_named(series).await };
    eventually("a refused stream", refusals, |count| *count > 0).await;
    assert_eq!(workload_proxy.dump()["workloads"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_another_audience_is_nobodys() {
    let cluster = Cluster::start().await;
    let istiod = cluster.istiod(&[]).await;
    cluster.add_pod("web", "node1", [10, 9, 1, 1]).await;
    let token = cluster.token(SYSTEM, "ztunnel", Some("ztunnel-node1"), &["vault"]);
    let proxy = Proxy::with_token(&cluster, &istiod, "node1", &token).await;
    let refused = proxy.certificate(WEB).await.unwrap_err();
    assert!(refused.contains("authenticate"), "{refused}");
    let genuine = Proxy::of(&cluster, &istiod, "node1").await;
    genuine.certificate(WEB).await.unwrap();
    assert!(workload(&proxy.dump(), "Kubernetes//Pod/demo/web").is_none());
}

//! The mesh configuration, and input that is not what it should be.

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;
use testkit_kube::store::GroupResource;

use super::{
    cluster::{Cluster, SYSTEM, eventually},
    proxy::{Proxy, policy, workload},
};

const WEB: &str = "Kubernetes//Pod/demo/web";

#[tokio::test(flavor = "multi_thread")]
async fn the_trust_domain_changes_without_a_restart() {
    let cluster = Cluster::start().await;
    let istiod = cluster.istiod(&[]).await;
    cluster.add_pod("web", "node1", [10, 9, 1, 1]).await;
    let mut proxy = Proxy::of(&cluster, &istiod, "node1").await;
    proxy
        .until("web", |dump| workload(dump, WEB).is_some())
        .await;
    cluster.configure("trustDomain: corp.example\n").await;
    proxy
        .until("the new trust domain", |dump| {
            workload(dump, WEB).is_some_and(|web| web["trustDomain"] == "corp.example")
        })
        .await;
    let identity = "spiffe://corp.example/ns/demo/sa/web";
    assert_eq!(proxy.certificate(identity).await.as_deref(), Ok(identity));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_faulty_configuration_leaves_the_last_good_one_in_force_and_is_shown() {
    let cluster = Cluster::start().await;
    cluster.configure("trustDomain: corp.example\n").await;
    let istiod = cluster.istiod(&[]).await;
    istiod.ready().await;
    let faulty = json!({"data": {"mesh": "trustDomain: [not, a, text]\n"}});
    cluster.patch::<ConfigMap>(SYSTEM, "istio", faulty).await;
    let shown = || istiod.debug("/debug/mesh");
    let mesh = eventually("the refusal", shown, |mesh| mesh["refused"].is_string()).await;
    assert!(
        mesh["refused"].as_str().unwrap().contains("trustDomain"),
        "{mesh}"
    );
    assert_eq!(mesh["trustDomain"], "corp.example");
    let rejected = "pilot_mesh_config_reloads_total{outcome=\"rejected\"}";
    assert!(istiod.metric(rejected).await >= 1);
}

/// Somebody stored it past the schema: before the CRD had one, or straight into etcd.
#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_cannot_be_read_harms_no_other() {
    let cluster = Cluster::start().await;
    let istiod = cluster.istiod(&[]).await;
    let mut proxy = Proxy::of(&cluster, &istiod, "node1").await;
    let policies = GroupResource::new("security.istio.io", "authorizationpolicies");
    cluster.server.store().put(
        &policies,
        json!({
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": {"name": "broken", "namespace": "demo", "uid": "1", "generation": 1},
            "spec": {"rules": "all of them"},
        }),
    );
    cluster
        .create::<mesh_api::security::AuthorizationPolicy>(json!({
            "metadata": {"name": "whole", "namespace": "demo"}, "spec": {},
        }))
        .await;
    proxy
        .until("the whole policy", |dump| policy(dump, "whole").is_some())
        .await;
    assert_eq!(policy(&proxy.dump(), "broken"), None);
    let rejected = "pilot_total_rejected_configs_total{kind=\"AuthorizationPolicy\"}";
    assert!(istiod.metric(rejected).await >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_without_a_spec_allows_nothing() {
    let cluster = Cluster::start().await;
    let istiod = cluster.istiod(&[]).await;
    let mut proxy = Proxy::of(&cluster, &istiod, "node1").await;
    let policies = GroupResource::new("security.istio.io", "authorizationpolicies");
    cluster.server.store().put(
        &policies,
        json!({
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": {"name": "bare", "namespace": "demo", "uid": "1", "generation": 1},
        }),
    );
    let dump = proxy
        .until("the bare policy", |dump| policy(dump, "bare").is_some())
        .await;
    let bare = policy(&dump, "bare").unwrap();
    assert_eq!(
        (&bare["action"], &bare["rules"]),
        (&json!("Allow"), &json!([]))
    );
}

//! Policies on their way to proxies, and what is said of them.

use mesh_api::security::{AuthorizationPolicy, PeerAuthentication};
use serde_json::{Value, json};

use super::{
    cluster::Cluster,
    proxy::{Proxy, policy, workload},
};

fn accepted(object: &Value) -> Option<Value> {
    let mut conditions = object["status"]["conditions"].as_array()?.iter();
    conditions.find(|c| c["type"] == "ZtunnelAccepted").cloned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_reaches_the_proxies_and_says_that_it_is_in_force() {
    let cluster = Cluster::start().await;
    let istiod = cluster.istiod(&[]).await;
    let mut proxy = Proxy::of(&cluster, &istiod, "node1").await;
    cluster
        .create::<AuthorizationPolicy>(json!({
            "metadata": {"name": "deny-batch", "namespace": "demo"},
            "spec": {
                "action": "DENY",
                "rules": [{"from": [{"source": {"principals": ["cluster.local/ns/demo/sa/batch"]}}]}],
            },
        }))
        .await;
    let dump = proxy
        .until("the policy", |dump| policy(dump, "deny-batch").is_some())
        .await;
    assert_eq!(policy(&dump, "deny-batch").unwrap()["action"], "Deny");
    let told = |object: &Value| accepted(object).is_some();
    let object = cluster
        .until::<AuthorizationPolicy>("demo", "deny-batch", told)
        .await;
    let told = accepted(&object).unwrap();
    assert_eq!(
        (&told["status"], &told["reason"]),
        (&json!("True"), &json!("Accepted"))
    );
    assert_eq!(told["observedGeneration"], object["metadata"]["generation"]);

    cluster
        .delete::<AuthorizationPolicy>("demo", "deny-batch")
        .await;
    proxy
        .until("the policy's end", |dump| {
            policy(dump, "deny-batch").is_none()
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_waypoint_can_enforce_is_said_in_the_status() {
    let cluster = Cluster::start().await;
    let _istiod = cluster.istiod(&[]).await;
    cluster
        .create::<AuthorizationPolicy>(json!({
            "metadata": {"name": "only-get", "namespace": "demo"},
            "spec": {"action": "ALLOW", "rules": [{"to": [{"operation": {"methods": ["GET"]}}]}]},
        }))
        .await;
    let told = |object: &Value| accepted(object).is_some();
    let object = cluster
        .until::<AuthorizationPolicy>("demo", "only-get", told)
        .await;
    let told = accepted(&object).unwrap();
    assert_eq!(
        (&told["status"], &told["reason"]),
        (&json!("False"), &json!("UnsupportedValue"))
    );
    assert!(
        told["message"].as_str().unwrap().contains("methods"),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_mode_denies_plain_text_at_the_workload() {
    let cluster = Cluster::start().await;
    let istiod = cluster.istiod(&[]).await;
    let mut proxy = Proxy::of(&cluster, &istiod, "node1").await;
    cluster.add_pod("web", "node2", [10, 9, 2, 1]).await;
    let strict = json!({"metadata": {"name": "default", "namespace": "demo"}, "spec": {"mtls": {"mode": "STRICT"}}});
    cluster.create::<PeerAuthentication>(strict).await;
    let name = "istio_converted_static_strict";
    proxy
        .until("strict mode at web", |dump| {
            let web = workload(dump, "Kubernetes//Pod/demo/web");
            policy(dump, name).is_some() && web.is_some_and(|w| w.to_string().contains(name))
        })
        .await;
}

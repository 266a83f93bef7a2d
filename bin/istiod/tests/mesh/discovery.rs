//! What proxies are told of the cluster.

use k8s_openapi::api::core::v1::{Namespace, Pod};
use mesh_api::gateway::Gateway;
use serde_json::json;

use super::{
    cluster::Cluster,
    objects,
    proxy::{Proxy, service, workload},
};

const WEB: &str = "Kubernetes//Pod/demo/web";
const WEB_SERVICE: &str = "web.demo.svc.cluster.local";

#[tokio::test(flavor = "multi_thread")]
async fn pods_and_services_reach_a_proxy_and_leave_it_again() {
    let cluster = Cluster::start().await;
    let istiod = cluster.istiod(&[]).await;
    let mut proxy = Proxy::of(&cluster, &istiod, "node1").await;
    cluster
        .create_object(&objects::service("demo", "web"))
        .await;
    cluster.add_pod("web", "node2", [10, 9, 2, 1]).await;
    let dump = proxy
        .until("web", |dump| {
            workload(dump, WEB)
                .is_some_and(|web| web["services"].as_array().is_some_and(|s| !s.is_empty()))
        })
        .await;
    let web = workload(&dump, WEB).unwrap();
    assert_eq!(web["workloadIps"], json!(["10.9.2.1"]));
    assert_eq!(web["protocol"], "HBONE");
    assert_eq!(web["serviceAccount"], "web");
    assert_eq!(web["node"], "node2");
    assert_eq!(web["locality"]["zone"], "zone-1");
    assert_eq!(web["services"], json!([format!("demo/{WEB_SERVICE}")]));
    assert!(service(&dump, WEB_SERVICE).is_some());

    cluster.delete::<Pod>("demo", "web").await;
    proxy
        .until("the end of web", |dump| workload(dump, WEB).is_none())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_not_ready_gets_no_traffic() {
    let cluster = Cluster::start().await;
    let istiod = cluster.istiod(&[]).await;
    let mut proxy = Proxy::of(&cluster, &istiod, "node1").await;
    cluster.add_pod("web", "node2", [10, 9, 2, 1]).await;
    let is = |status: &'static str| {
        move |dump: &serde_json::Value| workload(dump, WEB).is_some_and(|w| w["status"] == status)
    };
    proxy.until("a healthy web", is("Healthy")).await;
    let status = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    cluster.patch_status::<Pod>("demo", "web", status).await;
    proxy.until("an unhealthy web", is("Unhealthy")).await;
}

/// Bound to a waypoint that is not there: traffic must not go past the policies of the waypoint.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_waypoint_is_missing_is_closed_and_says_so() {
    let cluster = Cluster::start().await;
    let istiod = cluster.istiod(&[]).await;
    let mut proxy = Proxy::of(&cluster, &istiod, "node1").await;
    let mut web = objects::service("demo", "web");
    web.metadata.labels = Some([("istio.io/use-waypoint".to_owned(), "gate".to_owned())].into());
    cluster.create_object(&web).await;
    let bound = |dump: &serde_json::Value| {
        service(dump, WEB_SERVICE).is_some_and(|web| !web["waypoint"].is_null())
    };
    let dump = proxy.until("a bound web", bound).await;
    let waypoint = service(&dump, WEB_SERVICE).unwrap()["waypoint"].to_string();
    assert!(
        waypoint.contains("gate.demo.svc.cluster.local"),
        "{waypoint}"
    );
    let condition = |object: &serde_json::Value| {
        let conditions = object["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        conditions
            .into_iter()
            .find(|c| c["type"] == "istio.io/WaypointBound")
    };
    let object = cluster
        .until::<k8s_openapi::api::core::v1::Service>("demo", "web", |web| condition(web).is_some())
        .await;
    let told = condition(&object).unwrap();
    assert_eq!(
        (&told["status"], &told["reason"]),
        (&json!("False"), &json!("WaypointIsNotReady"))
    );

    cluster
        .create::<Gateway>(json!({
            "metadata": {"name": "gate", "namespace": "demo"},
            "spec": {
                "gatewayClassName": "istio-waypoint",
                "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
            },
        }))
        .await;
    let status = json!({"status": {"addresses": [{"type": "IPAddress", "value": "10.9.3.1"}]}});
    cluster
        .patch_status::<Gateway>("demo", "gate", status)
        .await;
    proxy
        .until("the waypoint's address", |dump| {
            service(dump, WEB_SERVICE)
                .is_some_and(|web| web["waypoint"].to_string().contains("10.9.3.1"))
        })
        .await;
    cluster
        .until::<k8s_openapi::api::core::v1::Service>("demo", "web", |web| {
            condition(web).is_some_and(|told| told["status"] == "True")
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_not_selected_is_not_seen_until_it_is() {
    let cluster = Cluster::start().await;
    let selectors = "discoverySelectors: [{matchLabels: {mesh: \"yes\"}}]\n";
    cluster.configure(selectors).await;
    let istiod = cluster.istiod(&[]).await;
    cluster.add_pod("web", "node2", [10, 9, 2, 1]).await;
    cluster.label_namespace("istio-system", "mesh", "yes").await;
    cluster
        .create::<Namespace>(json!({"metadata": {"name": "seen", "labels": {"mesh": "yes"}}}))
        .await;
    cluster
        .add_pod_in("seen", "other", "node2", [10, 9, 2, 2])
        .await;
    let mut proxy = Proxy::with_roots_of(&cluster, &istiod, "node1", "seen").await;
    let other = "Kubernetes//Pod/seen/other";
    let dump = proxy
        .until("other", |dump| workload(dump, other).is_some())
        .await;
    assert_eq!(workload(&dump, WEB), None);
    cluster.label_namespace("demo", "mesh", "yes").await;
    proxy
        .until("web", |dump| workload(dump, WEB).is_some())
        .await;
}

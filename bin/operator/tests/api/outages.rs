//! What the operator needs of others and does not get, for a while.

use k8s_openapi::api::{
    core::v1::{ConfigMap, Namespace, ServiceAccount},
    rbac::v1::{ClusterRole, ClusterRoleBinding},
};
use mesh_api::sail::IstioCNI;
use serde_json::{Value, json};
use testkit_kube::auth::token::Wanted;

use super::{
    cluster::{Cluster, SYSTEM, Start},
    rollouts::Rollouts,
    toys::reconcilers,
};

async fn create_in(cluster: &Cluster, namespace: &str) {
    let spec = json!({"version": "v1.30.2", "namespace": namespace});
    let cni = json!({"metadata": {"name": "default"}, "spec": spec});
    cluster.create::<IstioCNI>(cni).await;
}

fn message(cni: &Value) -> &str {
    cni["status"]["conditions"][0]["message"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_missing_is_named_and_waited_for() {
    let cluster = Cluster::start().await;
    let _rollouts = Rollouts::of(&cluster);
    let _operator = cluster.operator(reconcilers()).await;
    create_in(&cluster, "late").await;
    let cni = cluster
        .until_state::<IstioCNI>("default", "ReconcileError")
        .await;
    assert_eq!(message(&cni), "namespace \"late\" doesn't exist");
    cluster.create_namespace("late").await;
    cluster.until_state::<IstioCNI>("default", "Healthy").await;
    cluster.delete::<Namespace>(None, "late").await;
    let cni = cluster
        .until_state::<IstioCNI>("default", "ReconcileError")
        .await;
    assert!(message(&cni).starts_with("namespace \"late\""), "{cni:#}");
    cluster.until_gone::<Namespace>(None, "late").await;
    cluster.create_namespace("late").await;
    cluster.until_state::<IstioCNI>("default", "Healthy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_was_away_finds_everything_repaired_when_it_is_back() {
    let cluster = Cluster::start().await;
    let _rollouts = Rollouts::of(&cluster);
    let _operator = cluster.operator(reconcilers()).await;
    create_in(&cluster, "istio-cni").await;
    cluster.until_state::<IstioCNI>("default", "Healthy").await;
    cluster.server.stop().await;
    let maps = super::cluster::resource::<ConfigMap>();
    let store = cluster.server.store();
    store
        .remove(&maps, "istio-cni", "istio-cni-config")
        .unwrap();
    cluster.server.compact();
    cluster.server.start_again().await.unwrap();
    cluster
        .until::<ConfigMap>(Some("istio-cni"), "istio-cni-config", |map| map.is_some())
        .await;
}

/// Everything but ConfigMaps, which a role of its own may grant.
async fn restrict(cluster: &Cluster) {
    let account = json!({"metadata": {"name": "operator", "namespace": SYSTEM}});
    cluster.create::<ServiceAccount>(account).await;
    let all = |group: &str, resources: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": ["*"]});
    let read = json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]});
    let rules = json!([
        all("sailoperator.io", &["*"]),
        all("", &["serviceaccounts", "events"]),
        all("apps", &["daemonsets", "deployments"]),
        read,
    ]);
    let role = json!({"metadata": {"name": "operator"}, "rules": rules});
    cluster.create::<ClusterRole>(role).await;
    bind(cluster, "operator").await;
}

async fn bind(cluster: &Cluster, role: &str) {
    let binding = json!({
        "metadata": {"name": role},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": "operator", "namespace": SYSTEM}],
    });
    cluster.create::<ClusterRoleBinding>(binding).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_permission_is_named_and_used_when_it_is_granted() {
    let cluster = Cluster::start().await;
    let _rollouts = Rollouts::of(&cluster);
    restrict(&cluster).await;
    let wanted = Wanted {
        audiences: Vec::new(),
        lifetime: jiff::SignedDuration::from_hours(1),
        bound: None,
    };
    let token = cluster.server.token(SYSTEM, "operator", &wanted).unwrap();
    let client = cluster.server.client_with_token(&token).await.unwrap();
    let start = Start {
        client: Some(client),
        ..Start::of(reconcilers())
    };
    let _operator = cluster.operator_with(start).await;
    create_in(&cluster, "istio-cni").await;
    let cni = cluster
        .until_state::<IstioCNI>("default", "ReconcileError")
        .await;
    let message = message(&cni);
    assert!(
        message.starts_with("applying ConfigMap istio-cni/istio-cni-config: "),
        "{message}"
    );
    assert!(
        message.contains("cannot patch resource \"configmaps\""),
        "{message}"
    );
    assert!(message.contains("operator rights"), "{message}");
    // The workload that needs the map is not there without it; the account is.
    assert!(
        cluster
            .get::<ServiceAccount>(Some("istio-cni"), "istio-cni")
            .is_some()
    );
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["*"]}]);
    let role = json!({"metadata": {"name": "maps"}, "rules": rules});
    cluster.create::<ClusterRole>(role).await;
    bind(&cluster, "maps").await;
    cluster.until_state::<IstioCNI>("default", "Healthy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_war_over_a_field_is_slowed_down_and_ends_when_the_other_gives_up() {
    let cluster = Cluster::start().await;
    let _rollouts = Rollouts::of(&cluster);
    let operator = cluster.operator(reconcilers()).await;
    create_in(&cluster, "istio-cni").await;
    cluster.until_state::<IstioCNI>("default", "Healthy").await;
    let before = operator.requests.writes();
    for round in 0..100 {
        let theirs = json!({"data": {"version": round.to_string()}});
        cluster
            .patch::<ConfigMap>(Some("istio-cni"), "istio-cni-config", theirs)
            .await;
    }
    cluster
        .until::<ConfigMap>(Some("istio-cni"), "istio-cni-config", |map| {
            map.is_some_and(|map| map["data"]["version"] == "v1.30.2")
        })
        .await;
    assert!(operator.requests.writes() - before <= 60);
}

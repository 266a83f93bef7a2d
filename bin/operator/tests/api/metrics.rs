//! The operator's own ports.

use std::{net::SocketAddr, pin::Pin};

use k8s_openapi::api::{
    core::v1::ServiceAccount,
    rbac::v1::{ClusterRole, ClusterRoleBinding},
};
use mesh_api::sail::IstioCNI;
use openssl::ssl::{Ssl, SslConnector, SslMethod, SslVerifyMode};
use serde_json::json;
use testkit_kube::{auth::token::Wanted, wait};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_openssl::SslStream;

use super::{
    cluster::{Cluster, DEADLINE, Operator, SYSTEM},
    rollouts::Rollouts,
    toys::reconcilers,
};

/// Metrics, as somebody who may read them.
pub(crate) async fn scrape(cluster: &Cluster, operator: &Operator) -> String {
    if cluster
        .get::<ServiceAccount>(Some(SYSTEM), "reader")
        .is_none()
    {
        allow(cluster).await;
    }
    let page = get(operator.running.metrics.unwrap(), &token(cluster, "reader")).await;
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    page
}

/// The sum of all series of a metric.
pub(crate) fn sum(page: &str, name: &str) -> u64 {
    let lines = page.lines().filter(|line| line.starts_with(name));
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

async fn allow(cluster: &Cluster) {
    for account in ["reader", "stranger"] {
        let account = json!({"metadata": {"name": account, "namespace": SYSTEM}});
        cluster.create::<ServiceAccount>(account).await;
    }
    let rules = json!([{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]);
    let role = json!({"metadata": {"name": "metrics-reader"}, "rules": rules});
    cluster.create::<ClusterRole>(role).await;
    let binding = json!({
        "metadata": {"name": "metrics-reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "metrics-reader"},
        "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": SYSTEM}],
    });
    cluster.create::<ClusterRoleBinding>(binding).await;
}

fn token(cluster: &Cluster, account: &str) -> String {
    let wanted = Wanted {
        audiences: Vec::new(),
        lifetime: jiff::SignedDuration::from_hours(1),
        bound: None,
    };
    cluster.server.token(SYSTEM, account, &wanted).unwrap()
}

async fn get(address: SocketAddr, token: &str) -> String {
    let mut connector = SslConnector::builder(SslMethod::tls_client()).unwrap();
    // Self-signed, as Prometheus has to take it too.
    connector.set_verify(SslVerifyMode::NONE);
    let ssl = Ssl::new(connector.build().context()).unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let mut stream = SslStream::new(ssl, stream).unwrap();
    Pin::new(&mut stream).connect().await.unwrap();
    let request =
        format!("GET /metrics HTTP/1.1\r\nHost: operator\r\nAuthorization: Bearer {token}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut page = Vec::new();
    stream.read_to_end(&mut page).await.ok();
    String::from_utf8(page).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_for_those_who_may_read_them() {
    let cluster = Cluster::start().await;
    let operator = cluster.operator(reconcilers()).await;
    allow(&cluster).await;
    let address = operator.running.metrics.unwrap();
    let nobody = get(address, "").await;
    assert!(nobody.starts_with("HTTP/1.1 401"), "{nobody}");
    let unknown = get(address, "made-up").await;
    assert!(unknown.starts_with("HTTP/1.1 401"), "{unknown}");
    let stranger = get(address, &token(&cluster, "stranger")).await;
    assert!(stranger.starts_with("HTTP/1.1 403"), "{stranger}");
    let reader = get(address, &token(&cluster, "reader")).await;
    assert!(reader.starts_with("HTTP/1.1 200"), "{reader}");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_tell_of_reconciles_writes_and_conditions() {
    let cluster = Cluster::start().await;
    let _rollouts = Rollouts::of(&cluster);
    let operator = cluster.operator(reconcilers()).await;
    let spec = json!({"version": "v1.30.2", "namespace": "istio-cni"});
    let cni = json!({"metadata": {"name": "default"}, "spec": spec});
    cluster.create::<IstioCNI>(cni).await;
    cluster.until_state::<IstioCNI>("default", "Healthy").await;
    let page = scrape(&cluster, &operator).await;
    let has = |series: &str| page.lines().any(|line| line.starts_with(series));
    for series in [
        "controller_runtime_reconcile_total{controller=\"istiocni\",result=\"requeue_after\"}",
        "controller_runtime_reconcile_time_seconds_count{controller=\"istiocni\"}",
        "lateen_operator_writes_total{verb=\"apply\",kind=\"DaemonSet\",outcome=\"ok\"} 1",
        "lateen_operator_leader 1",
        "workqueue_depth{name=\"operator\"}",
        "lateen_operator_condition{kind=\"IstioCNI\",name=\"default\",type=\"Reconciled\"",
        "lateen_operator_k8s_watch_events_total{type=\"IstioCNI\"",
    ] {
        assert!(has(series), "{series} is not in {page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_probes_tell_life_from_sight() {
    let cluster = Cluster::start().await;
    cluster.server.refuse_requests(true);
    let operator = cluster.operator(reconcilers()).await;
    let ask = |path: &'static str| async move {
        let mut stream = TcpStream::connect(operator.running.probes).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: operator\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).await.unwrap();
        page
    };
    assert!(ask("/healthz").await.starts_with("HTTP/1.1 200"));
    let page = ask("/readyz").await;
    assert!(
        page.starts_with("HTTP/1.1 500") && page.contains("view of the cluster"),
        "{page}"
    );
    cluster.server.refuse_requests(false);
    let ready = |page: &String| page.starts_with("HTTP/1.1 200");
    wait::eventually("readiness", DEADLINE, || ask("/readyz"), ready)
        .await
        .unwrap();
}

//! What the operator needs of others and does not get, for a while.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use http::{Method, Request, Response};
use k8s_openapi::api::{
    core::v1::{ConfigMap, Event, Namespace, ServiceAccount},
    rbac::v1::{ClusterRole, ClusterRoleBinding},
};
use kube::{Client, client::Body};
use mesh_api::sail::IstioCNI;
use serde_json::{Value, json};
use testkit_kube::{auth::token::Wanted, store::GroupResource};
use tokio::{sync::watch, time::timeout};

use super::{
    cluster::{Cluster, DEADLINE, SYSTEM, Start},
    rollouts::Rollouts,
    toys::reconcilers,
};

const CNI: Option<&str> = Some("istio-cni");
/// The end of the path of the agent's configuration.
const CONFIG: &str = "/configmaps/istio-cni-config";
/// How often somebody undoes what the operator writes.
const ROUNDS: usize = 50;

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
    let maps = GroupResource::of::<ConfigMap>();
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
async fn a_war_over_a_field_takes_one_write_each_time_and_ends_when_the_other_gives_up() {
    let cluster = Cluster::start().await;
    let _rollouts = Rollouts::of(&cluster);
    let operator = cluster.operator(reconcilers()).await;
    create_in(&cluster, "istio-cni").await;
    cluster.until_state::<IstioCNI>("default", "Healthy").await;
    let before = operator.requests.writes();
    for round in 1..=ROUNDS {
        let theirs = json!({"data": {"version": round.to_string()}});
        cluster
            .patch::<ConfigMap>(CNI, "istio-cni-config", theirs)
            .await;
        // They answer each repair, and it takes one write.
        cluster
            .until::<ConfigMap>(CNI, "istio-cni-config", |map| {
                map.is_some_and(|map| map["data"]["version"] == "v1.30.2")
            })
            .await;
    }
    // Whatever else it would write, it has written before it looks at something else.
    let next = json!({"spec": {"version": "v1.30.3"}});
    cluster.patch::<IstioCNI>(None, "default", next).await;
    cluster.until_state::<IstioCNI>("default", "Healthy").await;
    let log = operator.requests.log().split_off(before);
    let repairs = log.iter().filter(|write| write.ends_with(CONFIG)).count();
    assert_eq!(repairs, ROUNDS + 1, "{log:#?}");
}

/// A client to which the API server answers that there is a conflict, whenever it writes to a path that
/// ends like this. Counts the answers.
fn conflicting(client: Client, path: &'static str, storm: Arc<Storm>) -> Client {
    let namespace = client.default_namespace().to_owned();
    let service = tower::service_fn(move |request: Request<Body>| {
        let (client, storm) = (client.clone(), Arc::clone(&storm));
        async move {
            let writes = request.method() != Method::GET && request.uri().path().ends_with(path);
            if writes && storm.rages.load(SeqCst) {
                storm.answers.send_modify(|count| *count += 1);
                return Ok(conflict());
            }
            let answer = client.send(request).await;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(answer?)
        }
    });
    Client::new(service, namespace)
}

fn conflict() -> Response<Body> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 409,
        "reason": "Conflict", "message": "the object has been modified",
    });
    let body = Body::from(serde_json::to_vec(&status).unwrap());
    let answer = Response::builder().status(409);
    let answer = answer.header("content-type", "application/json");
    answer.body(body).unwrap()
}

struct Storm {
    rages: AtomicBool,
    answers: watch::Sender<usize>,
}

impl Storm {
    fn begin() -> Arc<Self> {
        Arc::new(Self {
            rages: AtomicBool::new(true),
            answers: watch::Sender::new(0),
        })
    }

    fn end(&self) {
        self.rages.store(false, SeqCst);
    }

    /// Waits for so many answers.
    async fn answered(&self, times: usize) {
        let mut answers = self.answers.subscribe();
        let enough = answers.wait_for(|count| *count >= times);
        timeout(DEADLINE, enough).await.unwrap().unwrap();
    }
}

fn stormy(cluster: &Cluster, path: &'static str, storm: &Arc<Storm>) -> Start {
    Start {
        client: Some(conflicting(cluster.client.clone(), path, Arc::clone(storm))),
        ..Start::of(reconcilers())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_conflicts_is_reported_and_outlived() {
    let cluster = Cluster::start().await;
    let _rollouts = Rollouts::of(&cluster);
    let storm = Storm::begin();
    let _operator = cluster
        .operator_with(stormy(&cluster, CONFIG, &storm))
        .await;
    create_in(&cluster, "istio-cni").await;
    let cni = cluster
        .until_state::<IstioCNI>("default", "ReconcileError")
        .await;
    let condition = &cni["status"]["conditions"][0];
    assert_eq!(
        (&condition["type"], &condition["status"]),
        (&json!("Reconciled"), &json!("False"))
    );
    let said = message(&cni);
    assert!(
        said.starts_with("applying ConfigMap istio-cni/istio-cni-config: "),
        "{said}"
    );
    assert!(said.contains("the object has been modified"), "{said}");
    cluster
        .until_any::<Event>(|event| {
            let note = event["note"].as_str().or_else(|| event["message"].as_str());
            event["reason"] == "ReconcileError" && note == Some(said)
        })
        .await;
    let so_far = *storm.answers.borrow();
    storm.answered(so_far + 2).await;
    storm.end();
    cluster.until_state::<IstioCNI>("default", "Healthy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_meets_conflicts_is_written_when_they_end() {
    let cluster = Cluster::start().await;
    let _rollouts = Rollouts::of(&cluster);
    let storm = Storm::begin();
    let path = "/istiocnis/default/status";
    let _operator = cluster.operator_with(stormy(&cluster, path, &storm)).await;
    create_in(&cluster, "istio-cni").await;
    // All objects are made long before the last of these; nothing wakes the resource any more.
    storm.answered(8).await;
    storm.end();
    cluster.until_state::<IstioCNI>("default", "Healthy").await;
}

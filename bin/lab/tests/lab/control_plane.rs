//! The mesh under istiod: what its users write to the API server, and what becomes of it while istiod is
//! away.

use lab::{
    control_plane::Cluster,
    mesh::{NAMESPACE, dump},
};
use mesh_api::security::AuthorizationPolicy;
use serde_json::Value;
use testkit_net::tcp::Behaviour;
use tokio::{net::TcpStream, sync::watch, task::JoinHandle, time::timeout};

use crate::fixture::{Lab, PATIENCE, closes, echoes};

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: demo}
spec:
  clusterIP: 10.96.0.10
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
";

const SERVICE_ADDRESS: ([u8; 4], u16) = ([10, 96, 0, 10], 80);

const DENY_BATCH: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny-batch, namespace: demo}
spec:
  action: DENY
  rules: [{from: [{source: {principals: [cluster.local/ns/demo/sa/batch]}}]}]
";

/// Pods `curl` and `batch` on node 1, pod `web` on node 2, all in the mesh.
async fn with_three() -> Lab<Cluster> {
    let mut lab = Lab::of_cluster().await;
    lab.add_pair().await;
    lab.add_enrolled("node1", "batch").await;
    lab
}

/// Waits until both proxies have the policy.
async fn deny_batch(lab: &Lab<Cluster>) {
    lab.control_plane().apply(DENY_BATCH).await.unwrap();
    let known = |shown: &Value| dump::has_policy(shown, "deny-batch");
    lab.known("the policy", known).await.unwrap();
}

fn accepted(policy: &Value) -> Option<&Value> {
    let mut conditions = policy["status"]["conditions"].as_array()?.iter();
    conditions.find(|condition| condition["type"] == "ZtunnelAccepted")
}

/// Speaks on a connection without a pause, until told to end; then it is returned.
fn speak(mut stream: TcpStream, mut end: watch::Receiver<()>) -> JoinHandle<TcpStream> {
    tokio::spawn(async move {
        while !end.has_changed().unwrap() {
            echoes(&mut stream).await.unwrap();
        }
        end.mark_unchanged();
        stream
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_object_leads_to_its_pods() {
    let lab = with_three().await;
    let server = lab.serve("web", Behaviour::Echo);
    lab.control_plane().apply(SERVICE).await.unwrap();
    let known = |shown: &Value| dump::has_endpoints(shown, "web.demo.svc.cluster.local");
    lab.known("the service and its pod", known).await.unwrap();
    let mark = lab.mark("node1");
    lab.tell_secret("curl", SERVICE_ADDRESS.into())
        .await
        .unwrap();
    let named = "dst.service=\"web.demo.svc.cluster.local\"";
    let line = lab
        .line("node1", mark, &["connection complete", named])
        .await;
    let to = format!("dst.hbone_addr={}", server.address());
    assert!(line.contains(&to), "{line}");
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_object_is_enforced_and_its_status_says_so() {
    let lab = with_three().await;
    let server = lab.serve("web", Behaviour::Echo);
    let mut open = lab.connect("batch", server.address()).await;
    echoes(&mut open).await.unwrap();
    deny_batch(&lab).await;
    closes(&mut open).await;
    lab.tell_secret("batch", server.address())
        .await
        .unwrap_err();
    lab.tell_secret("curl", server.address()).await.unwrap();
    let told = |policy: &Value| accepted(policy).is_some();
    let cluster = lab.control_plane();
    let policy = cluster.until::<AuthorizationPolicy>(NAMESPACE, "deny-batch", told);
    let policy = policy.await.unwrap();
    let condition = accepted(&policy).unwrap();
    assert_eq!(condition["status"], "True");
    assert_eq!(condition["reason"], "Accepted");
    let generation = &policy["metadata"]["generation"];
    assert_eq!(&condition["observedGeneration"], generation);
    let deleted = cluster.delete::<AuthorizationPolicy>(NAMESPACE, "deny-batch");
    deleted.await.unwrap();
    let gone = |shown: &Value| !dump::has_policy(shown, "deny-batch");
    lab.known("the end of the policy", gone).await.unwrap();
    lab.tell_secret("batch", server.address()).await.unwrap();
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_the_control_plane_costs_no_connection_and_no_policy() {
    let mut lab = with_three().await;
    let server = lab.serve("web", Behaviour::Echo);
    deny_batch(&lab).await;
    let (stop, end) = watch::channel(());
    let open = lab.connect("curl", server.address()).await;
    let speaking = speak(open, end);
    let holds = async |lab: &Lab<Cluster>| {
        lab.tell_secret("curl", server.address()).await.unwrap();
        let denied = lab.tell_secret("batch", server.address()).await;
        denied.unwrap_err();
    };
    lab.control_plane_mut().istiod_mut().kill().await.unwrap();
    holds(&lab).await;
    lab.control_plane_mut()
        .istiod_mut()
        .restart()
        .await
        .unwrap();
    // What is written now arrives at both: they are connected again.
    lab.control_plane().apply(SERVICE).await.unwrap();
    let known = |shown: &Value| dump::has_endpoints(shown, "web.demo.svc.cluster.local");
    lab.known("the service and its pod", known).await.unwrap();
    holds(&lab).await;
    stop.send_replace(());
    drop(speaking.await.unwrap());
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_deleted_while_the_control_plane_is_away_is_gone_afterwards() {
    let mut lab = with_three().await;
    let uid = |pod: &str| format!("Kubernetes//Pod/{NAMESPACE}/{pod}");
    let has = |shown: &Value, pod: &str| dump::has_workload(shown, &uid(pod));
    lab.control_plane_mut().istiod_mut().kill().await.unwrap();
    lab.delete_pod("batch").await.unwrap();
    assert!(has(&lab.dump("node2"), "batch"));
    lab.control_plane_mut()
        .istiod_mut()
        .restart()
        .await
        .unwrap();
    let gone = |shown: &Value| !has(shown, "batch") && has(shown, "curl") && has(shown, "web");
    lab.known("the end of batch alone", gone).await.unwrap();
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn istiod_shows_each_node_s_proxy_as_synced() {
    let lab = Lab::of_cluster().await;
    let istiod = lab.control_plane().istiod();
    let synced = async {
        loop {
            let shown = istiod.debug("/debug/syncz").await.unwrap();
            if statuses(&shown).all(|status| status == "SYNCED") {
                return shown;
            }
        }
    };
    let shown = timeout(PATIENCE, synced).await.unwrap();
    let proxies = shown.as_array().unwrap().iter();
    let mut nodes: Vec<_> = proxies.map(|proxy| proxy["node"].as_str()).collect();
    nodes.sort_unstable();
    assert_eq!(nodes, [Some("node1"), Some("node2")], "{shown}");
    // Addresses and policies, for each.
    assert_eq!(statuses(&shown).count(), 4, "{shown}");
    lab.end().await;
}

/// What is said of each type on each proxy's stream.
fn statuses(shown: &Value) -> impl Iterator<Item = &Value> {
    let types = shown.as_array().into_iter().flatten();
    let types = types.filter_map(|proxy| proxy["types"].as_object());
    types.flat_map(|types| types.values().map(|of| &of["status"]))
}

//! Two replicas, and everything of which proxies are told: pods, services and policies. Whichever way a
//! proxy or a replica comes back, what has gone is gone and what is there stays.

use k8s_openapi::api::core::v1::{Pod, Service};
use mesh_api::security::AuthorizationPolicy;
use serde_json::{Value, json};
use testkit_kube::store::GroupResource;

use super::{
    cluster::{Cluster, Istiod, eventually},
    objects,
    proxy::{Proxy, policy, service, workload},
};

const STAYS: &str = "stays";
const GOES: &str = "goes";

/// Two of each, of which the one stays and the other goes.
async fn populate(cluster: &Cluster) {
    for (at, name) in [STAYS, GOES].into_iter().enumerate() {
        let last = u8::try_from(at).unwrap() + 1;
        cluster.add_pod(name, "node1", [10, 9, 1, last]).await;
        cluster.create_object(&objects::service("demo", name)).await;
        let policy = json!({
            "metadata": {"name": name, "namespace": "demo"},
            "spec": {"action": "DENY", "rules": [{"to": [{"operation": {"ports": ["9"]}}]}]},
        });
        cluster.create::<AuthorizationPolicy>(policy).await;
    }
}

async fn remove(cluster: &Cluster) {
    cluster.delete::<Pod>("demo", GOES).await;
    cluster.delete::<Service>("demo", GOES).await;
    cluster.delete::<AuthorizationPolicy>("demo", GOES).await;
}

/// As [`remove`], unseen by the API server's clients.
fn remove_unseen(cluster: &Cluster) {
    let store = cluster.server.store();
    for (group, resource) in [
        ("", "pods"),
        ("", "services"),
        ("security.istio.io", "authorizationpolicies"),
    ] {
        let resource = GroupResource::new(group, resource);
        store.remove(&resource, "demo", GOES).unwrap();
    }
}

/// How much of what has this name is known: 3 is all.
fn known(dump: &Value, name: &str) -> usize {
    [
        workload(dump, &format!("Kubernetes//Pod/demo/{name}")),
        service(dump, &format!("{name}.demo.svc.cluster.local")),
        policy(dump, name),
    ]
    .into_iter()
    .flatten()
    .count()
}

fn all(dump: &Value) -> bool {
    known(dump, STAYS) == 3 && known(dump, GOES) == 3
}

fn rest(dump: &Value) -> bool {
    known(dump, STAYS) == 3 && known(dump, GOES) == 0
}

/// What a replica has sent to its only proxy, resources and removals of both types, once all is taken.
async fn sent(istiod: &Istiod) -> (u64, u64) {
    let ask = || istiod.debug("/debug/syncz");
    let types = |shown: &Value| shown[0]["types"].as_object().cloned().unwrap_or_default();
    let taken = |shown: &Value| {
        let types = types(shown);
        types.len() == 2 && types.values().all(|known| known["status"] == "SYNCED")
    };
    let shown = eventually("a proxy that has everything", ask, taken).await;
    let sum = |field: &str| {
        let counts = types(&shown).into_iter();
        counts
            .map(|(_, known)| known[field].as_u64().unwrap())
            .sum()
    };
    (sum("resourcesSent"), sum("removalsSent"))
}

/// Waits until a replica publishes what is left.
async fn publishes_the_rest(istiod: &Istiod) {
    eventually("the rest", || istiod.debug("/debug/ambientz"), rest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_while_a_proxy_is_between_two_replicas_is_removed_and_nothing_else_sent() {
    let cluster = Cluster::start().await;
    populate(&cluster).await;
    let first = cluster.replica("istiod-1", &[]).await;
    let second = cluster.replica("istiod-2", &[]).await;
    second.ready().await;
    let mut proxy = Proxy::of(&cluster, &first, "node1").await;
    proxy.until("all", all).await;
    proxy.lead_nowhere();
    first.running.life.stop().await;
    remove(&cluster).await;
    publishes_the_rest(&second).await;
    assert!(all(&proxy.dump()), "it keeps what it has");
    proxy.lead_to(&second);
    proxy.until("the rest", rest).await;
    assert_eq!(sent(&second).await, (0, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_whose_watches_are_too_old_learn_what_has_gone() {
    let cluster = Cluster::start().await;
    populate(&cluster).await;
    let first = cluster.replica("istiod-1", &[]).await;
    let second = cluster.replica("istiod-2", &[]).await;
    let mut here = Proxy::of(&cluster, &first, "node1").await;
    let mut there = Proxy::of(&cluster, &second, "node2").await;
    for proxy in [&mut here, &mut there] {
        proxy.until("all", all).await;
    }
    // The server answers all the time, first with 503 and then with 410.
    cluster.server.refuse_requests(true);
    cluster.server.disconnect_watches();
    remove_unseen(&cluster);
    cluster.server.compact();
    cluster.server.refuse_requests(false);
    for proxy in [&mut here, &mut there] {
        proxy.until("the rest", rest).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_starts_without_the_api_server_takes_nothing_from_a_proxy() {
    let cluster = Cluster::start().await;
    populate(&cluster).await;
    let first = cluster.replica("istiod-1", &[]).await;
    let mut proxy = Proxy::of(&cluster, &first, "node1").await;
    proxy.until("all", all).await;
    cluster.server.refuse_requests(true);
    let second = cluster.replica("istiod-2", &[]).await;
    proxy.lead_to(&second);
    first.running.life.stop().await;
    let page = second.debug("/ready").await;
    assert!(page.as_str().unwrap().contains("pending"), "{page}");
    assert!(all(&proxy.dump()));
    remove_unseen(&cluster);
    cluster.server.refuse_requests(false);
    proxy.until("the rest", rest).await;
    assert_eq!(sent(&second).await, (0, 3));
}

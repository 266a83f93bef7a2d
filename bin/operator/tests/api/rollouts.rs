//! Stands for the controllers of Deployments and DaemonSets and their pods: whatever is wanted runs.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use serde_json::{Value, json};
use testkit_kube::store::{GroupResource, Store};
use tokio::task::JoinHandle;

use super::cluster::Cluster;

/// Has all workloads run until it is dropped.
pub(crate) struct Rollouts(JoinHandle<()>);

/// Nodes of the cluster, each with a pod of every DaemonSet.
const NODES: i64 = 2;

impl Rollouts {
    pub(crate) fn of(cluster: &Cluster) -> Self {
        let server = cluster.server.clone();
        let kinds = [
            GroupResource::of::<Deployment>(),
            GroupResource::of::<DaemonSet>(),
        ];
        Self(tokio::spawn(async move {
            let store = server.store();
            let mut news = kinds.each_ref().map(|kind| store.subscribe(kind));
            loop {
                for kind in &kinds {
                    roll(store, kind);
                }
                let [one, other] = &mut news;
                tokio::select! {
                    changed = one.changed() => changed.unwrap(),
                    changed = other.changed() => changed.unwrap(),
                }
            }
        }))
    }
}

fn roll(store: &Store, kind: &GroupResource) {
    for object in store.list(kind, None) {
        let generation = &object["metadata"]["generation"];
        if object["status"]["observedGeneration"] != *generation {
            let mut rolled = Value::clone(&object);
            rolled["status"] = status(&object);
            let unchanged = |now: &Arc<Value>| {
                now["metadata"]["resourceVersion"] == object["metadata"]["resourceVersion"]
            };
            let (namespace, name) = (
                &object["metadata"]["namespace"],
                &object["metadata"]["name"],
            );
            let now = store.get(kind, namespace.as_str().unwrap(), name.as_str().unwrap());
            if now.as_ref().is_some_and(unchanged) {
                store.put(kind, rolled);
            }
        }
    }
}

fn status(object: &Value) -> Value {
    let generation = &object["metadata"]["generation"];
    let replicas = object["spec"]["replicas"].as_i64().unwrap_or(1);
    json!({
        "observedGeneration": generation,
        "replicas": replicas,
        "updatedReplicas": replicas,
        "readyReplicas": replicas,
        "availableReplicas": replicas,
        "desiredNumberScheduled": NODES,
        "currentNumberScheduled": NODES,
        "updatedNumberScheduled": NODES,
        "numberReady": NODES,
        "numberAvailable": NODES,
        "numberMisscheduled": 0,
    })
}

impl Drop for Rollouts {
    fn drop(&mut self) {
        self.0.abort();
    }
}

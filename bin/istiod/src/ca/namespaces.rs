//! Tells the namespaces which roots to trust: ConfigMap `istio-ca-root-cert` in each of them.
//!
//! The leader alone does so. It watches namespaces and the ConfigMaps of that name, knows of each whether
//! it is right, and writes those that are not: new ones, edited ones, deleted ones, and all of them when
//! the roots change. What is right is never written.

mod plan;
mod write;

use std::{collections::BTreeMap, sync::Arc};

use futures::{StreamExt as _, stream::FuturesUnordered};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::{Api, Client};
use mesh_identity::issuer::Issuer;
use mesh_kube::watch::{self as collection, Event, ObjectKey};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};

use self::{
    plan::{Plan, Task},
    write::write,
};

/// Which namespaces belong to the mesh. Any function will do.
pub trait Scope: Send + Sync + 'static {
    /// Whether a namespace with these labels is told of the roots.
    fn covers(&self, namespace: &str, labels: &BTreeMap<String, String>) -> bool;
}

/// Writes the ConfigMaps.
pub struct Controller {
    client: Client,
    issuers: watch::Receiver<Arc<Issuer>>,
    scope: Arc<dyn Scope>,
    /// Has a new value whenever `scope` may answer otherwise.
    scope_changes: watch::Receiver<u64>,
    metrics: collection::Metrics,
}

/// The ConfigMap's name.
pub const NAME: &str = mesh_api::control_plane::ROOT_CONFIG_MAP;

/// Namespaces that are never told: nothing of the mesh runs in them. Istio's list.
const EXCLUDED: [&str; 3] = ["kube-public", "kube-node-lease", "local-path-storage"];
/// Writes at a time. The API server is shared with everybody else.
const PARALLEL: usize = 8;

// === impl Controller ===

impl Controller {
    /// Tells the namespaces in `scope` of the roots of the issuer in force. `scope_changes` has a new
    /// value whenever `scope` may answer otherwise.
    pub fn new(
        client: Client,
        issuers: watch::Receiver<Arc<Issuer>>,
        scope: Arc<dyn Scope>,
        scope_changes: watch::Receiver<u64>,
        metrics: collection::Metrics,
    ) -> Self {
        Self {
            client,
            issuers,
            scope,
            scope_changes,
            metrics,
        }
    }

    /// Runs whenever `leader` is true. Otherwise nothing is watched.
    pub async fn run(self, mut leader: watch::Receiver<bool>) {
        while leader.wait_for(|leads| *leads).await.is_ok() {
            let mut lost = leader.clone();
            tokio::select! {
                _ = lost.wait_for(|leads| !leads) => {}
                () = self.lead() => {}
            }
        }
    }

    /// Watches and writes, for ever.
    async fn lead(&self) {
        let plan = Plan::new(self.issuers.borrow().roots(), Arc::clone(&self.scope));
        let shared = Arc::new(Shared {
            plan: Mutex::new(plan),
            news: Notify::new(),
        });
        let namespaces = Api::<Namespace>::all(self.client.clone());
        let maps = Api::<ConfigMap>::all(self.client.clone());
        let named = collection::Options {
            fields: Some(format!("metadata.name={NAME}")),
            ..collection::Options::default()
        };
        let (namespaces_state, mut namespaces_synced) =
            watch::channel(collection::State::default());
        let (maps_state, mut maps_synced) = watch::channel(collection::State::default());
        let watching = async {
            tokio::join!(
                collection::run(
                    namespaces,
                    collection::Options::default(),
                    self.metrics.clone(),
                    namespaces_state,
                    Namespaces(Arc::clone(&shared)),
                ),
                collection::run(
                    maps,
                    named,
                    self.metrics.clone(),
                    maps_state,
                    Maps(Arc::clone(&shared)),
                ),
            )
        };
        let writing = async {
            // Before that every namespace would seem to lack its ConfigMap.
            collection::all_synced([&mut namespaces_synced, &mut maps_synced]).await;
            self.write_all(&shared).await;
        };
        tokio::select! {
            _ = watching => {}
            () = writing => {}
        }
    }

    /// Writes whatever is not right, a few at a time, for ever.
    async fn write_all(&self, shared: &Shared) {
        let (mut issuers, mut scope) = (self.issuers.clone(), self.scope_changes.clone());
        let mut writes = FuturesUnordered::new();
        loop {
            let retry = loop {
                let mut plan = shared.plan.lock();
                if writes.len() == PARALLEL {
                    break None;
                }
                match plan.take(Instant::now()) {
                    Some(task) => writes.push(self.carry_out(shared, task)),
                    None => break plan.next_retry(),
                }
            };
            tokio::select! {
                Some(()) = writes.next() => {}
                () = shared.news.notified() => {}
                () = wait_until(retry) => {}
                changed = issuers.changed() => {
                    if changed.is_err() { return }
                    shared.plan.lock().set_roots(issuers.borrow_and_update().roots());
                }
                changed = scope.changed() => {
                    if changed.is_err() { return }
                    scope.mark_unchanged();
                    shared.plan.lock().rescope();
                }
            }
        }
    }

    async fn carry_out(&self, shared: &Shared, task: Task) {
        let written = write(&self.client, &task).await;
        if let Err(error) = &written {
            let (namespace, error) = (&task.namespace, mesh_kube::error::Explained(error));
            tracing::warn!(namespace, %error, "the namespace is not told of the roots");
        }
        let mut plan = shared.plan.lock();
        plan.done(&task, written.is_ok(), Instant::now());
    }
}

/// What the watches tell and the writer does, side by side.
struct Shared {
    plan: Mutex<Plan>,
    news: Notify,
}

struct Namespaces(Arc<Shared>);

struct Maps(Arc<Shared>);

impl collection::Index<Namespace> for Namespaces {
    fn update(&mut self, events: Vec<Event<Namespace>>) {
        let mut plan = self.0.plan.lock();
        for event in events {
            match event {
                Event::Apply(namespace) => plan.namespace(namespace),
                Event::Delete(key) => plan.no_namespace(&key.name),
                Event::Invalid(invalid) => tracing::warn!(
                    namespace = invalid.key.name,
                    reason = invalid.reason,
                    "the namespace cannot be read"
                ),
            }
        }
        drop(plan);
        self.0.news.notify_one();
    }
}

impl collection::Index<ConfigMap> for Maps {
    fn update(&mut self, events: Vec<Event<ConfigMap>>) {
        let mut plan = self.0.plan.lock();
        for event in events {
            match event {
                Event::Apply(map) => plan.map(&map),
                Event::Delete(ObjectKey { namespace, .. }) => plan.no_map(&namespace),
                // Whatever it is, it is not right: the writer sees for itself.
                Event::Invalid(invalid) => plan.bad_map(&invalid.key.namespace),
            }
        }
        drop(plan);
        self.0.news.notify_one();
    }
}

async fn wait_until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller").finish_non_exhaustive()
    }
}

impl<F> Scope for F
where
    F: Fn(&str, &BTreeMap<String, String>) -> bool + Send + Sync + 'static,
{
    fn covers(&self, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        self(namespace, labels)
    }
}

#[cfg(test)]
mod tests;

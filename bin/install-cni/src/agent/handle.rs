//! The agent, as the rest of the program sees it.

use std::{fmt, sync::Arc, time::Duration};

use mesh_kube::watch::ObjectKey;
use prometheus_client::registry::Registry;
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    driver::{Shared, Stage},
    feed::Snapshots,
    machine::Phase,
    proxies::Proxies,
    view::View,
};
use crate::parts::{Probes, Rules};

/// The agent, for those who ask it. Cheap to clone.
pub struct Handle<K, Z> {
    pub(super) shared: Arc<Shared<K, Z>>,
}

/// How the mesh has left the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Withdrawn {
    /// The pods in which rules may be left, and what went wrong.
    pub left: Vec<String>,
    /// Why the probe set could not be removed.
    pub probes: Option<String>,
}

/// Longest time for the removal of the probe set.
const CLEARING: Duration = Duration::from_secs(5);

/// Longest time for the annotations of pods that have left the mesh.
const REPORTING: Duration = Duration::from_secs(2);

// === impl Handle ===

impl<K: Rules + Probes, Z: Proxies> Handle<K, Z> {
    /// Resolves when the pods and namespaces of the API server have been seen.
    pub async fn synced(&self) {
        self.reach(Stage::Synced).await;
    }

    /// Resolves when all pods have been looked at once, and ztunnels are let in.
    pub async fn serving(&self) {
        self.reach(Stage::Serving).await;
    }

    async fn reach(&self, wanted: Stage) {
        let mut stage = self.shared.stage.subscribe();
        // The sender lives as long as this handle.
        let _reached = stage.wait_for(|stage| *stage >= wanted).await.is_ok();
    }

    /// Whether the API server has this pod of the node and says that it is being deleted.
    pub fn is_ending(&self, pod: &ObjectKey) -> bool {
        let registry = self.shared.registry.lock();
        let found = registry.index().pod_named(pod, "");
        found.is_some_and(|pod| pod.deleting)
    }

    /// Whether the API server has not been seen for long, so that changes there have no effect.
    pub fn has_lost_sight(&self) -> bool {
        self.shared.sight.is_lost()
    }

    /// What the agent knows.
    pub fn view(&self) -> View {
        let ztunnels = *self.shared.proxies.synced().borrow();
        let repairs = self.shared.metrics.repairs();
        View::of(&self.shared.registry.lock(), ztunnels, repairs)
    }

    /// What the plugin decides by while it cannot reach us, as it changes.
    pub fn snapshots(&self) -> Snapshots {
        let registry = self.shared.registry.clone();
        Snapshots::new(self.shared.namespaces.subscribe(), registry)
    }

    /// Registers what the agent counts.
    pub fn register(&self, registry: &mut Registry) {
        self.shared.metrics.register(registry);
        registry.register_collector(Box::new(self.clone()));
    }

    /// Takes the mesh from the node: all pods leave it, then the probe set goes. The agent must be running,
    /// and does not bring anything back. Stops after `within`.
    pub async fn withdraw(&self, within: Duration) -> Withdrawn {
        let deadline = Instant::now() + within;
        let shared = &self.shared;
        let concerned = shared.registry.lock().withdraw();
        shared.wake(concerned);
        for uid in shared.everybody() {
            let Some(mut progress) = shared.registry.lock().follow(&uid) else {
                continue;
            };
            while shared
                .phase(&uid)
                .is_some_and(|phase| phase != Phase::Outside)
            {
                tokio::select! {
                    changed = progress.changed() => if changed.is_err() { break },
                    () = sleep_until(deadline) => break,
                }
            }
        }
        let left = shared.remaining();
        let probes = match timeout(CLEARING, shared.clear_probes()).await {
            Ok(cleared) => cleared.err(),
            Err(_elapsed) => Some("the kernel does not answer".to_owned()),
        };
        // A report is worth a moment, and no more: the rights to write it may be gone already.
        let reported = shared.reported();
        let _in_time = timeout(REPORTING.min(within), reported).await.is_ok();
        Withdrawn { left, probes }
    }
}

impl<K: Rules + Probes, Z: Proxies> Shared<K, Z> {
    /// Waits until the annotations say what is.
    async fn reported(&self) {
        for uid in self.everybody() {
            let Some(mut progress) = self.registry.lock().follow(&uid) else {
                continue;
            };
            while self.statuses.is_due(&uid) && progress.changed().await.is_ok() {}
        }
    }

    /// The pods that have not left the mesh.
    fn remaining(&self) -> Vec<String> {
        let registry = self.registry.lock();
        let left = registry.entries();
        let left = left.filter(|(_, entry)| entry.machine.phase() != Phase::Outside);
        left.map(|(_, entry)| {
            let why = entry.machine.failure();
            let why = why.map_or("not done in time", |failure| &failure.cause.message);
            format!("{}/{}: {why}", entry.info.namespace, entry.info.name)
        })
        .collect()
    }
}

impl<K, Z> Clone for Handle<K, Z> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
        }
    }
}

impl<K, Z> fmt::Debug for Handle<K, Z> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

//! What the watches tell the agent, and what it tells the plugin.

use std::sync::Arc;

use kube::core::PartialObjectMeta;
use mesh_cni::enrolment::Snapshot;
use mesh_kube::watch::{Event, Index};
use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

use super::{
    driver::Shared,
    metrics::Told,
    pods::{self, Concerned, NamespaceObject, PodObject},
    proxies::Proxies,
    registry::{Entry, Registry},
};
use crate::parts::{Probes, Rules};

/// Takes what is told of the node's pods.
pub(super) struct PodFeed<K, Z>(pub(super) Arc<Shared<K, Z>>);

/// Takes what is told of namespaces.
pub(super) struct NamespaceFeed<K, Z>(pub(super) Arc<Shared<K, Z>>);

/// What the plugin decides by while it cannot reach the agent, as it changes.
#[derive(Debug)]
pub struct Snapshots {
    changes: watch::Receiver<u64>,
    /// Whether there has been one.
    begun: bool,
    registry: Arc<Mutex<Registry>>,
}

impl<K: Rules + Probes, Z: Proxies> PodFeed<K, Z> {
    fn take(&self, event: Event<PodObject>) -> Concerned {
        let mut registry = self.0.registry.lock();
        match event {
            Event::Apply(object) => {
                let Some(pod) = object.into_pod() else {
                    return Concerned::new();
                };
                let (uid, info) = (pod.uid.clone(), pod.info.clone());
                let known = registry.index().pod(&uid);
                let news =
                    known.is_none_or(|known| known.annotations.invalid != pod.annotations.invalid);
                let mut invalid = pod.annotations.invalid.clone();
                let told = if known.is_some() {
                    Told::Update
                } else {
                    Told::Add
                };
                let concerned = registry.apply_pod(pod);
                let tell = |entry: &mut Entry| entry.may_complain(Instant::now());
                if !news || invalid.is_empty() || !registry.entry_mut(&uid).is_none_or(tell) {
                    invalid.clear();
                }
                if concerned.contains(&uid) {
                    self.0.metrics.told(told);
                }
                drop(registry);
                self.0.notes().invalid(&uid, &info, &invalid);
                concerned
            }
            Event::Delete(key) => {
                let concerned = registry.delete_pod(&key);
                if !concerned.is_empty() {
                    self.0.metrics.told(Told::Delete);
                }
                concerned
            }
            Event::Invalid(invalid) => {
                let (pod, reason) = (&invalid.key, &invalid.reason);
                tracing::warn!(%pod, reason, "a pod cannot be read; what was known of it stays");
                Concerned::new()
            }
        }
    }
}

impl<K: Rules + Probes, Z: Proxies> Index<PodObject> for PodFeed<K, Z> {
    fn update(&mut self, events: Vec<Event<PodObject>>) {
        for event in events {
            let concerned = self.take(event);
            self.0.wake(concerned);
        }
    }
}

impl<K: Rules + Probes, Z: Proxies> Index<NamespaceObject> for NamespaceFeed<K, Z> {
    fn update(&mut self, events: Vec<Event<NamespaceObject>>) {
        let mut concerned = Concerned::new();
        let mut registry = self.0.registry.lock();
        let before = registry.index().generation();
        for event in events {
            match event {
                Event::Apply(object) => {
                    let PartialObjectMeta { metadata, .. } = object;
                    let name = metadata.name.unwrap_or_default();
                    let labels = metadata.labels.unwrap_or_default();
                    let version = pods::version(metadata.resource_version.as_deref());
                    let told = pods::Namespace::watched(labels, version);
                    concerned.extend(registry.apply_namespace(name, told));
                }
                Event::Delete(key) => registry.delete_namespace(&key.name),
                Event::Invalid(invalid) => {
                    let (namespace, reason) = (&invalid.key, &invalid.reason);
                    tracing::warn!(%namespace, reason, "a namespace cannot be read");
                }
            }
        }
        let changed = registry.index().generation() != before;
        drop(registry);
        if changed {
            self.0.namespaces_changed();
        }
        self.0.wake(concerned);
    }
}

// === impl Snapshots ===

impl Snapshots {
    pub(super) fn new(changes: watch::Receiver<u64>, registry: Arc<Mutex<Registry>>) -> Self {
        Self {
            changes,
            begun: false,
            registry,
        }
    }

    /// The next snapshot: the first as soon as all namespaces have been seen, then one whenever a label has
    /// changed that matters. Several changes may be one. None when the agent has ended.
    pub async fn next(&mut self) -> Option<Snapshot> {
        if self.begun {
            self.changes.changed().await.ok()?;
        } else {
            let _version = self.changes.wait_for(|version| *version > 0).await.ok()?;
            self.begun = true;
        }
        Some(self.registry.lock().index().snapshot())
    }
}

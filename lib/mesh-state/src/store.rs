//! The store: one writer at a time, readers that never wait.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use mesh_core::{
    address::NamespacedHostname,
    change::Change,
    identity::Identity,
    service::Service,
    workload::{PodInfo, Workload},
};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{policies::Stale, snapshot::Snapshot, workloads::Known};

/// Where this proxy stands in the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The network in which destinations are looked up; empty is the default one.
    pub network: Arc<str>,
    /// The node whose workloads are ours. Without one, all workloads are.
    pub node: Option<Arc<str>>,
    /// The cluster of this node; decides between two nodes of one name.
    pub cluster: Option<Arc<str>>,
    /// The namespace to prefer among services that share an address or a host name, after the
    /// client's own and after canonical ones.
    pub preferred_service_namespace: Option<Arc<str>>,
}

/// Which state a snapshot shows. Both numbers only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation {
    /// Grows whenever anything changes.
    pub state: u64,
    /// Grows whenever a verdict about a workload of this node may have changed, be it by a policy or
    /// by the list of policies that the workload names.
    pub policy: u64,
}

/// What applying a batch changed beyond the snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The state after the batch.
    pub generation: Generation,
    /// Identities that this node's workloads now need a certificate for, and did not before.
    pub identities_added: Vec<Identity>,
    /// Identities that no workload of this node uses any more.
    pub identities_removed: Vec<Identity>,
}

/// The handle to the data-plane state; clones share it.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    current: ArcSwap<Snapshot>,
    /// Held while a batch is applied. Readers do not touch it.
    writer: Mutex<()>,
    changed: watch::Sender<Generation>,
    policy: watch::Sender<u64>,
}

/// A batch in progress: the next snapshot, and what must be prepared anew before it is published.
struct Batch {
    next: Snapshot,
    changed: bool,
    services: HashSet<NamespacedHostname>,
    policies: Stale,
    /// Identities of touched workloads, and whether they were in use before the batch.
    identities: HashMap<Identity, bool>,
}

// === impl Store ===

impl Store {
    /// An empty store.
    pub fn new(config: Config) -> Self {
        let empty = Snapshot::new(config);
        Self(Arc::new(Inner {
            current: ArcSwap::from_pointee(empty),
            writer: Mutex::new(()),
            changed: watch::Sender::new(Generation::default()),
            policy: watch::Sender::new(0),
        }))
    }

    /// Applies a batch of updates, in order, and publishes one snapshot that shows all of it.
    ///
    /// What is prepared for connections is made once per batch, so a large batch costs much less than
    /// its updates one by one. A batch that changes nothing publishes nothing.
    pub fn apply(&self, updates: impl IntoIterator<Item = Change>) -> Applied {
        let _writer = self.0.writer.lock();
        let mut batch = Batch::new(Snapshot::clone(&self.load()));
        for update in updates {
            batch.apply(update);
        }
        if !batch.changed {
            return Applied {
                generation: batch.next.generation(),
                ..Applied::default()
            };
        }
        let (snapshot, applied) = batch.finish();
        self.0.current.store(Arc::new(snapshot));
        let Generation { policy, .. } = applied.generation;
        self.0
            .policy
            .send_if_modified(|known| std::mem::replace(known, policy) != policy);
        self.0.changed.send_replace(applied.generation);
        applied
    }

    /// The current snapshot, for as long as it is needed.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.0.current.load_full()
    }

    /// The current snapshot for a short look, without touching its reference count. Not to be held
    /// across an await.
    pub fn load(&self) -> Guard<Arc<Snapshot>> {
        self.0.current.load()
    }

    /// Tells of each new generation, after its snapshot is readable.
    pub fn changed(&self) -> watch::Receiver<Generation> {
        self.0.changed.subscribe()
    }

    /// Tells only of generations in which verdicts about workloads of this node may have changed:
    /// the signal to judge live connections again.
    pub fn policy_changes(&self) -> watch::Receiver<u64> {
        self.0.policy.subscribe()
    }

    /// The workload of a pod of this node, waiting for discovery to tell of it. `None` after `patience`.
    pub async fn wait_for_pod(&self, pod: &PodInfo, patience: Duration) -> Option<Arc<Workload>> {
        let find = || self.load().workload_for_pod(pod).map(Arc::clone);
        if let Some(workload) = find() {
            return Some(workload);
        }
        let mut changed = self.changed();
        let wait = async {
            loop {
                if let Some(workload) = find() {
                    return Some(workload);
                }
                // The sender lives as long as `self`.
                changed.changed().await.ok()?;
            }
        };
        tokio::time::timeout(patience, wait).await.ok().flatten()
    }
}

// === impl Batch ===

impl Batch {
    fn new(next: Snapshot) -> Self {
        Self {
            next,
            changed: false,
            services: HashSet::new(),
            policies: Stale::default(),
            identities: HashMap::new(),
        }
    }

    fn apply(&mut self, update: Change) {
        self.changed |= match update {
            Change::Workload(workload) => self.insert_workload(workload),
            Change::Service(service) => self.insert_service(service),
            Change::Policy(policy) => self.next.policies.insert(&policy, &mut self.policies),
            Change::RemoveAddress(name) => {
                self.remove_workload(&name) || self.remove_service(&name)
            }
            Change::RemovePolicy(key) => self.next.policies.remove(&key, &mut self.policies),
        };
    }

    /// Prepares what the batch made stale.
    fn finish(mut self) -> (Snapshot, Applied) {
        for key in &self.services {
            self.next.refresh_service(key);
        }
        let verdicts = {
            let Snapshot {
                policies,
                workloads,
                ..
            } = &mut self.next;
            policies.refresh(&self.policies, workloads)
        };
        let generation = &mut self.next.generation;
        generation.state += 1;
        generation.policy += u64::from(verdicts);
        let mut applied = Applied {
            generation: *generation,
            ..Applied::default()
        };
        for (identity, before) in self.identities {
            match (before, self.next.workloads.has_local_identity(&identity)) {
                (false, true) => applied.identities_added.push(identity),
                (true, false) => applied.identities_removed.push(identity),
                (true, true) | (false, false) => {}
            }
        }
        applied.identities_added.sort_unstable();
        applied.identities_removed.sort_unstable();
        (self.next, applied)
    }

    fn insert_workload(&mut self, workload: Workload) -> bool {
        let known = self.next.workloads.by_uid(&workload.uid);
        if known.is_some_and(|known| *known.workload == workload) {
            return false;
        }
        self.remove_workload(&workload.uid);
        let known = Arc::new(Known::new(workload, &self.next.config));
        if let Err(error) = &known.expected {
            let workload = &known.workload.uid;
            tracing::warn!(%workload, %error, "workload cannot be reached by mutual TLS");
        }
        self.touch_identity(&known);
        for key in known.workload.services.keys() {
            self.next.services.join(key, Arc::clone(&known));
            self.services.insert(key.clone());
        }
        if known.local {
            self.next
                .policies
                .attach(&known.workload, &mut self.policies);
        }
        self.next.workloads.insert(known, &self.next.config);
        true
    }

    fn remove_workload(&mut self, uid: &str) -> bool {
        let Some(known) = self.next.workloads.by_uid(uid).cloned() else {
            return false;
        };
        self.touch_identity(&known);
        self.next.workloads.remove(uid, &self.next.config);
        for key in known.workload.services.keys() {
            self.next.services.leave(key, &known.workload.uid);
            self.services.insert(key.clone());
        }
        if known.local {
            self.next
                .policies
                .detach(&known.workload, &mut self.policies);
        }
        true
    }

    fn insert_service(&mut self, service: Service) -> bool {
        let key = service.key();
        let known = self.next.services.by_key(&key);
        if known.is_some_and(|known| *known.service == service) {
            return false;
        }
        self.next.services.remove(&key);
        self.next.insert_service(service);
        self.services.insert(key);
        true
    }

    /// Removes a service by `namespace/hostname`; anything after a further `/` is ignored.
    fn remove_service(&mut self, name: &str) -> bool {
        let mut parts = name.splitn(3, '/');
        let (Some(namespace), Some(hostname)) = (parts.next(), parts.next()) else {
            return false;
        };
        let key = NamespacedHostname {
            namespace: namespace.into(),
            hostname: hostname.into(),
        };
        self.next.services.remove(&key).is_some()
    }

    /// Remembers, once per batch, whether the workload's identity was in use; to be called before the
    /// workload is added or removed.
    fn touch_identity(&mut self, known: &Known) {
        if let Some(identity) = known.node_identity() {
            let before = || self.next.workloads.has_local_identity(identity);
            self.identities
                .entry(identity.clone())
                .or_insert_with(before);
        }
    }
}

#[cfg(test)]
mod tests;

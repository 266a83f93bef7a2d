//! The pods of this node: a proxy for each that the CNI agent names.

use std::{collections::BTreeMap, sync::Arc};

use mesh_core::workload::PodInfo;
use mesh_net::{
    netns::NetNs,
    socket::{self, InPodSockets, TcpOptions},
};
use mesh_proxy::{
    connections::{Connections, Dump},
    proxy::{self, Proxy, Shared},
};
use mesh_runtime::drain;
use mesh_zds::proxy::WorkloadManager;
use parking_lot::Mutex;
use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};
use serde::Serialize;
use tokio::{runtime::Handle, sync::watch};

/// Starts and stops the proxies of pods.
#[derive(Debug)]
pub(crate) struct Pods {
    shared: Shared,
    sockets: Sockets,
    workers: Handle,
    synced: watch::Receiver<bool>,
    drain: drain::Watch,
    running: BTreeMap<Arc<str>, drain::Trigger>,
    views: Views,
    metrics: Metrics,
}

/// How sockets in pods are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sockets {
    pub(crate) mark: u32,
    pub(crate) reuse_port: bool,
    pub(crate) tcp: TcpOptions,
}

/// The pods that are served, for the configuration dump. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Views(Arc<Mutex<BTreeMap<Arc<str>, View>>>);

/// Why a pod cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Its listeners cannot be bound.
    #[error(transparent)]
    Bind(#[from] proxy::Error),
    /// Its listeners cannot be bound, because no descriptor is left in this process. Raise the limit.
    #[error("no file descriptor is left for the pod's listeners")]
    NoDescriptors(#[source] proxy::Error),
}

#[derive(Clone, Debug)]
struct View {
    info: PodInfo,
    connections: Connections,
}

#[derive(Debug, Default)]
struct Metrics {
    active: Gauge,
    pending: Gauge,
    started: Counter,
    stopped: Counter,
}

/// One pod in the dump.
#[derive(Debug, Serialize)]
pub(crate) struct PodDump {
    state: &'static str,
    connections: Dump,
    info: InfoDump,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct InfoDump {
    name: Arc<str>,
    namespace: Arc<str>,
    service_account: Arc<str>,
}

// === impl Pods ===

impl Pods {
    /// Pods that will be served on `workers` once `synced` says that discovery is complete, until
    /// `drain` begins.
    pub(crate) fn new(
        shared: Shared,
        sockets: Sockets,
        workers: Handle,
        synced: watch::Receiver<bool>,
        drain: drain::Watch,
    ) -> Self {
        Self {
            shared,
            sockets,
            workers,
            synced,
            drain,
            running: BTreeMap::new(),
            views: Views::default(),
            metrics: Metrics::default(),
        }
    }

    /// The pods that are served.
    pub(crate) fn views(&self) -> Views {
        self.views.clone()
    }

    /// Adds the counts of pods to `registry`. The gauge of those that are not served yet is for whoever
    /// knows their number.
    pub(crate) fn register(&self, registry: &mut Registry) -> Gauge {
        self.metrics.register(registry);
        self.metrics.pending.clone()
    }

    fn bind(&self, pod: &PodInfo, netns: Arc<NetNs>) -> Result<Proxy, Error> {
        let sockets = InPodSockets {
            netns,
            mark: Some(self.sockets.mark),
            reuse_port: self.sockets.reuse_port,
            tcp: self.sockets.tcp,
        };
        // The listeners belong to the runtime that will serve them.
        let _workers = self.workers.enter();
        let bound = Proxy::bind(pod.clone(), Arc::new(sockets), self.shared.clone());
        bound.map_err(|error| {
            if socket::is_descriptor_shortage(&error.source) {
                Error::NoDescriptors(error)
            } else {
                Error::Bind(error)
            }
        })
    }

    fn serve(&self, proxy: Proxy) -> drain::Trigger {
        let (trigger, drain) = self.drain.child();
        let mut synced = self.synced.clone();
        let serving = async move {
            // Before the first full answer of discovery a meshed destination would look like any other
            // address, and a pod without its policies like one that allows all: connections wait.
            tokio::select! {
                biased;
                _mode = drain.signaled() => return,
                known = synced.wait_for(|synced| *synced) => if known.is_err() { return },
            }
            proxy.run(drain).await;
        };
        drop(self.shared.tasks.spawn("pod-proxy", serving));
        trigger
    }
}

impl WorkloadManager for Pods {
    type Error = Error;

    async fn add(
        &mut self,
        uid: &Arc<str>,
        pod: &PodInfo,
        netns: Arc<NetNs>,
    ) -> Result<(), Self::Error> {
        let proxy = self.bind(pod, netns)?;
        let view = View {
            info: pod.clone(),
            connections: proxy.connections(),
        };
        let drain = self.serve(proxy);
        self.views.0.lock().insert(uid.clone(), view);
        self.running.insert(uid.clone(), drain);
        self.metrics.active.inc();
        self.metrics.started.inc();
        Ok(())
    }

    async fn delete(&mut self, uid: &Arc<str>) {
        let Some(drain) = self.running.remove(uid) else {
            return;
        };
        self.views.0.lock().remove(uid);
        self.metrics.active.dec();
        self.metrics.stopped.inc();
        // Connections end in their own tasks, which the tracker waits for.
        let ending = drain.drain(drain::Mode::Immediate);
        drop(self.shared.tasks.spawn("pod-drain", ending));
    }
}

impl Drop for Pods {
    /// Once the process stops, connections have until its deadline, whoever asked for single pods.
    fn drop(&mut self) {
        if self.drain.mode().is_some() {
            for drain in std::mem::take(&mut self.running).into_values() {
                drain.leave_to_parent();
            }
        }
    }
}

// === impl Views ===

impl Views {
    /// What is open in each pod, by uid.
    pub(crate) fn dump(&self) -> BTreeMap<Arc<str>, PodDump> {
        let views = self.0.lock().clone();
        let dump = |view: View| PodDump {
            state: "Up",
            connections: view.connections.dump(),
            info: InfoDump {
                name: view.info.name,
                namespace: view.info.namespace,
                service_account: view.info.service_account,
            },
        };
        views
            .into_iter()
            .map(|(uid, view)| (uid, dump(view)))
            .collect()
    }
}

// === impl Metrics ===

impl Metrics {
    fn register(&self, registry: &mut Registry) {
        let prefixed = registry.sub_registry_with_prefix("workload_manager");
        prefixed.register(
            "active_proxy_count",
            "Pods that are served (unstable)",
            self.active.clone(),
        );
        prefixed.register(
            "pending_proxy_count",
            "Pods that should be served and are not yet (unstable)",
            self.pending.clone(),
        );
        prefixed.register(
            "proxies_started",
            "Pods that began to be served (unstable)",
            self.started.clone(),
        );
        prefixed.register(
            "proxies_stopped",
            "Pods that ceased to be served (unstable)",
            self.stopped.clone(),
        );
    }
}

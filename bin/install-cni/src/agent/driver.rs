//! The loops: watches feed the registry, the queue names the pods that have to be looked at, and every one
//! of them goes its next steps in a future of its own.

use std::{convert::Infallible, fmt, pin::pin, sync::Arc, time::Duration};

use futures::{StreamExt as _, future::join, stream::FuturesUnordered};
use kube::{Api, Client};
use mesh_kube::{
    Backoff,
    events::Recorder,
    queue::{Done, Pace, Shared as Queue},
    watch::{self, State},
};
use mesh_runtime::error::chain;
use parking_lot::Mutex;
use tokio::{
    sync::{Mutex as AsyncMutex, watch as news},
    time::{Instant, sleep, timeout},
};

use super::{
    Config, Patience,
    feed::{NamespaceFeed, PodFeed},
    handle::Handle,
    machine::{Notice, Phase},
    metrics::{self, Repair},
    netns::{
        Host,
        process::{Scanner, boot_id},
        sandbox::Store,
    },
    notes::Notes,
    pods::{Concerned, Index, NamespaceObject, PodObject},
    proxies::Proxies,
    registry::Registry,
    sight::Sight,
    status::Writer,
};
use crate::parts::{PodUid, Probes, Rules};

mod perform;

/// What looks after the pods of the node, when it is run.
pub struct Agent<K, Z> {
    handle: Handle<K, Z>,
    watches: watch::Metrics,
}

/// What the agent works with.
pub struct Parts<K, Z> {
    /// The API server.
    pub client: Client,
    /// The kernel: rules and the probe set.
    pub kernel: K,
    /// The ztunnels of the node.
    pub proxies: Z,
    /// Takes notes for people.
    pub events: Recorder,
    /// Counts what the watches do.
    pub watches: watch::Metrics,
}

/// What everything shares.
pub(super) struct Shared<K, Z> {
    pub(super) node: String,
    pub(super) patience: Patience,
    pub(super) client: Client,
    pub(super) kernel: K,
    pub(super) proxies: Z,
    pub(super) host: Host,
    pub(super) scanner: Scanner,
    pub(super) store: Store,
    pub(super) registry: Arc<Mutex<Registry>>,
    pub(super) queue: Queue<PodUid>,
    pub(super) metrics: metrics::Metrics,
    pub(super) sight: Sight,
    notes: Notes,
    pub(super) statuses: Writer,
    pub(super) stage: news::Sender<Stage>,
    /// Changes of the namespaces' labels.
    pub(super) namespaces: news::Sender<u64>,
    /// Held while the probe set is made or removed.
    set: AsyncMutex<()>,
    /// Why the probe set cannot be used.
    trouble: Mutex<Option<String>>,
}

/// How far the start has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Starting,
    /// Pods and namespaces have been seen.
    Synced,
    /// Pods have been looked at, and ztunnels are let in.
    Serving,
}

/// Why there is no agent. Somebody has to help the node.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The node's `/proc` is not mounted where it should be.
    #[error("read the boot's number below {}", .0.display())]
    Boot(std::path::PathBuf, #[source] std::io::Error),
    /// The run directory cannot be used.
    #[error("keep notes of the node's sandboxes")]
    Notes(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Longest time of the first pass. What has not been looked at by then is told to ztunnels as well as it
/// is known: they are not kept from the other pods for it.
const FIRST_PASS: Duration = Duration::from_secs(30);

/// Longest time that the start waits for the probe set.
const ENSURING: Duration = Duration::from_secs(2);

/// Most actions of one pod in a row before others are looked at.
const BURST: usize = 64;

/// A pod is compared with the kernel again after the time for that, or up to a quarter sooner or later.
const SOONEST: f64 = 0.75;

/// Where notes of sandboxes are, in the run directory.
const SANDBOXES: &str = "sandboxes";

// === impl Agent ===

impl<K: Rules + Probes, Z: Proxies> Agent<K, Z> {
    /// An agent that does nothing before it is run.
    pub fn new(config: Config, parts: Parts<K, Z>) -> Result<(Self, Handle<K, Z>), Error> {
        let paths = config.paths;
        let boot = boot_id(&paths.proc);
        let boot = boot.map_err(|source| Error::Boot(paths.proc.clone(), source))?;
        let store = Store::open(paths.run_dir.join(SANDBOXES), boot);
        let store = store.map_err(|error| Error::Notes(error.into()))?;
        let host = Host::new(paths.host, paths.proc);
        let index = Index::new(config.policy, config.options, config.system_namespace);
        let registry = Arc::new(Mutex::new(Registry::new(index, store.load())));
        let shared = Shared {
            node: config.node,
            patience: config.patience,
            scanner: Scanner::new(host.clone()),
            host,
            store,
            statuses: Writer::new(parts.client.clone(), registry.clone()),
            registry,
            client: parts.client,
            kernel: parts.kernel,
            proxies: parts.proxies,
            queue: Queue::new(pace()),
            metrics: metrics::Metrics::new(),
            sight: Sight::default(),
            notes: Notes::new(parts.events),
            stage: news::Sender::new(Stage::Starting),
            namespaces: news::Sender::new(0),
            set: AsyncMutex::new(()),
            trouble: Mutex::new(None),
        };
        let handle = Handle {
            shared: Arc::new(shared),
        };
        let agent = Self {
            handle: handle.clone(),
            watches: parts.watches,
        };
        Ok((agent, handle))
    }

    /// Looks after the pods, for ever.
    pub async fn run(self) -> Infallible {
        let shared = &self.handle.shared;
        let (pods, pods_state) = news::channel(State::default());
        let (namespaces, namespaces_state) = news::channel(State::default());
        let mut running = FuturesUnordered::<futures::future::BoxFuture<'_, ()>>::new();
        running.push(Box::pin(self.watch_pods(pods)));
        running.push(Box::pin(self.watch_namespaces(namespaces)));
        let sight = &shared.sight;
        running.push(Box::pin(sight.follow("pods", pods_state.clone())));
        running.push(Box::pin(
            sight.follow("namespaces", namespaces_state.clone()),
        ));
        running.push(Box::pin(shared.reconcile()));
        running.push(Box::pin(shared.statuses.clone().run()));
        running.push(Box::pin(shared.lead(pods_state, namespaces_state)));
        // Each of them is for ever.
        while running.next().await.is_some() {}
        std::future::pending().await
    }

    async fn watch_pods(&self, state: news::Sender<State>) {
        let shared = &self.handle.shared;
        let options = watch::Options {
            fields: Some(format!("spec.nodeName={}", shared.node)),
            ..options()
        };
        let api = Api::<PodObject>::all(shared.client.clone());
        let feed = PodFeed(shared.clone());
        match watch::run(api, options, self.watches.clone(), state, feed).await {}
    }

    async fn watch_namespaces(&self, state: news::Sender<State>) {
        let shared = &self.handle.shared;
        let api = Api::<NamespaceObject>::all(shared.client.clone());
        let feed = NamespaceFeed(shared.clone());
        match watch::run(api, options(), self.watches.clone(), state, feed).await {}
    }
}

/// There is an agent on every node of the cluster.
fn options() -> watch::Options {
    watch::Options {
        lists: watch::Lists::Cached,
        ..watch::Options::default()
    }
}

fn pace() -> Pace {
    // A pod's steps are paced by its machine's waits; this bounds those who wake it without end, such as by
    // its labels.
    Pace {
        burst: 200,
        every: Duration::from_millis(200),
        backoff: Backoff::new(Duration::from_millis(5), Duration::from_secs(15)),
    }
}

// === impl Shared ===

impl<K: Rules + Probes, Z: Proxies> Shared<K, Z> {
    /// From the start to serving ztunnels, and what is looked at from time to time.
    async fn lead(&self, mut pods: news::Receiver<State>, mut namespaces: news::Receiver<State>) {
        // Without it no pod comes in, but those that are in go on: ztunnel is not to wait for it.
        let ensured = timeout(ENSURING, self.ensure_probes()).await;
        if ensured.is_err() {
            tracing::error!("going on without the set of addresses that probes may reach");
        }
        watch::all_synced([&mut pods, &mut namespaces]).await;
        self.drop_stale_notes();
        self.audit_probes().await;
        self.stage.send_replace(Stage::Synced);
        self.namespaces.send_modify(|version| *version += 1);
        self.wake(self.everybody());
        let surveyed = timeout(FIRST_PASS, self.survey()).await;
        if surveyed.is_err() {
            tracing::warn!(
                "some pods could not be looked at in time; letting ztunnels in without them"
            );
        }
        self.introduce();
        join(
            async { match self.proxies.serve().await {} },
            join(self.follow_proxies(), self.audit()),
        )
        .await;
    }

    pub(super) fn everybody(&self) -> Concerned {
        let registry = self.registry.lock();
        registry.entries().map(|(uid, _)| uid.clone()).collect()
    }

    /// Waits until every pod has been looked at.
    async fn survey(&self) {
        for uid in self.everybody() {
            let followed = self.registry.lock().follow(&uid);
            let Some(mut progress) = followed else {
                continue;
            };
            loop {
                let over = {
                    let registry = self.registry.lock();
                    registry.entry(&uid).is_none_or(|e| e.machine.is_surveyed())
                };
                if over || progress.changed().await.is_err() {
                    break;
                }
            }
        }
    }

    /// Gives ztunnels the list of pods, and lets pods in that are new.
    fn introduce(&self) {
        let told = self.registry.lock().introduce();
        let served = told
            .iter()
            .filter(|(.., located)| located.is_some())
            .count();
        let kept = told.len() - served;
        let pods = told.into_iter().map(|(uid, info, located)| {
            let pod = mesh_zds::agent::Pod { uid, info };
            (pod, located.map(|located| located.netns))
        });
        self.proxies.restore(pods.collect());
        self.stage.send_replace(Stage::Serving);
        tracing::info!(served, kept, "all pods of the node have been looked at");
        self.wake(self.everybody());
    }

    /// Has every pod confirmed by a ztunnel that comes.
    async fn follow_proxies(&self) {
        let mut synced = self.proxies.synced();
        while synced.changed().await.is_ok() {
            if *synced.borrow_and_update() > 0 {
                let concerned = self.registry.lock().proxies_changed();
                self.wake(concerned);
            }
        }
    }

    /// Compares what is common to all pods with what it should be, from time to time.
    async fn audit(&self) {
        loop {
            if self.trouble().is_none() {
                sleep(self.patience.verify).await;
            }
            self.ensure_probes().await;
            self.audit_probes().await;
            self.drop_stale_notes();
            self.confirm_asked().await;
        }
    }

    /// Makes the probe set, as soon as that works, unless the mesh leaves the node.
    async fn ensure_probes(&self) {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(15));
        while let Err(error) = self.ensure_probes_now().await {
            let error = chain(&error).to_string();
            tracing::error!(
                error,
                "cannot make the set of addresses that probes may reach"
            );
            *self.trouble.lock() = Some(error);
            sleep(backoff.failed()).await;
        }
        *self.trouble.lock() = None;
    }

    async fn ensure_probes_now(&self) -> Result<(), <K as Probes>::Error> {
        let _alone = self.set.lock().await;
        if self.registry.lock().is_withdrawn() {
            return Ok(());
        }
        self.kernel.ensure().await
    }

    /// Removes the probe set: the mesh leaves the node.
    pub(super) async fn clear_probes(&self) -> Result<(), String> {
        let _alone = self.set.lock().await;
        let cleared = self.kernel.clear().await;
        cleared.map_err(|error| chain(&error).to_string())
    }

    /// Compares the probe set with what it should be.
    async fn audit_probes(&self) {
        if self.registry.lock().is_withdrawn() {
            return;
        }
        let changes = self.registry.lock().probe_changes();
        let set = match self.kernel.list().await {
            Ok(set) => set,
            Err(error) => {
                let error = chain(&error);
                tracing::error!(%error, "cannot read the set of addresses that probes may reach");
                return;
            }
        };
        let (wrong, strangers) = {
            let mut registry = self.registry.lock();
            let first = !registry.is_serving();
            let seen = registry.probes_seen(&set, &changes);
            if !first && !seen.0.is_empty() {
                self.metrics.repaired(Repair::Probes);
            }
            seen
        };
        for (address, uid) in strangers {
            tracing::info!(%address, pod = %uid, "an address of no pod leaves the probe set");
            if let Err(error) = Probes::remove(&self.kernel, address, &uid).await {
                tracing::warn!(%address, error = %chain(&error), "cannot remove it; will try again");
            }
        }
        self.wake(wrong);
    }

    /// Forgets the sandboxes whose namespace is gone, or whose path leads elsewhere.
    fn drop_stale_notes(&self) {
        let sandboxes = self.registry.lock().sandboxes();
        let stale = sandboxes
            .into_iter()
            .filter(|sandbox| self.host.identify(&sandbox.netns) != Some(sandbox.netns_id()));
        for sandbox in stale {
            tracing::debug!(sandbox = sandbox.container_id, "the sandbox is gone");
            self.vanished(&sandbox.key());
        }
    }

    /// Forgets an interface that the runtime takes, and its note.
    pub(super) fn forget(&self, interface: &(String, String)) -> Concerned {
        let concerned = self.registry.lock().detached(interface);
        self.erase(interface);
        self.wake(concerned.iter().cloned());
        concerned
    }

    /// Forgets an interface that is gone, and its note.
    pub(super) fn vanished(&self, interface: &(String, String)) {
        let concerned = self.registry.lock().vanished(interface);
        self.erase(interface);
        self.wake(concerned);
    }

    fn erase(&self, interface: &(String, String)) {
        if let Err(error) = self.store.remove(&interface.0, &interface.1) {
            tracing::warn!(error = %chain(&error), "cannot forget a sandbox; will try again");
        }
    }

    /// These pods have to be looked at.
    pub(super) fn wake(&self, pods: impl IntoIterator<Item = PodUid>) {
        self.queue.wake(pods);
    }

    /// The namespaces' labels have changed.
    pub(super) fn namespaces_changed(&self) {
        if *self.stage.borrow() >= Stage::Synced {
            self.namespaces.send_modify(|version| *version += 1);
        }
    }

    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }

    pub(super) fn notes(&self) -> &Notes {
        &self.notes
    }

    /// Takes the steps of all pods that have some to take, for ever.
    async fn reconcile(&self) {
        let mut passes = FuturesUnordered::new();
        loop {
            let next = pin!(self.queue.next());
            tokio::select! {
                uid = next => passes.push(Box::pin(async move {
                    let done = self.pass(&uid).await;
                    self.queue.done(&uid, done);
                })),
                Some(()) = passes.next() => {}
            }
        }
    }

    /// Takes a pod's steps until there is none, or one fails.
    async fn pass(&self, uid: &PodUid) -> Done {
        let before = self.phase(uid);
        let (now, every) = (Instant::now(), self.patience.verify.mul_f64(SOONEST));
        let mut task = self.registry.lock().begin(uid, now, every);
        let mut count = 0;
        while let Some(next) = task.take() {
            let result = self.perform(uid, &next).await;
            let failed = result.as_ref().err().map(|cause| cause.reason);
            let notice = self.registry.lock().done(uid, &next.action, result);
            self.notice(uid, notice);
            self.tell(uid);
            if let Some(reason) = failed {
                self.metrics.failed(next.action.step(), reason);
                if let Some(wait) = self.failed(uid) {
                    return Done::Again(wait.mul_f64(0.8 + fastrand::f64() * 0.4));
                }
            }
            count += 1;
            if count == BURST {
                return Done::Again(Duration::from_millis(1));
            }
            task = self.registry.lock().next(uid);
        }
        self.settled(uid, before)
    }

    pub(super) fn phase(&self, uid: &str) -> Option<Phase> {
        let registry = self.registry.lock();
        registry.entry(uid).map(|entry| entry.machine.phase())
    }

    /// Somebody may wait for what has happened to a pod.
    fn tell(&self, uid: &PodUid) {
        if let Some(entry) = self.registry.lock().entry(uid) {
            entry.tell();
        }
        self.statuses.wake([uid.clone()]);
    }

    fn notice(&self, uid: &PodUid, notice: Option<Notice>) {
        let Some(notice) = notice else {
            return;
        };
        let info = match self.registry.lock().entry(uid) {
            Some(entry) => entry.info.clone(),
            None => return,
        };
        self.metrics.repaired(match notice {
            Notice::Tampered => Repair::Rules,
            Notice::Moved => Repair::Namespace,
        });
        self.notes.repaired(uid, &info, notice);
    }

    /// An attempt has failed. Says how long to wait before the next.
    fn failed(&self, uid: &PodUid) -> Option<Duration> {
        let registry = self.registry.lock();
        let entry = registry.entry(uid)?;
        let (wait, failure) = (entry.machine.wait()?, entry.machine.failure()?);
        self.notes.failed(uid, &entry.info, failure);
        Some(wait)
    }

    /// There is nothing to do for a pod.
    fn settled(&self, uid: &PodUid, before: Option<Phase>) -> Done {
        self.tell(uid);
        let mut registry = self.registry.lock();
        if registry.bury(uid) {
            return Done::Gone;
        }
        let Some(entry) = registry.entry(uid) else {
            return Done::Gone;
        };
        let phase = entry.machine.phase();
        if before != Some(phase) {
            let (namespace, name) = (&entry.info.namespace, &entry.info.name);
            tracing::info!(%namespace, %name, ?phase, "pod");
        }
        match phase {
            Phase::Outside | Phase::Leaving => Done::Settled,
            // Spread, so that the pods of a node, or of many, are not looked at all at once.
            _ => Done::Again(
                self.patience
                    .verify
                    .mul_f64(SOONEST + fastrand::f64() / 2.0),
            ),
        }
    }
}

impl<K, Z> fmt::Debug for Agent<K, Z> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent").finish_non_exhaustive()
    }
}

impl<K, Z> fmt::Debug for Parts<K, Z> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

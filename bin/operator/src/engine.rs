//! Carries out what reconcilers want: one resource at a time, in order, and only while this replica leads.
//!
//! ```text
//! queue ──▶ decide (pure, under the store's lock) ──▶ finalizer ▶ objects ▶ what is surplus ▶ status ▶ events
//! ```
//!
//! Everything that is decided is decided from what the cluster holds. A process that is killed after any
//! write leaves nothing behind that the next one would not find.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use mesh_api::sail::{FINALIZER, Istio, IstioCNI, IstioRevision, IstioRevisionTag, ZTunnel};
use mesh_kube::{
    events::{Note, Recorder},
    owned::Owner,
    queue::Done,
};
use tokio::{sync::watch as news, time::Instant};

use crate::{
    key::{Key, Managed},
    metrics::Metrics,
    outcome::{Finalize, Happening, Outcome, Reconciler, Reconcilers},
    store::Store,
    watches::States,
    world::{Custom, Defaults, View, World},
};

pub(crate) mod failure;
mod memory;
mod plan;
mod report;
pub(crate) mod writer;

use self::{
    failure::{Failure, Trouble},
    memory::Memory,
    plan::{Plan, Removal},
    writer::Writer,
};

/// What the workers share.
pub(crate) struct Engine {
    pub(crate) store: Store,
    pub(crate) reconcilers: Reconcilers,
    pub(crate) defaults: Defaults,
    pub(crate) writer: Writer,
    pub(crate) recorder: Recorder,
    pub(crate) metrics: Metrics,
    pub(crate) states: States,
    pub(crate) patience: Patience,
    memory: Memory,
}

/// How long the engine waits for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Between two attempts at what somebody has to repair, such as a missing permission, which no watch
    /// tells of.
    pub stuck: Duration,
    /// For the first view of the cluster, before resources say what is not seen.
    pub sight: Duration,
}

/// What is to be done about a resource.
enum Decision<K: Custom> {
    /// There is none of this name.
    Gone,
    /// It is being deleted and not held by us: what it owns goes by the cluster's garbage collection.
    Leave,
    /// It needs our finalizer before anything is made for it.
    Mark(Arc<K>),
    /// It is wanted.
    Keep(Arc<K>, Plan, Report<K::Status>),
    /// It is not wanted any more.
    Remove(Arc<K>, Removal),
    /// It is not wanted any more and has to stay.
    Blocked(Arc<K>, Report<K::Status>),
}

/// What a reconciler has to say.
struct Report<S> {
    status: S,
    events: Vec<Happening>,
    again: Option<Duration>,
}

/// How often it is decided anew in one go because something was written meanwhile.
const ROUNDS: usize = 3;

/// How often an attempt that fails for a reason that may pass is repeated before the status says so.
const QUIET_FAILURES: u32 = 3;

// === impl Engine ===

impl Engine {
    pub(crate) fn new(
        store: Store,
        (reconcilers, defaults): (Reconcilers, Defaults),
        (writer, recorder): (Writer, Recorder),
        (metrics, states): (Metrics, States),
        patience: Patience,
    ) -> Self {
        Self {
            store,
            reconcilers,
            defaults,
            writer,
            recorder,
            metrics,
            states,
            patience,
            memory: Memory::default(),
        }
    }

    /// Wakes everything each time this replica begins to lead, for ever.
    pub(crate) async fn lead(self: Arc<Self>, mut leads: news::Receiver<bool>) {
        loop {
            let leading = *leads.borrow_and_update();
            self.metrics.leads(leading);
            if leading {
                self.store.wake_all();
            }
            if leads.changed().await.is_err() {
                return;
            }
        }
    }

    /// Works while this replica leads, until nobody can tell any more whether it does.
    pub(crate) async fn work(self: Arc<Self>, mut leads: news::Receiver<bool>) {
        while leads.wait_for(|leads| *leads).await.is_ok() {
            let key = tokio::select! {
                key = self.store.queue().next() => key,
                _ = leads.wait_for(|leads| !leads) => continue,
            };
            let begin = Instant::now();
            let done = self.attend(&key).await;
            self.metrics.reconciled(key.kind, done, begin.elapsed());
            tracing::debug!(%key, ?done, took = ?begin.elapsed(), "reconciled");
            self.store.queue().done(&key, done);
        }
    }

    /// Large, as many requests are alive in it.
    fn attend<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Done> {
        let of = &self.reconcilers;
        match key.kind {
            Managed::Istio => Box::pin(self.one::<Istio>(key, &of.istio)),
            Managed::IstioRevision => Box::pin(self.one::<IstioRevision>(key, &of.revision)),
            Managed::IstioRevisionTag => Box::pin(self.one::<IstioRevisionTag>(key, &of.tag)),
            Managed::IstioCni => Box::pin(self.one::<IstioCNI>(key, &of.cni)),
            Managed::ZTunnel => Box::pin(self.one::<ZTunnel>(key, &of.ztunnel)),
        }
    }

    async fn one<K: Custom>(&self, key: &Key, reconciler: &Reconciler<K>) -> Done {
        if let Some(unseen) = self.states.trouble() {
            return self.blind::<K>(key, unseen).await;
        }
        let mut rounds = 0..ROUNDS;
        loop {
            let last = rounds.next().is_none();
            match self.decide(key, reconciler) {
                Decision::Gone => {
                    self.memory.forget(key);
                    return Done::Gone;
                }
                Decision::Leave => return Done::Settled,
                Decision::Mark(resource) => {
                    match self.writer.mark(&*resource, FINALIZER).await {
                        // One that is not seen yet will be.
                        Ok(_) if last => return Done::Settled,
                        Ok(marked) => self.store.learn_resource(marked),
                        Err(failure) => {
                            let report = Report::unchanged(&*resource);
                            return self.report(key, &*resource, report, vec![failure]).await;
                        }
                    }
                }
                Decision::Keep(resource, plan, report) => {
                    let (wrote, failures) = self.carry_out(&plan).await;
                    // What was written may have changed what is to be said.
                    if last || !wrote || !failures.is_empty() {
                        return self.report(key, &*resource, report, failures).await;
                    }
                }
                Decision::Remove(resource, removal) => {
                    return self.remove(key, &*resource, removal).await;
                }
                Decision::Blocked(resource, report) => {
                    return self.report(key, &*resource, report, Vec::new()).await;
                }
            }
        }
    }

    fn decide<K: Custom>(&self, key: &Key, reconciler: &Reconciler<K>) -> Decision<K> {
        let settings = (&self.defaults, Timestamp::now());
        self.store.decide(key, settings, |world, view| {
            let Some(resource) = K::table(world).get(&key.name).cloned() else {
                return Decision::Gone;
            };
            decide(world, view, reconciler, resource)
        })
    }

    /// Applies and prunes, in order. An object that cannot be applied does not hinder the others, so that
    /// all that is missing is reported at once; but workloads are not changed and nothing is removed while
    /// what they need is not in place. Says whether anything was written, and what went wrong.
    async fn carry_out(&self, plan: &Plan) -> (bool, Vec<Failure>) {
        let (mut wrote, mut failures) = (false, Vec::new());
        for wanted in &plan.wanted {
            if wanted.object.is_workload() && !failures.is_empty() {
                continue;
            }
            match self.writer.make(wanted, &self.store).await {
                Ok(written) => wrote |= written,
                Err(failure) => {
                    let last = failure.is_final();
                    failures.push(failure);
                    if last {
                        return (wrote, failures);
                    }
                }
            }
        }
        if failures.is_empty() {
            for doomed in &plan.surplus {
                wrote = true;
                failures.extend(self.writer.delete(doomed).await.err());
            }
        }
        (wrote, failures)
    }

    async fn remove<K: Custom>(&self, key: &Key, resource: &K, removal: Removal) -> Done {
        let mut failures = Vec::new();
        for doomed in &removal.doomed {
            failures.extend(self.writer.delete(doomed).await.err());
        }
        if failures.is_empty() && removal.is_complete {
            let unmarked = self.writer.unmark(resource, FINALIZER).await;
            if unmarked.is_ok() {
                tracing::info!(%key, "removed with all that was made for it");
            }
            failures.extend(unmarked.err());
        }
        if failures.is_empty() {
            return Done::Settled;
        }
        self.report(key, resource, Report::unchanged(resource), failures)
            .await
    }

    /// Not everything that counts has been seen: whatever was decided now could be wrong.
    async fn blind<K: Custom>(&self, key: &Key, unseen: String) -> Done {
        let found = self
            .store
            .read(|world| K::table(world).get(&key.name).cloned());
        let Some(resource) = found else {
            return Done::Gone;
        };
        let report = Report::unchanged(&*resource);
        self.report(key, &*resource, report, vec![Failure::Blind(unseen)])
            .await
    }

    /// Writes the status, tells of what has happened, and says how to go on.
    async fn report<K: Custom>(
        &self,
        key: &Key,
        resource: &K,
        report: Report<K::Status>,
        failures: Vec<Failure>,
    ) -> Done {
        let trouble = Trouble::of(failures);
        match &trouble {
            Some(trouble) if trouble.is_deposed() => return Done::Settled,
            Some(trouble) => {
                self.metrics.failed(key.kind);
                let attempts = self.memory.failed(key);
                tracing::warn!(%key, reason = %trouble, attempts, "cannot reconcile");
                if trouble.may_pass() && attempts < QUIET_FAILURES {
                    return Done::Failed;
                }
            }
            None => self.memory.succeeded(key),
        }
        let mut events = report.events;
        events.extend(trouble.as_ref().map(Trouble::happening));
        let status = report::finished(resource, report.status, trouble.as_ref(), Timestamp::now());
        let written = self.writer.report(resource, &status).await;
        let changed = *written.as_ref().unwrap_or(&true);
        for happening in self.memory.news(key, events, changed) {
            self.tell(resource, happening);
        }
        let trouble = trouble.or_else(|| Trouble::of(written.err().into_iter().collect()));
        match trouble {
            Some(trouble) if trouble.is_deposed() => Done::Settled,
            Some(trouble) if trouble.may_pass() => Done::Failed,
            Some(_) => Done::Stuck(self.patience.stuck),
            None => report.again.map_or(Done::Settled, Done::Again),
        }
    }

    fn tell<K: Custom>(&self, resource: &K, happening: Happening) {
        let owner = owner(resource);
        self.recorder.record(Note {
            regarding: ObjectReference {
                api_version: Some(owner.api_version),
                kind: Some(owner.kind),
                name: Some(owner.name),
                uid: Some(owner.uid),
                ..ObjectReference::default()
            },
            severity: happening.severity,
            reason: happening.reason.to_owned(),
            action: "Reconcile".to_owned(),
            message: happening.message,
        });
    }
}

/// What is to be done about a resource, from what is known alone.
fn decide<K: Custom>(
    world: &World,
    view: &View<'_>,
    reconciler: &Reconciler<K>,
    resource: Arc<K>,
) -> Decision<K> {
    let meta = resource.meta();
    let marks = meta.finalizers.iter().flatten();
    let marked = marks.into_iter().any(|mark| mark == FINALIZER);
    let uid = meta.uid.clone().unwrap_or_default();
    match (meta.deletion_timestamp.is_some(), reconciler.finalize) {
        (true, Some(finalize)) if marked => match finalize(view, &resource) {
            Finalize::Remove { order, namespace } => {
                let removal = Removal::new(world, &uid, &order, &namespace);
                Decision::Remove(resource, removal)
            }
            Finalize::Blocked {
                status,
                events,
                again,
            } => {
                let report = Report {
                    status,
                    events,
                    again,
                };
                Decision::Blocked(resource, report)
            }
        },
        (true, _) => Decision::Leave,
        (false, Some(_)) if !marked => Decision::Mark(resource),
        (false, _) => {
            let outcome = (reconciler.reconcile)(view, &resource);
            let Outcome {
                apply,
                prune,
                status,
                again,
                events,
            } = outcome;
            let plan = Plan::new(world, &owner(&*resource), apply, &prune);
            let report = Report {
                status,
                events,
                again,
            };
            Decision::Keep(resource, plan, report)
        }
    }
}

/// What objects name as their owner.
fn owner<K: Custom>(resource: &K) -> Owner {
    let kind = K::MANAGED.kind();
    Owner {
        api_version: kind.api_version(),
        kind: kind.kind.to_owned(),
        name: resource.meta().name.clone().unwrap_or_default(),
        uid: resource.meta().uid.clone().unwrap_or_default(),
    }
}

// === impl Report ===

impl<S: Clone + Default> Report<S> {
    /// Nothing new.
    fn unchanged<K: Custom<Status = S>>(resource: &K) -> Self {
        Self {
            status: resource.status().cloned().unwrap_or_default(),
            events: Vec::new(),
            again: None,
        }
    }
}

// === impl Patience ===

impl Default for Patience {
    fn default() -> Self {
        Self {
            stuck: Duration::from_secs(30),
            sight: Duration::from_secs(20),
        }
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

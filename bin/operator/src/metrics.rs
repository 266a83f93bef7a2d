//! What the operator counts. Names that Sail's users know are kept.

use std::time::Duration;

use mesh_kube::queue::Done;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use crate::{
    key::Managed,
    outcome::Status,
    store::Store,
    world::{Custom, World},
};

/// The counters; a handle that is cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    reconciles: Family<Result, Counter>,
    errors: Family<Controller, Counter>,
    time: Family<Controller, Histogram>,
    writes: Family<Write, Counter>,
    leader: Gauge,
}

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Applies an object.
    Apply,
    /// Deletes an object.
    Delete,
    /// Puts a finalizer on or takes it off.
    Patch,
    /// Writes a status.
    Status,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Controller {
    controller: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Result {
    controller: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Write {
    verb: &'static str,
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConditionLabels {
    kind: &'static str,
    name: String,
    r#type: String,
    status: String,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Queue {
    name: &'static str,
}

/// What can be read off the store when somebody asks.
#[derive(Debug)]
struct Stored(Store);

// === impl Metrics ===

impl Metrics {
    pub(crate) fn register(registry: &mut Registry, store: &Store) -> Self {
        let buckets = || Histogram::new(exponential_buckets(0.001, 4.0, 8));
        let metrics = Self {
            reconciles: Family::default(),
            errors: Family::default(),
            time: Family::new_with_constructor(buckets),
            writes: Family::default(),
            leader: Gauge::default(),
        };
        registry.register(
            "controller_runtime_reconcile",
            "Reconciles by controller and result: success, requeue_after, requeue, error",
            metrics.reconciles.clone(),
        );
        registry.register(
            "controller_runtime_reconcile_errors",
            "Reconciles that failed, by controller",
            metrics.errors.clone(),
        );
        registry.register_with_unit(
            "controller_runtime_reconcile_time",
            "Time of a reconcile, its writes included",
            Unit::Seconds,
            metrics.time.clone(),
        );
        registry.register(
            "lateen_operator_writes",
            "Requests that change the cluster, by verb (apply, delete, patch, status), kind and outcome",
            metrics.writes.clone(),
        );
        registry.register(
            "lateen_operator_leader",
            "Whether this replica leads",
            metrics.leader.clone(),
        );
        registry.register_collector(Box::new(Stored(store.clone())));
        metrics
    }

    /// A reconcile has ended.
    pub(crate) fn reconciled(&self, kind: Managed, done: Done, took: Duration) {
        let controller = controller(kind);
        let result = match done {
            Done::Settled | Done::Gone => "success",
            Done::Again(_) => "requeue_after",
            Done::Failed | Done::Stuck(_) => "error",
        };
        let labels = Result { controller, result };
        self.reconciles.get_or_create(&labels).inc();
        let time = self.time.get_or_create(&Controller { controller });
        time.observe(took.as_secs_f64());
    }

    /// A reconcile has failed.
    pub(crate) fn failed(&self, kind: Managed) {
        let controller = controller(kind);
        self.errors.get_or_create(&Controller { controller }).inc();
    }

    /// A write was sent.
    pub(crate) fn wrote(&self, verb: Verb, kind: &'static str, ok: bool) {
        let labels = Write {
            verb: verb.name(),
            kind,
            outcome: if ok { "ok" } else { "failed" },
        };
        self.writes.get_or_create(&labels).inc();
    }

    /// Whether this replica leads.
    pub(crate) fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }
}

/// The names under which controller-runtime counts.
const fn controller(kind: Managed) -> &'static str {
    match kind {
        Managed::Istio => "istio",
        Managed::IstioRevision => "istiorevision",
        Managed::IstioRevisionTag => "istiorevisiontag",
        Managed::IstioCni => "istiocni",
        Managed::ZTunnel => "ztunnel",
    }
}

// === impl Verb ===

impl Verb {
    const fn name(self) -> &'static str {
        match self {
            Self::Apply => "apply",
            Self::Delete => "delete",
            Self::Patch => "patch",
            Self::Status => "status",
        }
    }
}

// === impl Stored ===

impl Collector for Stored {
    fn encode(
        &self,
        mut encoder: DescriptorEncoder<'_>,
    ) -> std::result::Result<(), std::fmt::Error> {
        let depth = i64::try_from(self.0.queue().depth()).unwrap_or(i64::MAX);
        let gauge = Family::<Queue, Gauge>::default();
        gauge.get_or_create(&Queue { name: "operator" }).set(depth);
        let described = encoder.encode_descriptor(
            "workqueue_depth",
            "Resources that wait to be reconciled",
            None,
            gauge.metric_type(),
        )?;
        gauge.encode(described)?;
        let conditions = Family::<ConditionLabels, Gauge>::default();
        for labels in self.0.read(conditions_of) {
            conditions.get_or_create(&labels).set(1);
        }
        let described = encoder.encode_descriptor(
            "lateen_operator_condition",
            "1 for each condition of each resource, with its status and reason",
            None,
            conditions.metric_type(),
        )?;
        conditions.encode(described)
    }
}

fn conditions_of(world: &World) -> Vec<ConditionLabels> {
    fn of<K: Custom>(world: &World, all: &mut Vec<ConditionLabels>) {
        for (name, resource) in K::table(world) {
            let status = resource.status();
            let conditions = status.map(Status::conditions).unwrap_or_default();
            all.extend(conditions.iter().map(|condition| ConditionLabels {
                kind: K::MANAGED.kind().kind,
                name: name.clone(),
                r#type: condition.type_.clone(),
                status: condition.status.clone(),
                reason: condition.reason.clone(),
            }));
        }
    }
    let mut all = Vec::new();
    of::<mesh_api::sail::Istio>(world, &mut all);
    of::<mesh_api::sail::IstioRevision>(world, &mut all);
    of::<mesh_api::sail::IstioRevisionTag>(world, &mut all);
    of::<mesh_api::sail::IstioCNI>(world, &mut all);
    of::<mesh_api::sail::ZTunnel>(world, &mut all);
    all
}

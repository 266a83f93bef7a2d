//! What the control plane counts besides what its parts count themselves.

use std::time::{Duration, Instant};

use mesh_index::Kind;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

/// The counters; a handle that is cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    rejected: Family<KindLabel, Counter>,
    changes: Counter,
    publish_time: Histogram,
    leader: Family<LockLabel, Gauge>,
    mesh_config: Family<OutcomeLabel, Counter>,
    statuses: Family<OutcomeLabel, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LockLabel {
    lock: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InfoLabel {
    version: &'static str,
}

/// How long the process runs.
#[derive(Debug)]
struct Uptime(Instant);

// === impl Metrics ===

impl Metrics {
    /// Registers the families under the names that dashboards know, where there is one.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            rejected: Family::default(),
            changes: Counter::default(),
            publish_time: Histogram::new(exponential_buckets(0.000_1, 4.0, 10)),
            leader: Family::default(),
            mesh_config: Family::default(),
            statuses: Family::default(),
        };
        let info = Family::<InfoLabel, Gauge>::default();
        let version = crate::version::VERSION;
        info.get_or_create(&InfoLabel { version }).set(1);
        registry.register("pilot_info", "Version of this control plane", info);
        registry.register(
            "pilot_total_rejected_configs",
            "Objects, or parts of them, that could not be put in force, by kind",
            metrics.rejected.clone(),
        );
        registry.register(
            "pilot_published_changes",
            "Workloads, services and policies published or withdrawn",
            metrics.changes.clone(),
        );
        registry.register_with_unit(
            "pilot_publish_time",
            "Time from a change in the index until it is ready to be sent",
            Unit::Seconds,
            metrics.publish_time.clone(),
        );
        registry.register(
            "pilot_leader",
            "Whether this replica holds the lock",
            metrics.leader.clone(),
        );
        registry.register(
            "pilot_mesh_config_reloads",
            "Mesh configurations seen, by whether they are in force",
            metrics.mesh_config.clone(),
        );
        registry.register(
            "pilot_status_writes",
            "Conditions written to objects, by outcome",
            metrics.statuses.clone(),
        );
        registry.register_collector(Box::new(Uptime(Instant::now())));
        metrics
    }

    /// An object, or a part of one, is not in force.
    pub(crate) fn rejected(&self, kind: Kind) {
        let label = KindLabel { kind: kind.name() };
        self.rejected.get_or_create(&label).inc();
    }

    /// Changes went from the index to discovery.
    pub(crate) fn published(&self, changes: usize, took: Duration) {
        self.changes
            .inc_by(u64::try_from(changes).unwrap_or(u64::MAX));
        self.publish_time.observe(took.as_secs_f64());
    }

    /// Whether this replica holds a lock.
    pub(crate) fn leads(&self, lock: &'static str, leads: bool) {
        let gauge = self.leader.get_or_create(&LockLabel { lock });
        gauge.set(i64::from(leads));
    }

    /// A mesh configuration was read.
    pub(crate) fn mesh_config(&self, accepted: bool) {
        let outcome = if accepted { "accepted" } else { "rejected" };
        self.mesh_config
            .get_or_create(&OutcomeLabel { outcome })
            .inc();
    }

    /// A condition was written, was in place already, or could not be written.
    pub(crate) fn status(&self, outcome: &'static str) {
        self.statuses.get_or_create(&OutcomeLabel { outcome }).inc();
    }
}

// === impl Uptime ===

impl Collector for Uptime {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let gauge = ConstGauge::new(self.0.elapsed().as_secs_f64());
        let encoder = encoder.encode_descriptor(
            "istiod_uptime",
            "Time since the start of this process",
            Some(&Unit::Seconds),
            gauge.metric_type(),
        )?;
        gauge.encode(encoder)
    }
}

//! What watches count. The program registers the families under its own prefix.

use std::{sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use super::Kind;

/// Counters of all watches of a program; a handle that is cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    events: Family<EventLabels, Counter>,
    errors: Family<ErrorLabels, Counter>,
    lists: Family<KindLabels, Counter>,
    sync: Family<KindLabels, Gauge<f64, AtomicU64>>,
    absent: Family<KindLabels, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    r#type: String,
    event: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    r#type: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    r#type: String,
}

/// How many events of each sort a batch holds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) applied: u64,
    pub(super) deleted: u64,
    pub(super) invalid: u64,
}

// === impl Metrics ===

impl Metrics {
    /// Registers the families `k8s_watch_*`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "k8s_watch_events",
            "Objects told to the index, by kind and by what happened: apply, delete, invalid",
            self.events.clone(),
        );
        registry.register(
            "k8s_watch_errors",
            "Lists and watches that failed, by kind and reason",
            self.errors.clone(),
        );
        registry.register(
            "k8s_watch_lists",
            "Complete lists, by kind; more than one means that a watch had a gap",
            self.lists.clone(),
        );
        registry.register_with_unit(
            "k8s_watch_sync",
            "Time from the start until the first list was complete, by kind",
            Unit::Seconds,
            self.sync.clone(),
        );
        registry.register(
            "k8s_watch_absent",
            "1 where the API server does not know the kind",
            self.absent.clone(),
        );
    }

    pub(super) fn told(&self, kind: &Kind, counts: Counts) {
        let counts = [
            ("apply", counts.applied),
            ("delete", counts.deleted),
            ("invalid", counts.invalid),
        ];
        for (event, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            let labels = EventLabels {
                r#type: kind.name().to_owned(),
                event,
            };
            self.events.get_or_create(&labels).inc_by(count);
        }
    }

    pub(super) fn failed(&self, kind: &Kind, reason: &'static str) {
        let labels = ErrorLabels {
            r#type: kind.name().to_owned(),
            reason,
        };
        self.errors.get_or_create(&labels).inc();
    }

    pub(super) fn listed(&self, kind: &Kind) {
        self.lists.get_or_create(&KindLabels::of(kind)).inc();
    }

    pub(super) fn synced(&self, kind: &Kind, after: Duration) {
        let gauge = self.sync.get_or_create(&KindLabels::of(kind));
        gauge.set(after.as_secs_f64());
    }

    pub(super) fn absent(&self, kind: &Kind, absent: bool) {
        let gauge = self.absent.get_or_create(&KindLabels::of(kind));
        gauge.set(i64::from(absent));
    }
}

// === impl KindLabels ===

impl KindLabels {
    fn of(kind: &Kind) -> Self {
        Self {
            r#type: kind.name().to_owned(),
        }
    }
}

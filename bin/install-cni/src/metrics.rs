//! What the sockets and the program itself count. The parts register what they count themselves. Names that
//! Istio's users know are kept; ours begin with `lateen_cni_`.

use std::{
    fmt::{self, Write as _},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

/// The counters; a handle that is cheap to clone. The default counts for nobody, for tests.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    add: Family<AddLabels, Histogram>,
    refused_peers: Counter,
    plugin_lines: Family<LineLabels, Counter>,
    backend: Family<BackendLabels, Gauge>,
}

/// What became of a line that the plugin sent to be logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Line {
    /// It was logged, if the level allows.
    Taken,
    /// It was no line, or one too many.
    Refused,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    response_code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AddLabels {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LineLabels {
    outcome: Line,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BackendLabels {
    backend: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RepairedLabels {
    r#type: &'static str,
    result: &'static str,
}

// === impl Metrics ===

impl Default for Metrics {
    fn default() -> Self {
        // From 1 ms, where a pod is passed by, to 16 s, where a ztunnel is waited for.
        let buckets = || Histogram::new(exponential_buckets(0.001, 2.0, 15));
        Self {
            requests: Family::default(),
            add: Family::new_with_constructor(buckets),
            refused_peers: Counter::default(),
            plugin_lines: Family::default(),
            backend: Family::default(),
        }
    }
}

impl Metrics {
    /// Counters that `registry` shows.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "istio_cni_plugin_requests",
            "Requests of the plugin, by the status of the answer",
            metrics.requests.clone(),
        );
        let sidecars = Family::<RepairedLabels, Counter>::default();
        drop(sidecars.get_or_create(&RepairedLabels {
            r#type: "repair",
            result: "success",
        }));
        registry.register(
            "istio_cni_repair_pods_repaired",
            "Always none: there are no sidecars to repair",
            sidecars,
        );
        metrics.register_own(registry.sub_registry_with_prefix("lateen_cni"));
        metrics
    }

    fn register_own(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "add",
            "Time that a pod's start waited for the agent, by result: enrolled, passed, refused",
            Unit::Seconds,
            self.add.clone(),
        );
        registry.register(
            "refused_peers",
            "Connections to the plugin's sockets by others than root",
            self.refused_peers.clone(),
        );
        registry.register(
            "plugin_log_lines",
            "Lines that the plugin sent to be logged, by outcome",
            self.plugin_lines.clone(),
        );
        registry.register(
            "backend",
            "1 for what rules are written with: nftables, iptables-nft, iptables-legacy",
            self.backend.clone(),
        );
    }

    /// A request of the plugin was answered.
    pub fn requested(&self, response_code: u16) {
        let labels = RequestLabels { response_code };
        self.requests.get_or_create(&labels).inc();
    }

    /// The plugin was answered about a new pod: `enrolled`, `passed` or `refused`.
    pub(crate) fn added(&self, result: &'static str, took: Duration) {
        let time = self.add.get_or_create(&AddLabels { result });
        time.observe(took.as_secs_f64());
    }

    /// Somebody who is not root connected.
    pub fn peer_refused(&self) {
        self.refused_peers.inc();
    }

    /// Lines of the plugin.
    pub fn lines(&self, outcome: Line, count: usize) {
        let lines = self.plugin_lines.get_or_create(&LineLabels { outcome });
        lines.inc_by(count as u64);
    }

    /// What rules are written with.
    pub fn backend(&self, backend: impl fmt::Display) {
        let backend = backend.to_string();
        self.backend
            .get_or_create(&BackendLabels { backend })
            .set(1);
    }
}

// === impl Line ===

impl EncodeLabelValue for Line {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(match self {
            Self::Taken => "taken",
            Self::Refused => "refused",
        })
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn istio_s_names_are_kept() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.requested(200);
        metrics.backend("nftables");
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "istio_cni_plugin_requests_total{response_code=\"200\"} 1",
            "istio_cni_repair_pods_repaired_total{type=\"repair\",result=\"success\"} 0",
            "lateen_cni_backend{backend=\"nftables\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}

//! What the authentication of callers counts.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

/// Counters of token reviews and refused streams. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    tokens: Family<Labels, Counter>,
    denied: Family<Reason, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    outcome: Outcome,
}

/// What came of a token. Each token is counted once for each time that it is presented, but for those
/// that wait for the same review.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum Outcome {
    /// The API server accepts it.
    Accepted,
    /// The API server does not.
    Rejected,
    /// It was answered from memory.
    Remembered,
    /// The API server did not answer, and its earlier acceptance still counted.
    Stale,
    /// The API server did not answer.
    Unreachable,
    /// It was refused without a review.
    Implausible,
}

// === impl Metrics ===

impl Metrics {
    /// Counters that are shown in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "istiod_token_reviews",
            "Bearer tokens that callers presented, by what came of them (unstable)",
            metrics.tokens.clone(),
        );
        registry.register(
            "istiod_discovery_denials",
            "Discovery streams denied, by kind of reason (unstable)",
            metrics.denied.clone(),
        );
        metrics
    }

    pub(super) fn denied(&self, reason: &'static str) {
        self.denied.get_or_create(&Reason { reason }).inc();
    }

    pub(super) fn count(&self, outcome: Outcome) {
        self.tokens.get_or_create(&Labels { outcome }).inc();
    }
}

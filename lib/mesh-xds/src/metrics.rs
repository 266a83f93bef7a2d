//! What the client counts. The program registers the families under its own prefix.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

/// The client's counters; a handle that is cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    terminations: Family<TerminationLabels, Counter>,
    messages: Family<MessageLabels, Counter>,
    bytes: Family<MessageLabels, Counter>,
}

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Termination {
    /// The control plane could not be reached.
    ConnectionError,
    /// The stream broke or was refused.
    Error,
    /// The stream broke after it had worked: connections have an age at which servers end them.
    Reconnect,
    /// The server ended the stream, to move its clients or to restart.
    Complete,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TerminationLabels {
    reason: Termination,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MessageLabels {
    url: &'static str,
}

// === impl Metrics ===

impl Metrics {
    /// Registers the counters; with the prefix `istio` they have the names that dashboards know.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "xds_connection_terminations",
            "Discovery streams that ended, by reason",
            self.terminations.clone(),
        );
        registry.register(
            "xds_message",
            "Discovery responses received, by type",
            self.messages.clone(),
        );
        registry.register(
            "xds_message_bytes",
            "Bytes of discovery responses received, by type",
            self.bytes.clone(),
        );
    }

    pub(crate) fn terminated(&self, reason: Termination) {
        self.terminations
            .get_or_create(&TerminationLabels { reason })
            .inc();
    }

    pub(crate) fn received(&self, url: &'static str, bytes: usize) {
        let labels = MessageLabels { url };
        self.messages.get_or_create(&labels).inc();
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.bytes.get_or_create(&labels).inc_by(bytes);
    }
}

// === impl Termination ===

impl EncodeLabelValue for Termination {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        match self {
            Self::ConnectionError => "ConnectionError",
            Self::Error => "Error",
            Self::Reconnect => "Reconnect",
            Self::Complete => "Complete",
        }
        .encode(encoder)
    }
}

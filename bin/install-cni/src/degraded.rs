//! What does not work though the agent does: a gauge beside readiness, which is only about new pods.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{family::Family, gauge::Gauge},
};

/// Why not everything works that should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No ztunnel is connected: pods in the mesh have no proxy.
    Ztunnel,
    /// The API server has not been seen for a minute: what is changed there has no effect.
    Watches,
    /// Pods cannot be brought where they belong.
    Pods,
    /// The plugin is not called for new pods, or others change what is installed again and again.
    Installation,
    /// The node has something that keeps pods in the mesh from working.
    Platform,
    /// The plugin would decide by an old file if the agent went away.
    EnrolmentFile,
}

/// Asks each time when somebody looks.
pub struct Degraded {
    checks: Vec<(Reason, Check)>,
}

type Check = Box<dyn Fn() -> bool + Send + Sync>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    reason: &'static str,
}

// === impl Reason ===

impl Reason {
    /// The label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ztunnel => "ztunnel",
            Self::Watches => "watches",
            Self::Pods => "pods",
            Self::Installation => "installation",
            Self::Platform => "platform",
            Self::EnrolmentFile => "enrolment_file",
        }
    }
}

// === impl Degraded ===

impl Degraded {
    /// Nothing is looked at yet.
    pub fn new() -> Self {
        let checks = Vec::new();
        Self { checks }
    }

    /// Looks at one more reason.
    #[must_use]
    pub fn check(
        mut self,
        reason: Reason,
        holds: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        self.checks.push((reason, Box::new(holds)));
        self
    }

    /// The reasons that hold now.
    pub fn reasons(&self) -> Vec<&'static str> {
        let holding = self.checks.iter().filter(|(_, holds)| holds());
        holding.map(|(reason, _)| reason.as_str()).collect()
    }
}

impl Default for Degraded {
    fn default() -> Self {
        Self::new()
    }
}

impl Collector for Degraded {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let gauge = Family::<Labels, Gauge>::default();
        for (reason, holds) in &self.checks {
            let reason = reason.as_str();
            gauge.get_or_create(&Labels { reason }).set(holds().into());
        }
        let described = encoder.encode_descriptor(
            "lateen_cni_degraded",
            "1 for each reason why not everything works that should; the log says more",
            None,
            gauge.metric_type(),
        )?;
        gauge.encode(described)
    }
}

impl fmt::Debug for Degraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons = self.checks.iter().map(|(reason, _)| reason);
        f.debug_list().entries(reasons).finish()
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::{encoding::text::encode, registry::Registry};

    use super::*;

    #[test]
    fn each_reason_is_shown_whether_it_holds_or_not() {
        let degraded = Degraded::new()
            .check(Reason::Ztunnel, || true)
            .check(Reason::Pods, || false);
        assert_eq!(degraded.reasons(), ["ztunnel"]);
        let mut registry = Registry::default();
        registry.register_collector(Box::new(degraded));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "lateen_cni_degraded{reason=\"ztunnel\"} 1",
            "lateen_cni_degraded{reason=\"pods\"} 0",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}

//! What is counted: a series for each kind of finding.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

use super::Report;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Label {
    kind: &'static str,
    severity: &'static str,
}

/// Registers what was found: `lateen_cni_platform_findings`, by kind and severity.
pub fn register(registry: &mut Registry, report: &Report) {
    let family = Family::<Label, Gauge>::default();
    for finding in &report.findings {
        let label = Label {
            kind: finding.reason.as_str(),
            severity: finding.severity.as_str(),
        };
        family.get_or_create(&label).inc();
    }
    registry.register(
        "lateen_cni_platform_findings",
        "What stands in the mesh's way on this node, as found at the start",
        family,
    );
}

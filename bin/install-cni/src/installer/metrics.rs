//! What the installer counts.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::{Error, View};

/// The counters; a handle that is cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    installs: Family<ResultLabel, Counter>,
    ready: Gauge,
    repairs: Counter,
    contended: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

// === impl Metrics ===

impl Metrics {
    /// Registers the families under Istio's names, where there is one.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "istio_cni_installs",
            "Installations on this node, by result",
            metrics.installs.clone(),
        );
        registry.register(
            "istio_cni_install_ready",
            "Whether the container runtime calls the plugin for new pods",
            metrics.ready.clone(),
        );
        registry.register(
            "lateen_cni_install_repairs",
            "Changes of others to the plugin or its configuration that were repaired",
            metrics.repairs.clone(),
        );
        registry.register(
            "lateen_cni_install_contended",
            "Whether somebody changes the plugin or its configuration again and again",
            metrics.contended.clone(),
        );
        metrics
    }

    /// Something was done.
    pub(super) fn installed(&self, result: Result<(), &Error>) {
        let result = match result {
            Ok(()) => "SUCCESS",
            Err(error) if error.is_about_plugin() => "COPY_BINARIES_FAILURE",
            Err(_) => "CREATE_CNI_CONFIG_FAILURE",
        };
        self.installs.get_or_create(&ResultLabel { result }).inc();
    }

    /// What the view says.
    pub(super) fn show(&self, view: &View) {
        self.ready.set(i64::from(view.installed));
        self.contended.set(i64::from(view.contended));
    }

    /// Somebody else's change was repaired.
    pub(super) fn repaired(&self) {
        self.repairs.inc();
    }
}

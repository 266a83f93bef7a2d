//! What the agent counts. Names that Istio's users know are kept; ours begin with `lateen_cni_`.

use std::{
    fmt::{self, Write as _},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
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
    installs: Family<InstallLabels, Counter>,
    install_ready: Gauge,
    config_repairs: Counter,
    requests: Family<RequestLabels, Counter>,
    add: Family<AddLabels, Histogram>,
    refused_peers: Counter,
    plugin_lines: Family<LineLabels, Counter>,
    events: Family<EventLabels, Counter>,
    pods: Family<PodLabels, Gauge>,
    failures: Family<StepLabels, Counter>,
    repairs: Family<RepairLabels, Counter>,
    ztunnels: Gauge,
    probe_entries: Gauge,
    backend: Family<BackendLabels, Gauge>,
    degraded: Family<ReasonLabels, Gauge>,
    reasons: Arc<Mutex<Vec<&'static str>>>,
}

/// How an installation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Install {
    /// Plugin and configuration are in place.
    Success,
    /// The plugin could not be copied.
    BinaryFailure,
    /// The CNI configuration could not be written.
    ConfigFailure,
}

/// What happened to a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The plugin asked for it.
    Add,
    /// The API server told of a change.
    Update,
    /// It has gone.
    Delete,
}

/// Where a pod of the node is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PodState {
    /// In the mesh, as far as the last look went.
    Enrolled,
    /// Belongs in the mesh and is not there yet.
    Pending,
    /// Belongs in the mesh, and the last attempt failed.
    Failed,
    /// Has rules and does not belong in the mesh any more.
    Leaving,
}

/// A step of a pod's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// To find the network namespace.
    Netns,
    /// To read, write or remove rules and route.
    Rules,
    /// To tell ztunnel.
    Ztunnel,
    /// To change the set of probed addresses.
    Probes,
    /// To write the pod's annotation.
    Annotation,
}

/// What a look at the kernel found different from what it should be, and was put right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Drift {
    /// Rules or route of a pod.
    Rules,
    /// A pod's network namespace is another one.
    Netns,
    /// The set of probed addresses.
    Probes,
}

/// What became of a line that the plugin sent to be logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Line {
    /// It was logged, if the level allows.
    Taken,
    /// It was no line, or one too many.
    Refused,
}

/// How many pods are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pods {
    /// See [`PodState::Enrolled`].
    pub enrolled: usize,
    /// See [`PodState::Pending`].
    pub pending: usize,
    /// See [`PodState::Failed`].
    pub failed: usize,
    /// See [`PodState::Leaving`].
    pub leaving: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InstallLabels {
    result: Install,
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
struct EventLabels {
    r#type: Event,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PodLabels {
    state: PodState,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepLabels {
    step: Step,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RepairLabels {
    what: Drift,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BackendLabels {
    backend: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RepairedLabels {
    r#type: &'static str,
    result: &'static str,
}

/// Values of labels, by their names on the wire.
macro_rules! label_values {
    ($($type:ident: [$($variant:ident => $text:literal,)+],)+) => {$(
        impl EncodeLabelValue for $type {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
                encoder.write_str(match self {
                    $(Self::$variant => $text,)+
                })
            }
        }
    )+};
}

label_values! {
    Install: [
        Success => "SUCCESS",
        BinaryFailure => "COPY_BINARIES_FAILURE",
        ConfigFailure => "CREATE_CNI_CONFIG_FAILURE",
    ],
    Event: [
        Add => "add",
        Update => "update",
        Delete => "delete",
    ],
    PodState: [
        Enrolled => "enrolled",
        Pending => "pending",
        Failed => "failed",
        Leaving => "leaving",
    ],
    Step: [
        Netns => "netns",
        Rules => "rules",
        Ztunnel => "ztunnel",
        Probes => "probes",
        Annotation => "annotation",
    ],
    Drift: [
        Rules => "rules",
        Netns => "netns",
        Probes => "probes",
    ],
    Line: [
        Taken => "taken",
        Refused => "refused",
    ],
}

// === impl Metrics ===

impl Default for Metrics {
    fn default() -> Self {
        Self {
            installs: Family::default(),
            install_ready: Gauge::default(),
            config_repairs: Counter::default(),
            requests: Family::default(),
            add: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.001, 2.0, 15))
            }),
            refused_peers: Counter::default(),
            plugin_lines: Family::default(),
            events: Family::default(),
            pods: Family::default(),
            failures: Family::default(),
            repairs: Family::default(),
            ztunnels: Gauge::default(),
            probe_entries: Gauge::default(),
            backend: Family::default(),
            degraded: Family::default(),
            reasons: Arc::default(),
        }
    }
}

impl Metrics {
    /// Counters that `registry` shows.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        metrics.register_known(registry);
        metrics.register_own(registry.sub_registry_with_prefix("lateen_cni"));
        metrics
    }

    /// Those of Istio's agent.
    fn register_known(&self, registry: &mut Registry) {
        registry.register(
            "istio_cni_installs",
            "Installations of the plugin on the node, by result",
            self.installs.clone(),
        );
        registry.register(
            "istio_cni_install_ready",
            "Whether plugin and CNI configuration are in place",
            self.install_ready.clone(),
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
        registry.register(
            "istio_cni_plugin_requests",
            "Requests of the plugin, by the status of the answer",
            self.requests.clone(),
        );
        registry.register(
            "nodeagent_reconcile_events",
            "Events that pods were looked at for, failed ones included",
            self.events.clone(),
        );
        registry.register(
            "ztunnel_connected",
            "Connected ztunnels that know all pods",
            self.ztunnels.clone(),
        );
    }

    fn register_own(&self, registry: &mut Registry) {
        registry.register(
            "config_repairs",
            "Times that plugin or CNI configuration were changed by somebody else and put right",
            self.config_repairs.clone(),
        );
        registry.register_with_unit(
            "add",
            "Time in which the plugin was answered about a new pod, by result: enrolled, passed, refused",
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
            "pods",
            "Pods of the node that are or should be in the mesh, by state",
            self.pods.clone(),
        );
        registry.register(
            "step_failures",
            "Steps of a pod's way into or out of the mesh that failed and are tried again",
            self.failures.clone(),
        );
        registry.register(
            "drift_repairs",
            "What the kernel was found to hold otherwise than it should, and was put right",
            self.repairs.clone(),
        );
        registry.register(
            "probe_set_entries",
            "Addresses in the node's set of probed pods",
            self.probe_entries.clone(),
        );
        registry.register(
            "backend",
            "1 for what rules are written with",
            self.backend.clone(),
        );
        registry.register(
            "degraded",
            "1 for each reason why not everything works that should; the log says more",
            self.degraded.clone(),
        );
    }

    /// An installation has ended.
    pub fn installed(&self, result: Install) {
        self.installs.get_or_create(&InstallLabels { result }).inc();
    }

    /// Whether plugin and configuration are in place.
    pub fn install_ready(&self, ready: bool) {
        self.install_ready.set(ready.into());
    }

    /// Somebody else's change to plugin or configuration was put right.
    pub fn config_repaired(&self) {
        self.config_repairs.inc();
    }

    /// A request of the plugin was answered.
    pub fn requested(&self, response_code: u16) {
        self.requests
            .get_or_create(&RequestLabels { response_code })
            .inc();
    }

    /// The plugin was answered about a new pod: `enrolled`, `passed` or `refused`.
    pub fn added(&self, result: &'static str, took: Duration) {
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

    /// Something happened to a pod.
    pub fn event(&self, event: Event) {
        self.events
            .get_or_create(&EventLabels { r#type: event })
            .inc();
    }

    /// How many pods are in each state now.
    pub fn pods(&self, pods: Pods) {
        for (state, count) in [
            (PodState::Enrolled, pods.enrolled),
            (PodState::Pending, pods.pending),
            (PodState::Failed, pods.failed),
            (PodState::Leaving, pods.leaving),
        ] {
            self.pods
                .get_or_create(&PodLabels { state })
                .set(signed(count));
        }
    }

    /// A step failed.
    pub fn failed(&self, step: Step) {
        self.failures.get_or_create(&StepLabels { step }).inc();
    }

    /// Something was put right.
    pub fn repaired(&self, what: Drift) {
        self.repairs.get_or_create(&RepairLabels { what }).inc();
    }

    /// How many connected ztunnels know all pods.
    pub fn ztunnels(&self, count: usize) {
        self.ztunnels.set(signed(count));
    }

    /// How many addresses are in the set.
    pub fn probe_entries(&self, count: usize) {
        self.probe_entries.set(signed(count));
    }

    /// What rules are written with: `nftables`, `iptables-nft`, `iptables-legacy`.
    pub fn backend(&self, backend: &'static str) {
        self.backend
            .get_or_create(&BackendLabels { backend })
            .set(1);
    }

    /// Why not everything works that should, in words without spaces; those that are not named any more are
    /// over.
    pub fn degraded(&self, reasons: &[&'static str]) {
        let mut known = self.reasons.lock();
        for reason in reasons {
            if !known.contains(reason) {
                known.push(reason);
            }
        }
        for reason in known.iter() {
            let gauge = self.degraded.get_or_create(&ReasonLabels { reason });
            gauge.set(reasons.contains(reason).into());
        }
    }
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn istio_s_names_are_kept() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.installed(Install::Success);
        metrics.installed(Install::BinaryFailure);
        metrics.installed(Install::ConfigFailure);
        metrics.install_ready(true);
        metrics.requested(200);
        metrics.event(Event::Add);
        metrics.ztunnels(2);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "istio_cni_installs_total{result=\"SUCCESS\"} 1",
            "istio_cni_installs_total{result=\"COPY_BINARIES_FAILURE\"} 1",
            "istio_cni_installs_total{result=\"CREATE_CNI_CONFIG_FAILURE\"} 1",
            "istio_cni_install_ready 1",
            "istio_cni_plugin_requests_total{response_code=\"200\"} 1",
            "nodeagent_reconcile_events_total{type=\"add\"} 1",
            "ztunnel_connected 2",
            "istio_cni_repair_pods_repaired_total{type=\"repair\",result=\"success\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_reason_that_is_over_is_shown_as_over() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.degraded(&["ztunnel", "installer"]);
        metrics.degraded(&["installer"]);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        assert!(
            text.contains("lateen_cni_degraded{reason=\"ztunnel\"} 0"),
            "{text}"
        );
        assert!(
            text.contains("lateen_cni_degraded{reason=\"installer\"} 1"),
            "{text}"
        );
    }
}

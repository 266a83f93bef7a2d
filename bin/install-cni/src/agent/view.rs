//! What the agent knows, to be looked at: for a debug page, and as gauges.

use std::{collections::BTreeMap, net::IpAddr};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{family::Family, gauge::Gauge},
};
use serde::Serialize;

use super::{
    handle::Handle,
    machine::{Phase, Step},
    pods::{Reason, annotations::Shown},
    proxies::Proxies,
    registry::{Entry, Registry},
};
use crate::parts::{Probes, Rules};

/// The pods of the node and how they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// Whether all pods have been looked at once, and ztunnels been let in.
    pub serving: bool,
    /// ztunnels that know all pods.
    pub ztunnels: usize,
    /// Addresses that should be in the probe set and are, as far as is known.
    pub probes: usize,
    /// What was found other than it had been left, since the start.
    pub repairs: u64,
    /// The pods, by UID.
    pub pods: BTreeMap<String, PodView>,
}

/// One pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodView {
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub phase: Phase,
    /// Why it does not belong in the mesh; none if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outside: Option<Reason>,
    /// The number of its network namespace, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<u64>,
    /// Its addresses in the probe set.
    pub probes: Vec<IpAddr>,
    /// Whether ztunnels are only told to go on with it, since its namespace is not known.
    pub kept: bool,
    /// What its annotation says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotation: Option<&'static str>,
    /// What goes wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureView>,
}

/// What goes wrong with a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FailureView {
    /// Which step.
    pub step: Step,
    /// In one word.
    pub reason: &'static str,
    /// In a sentence.
    pub message: String,
    /// How often in a row.
    pub attempts: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailingLabel {
    step: &'static str,
    reason: &'static str,
}

// === impl View ===

impl View {
    pub(crate) fn of(registry: &Registry, ztunnels: usize, repairs: u64) -> Self {
        let entries = registry.entries();
        let pods: BTreeMap<_, _> = entries
            .map(|(uid, entry)| (uid.to_string(), PodView::of(entry)))
            .collect();
        Self {
            serving: registry.is_serving(),
            ztunnels,
            probes: pods.values().map(|pod| pod.probes.len()).sum(),
            repairs,
            pods,
        }
    }

    /// How many pods are in the mesh.
    pub fn enrolled(&self) -> usize {
        let pods = self.pods.values();
        pods.filter(|pod| pod.phase == Phase::Enrolled).count()
    }
}

// === impl PodView ===

impl PodView {
    pub(crate) fn of(entry: &Entry) -> Self {
        let machine = &entry.machine;
        Self {
            namespace: entry.info.namespace.to_string(),
            name: entry.info.name.to_string(),
            phase: machine.phase(),
            outside: entry.reason,
            netns: machine.netns().map(|netns| netns.ino),
            probes: machine.probes().iter().copied().collect(),
            kept: machine.is_kept(),
            annotation: match entry.shown.0 {
                Shown::Other => Some("unknown"),
                shown => shown.value(),
            },
            failure: machine.failure().map(|failure| FailureView {
                step: failure.step,
                reason: failure.cause.reason,
                message: failure.cause.message.clone(),
                attempts: failure.attempts,
            }),
        }
    }

    /// The state as one of few words, for a gauge.
    fn state(&self) -> &'static str {
        match self.phase {
            Phase::Outside => "outside",
            Phase::Leaving => "leaving",
            Phase::Enrolled => "enrolled",
            _ if self.kept => "kept",
            Phase::Waiting => "waiting",
            Phase::Entering(_) => "pending",
        }
    }
}

// === impl Handle ===

/// The view as gauges, made when they are asked for.
impl<K: Rules + Probes, Z: Proxies> Collector for Handle<K, Z> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let view = self.view();
        let states = Family::<StateLabel, Gauge>::default();
        for state in [
            "outside", "leaving", "enrolled", "kept", "waiting", "pending",
        ] {
            states.get_or_create(&StateLabel { state }).set(0);
        }
        let failing = Family::<FailingLabel, Gauge>::default();
        for pod in view.pods.values() {
            let state = pod.state();
            states.get_or_create(&StateLabel { state }).inc();
            if let Some(failure) = &pod.failure {
                let (step, reason) = (failure.step.name(), failure.reason);
                failing.get_or_create(&FailingLabel { step, reason }).inc();
            }
        }
        let (connected, probes) = (Gauge::<i64>::default(), Gauge::<i64>::default());
        connected.set(i64::from(view.ztunnels > 0));
        probes.set(i64::try_from(view.probes).unwrap_or(i64::MAX));
        let gauges: [(&str, &str, &dyn Encodes); 4] = [
            (
                "ztunnel_connected",
                "Whether a ztunnel knows all pods of the node",
                &connected,
            ),
            (
                "lateen_cni_pods",
                "Pods of the node, by how they stand towards the mesh",
                &states,
            ),
            (
                "lateen_cni_pods_failing",
                "Pods that cannot be brought where they belong",
                &failing,
            ),
            (
                "lateen_cni_probe_addresses",
                "Addresses that probes of the node may reach",
                &probes,
            ),
        ];
        for (name, help, gauge) in gauges {
            gauge.encode_into(&mut encoder, name, help)?;
        }
        Ok(())
    }
}

/// Metrics of different types in one list.
trait Encodes {
    fn encode_into(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
    ) -> Result<(), std::fmt::Error>;
}

impl<M: EncodeMetric> Encodes for M {
    fn encode_into(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
    ) -> Result<(), std::fmt::Error> {
        let encoder = encoder.encode_descriptor(name, help, None, self.metric_type())?;
        self.encode(encoder)
    }
}

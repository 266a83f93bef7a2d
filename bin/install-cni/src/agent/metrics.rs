//! What the agent counts about the pods of its node.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use super::machine::Step;

/// The counters; a handle that is cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    events: Family<TypeLabel, Counter>,
    failures: Family<FailureLabel, Counter>,
    repairs: Family<RepairLabel, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TypeLabel {
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabel {
    step: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RepairLabel {
    cause: &'static str,
}

/// What the API server told of a pod, in the words of Istio's agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// It is to come into the mesh.
    Add,
    /// It has changed.
    Update,
    /// It is gone.
    Delete,
}

/// What was repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repair {
    /// Somebody had changed a pod's rules.
    Rules,
    /// A pod had got another namespace.
    Namespace,
    /// The probe set was not as it had been left.
    Probes,
}

// === impl Metrics ===

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            events: Family::default(),
            failures: Family::default(),
            repairs: Family::default(),
        }
    }

    /// Registers the families, under Istio's names where there are some.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "nodeagent_reconcile_events",
            "Changes of pods that were acted on, by type",
            self.events.clone(),
        );
        registry.register(
            "lateen_cni_enrolment_failures",
            "Attempts to bring a pod into the mesh or out of it that failed, by step and reason",
            self.failures.clone(),
        );
        registry.register(
            "lateen_cni_repairs",
            "What was found other than it had been left, and was repaired",
            self.repairs.clone(),
        );
    }

    pub(crate) fn told(&self, told: Told) {
        let r#type = match told {
            Told::Add => "add",
            Told::Update => "update",
            Told::Delete => "delete",
        };
        self.events.get_or_create(&TypeLabel { r#type }).inc();
    }

    pub(crate) fn failed(&self, step: Step, reason: &'static str) {
        let step = step.name();
        self.failures
            .get_or_create(&FailureLabel { step, reason })
            .inc();
    }

    pub(crate) fn repaired(&self, repair: Repair) {
        let cause = match repair {
            Repair::Rules => "rules",
            Repair::Namespace => "namespace",
            Repair::Probes => "probes",
        };
        self.repairs.get_or_create(&RepairLabel { cause }).inc();
    }

    /// How often something was repaired, for the debug page.
    pub(crate) fn repairs(&self) -> u64 {
        let causes = ["rules", "namespace", "probes"];
        let counts = causes.map(|cause| self.repairs.get_or_create(&RepairLabel { cause }).get());
        counts.iter().sum()
    }
}

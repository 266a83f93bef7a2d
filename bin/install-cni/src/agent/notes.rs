//! What people are told about a pod: in the log, and as Events that `kubectl describe` shows.

use k8s_openapi::api::core::v1::ObjectReference;
use mesh_core::workload::PodInfo;
use mesh_kube::events::{Note, Recorder, Severity};

use super::{
    machine::{Failure, Notice, Step},
    pods::annotations::Invalid,
};

/// Tells people.
#[derive(Clone, Debug)]
pub(crate) struct Notes(Recorder);

/// Failures in a row after which people are told: less may be over in a moment.
const TELLING: u32 = 5;

/// The same of ztunnel, about half a minute after the first failure. A ztunnel comes back to an agent that was
/// restarted within 15 s: telling earlier would cost an Event for each pod of the node whenever an agent is
/// upgraded.
const TELLING_OF_ZTUNNEL: u32 = 13;

/// What we were doing, in Events.
const ACTION: &str = "Enrol";

// === impl Notes ===

impl Notes {
    pub(crate) fn new(recorder: Recorder) -> Self {
        Self(recorder)
    }

    /// These annotations have no effect.
    pub(crate) fn invalid(&self, uid: &str, pod: &PodInfo, invalid: &[Invalid]) {
        for invalid in invalid {
            let (namespace, name) = (&pod.namespace, &pod.name);
            tracing::warn!(%namespace, %name, "{invalid}");
            self.note(
                uid,
                pod,
                Severity::Warning,
                ("InvalidAnnotation", invalid.to_string()),
            );
        }
    }

    /// A pod cannot be brought where it belongs.
    pub(crate) fn failed(&self, uid: &str, pod: &PodInfo, failure: &Failure) {
        let (namespace, name) = (&pod.namespace, &pod.name);
        let (step, message) = (failure.step.name(), &failure.cause.message);
        // Powers of two: a failure that lasts is told again, but ever more rarely.
        if failure.attempts.is_power_of_two() {
            let attempts = failure.attempts;
            tracing::warn!(%namespace, %name, step, attempts, reason = failure.cause.reason, "{message}");
        }
        if failure.attempts == failure.step.telling() {
            let message = format!("{}: {message}", failure.step.attempt());
            self.note(uid, pod, Severity::Warning, (failure.cause.reason, message));
        }
    }

    /// Something was not as it had been left.
    pub(crate) fn repaired(&self, uid: &str, pod: &PodInfo, notice: Notice) {
        let (reason, message) = match notice {
            Notice::Tampered => (
                "RedirectionRepaired",
                "the pod's redirection rules had been changed or removed; putting them back",
            ),
            Notice::Moved => (
                "NetworkNamespaceReplaced",
                "the pod has got another network namespace; bringing it into the mesh again",
            ),
        };
        let (namespace, name) = (&pod.namespace, &pod.name);
        tracing::warn!(%namespace, %name, "{message}");
        self.note(uid, pod, Severity::Warning, (reason, message.to_owned()));
    }

    fn note(&self, uid: &str, pod: &PodInfo, severity: Severity, said: (&str, String)) {
        let (reason, message) = said;
        self.0.record(Note {
            regarding: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(pod.name.to_string()),
                namespace: Some(pod.namespace.to_string()),
                uid: Some(uid.to_owned()),
                ..ObjectReference::default()
            },
            severity,
            reason: reason.to_owned(),
            action: ACTION.to_owned(),
            message,
        });
    }
}

// === impl Step ===

impl Step {
    /// What could not be done, in words.
    pub(crate) fn attempt(self) -> &'static str {
        match self {
            Self::Namespace => "cannot find the pod's network namespace",
            Self::Rules => "cannot program the pod's redirection rules",
            Self::Ztunnel => "ztunnel does not confirm the pod",
            Self::Probes => "cannot let the node's probes reach the pod",
        }
    }

    /// Failures in a row after which an Event is worth it.
    fn telling(self) -> u32 {
        match self {
            Self::Ztunnel => TELLING_OF_ZTUNNEL,
            Self::Namespace | Self::Rules | Self::Probes => TELLING,
        }
    }

    /// Where to look for what helps.
    pub(crate) fn remedy(self) -> &'static str {
        match self {
            Self::Ztunnel => "see whether the ztunnel pod of this node is ready",
            Self::Namespace | Self::Rules | Self::Probes => {
                "see the log of the CNI agent of this node"
            }
        }
    }
}

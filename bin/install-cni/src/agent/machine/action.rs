//! What can be done about a pod, and how it goes.

use std::net::IpAddr;

use mesh_core::workload::PodInfo;
use mesh_net::netns::NetNsId;
use mesh_redirect::{Options, Verdict};
use serde::Serialize;

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Find the pod's namespace.
    Find,
    /// See whether this still is its namespace.
    Recheck(NetNsId),
    /// Compare the rules in the namespace with these.
    Verify(NetNsId, Options),
    /// Put them in.
    Apply(NetNsId, Options),
    /// Take them out.
    Strip(NetNsId),
    /// Tell ztunnel to serve the pod, and wait until it does.
    Tell(NetNsId, PodInfo, u64),
    /// Tell all ztunnels to stop.
    Untell,
    /// Enter an address into the probe set.
    Admit(IpAddr),
    /// Take an address from the probe set.
    Dismiss(IpAddr),
}

/// How an action went that did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// This is the pod's namespace.
    Found(NetNsId),
    /// The namespace that was the pod's is not any more, and no other is.
    Gone,
    /// What the namespace holds.
    Holds(Verdict),
    /// It is done.
    Done,
}

/// A step on the way into the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Its network namespace is found.
    Namespace,
    /// The rules are in its namespace.
    Rules,
    /// A ztunnel serves it.
    Ztunnel,
    /// Its addresses are in the probe set.
    Probes,
}

/// What went wrong, for people and for the next decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cause {
    /// One PascalCase word, for a metric's label and an Event's reason.
    pub(crate) reason: &'static str,
    /// The sentence.
    pub(crate) message: String,
    /// ztunnel has answered that it does not serve the pod.
    pub(crate) refused: bool,
}

/// A failure that lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) step: Step,
    pub(crate) cause: Cause,
    /// How often in a row.
    pub(crate) attempts: u32,
}

// === impl Action ===

impl Action {
    /// The step that it is a part of.
    pub(crate) fn step(&self) -> Step {
        match self {
            Self::Find | Self::Recheck(_) => Step::Namespace,
            Self::Verify(..) | Self::Apply(..) | Self::Strip(_) => Step::Rules,
            Self::Tell(..) | Self::Untell => Step::Ztunnel,
            Self::Admit(_) | Self::Dismiss(_) => Step::Probes,
        }
    }
}

// === impl Step ===

impl Step {
    /// As in labels of metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Namespace => "namespace",
            Self::Rules => "rules",
            Self::Ztunnel => "ztunnel",
            Self::Probes => "probes",
        }
    }
}

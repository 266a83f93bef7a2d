//! How far the rollout of a Deployment or DaemonSet is.
//!
//! Unlike a count of ready pods, this tells the pods of the wanted version from those of the one before: a
//! workload whose old pods are all ready is not rolled out. The rules are those of `kubectl rollout status`.
//!
//! A status without `observedGeneration` was not written by Kubernetes' controllers, which always set it.
//! Then there is nothing to compare the generation with, and the counts have to do.

use std::fmt;

use serde_json::Value;

use crate::{key::ObjectRef, world::Stuck};

#[cfg(test)]
mod tests;

/// How far a rollout is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// No pod of an older rollout is left, ready or not.
    pub uniform: bool,
    /// What is missing; nothing if all pods are of the newest rollout and ready.
    pub pending: Option<Pending>,
}

/// What is missing to the end of a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pending {
    /// The workload does not exist.
    Missing,
    /// The cluster has not looked at the newest specification.
    Unobserved,
    /// There are no pods yet.
    NoPods,
    /// No pods are wanted: somebody scaled it down.
    ScaledToZero,
    /// No node is such that a pod could run on it.
    NoNodes,
    /// Some pods are of an older rollout.
    Updating {
        /// How many are not.
        updated: u64,
        /// How many there are to be.
        wanted: u64,
    },
    /// All pods are of the newest rollout, and some are not ready.
    NotReady {
        /// How many are.
        ready: u64,
        /// How many there are to be.
        wanted: u64,
    },
    /// The cluster has given up, or cannot make pods; its own words.
    Failed(String),
}

/// How far the Deployment is.
pub fn of_deployment(live: Option<&Value>) -> Rollout {
    let Some(live) = live else {
        return Rollout::missing();
    };
    let status = &live["status"];
    let (replicas, ready) = (count(status, "replicas"), count(status, "readyReplicas"));
    let Some(observed) = observed(live) else {
        return Rollout::of_counts(replicas, ready);
    };
    let updated = count(status, "updatedReplicas");
    // What a Deployment has that does not say; a horizontal autoscaler sets it.
    let wanted = live["spec"]["replicas"].as_u64().unwrap_or(1);
    let pending = if !observed {
        Some(Pending::Unobserved)
    } else if let Some(failure) = failure(status) {
        Some(Pending::Failed(failure))
    } else if wanted == 0 {
        Some(Pending::ScaledToZero)
    } else if updated < wanted.max(replicas) {
        let wanted = wanted.max(replicas);
        Some(Pending::Updating { updated, wanted })
    } else {
        (ready < wanted).then_some(Pending::NotReady { ready, wanted })
    };
    Rollout {
        uniform: observed && updated >= replicas,
        pending,
    }
}

/// How far the DaemonSet is.
pub fn of_daemon_set(live: Option<&Value>) -> Rollout {
    let Some(live) = live else {
        return Rollout::missing();
    };
    let status = &live["status"];
    let ready = count(status, "numberReady");
    let Some(observed) = observed(live) else {
        return Rollout::of_counts(count(status, "currentNumberScheduled"), ready);
    };
    let wanted = count(status, "desiredNumberScheduled");
    let updated = count(status, "updatedNumberScheduled");
    let pending = if !observed {
        Some(Pending::Unobserved)
    } else if wanted == 0 {
        Some(Pending::NoNodes)
    } else if updated < wanted {
        Some(Pending::Updating { updated, wanted })
    } else {
        (ready < wanted).then_some(Pending::NotReady { ready, wanted })
    };
    Rollout {
        uniform: observed && updated >= wanted,
        pending,
    }
}

/// Why `workload` is not rolled out, in a sentence with what its pods complain about and what to do.
pub fn explain<'a>(
    workload: &ObjectRef,
    pending: &Pending,
    stuck: impl Iterator<Item = (&'a str, &'a Stuck)>,
) -> String {
    let mut text = format!("{workload}: {pending}");
    let name = &workload.name;
    // A Deployment's pods are made by a ReplicaSet with a hash behind the name.
    let of_workload = |stuck: &Stuck| {
        let rest = stuck.controller.strip_prefix(name.as_str());
        rest.is_some_and(|rest| {
            rest.is_empty()
                || rest
                    .strip_prefix('-')
                    .is_some_and(|hash| !hash.contains('-'))
        })
    };
    let mut pods = stuck.filter(|(_, stuck)| of_workload(stuck));
    if let Some((pod, first)) = pods.next() {
        text.push_str(&complaint(pod, first));
        let namespace = workload.namespace.as_deref().unwrap_or_default();
        text.push_str(&remedy(namespace, pod, &first.reason));
        let others = pods.count();
        if others > 0 {
            text = format!("{text} ({others} more pods do not come up)");
        }
    }
    text
}

fn complaint(pod: &str, stuck: &Stuck) -> String {
    let node = stuck.node.as_deref();
    let node = node.map(|node| format!(" on node {node}"));
    let message = (!stuck.message.is_empty()).then(|| format!(": {}", stuck.message));
    format!(
        "; pod {pod}{}: {}{}",
        node.unwrap_or_default(),
        stuck.reason,
        message.unwrap_or_default()
    )
}

/// What helps against what the kubelet and the scheduler complain about.
fn remedy(namespace: &str, pod: &str, reason: &str) -> String {
    match reason {
        "ImagePullBackOff" | "ErrImagePull" | "InvalidImageName" | "ErrImageNeverPull" => {
            " - check the image in spec.values, the registry, and global.imagePullSecrets"
                .to_owned()
        }
        "CrashLoopBackOff" | "Error" | "OOMKilled" | "RunContainerError" => {
            format!(" - see kubectl logs -n {namespace} {pod} --previous")
        }
        "Unschedulable" => {
            " - make room on the nodes, or change resources and tolerations in spec.values"
                .to_owned()
        }
        _ => format!(" - see kubectl describe pod -n {namespace} {pod}"),
    }
}

/// Whether the cluster has looked at the newest specification; `None` if it does not say.
fn observed(live: &Value) -> Option<bool> {
    let observed = live["status"]["observedGeneration"].as_i64()?;
    Some(observed >= live["metadata"]["generation"].as_i64().unwrap_or_default())
}

fn count(status: &Value, field: &str) -> u64 {
    status[field].as_u64().unwrap_or_default()
}

/// Why the cluster has given up on a Deployment or cannot make its pods.
fn failure(status: &Value) -> Option<String> {
    let conditions = status["conditions"].as_array()?;
    let failing = |condition: &&Value| match condition["type"].as_str() {
        Some("ReplicaFailure") => condition["status"] == "True",
        Some("Progressing") => condition["status"] == "False",
        _ => false,
    };
    let mut failing = conditions.iter().filter(failing).collect::<Vec<_>>();
    // Why pods cannot be made says more than that nothing happens.
    failing.sort_by_key(|condition| condition["type"] != "ReplicaFailure");
    let text = |field: &str| failing.first()?[field].as_str();
    let (reason, message) = (text("reason")?, text("message").unwrap_or_default());
    Some(format!("{reason}: {message}"))
}

// === impl Rollout ===

impl Rollout {
    /// Whether it is complete.
    pub fn is_complete(&self) -> bool {
        self.pending.is_none()
    }

    fn missing() -> Self {
        Self {
            uniform: true,
            pending: Some(Pending::Missing),
        }
    }

    fn of_counts(pods: u64, ready: u64) -> Self {
        let pending = match pods {
            0 => Some(Pending::NoPods),
            wanted => (ready < wanted).then_some(Pending::NotReady { ready, wanted }),
        };
        Self {
            uniform: true,
            pending,
        }
    }
}

// === impl Pending ===

impl fmt::Display for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("it does not exist"),
            Self::Unobserved => f.write_str("the cluster has not looked at the last change yet"),
            Self::NoPods => f.write_str("there are no pods yet"),
            Self::ScaledToZero => f.write_str("it is scaled to zero replicas"),
            Self::NoNodes => f.write_str(
                "no pods are scheduled: no node matches its node selector and tolerations",
            ),
            Self::Updating { updated, wanted } => {
                write!(f, "{updated} of {wanted} pods are updated")
            }
            Self::NotReady { ready, wanted } => write!(f, "{ready} of {wanted} pods are ready"),
            Self::Failed(message) => f.write_str(message),
        }
    }
}

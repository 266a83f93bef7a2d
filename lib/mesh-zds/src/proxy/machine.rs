//! What a proxy does with what the agent says, without I/O.
//!
//! | message | before SnapshotSent | after |
//! |---|---|---|
//! | Add | named; started unless it runs in that namespace | started unless it runs in that namespace |
//! | Keep | named; goes on if it runs | violation |
//! | Del | no longer named, not started any more; what runs is stopped with the snapshot | stopped |
//! | SnapshotSent | what runs and was not named is stopped | violation |

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use mesh_core::workload::PodInfo;
use mesh_net::netns::{NetNs, NetNsId};

use super::Status;
use crate::codec::Request;

/// The pods of a node as one proxy sees them. `N` is a handle to a network namespace.
#[derive(Debug)]
pub struct Machine<N> {
    phase: Phase,
    running: HashMap<Arc<str>, NetNsId>,
    /// Named by the agent with a namespace, and not running.
    pending: HashMap<Arc<str>, Pending<N>>,
    /// Named in a snapshot with a namespace that was lost on receipt, and not running.
    lost: HashSet<Arc<str>>,
}

/// The namespace that came with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespace<N> {
    /// None came.
    Missing,
    /// One came and can be used.
    Usable(N),
    /// What came is of no use, for this reason.
    Unusable(String),
    /// One came and could not be received: too many open files.
    Lost,
}

/// What is to be done before a message is acknowledged, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan<N> {
    /// Pods to stop serving.
    pub stop: Vec<Arc<str>>,
    /// The pod to start serving; [`Machine::settled`] takes the result.
    pub start: Option<Start<N>>,
    /// What to tell the agent instead of success.
    pub refusal: Option<Refusal>,
}

/// A pod to start serving.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start<N> {
    /// The pod's UID.
    pub uid: Arc<str>,
    /// Who the pod is.
    pub pod: PodInfo,
    /// Its network namespace.
    pub netns: N,
}

/// Why one pod is not served although the agent did nothing that would make the conversation useless.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The agent sent something else than a network namespace. It is at fault.
    #[error("the network namespace of pod {uid} cannot be used: {reason}")]
    Unusable {
        /// The pod.
        uid: Arc<str>,
        /// What is wrong.
        reason: String,
    },
    /// The proxy has too many open files. Raise its limit; it asks again by itself.
    #[error("the network namespace of pod {uid} was lost: too many open files")]
    Lost {
        /// The pod.
        uid: Arc<str>,
    },
    /// The agent wants a pod kept that this proxy does not serve, and cannot without its namespace.
    /// Restarting the pod helps.
    #[error("pod {uid} is not served here, and its network namespace was not sent")]
    NotRunning {
        /// The pod.
        uid: Arc<str>,
    },
}

/// A breach of the protocol, after which the two ends may disagree about what runs. The agent is at
/// fault; the conversation starts over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Keep makes sense only in a snapshot.
    #[error("KeepWorkload after SnapshotSent")]
    KeepAfterSnapshot,
    /// A conversation has one snapshot.
    #[error("a second SnapshotSent")]
    SecondSnapshot,
    /// A pod cannot be served without its namespace.
    #[error("AddWorkload without a file descriptor")]
    MissingDescriptor,
    /// Only Add has a descriptor.
    #[error("{0} with a file descriptor")]
    UnexpectedDescriptor(&'static str),
}

/// A handle to a network namespace that can be told from others.
pub trait Identified {
    /// Which namespace it is.
    fn id(&self) -> NetNsId;
}

#[derive(Debug)]
enum Phase {
    Disconnected,
    /// With the pods named so far.
    Snapshot(HashSet<Arc<str>>),
    Live,
}

#[derive(Debug)]
struct Pending<N> {
    pod: PodInfo,
    netns: N,
}

// === impl Machine ===

impl<N: Identified + Clone> Machine<N> {
    /// A conversation begins. What runs goes on; what was pending is named again, or gone.
    pub fn connected(&mut self) {
        self.pending.clear();
        self.lost.clear();
        self.phase = Phase::Snapshot(HashSet::new());
    }

    /// The conversation is over. What runs goes on.
    pub fn disconnected(&mut self) {
        self.pending.clear();
        self.lost.clear();
        self.phase = Phase::Disconnected;
    }

    /// Decides what one message asks for.
    pub fn received(
        &mut self,
        request: Request,
        namespace: Namespace<N>,
    ) -> Result<Plan<N>, Violation> {
        let alone = matches!(namespace, Namespace::Missing);
        match request {
            Request::Add { .. } if alone => Err(Violation::MissingDescriptor),
            Request::Add { uid, pod } => Ok(self.add(uid, pod, namespace)),
            other if !alone => Err(Violation::UnexpectedDescriptor(other.name())),
            Request::Keep { uid } => self.keep(uid),
            Request::Delete { uid } => Ok(self.delete(&uid)),
            Request::SnapshotSent => self.snapshot_sent(),
        }
    }

    /// Takes the result of a [`Start`].
    pub fn settled(&mut self, uid: &Arc<str>, netns: NetNsId, served: bool) {
        if served {
            self.pending.remove(uid);
            self.lost.remove(uid);
            self.running.insert(uid.clone(), netns);
        }
    }

    /// What to try again.
    pub fn retries(&self) -> Vec<Start<N>> {
        self.pending
            .iter()
            .map(|(uid, pending)| pending.to_start(uid))
            .collect()
    }

    /// Whether there is something to try again, or to ask for again.
    pub fn has_unserved(&self) -> bool {
        !self.pending.is_empty() || self.must_ask_again()
    }

    /// Whether only a new conversation brings the namespaces that were lost.
    pub fn must_ask_again(&self) -> bool {
        matches!(self.phase, Phase::Live) && !self.lost.is_empty()
    }

    /// A summary.
    pub fn status(&self) -> Status {
        Status {
            synced: matches!(self.phase, Phase::Live),
            running: self.running.len(),
            pending: self.pending.len() + self.lost.len(),
        }
    }

    fn add(&mut self, uid: Arc<str>, pod: PodInfo, namespace: Namespace<N>) -> Plan<N> {
        // Named even if it cannot be served now: the pod exists, and what serves it must not be stopped.
        let in_snapshot = self.name(&uid);
        let netns = match namespace {
            Namespace::Usable(netns) => netns,
            Namespace::Unusable(reason) => return Plan::refuse(Refusal::Unusable { uid, reason }),
            Namespace::Lost | Namespace::Missing => {
                if in_snapshot && !self.running.contains_key(&uid) {
                    self.lost.insert(uid.clone());
                }
                return Plan::refuse(Refusal::Lost { uid });
            }
        };
        let mut plan = Plan::default();
        match self.running.get(&uid) {
            Some(running) if *running == netns.id() => return plan,
            Some(_other_namespace) => {
                self.running.remove(&uid);
                plan.stop.push(uid.clone());
            }
            None => {}
        }
        let pending = Pending { pod, netns };
        plan.start = Some(pending.to_start(&uid));
        self.pending.insert(uid, pending);
        plan
    }

    fn keep(&mut self, uid: Arc<str>) -> Result<Plan<N>, Violation> {
        if !self.name(&uid) {
            return Err(Violation::KeepAfterSnapshot);
        }
        if self.running.contains_key(&uid) || self.pending.contains_key(&uid) {
            return Ok(Plan::default());
        }
        Ok(Plan::refuse(Refusal::NotRunning { uid }))
    }

    fn delete(&mut self, uid: &Arc<str>) -> Plan<N> {
        self.pending.remove(uid);
        self.lost.remove(uid);
        let mut plan = Plan::default();
        if let Phase::Snapshot(named) = &mut self.phase {
            named.remove(uid);
        } else if let Some((uid, _)) = self.running.remove_entry(uid) {
            plan.stop.push(uid);
        }
        plan
    }

    fn snapshot_sent(&mut self) -> Result<Plan<N>, Violation> {
        let Phase::Snapshot(named) = &self.phase else {
            return Err(Violation::SecondSnapshot);
        };
        let mut plan = Plan::default();
        self.running.retain(|uid, _| {
            let keep = named.contains(uid);
            if !keep {
                plan.stop.push(uid.clone());
            }
            keep
        });
        self.phase = Phase::Live;
        Ok(plan)
    }

    /// Takes down a pod as named, if this is a snapshot; returns whether it is.
    fn name(&mut self, uid: &Arc<str>) -> bool {
        if let Phase::Snapshot(named) = &mut self.phase {
            named.insert(uid.clone());
            return true;
        }
        false
    }
}

impl<N> Default for Machine<N> {
    fn default() -> Self {
        Self {
            phase: Phase::Disconnected,
            running: HashMap::new(),
            pending: HashMap::new(),
            lost: HashSet::new(),
        }
    }
}

// === impl Plan ===

impl<N> Plan<N> {
    fn refuse(refusal: Refusal) -> Self {
        Self {
            refusal: Some(refusal),
            ..Self::default()
        }
    }
}

impl<N> Default for Plan<N> {
    /// Nothing is to be done: success.
    fn default() -> Self {
        Self {
            stop: Vec::new(),
            start: None,
            refusal: None,
        }
    }
}

// === impl Pending ===

impl<N: Clone> Pending<N> {
    fn to_start(&self, uid: &Arc<str>) -> Start<N> {
        Start {
            uid: uid.clone(),
            pod: self.pod.clone(),
            netns: self.netns.clone(),
        }
    }
}

impl Identified for Arc<NetNs> {
    fn id(&self) -> NetNsId {
        NetNs::id(self)
    }
}

#[cfg(test)]
mod tests;

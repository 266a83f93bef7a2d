//! Upgrade or uninstall: what the end of this agent means for what it has installed.
//!
//! A node whose plugin stays while no agent comes back stalls every pod that may belong in the mesh; a
//! node whose plugin goes while the mesh lives on starts pods outside of it. The second is worse and nobody
//! notices it. So everything stays unless the API server says, and says again, that the agent's DaemonSet
//! has gone or leaves this node. An API server that does not answer removes nothing.
//!
//! Rights are mostly removed along with the DaemonSet, often before it. To be refused is therefore a sign
//! of an uninstallation too, but only to an agent that was allowed to ask before, and only if it is refused
//! all through its grace: an API server that starts refuses as well, for some seconds. And only if the API
//! server has said that the agent's own pod is to end: credentials also die with a pod that is deleted by
//! force, or by a mistake of the whole cluster, and the mesh lives on then.

use std::{fmt, time::Duration};

use k8s_openapi::api::{apps::v1::DaemonSet, core::v1::Node};
use kube::{Api, Client};
use mesh_kube::error::Fault;
use tokio::time::{Instant, sleep, timeout};

mod placement;
#[cfg(test)]
mod tests;

/// The agent's DaemonSet. Istio's plugin, its installer and the controller that removes taints know it by
/// this name.
pub const DAEMON_SET: &str = "istio-cni-node";

/// What to do with what is installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Leave it all to the agent that follows.
    Keep(Kept),
    /// Remove it all.
    CleanUp(Gone),
}

/// Why everything stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// The DaemonSet is there and wants this node: an upgrade, or the node restarts.
    Upgrade,
    /// The API server did not answer.
    Unreachable,
    /// The agent was never allowed to read its DaemonSet, so that a refusal says nothing.
    NeverAllowed,
    /// The API server refused, but not all the time.
    Undetermined,
    /// The API server refused, and has not said that the agent's pod is to end, or has it no more.
    NotEnding,
}

/// Why everything goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// The DaemonSet has gone or is being deleted.
    DaemonSet,
    /// The DaemonSet does not want this node any more.
    Node,
    /// The rights of the agent have gone, as they do when everything is deleted at once.
    Rights,
    /// The agent is told not to tell the cases apart (`AMBIENT_DISABLE_SAFE_UPGRADE`).
    Unasked,
}

/// One answer about the DaemonSet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is there, and whether it wants this node.
    There {
        /// Whether a pod of it may run on this node.
        wants_node: bool,
    },
    /// It is being deleted.
    Leaving,
    /// It is not there.
    Missing,
    /// 401 or 403.
    Denied,
    /// No answer, or one that says nothing.
    None,
}

/// What to do after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask once more.
    Ask,
    /// That is enough.
    Done(Decision),
}

/// What the API server has answered so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    was_allowed: bool,
    answers: Vec<Answer>,
}

/// The one who asks.
#[derive(Clone)]
pub struct Question {
    client: Client,
    namespace: String,
    node: String,
    was_allowed: bool,
}

/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(2);
/// How long to wait before asking again. Also how long a DaemonSet has to stay away: one that is replaced
/// by force is missing for a moment.
const PAUSE: Duration = Duration::from_secs(1);

// === impl Evidence ===

impl Evidence {
    /// Nothing yet. `was_allowed` is whether the agent could read its DaemonSet earlier in its life.
    pub fn new(was_allowed: bool) -> Self {
        Self {
            was_allowed,
            answers: Vec::new(),
        }
    }

    /// One more answer. `last` if there is no time to ask again; `ending` if the API server has the agent's own
    /// pod, and says that it is being deleted.
    pub fn weigh(&mut self, answer: Answer, last: bool, ending: bool) -> Step {
        let before = self.answers.last().copied();
        self.answers.push(answer);
        let decided = match answer {
            Answer::There { wants_node: true } => Some(Decision::Keep(Kept::Upgrade)),
            Answer::There { wants_node: false } => Some(Decision::CleanUp(Gone::Node)),
            Answer::Leaving => Some(Decision::CleanUp(Gone::DaemonSet)),
            Answer::Missing => {
                (before == Some(Answer::Missing)).then_some(Decision::CleanUp(Gone::DaemonSet))
            }
            Answer::Denied if !self.was_allowed => Some(Decision::Keep(Kept::NeverAllowed)),
            Answer::Denied | Answer::None => None,
        };
        match decided {
            Some(decision) => Step::Done(decision),
            None if last => Step::Done(self.at_last(ending)),
            None => Step::Ask,
        }
    }

    /// What to do when there is no time left.
    fn at_last(&self, ending: bool) -> Decision {
        let all = |answer| self.answers.len() > 1 && self.answers.iter().all(|a| *a == answer);
        if all(Answer::Denied) && ending {
            Decision::CleanUp(Gone::Rights)
        } else if all(Answer::Denied) {
            Decision::Keep(Kept::NotEnding)
        } else if self.answers.last() == Some(&Answer::None) {
            Decision::Keep(Kept::Unreachable)
        } else {
            Decision::Keep(Kept::Undetermined)
        }
    }
}

// === impl Question ===

impl Question {
    /// Asks about the DaemonSet in `namespace`, the agent's own, with regard to `node`.
    pub fn new(client: Client, namespace: impl Into<String>, node: impl Into<String>) -> Self {
        Self {
            client,
            namespace: namespace.into(),
            node: node.into(),
            was_allowed: false,
        }
    }

    /// Asks once, at the agent's start, so that a refusal at its end says something. An agent that may not
    /// ask says so now, when somebody can still help.
    pub async fn rehearse(&mut self) -> Answer {
        let answer = self.ask().await;
        match answer {
            Answer::Denied => tracing::warn!(
                namespace = self.namespace,
                "the agent may not read its DaemonSet {DAEMON_SET}: when the mesh is uninstalled its plugin \
                 will stay on the node. Grant its account `get` of daemonsets.apps in its namespace"
            ),
            Answer::None => {}
            _ => self.was_allowed = true,
        }
        answer
    }

    /// Asks until it is clear what this end means, at most for `grace`. `ending` says whether the API server has
    /// the agent's own pod, as far as is known, and says that it is being deleted.
    pub async fn decide(&self, grace: Duration, ending: impl Fn() -> bool) -> Decision {
        let deadline = Instant::now() + grace;
        let mut evidence = Evidence::new(self.was_allowed);
        loop {
            let answer = self.ask().await;
            let last = Instant::now() + PAUSE >= deadline;
            match evidence.weigh(answer, last, ending()) {
                Step::Ask => sleep(PAUSE).await,
                Step::Done(decision) => {
                    tracing::info!(?decision, ?answer, "the agent ends");
                    return decision;
                }
            }
        }
    }

    async fn ask(&self) -> Answer {
        let sets: Api<DaemonSet> = Api::namespaced(self.client.clone(), &self.namespace);
        let set = match timeout(REQUEST, sets.get(DAEMON_SET)).await {
            Ok(Ok(set)) => set,
            Ok(Err(error)) => return refused(&error),
            Err(_elapsed) => return Answer::None,
        };
        if set.metadata.deletion_timestamp.is_some() {
            return Answer::Leaving;
        }
        let pod = set.spec.and_then(|spec| spec.template.spec);
        let wants_node = match pod {
            Some(pod) if placement::is_restricted(&pod) => {
                // A node that cannot be read is wanted: to stay is the safe side.
                let node = self.node().await;
                node.is_none_or(|node| placement::admits(&pod, &node.metadata))
            }
            _ => true,
        };
        Answer::There { wants_node }
    }

    async fn node(&self) -> Option<Node> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        timeout(REQUEST, nodes.get(&self.node)).await.ok()?.ok()
    }
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut question = f.debug_struct("Question");
        question.field("namespace", &self.namespace);
        question.field("node", &self.node);
        question.field("was_allowed", &self.was_allowed);
        question.finish_non_exhaustive()
    }
}

/// What an error of the API server, or of what stands before it, says about the DaemonSet.
fn refused(error: &kube::Error) -> Answer {
    match (Fault::of(error), error) {
        // A proxy on the way can answer 404 as well, but does not know what was asked for.
        (Fault::Missing, kube::Error::Api(status)) if names_daemon_set(status) => Answer::Missing,
        (Fault::Denied, kube::Error::Api(_)) => Answer::Denied,
        _ => Answer::None,
    }
}

fn names_daemon_set(status: &kube::core::Status) -> bool {
    let named = |details: &kube::core::response::StatusDetails| details.name == DAEMON_SET;
    status.reason == "NotFound" && status.details.as_ref().is_some_and(named)
}

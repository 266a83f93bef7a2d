//! Carrying out one action.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use mesh_net::netns::NetNs;
use mesh_runtime::error::chain;
use mesh_zds::agent::{self, Pod};
use tokio::task::spawn_blocking;

use super::Shared;
use crate::{
    agent::{
        machine::{Action, Cause, Outcome},
        netns::{self, Located, owns, sandbox::Sandbox},
        proxies::Proxies,
        registry::Task,
    },
    parts::{PodUid, Probes, Rules},
};

/// How an action went, and the namespace that it found.
type Performed = Result<(Outcome, Option<Located>), Cause>;

impl<K: Rules + Probes, Z: Proxies> Shared<K, Z> {
    /// Carries out one action.
    pub(super) async fn perform(&self, uid: &PodUid, task: &Task) -> Performed {
        let done = |()| (Outcome::Done, None);
        match &task.action {
            Action::Find => self.find(task).await,
            Action::Recheck(_) => self.recheck(task).await,
            Action::Verify(_, options) => {
                let verdict = self.kernel.verify(task.netns()?, options).await;
                let verdict = verdict.map_err(|error| Cause::of("RulesUnreadable", &error))?;
                Ok((Outcome::Holds(verdict), None))
            }
            Action::Apply(_, options) => {
                let applied = self.kernel.apply(task.netns()?, options).await;
                applied
                    .map(done)
                    .map_err(|error| Cause::of("RulesNotApplied", &error))
            }
            Action::Strip(_) => {
                let removed = Rules::remove(&self.kernel, task.netns()?).await;
                removed
                    .map(done)
                    .map_err(|error| Cause::of("RulesNotRemoved", &error))
            }
            Action::Tell(_, info, _) => {
                let pod = Pod {
                    uid: uid.clone(),
                    info: info.clone(),
                };
                let told = self.proxies.add(pod, task.netns()?.clone()).await;
                told.map(done).map_err(Cause::from)
            }
            Action::Untell => self
                .proxies
                .delete(uid)
                .await
                .map(done)
                .map_err(Cause::from),
            Action::Admit(address) => {
                let admitted = self.kernel.insert(*address, uid).await;
                admitted
                    .map(done)
                    .map_err(|error| Cause::of("ProbeSetNotChanged", &error))
            }
            Action::Dismiss(address) => {
                let dismissed = Probes::remove(&self.kernel, *address, uid).await;
                dismissed
                    .map(done)
                    .map_err(|error| Cause::of("ProbeSetNotChanged", &error))
            }
        }
    }

    async fn find(&self, task: &Task) -> Performed {
        match self.locate(task).await? {
            Some(located) => Ok((Outcome::Found(located.netns.id()), Some(located))),
            // In a pod that is not to be in the mesh there is nothing to find then.
            None if !task.wanted => Ok((Outcome::Gone, None)),
            None => Err(Cause {
                reason: "NamespaceNotFound",
                message: format!(
                    "no process of the pod is in a network namespace with one of its addresses {:?}",
                    task.addresses
                ),
                refused: false,
            }),
        }
    }

    async fn recheck(&self, task: &Task) -> Performed {
        if let Some(held) = &task.located {
            let path = held.path.to_str().unwrap_or_default();
            if self.host.identify(path) == Some(held.netns.id()) {
                return Ok((Outcome::Found(held.netns.id()), None));
            }
        }
        if let Some(located) = self.locate(task).await? {
            return Ok((Outcome::Found(located.netns.id()), Some(located)));
        }
        match &task.located {
            // What led to it is gone, but it still has the pod's interface.
            Some(held) if owned(held.clone(), task.addresses.clone()).await? => {
                Ok((Outcome::Found(held.netns.id()), None))
            }
            _ => Ok((Outcome::Gone, None)),
        }
    }

    /// Finds a pod's namespace: by what the runtime said, then among the node's processes.
    async fn locate(&self, task: &Task) -> Result<Option<Located>, Cause> {
        let (host, paths, addresses) = (
            self.host.clone(),
            task.paths.clone(),
            task.addresses.clone(),
        );
        let told = spawn_blocking(move || {
            paths
                .iter()
                .find_map(|sandbox| told(&host, sandbox, &addresses))
        });
        if let Ok(Some(located)) = told.await {
            return Ok(Some(located));
        }
        if task.addresses.is_empty() {
            return Ok(None);
        }
        let (uids, addresses) = (task.runtime_uids.clone(), task.addresses.clone());
        let found = self.scanner.find(uids, addresses).await;
        found.map_err(|error| Cause::of("NamespaceUnreadable", &error))
    }
}

/// The namespace that the runtime told of, if it still is the one.
fn told(host: &netns::Host, sandbox: &Sandbox, addresses: &BTreeSet<IpAddr>) -> Option<Located> {
    let located = host.open(&sandbox.netns).ok()?;
    let same = located.netns.id() == sandbox.netns_id();
    // A runtime that does not tell the UID may mean a predecessor of the same name.
    let named = !sandbox.pod_uid.is_empty();
    let ours = named || addresses.is_empty() || owns(&located.netns, addresses).unwrap_or(false);
    (same && ours).then_some(located)
}

async fn owned(held: Located, addresses: BTreeSet<IpAddr>) -> Result<bool, Cause> {
    let owned = spawn_blocking(move || owns(&held.netns, &addresses)).await;
    let owned = owned.unwrap_or(Ok(false));
    owned.map_err(|error| Cause::of("NamespaceUnreadable", &error))
}

// === impl Task ===

impl Task {
    /// The namespace that the action is about.
    fn netns(&self) -> Result<&Arc<NetNs>, Cause> {
        let of = match &self.action {
            Action::Verify(id, _)
            | Action::Apply(id, _)
            | Action::Strip(id)
            | Action::Tell(id, ..) => Some(*id),
            _ => None,
        };
        let held = self.located.as_ref().map(|located| &located.netns);
        let held = held.filter(|netns| Some(netns.id()) == of);
        held.ok_or_else(|| Cause {
            reason: "NamespaceNotHeld",
            message: "the pod's network namespace is not open any more".to_owned(),
            refused: false,
        })
    }
}

// === impl Cause ===

impl Cause {
    /// A failure in the words of its error.
    fn of(reason: &'static str, error: &(dyn std::error::Error + 'static)) -> Self {
        Self {
            reason,
            message: chain(error).to_string(),
            refused: false,
        }
    }
}

impl From<agent::Error> for Cause {
    fn from(error: agent::Error) -> Self {
        let reason = match &error {
            agent::Error::NoProxy => "ZtunnelNotConnected",
            agent::Error::Refused(_) => "ZtunnelRefused",
            agent::Error::TimedOut => "ZtunnelTimedOut",
            agent::Error::Disconnected => "ZtunnelDisconnected",
            agent::Error::Deleted => "PodDeleted",
            agent::Error::Invalid(_) => "PodNotDescribable",
        };
        Self {
            reason,
            message: chain(&error).to_string(),
            refused: matches!(error, agent::Error::Refused(_)),
        }
    }
}

//! What a node's proxy may do beyond what every workload may: ask for the certificates of the pods on
//! its node, and see the mesh.

use std::{collections::BTreeSet, fmt, str::FromStr, sync::Arc, time::Duration};

use mesh_core::identity::Identity;
use mesh_index::placement::{self, Denial, Placement};
use parking_lot::RwLock;
use tokio::{sync::watch, time::timeout};

use super::Caller;

/// A service account, written `<namespace>/<name>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceAccount {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// The service accounts of node proxies: `CA_TRUSTED_NODE_ACCOUNTS`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeAccounts(BTreeSet<ServiceAccount>);

/// Which pods run where, as somebody else learns it. Cheap to clone.
#[derive(Clone)]
pub struct Placements {
    placement: Arc<RwLock<Placement>>,
    news: watch::Receiver<u64>,
}

/// Decides by caller and placement. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Nodes {
    accounts: Arc<NodeAccounts>,
    placements: Placements,
}

/// A text that names no service account. The configuration is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a service account of the form <namespace>/<name>")]
pub struct NotAnAccount(String);

/// Why a caller is not allowed what only a node's proxy is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its service account is not one of a node's proxy. If it should be, `CA_TRUSTED_NODE_ACCOUNTS` is
    /// to be corrected.
    #[error("{0} is not the service account of a node's proxy")]
    NotANodeProxy(ServiceAccount),
    /// It has not told which pod it is: it came with a certificate, or with a token that is bound to no
    /// pod.
    #[error("{0} has not proved which pod it is")]
    NoPod(ServiceAccount),
    /// It may not, by what runs where.
    #[error(transparent)]
    Placement(#[from] Denial),
}

/// How long a request waits for news of a pod. Its proxy often asks before the API server has told us
/// of the pod, and would retry only a second or more later.
const PATIENCE: Duration = Duration::from_secs(2);

// === impl Placements ===

impl Placements {
    /// What `placement` holds; `news` has a new value after each change of it.
    pub fn new(placement: Arc<RwLock<Placement>>, news: watch::Receiver<u64>) -> Self {
        Self { placement, news }
    }
}

impl fmt::Debug for Placements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Placements")
            .field("generation", &*self.news.borrow())
            .finish_non_exhaustive()
    }
}

// === impl Nodes ===

impl Nodes {
    /// Callers with one of `accounts` act for the node on which `placements` sees their pod.
    pub fn new(accounts: NodeAccounts, placements: Placements) -> Self {
        Self {
            accounts: Arc::new(accounts),
            placements,
        }
    }

    /// Whether the caller has the service account of a node's proxy. Says nothing about where it runs.
    pub fn is_proxy(&self, caller: &Caller) -> bool {
        self.accounts.0.contains(&ServiceAccount::of(caller))
    }

    /// Whether the caller may have a certificate of `wanted`. Waits a little if its pod, or one with that
    /// identity, may only not have been heard of yet.
    pub async fn may_impersonate(&self, caller: &Caller, wanted: &Identity) -> Result<(), Refusal> {
        let proxy = self.proxy(caller)?;
        self.patiently(|placement| placement.may_impersonate(&proxy, wanted))
            .await
            .map_err(Refusal::Placement)
    }

    /// The node for which the caller acts. Waits a little if its pod may only not have been heard of yet.
    pub async fn node(&self, caller: &Caller) -> Result<String, Refusal> {
        let proxy = self.proxy(caller)?;
        self.patiently(|placement| placement.node_of(&proxy).map(str::to_owned))
            .await
            .map_err(Refusal::Placement)
    }

    fn proxy(&self, caller: &Caller) -> Result<placement::Caller, Refusal> {
        if !self.is_proxy(caller) {
            return Err(Refusal::NotANodeProxy(ServiceAccount::of(caller)));
        }
        let pod = caller.pod.as_ref();
        let pod = pod.ok_or_else(|| Refusal::NoPod(ServiceAccount::of(caller)))?;
        Ok(placement::Caller {
            namespace: caller.namespace().to_owned(),
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            service_account: caller.service_account().to_owned(),
        })
    }

    async fn patiently<T>(
        &self,
        look: impl Fn(&Placement) -> Result<T, Denial>,
    ) -> Result<T, Denial> {
        let look = || look(&self.placements.placement.read());
        let mut news = self.placements.news.clone();
        // Before the first look, so that news in between is seen.
        news.mark_unchanged();
        let mut answer = look();
        let waiting = async {
            while answer.as_ref().is_err_and(Denial::may_change) {
                if news.changed().await.is_err() {
                    break;
                }
                answer = look();
            }
        };
        // When time is up the last answer stands.
        timeout(PATIENCE, waiting).await.ok();
        answer
    }
}

// === impl NodeAccounts ===

impl NodeAccounts {
    /// The one account that the default installation has: `ztunnel` in istiod's namespace.
    pub fn default_in(namespace: &str) -> Self {
        Self(BTreeSet::from([ServiceAccount {
            namespace: namespace.to_owned(),
            name: "ztunnel".to_owned(),
        }]))
    }
}

impl FromStr for NodeAccounts {
    type Err = NotAnAccount;

    /// Accounts separated by commas; an empty text means nobody.
    fn from_str(text: &str) -> Result<Self, NotAnAccount> {
        let names = text.split(',').map(str::trim);
        let names = names.filter(|name| !name.is_empty());
        names.map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

// === impl ServiceAccount ===

impl ServiceAccount {
    fn of(caller: &Caller) -> Self {
        Self {
            namespace: caller.namespace().to_owned(),
            name: caller.service_account().to_owned(),
        }
    }
}

impl FromStr for ServiceAccount {
    type Err = NotAnAccount;

    fn from_str(text: &str) -> Result<Self, NotAnAccount> {
        match text.split_once('/') {
            Some((namespace, name))
                if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
            {
                Ok(Self {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                })
            }
            _ => Err(NotAnAccount(text.to_owned())),
        }
    }
}

impl fmt::Display for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests;

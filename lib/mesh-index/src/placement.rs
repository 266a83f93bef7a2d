//! Which pods run where: may a node's proxy ask for a workload's certificate?

use k8s_openapi::api::core::v1::Pod;
use mesh_core::identity::Identity;

use crate::object::Key;

/// The pods of the cluster as the certificate authority needs them.
#[derive(Debug, Default)]
pub struct Placement {
    generation: u64,
}

/// A pod that asks on behalf of another, as its service-account token describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's uid.
    pub uid: String,
    /// The pod's service account.
    pub service_account: String,
}

/// Why a proxy may not have a certificate. News of pods may change the answer where
/// [`Denial::may_change`] says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// The caller's pod is not known, or no longer.
    #[error("pod {0} of the caller is not known")]
    UnknownCaller(Key),
    /// A pod of this name exists, but it is another one.
    #[error("pod {0} has another uid than the caller's token")]
    OtherCaller(Key),
    /// The pod has another service account than the token.
    #[error("pod {pod} does not run as service account {claimed}")]
    OtherAccount {
        /// The caller's pod.
        pod: Key,
        /// The account of the token.
        claimed: String,
    },
    /// The caller's pod has ended.
    #[error("pod {0} of the caller has ended")]
    EndedCaller(Key),
    /// The caller's pod has no node yet.
    #[error("pod {0} of the caller is on no node")]
    Unscheduled(Key),
    /// The identity belongs to another mesh.
    #[error("trust domain {0} is not this mesh's")]
    TrustDomain(String),
    /// No pod of that service account runs on the caller's node.
    #[error("no pod of service account {account} runs on node {node}")]
    NotHere {
        /// The service account whose certificate was asked for.
        account: Key,
        /// The caller's node.
        node: String,
    },
}

// === impl Placement ===

impl Placement {
    /// Takes in a pod that is new or has changed.
    pub fn apply(&mut self, pod: &Pod) {
        let _: &Pod = pod;
        self.generation += 1;
    }

    /// Forgets a pod.
    pub fn delete(&mut self, key: &Key) {
        let _: &Key = key;
        self.generation += 1;
    }

    /// Takes in all pods: those that are known and not among them are gone.
    pub fn reset<'a>(&mut self, pods: impl IntoIterator<Item = &'a Pod>) {
        for pod in pods {
            self.apply(pod);
        }
    }

    /// Sets which trust domains are this mesh's: its own and its aliases.
    pub fn configure(&mut self, trust_domains: Vec<String>) {
        drop(trust_domains);
        self.generation += 1;
    }

    /// Whether the proxy that runs as `caller` may have a certificate of `identity`: its pod runs, and a
    /// pod of that service account runs on the same node.
    pub fn may_impersonate(&self, caller: &Caller, identity: &Identity) -> Result<(), Denial> {
        let _: &Identity = identity;
        Err(Denial::UnknownCaller(Key::new(
            caller.namespace.as_str(),
            caller.name.as_str(),
        )))
    }

    /// The node on which the caller runs, once it is known to be who it says it is.
    pub fn node_of(&self, caller: &Caller) -> Result<&str, Denial> {
        Err(Denial::UnknownCaller(Key::new(
            caller.namespace.as_str(),
            caller.name.as_str(),
        )))
    }

    /// Grows with every change that may change an answer. Whoever got a denial that may pass waits for
    /// it to grow.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

// === impl Denial ===

impl Denial {
    /// Whether news of pods may turn this into a permission. A pod is often heard of a moment after its
    /// proxy asks.
    pub fn may_change(&self) -> bool {
        matches!(
            self,
            Self::UnknownCaller(_) | Self::Unscheduled(_) | Self::NotHere { .. }
        )
    }
}

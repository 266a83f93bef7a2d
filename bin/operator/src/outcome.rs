//! What a reconciler answers: what should be, as values. The engine carries it out.
//!
//! A reconciler is a pure function of what is known ([`View`]) and of one custom resource. It reads no
//! clock and writes nothing, so that the same answer comes after a restart, and a test needs no cluster.

use std::time::Duration;

use mesh_api::sail::{
    ComponentStatus, IstioRevisionTagStatus, IstioStatus, ZTunnelStatus, condition::StatusCondition,
};
use mesh_kube::events::Severity;
use mesh_render::Object;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    key::ObjectRef,
    world::{Custom, View},
};

/// The reconcilers of all kinds.
#[derive(Clone, Debug)]
pub struct Reconcilers {
    /// Of Istio.
    pub istio: Reconciler<mesh_api::sail::Istio>,
    /// Of IstioRevision.
    pub revision: Reconciler<mesh_api::sail::IstioRevision>,
    /// Of IstioRevisionTag.
    pub tag: Reconciler<mesh_api::sail::IstioRevisionTag>,
    /// Of IstioCNI.
    pub cni: Reconciler<mesh_api::sail::IstioCNI>,
    /// Of ZTunnel.
    pub ztunnel: Reconciler<mesh_api::sail::ZTunnel>,
}

/// What is done about resources of one kind.
#[derive(Debug)]
pub struct Reconciler<K: Custom> {
    /// What should be, while the resource is wanted.
    pub reconcile: Reconcile<K>,
    /// What remains to be done when it is not wanted any more. A kind without this gets no finalizer:
    /// what it owns goes with it by the cluster's garbage collection.
    pub finalize: Option<Finally<K>>,
}

/// What should be, while a resource is wanted.
pub type Reconcile<K> = fn(&View<'_>, &K) -> Outcome<<K as Custom>::Status>;

/// What remains to be done for a resource that is being deleted.
pub type Finally<K> = fn(&View<'_>, &K) -> Finalize<<K as Custom>::Status>;

/// What should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome<S> {
    /// Everything that the resource should own, in the order in which it is applied: accounts and rights
    /// before what needs them. Resources of ours too, such as the IstioRevision of an Istio. The engine
    /// adds the labels and the owner reference.
    pub apply: Vec<Object>,
    /// What the resource owns and should not.
    pub prune: Prune,
    /// The whole status. The engine fills in when conditions have changed and the generation, and writes
    /// it if it differs. If something cannot be applied it replaces the condition `Reconciled` and the
    /// state.
    pub status: S,
    /// Look again after this time, even if nothing changes.
    pub again: Option<Duration>,
    /// What people should hear of. Told once for as long as the same is answered.
    pub events: Vec<Happening>,
}

/// What the resource owns and should not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Prune {
    /// All that it owns and that is not applied.
    Owned,
    /// These alone, if it owns them. For what goes after a grace period.
    Only(Vec<ObjectRef>),
    /// Nothing: the answer is not the whole of what should be. For a resource that is refused or held
    /// back, so that what runs goes on.
    #[default]
    Keep,
}

/// What remains to be done for a resource that is being deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finalize<S> {
    /// What the resource owns goes, and the finalizer last.
    Remove {
        /// These objects go first, one after the other; each Deployment and DaemonSet is gone with its pods
        /// before what follows it.
        order: Vec<ObjectRef>,
        /// Where its objects lie, those of the cluster and those of `order` aside. Anybody may say of an
        /// object of their own that the resource owns it: what is elsewhere holds nothing up, and is left to
        /// the cluster's garbage collection.
        namespace: String,
    },
    /// Not yet: somebody still needs it. The status says who and what to do about it.
    Blocked {
        /// The whole status, as in [`Outcome::status`].
        status: S,
        /// As in [`Outcome::events`].
        events: Vec<Happening>,
        /// As in [`Outcome::again`].
        again: Option<Duration>,
    },
}

/// Something that people should hear of, as an Event of the resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Happening {
    /// Whether somebody should look.
    pub severity: Severity,
    /// Why, in one PascalCase word.
    pub reason: &'static str,
    /// The sentence, with the remedy if there is one.
    pub message: String,
}

/// What the statuses of all kinds have in common.
pub trait Status:
    Clone + Default + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// The conditions.
    fn conditions(&self) -> &[StatusCondition];
    /// The conditions, to be changed.
    fn conditions_mut(&mut self) -> &mut Vec<StatusCondition>;
    /// Sets the one word.
    fn set_state(&mut self, state: String);
    /// Sets the generation of the resource that the status was made for.
    fn set_observed_generation(&mut self, generation: Option<i64>);
}

// === impl Reconciler ===

impl<K: Custom> Clone for Reconciler<K> {
    fn clone(&self) -> Self {
        Self {
            reconcile: self.reconcile,
            finalize: self.finalize,
        }
    }
}

// === impl Outcome ===

impl<S> Outcome<S> {
    /// Nothing is written but the status, and what runs stays as it is.
    pub fn held(status: S) -> Self {
        Self {
            apply: Vec::new(),
            prune: Prune::Keep,
            status,
            again: None,
            events: Vec::new(),
        }
    }
}

// === impl Happening ===

impl Happening {
    /// All is well; somebody may want to know.
    pub fn normal(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Normal,
            reason,
            message: message.into(),
        }
    }

    /// Something is wrong that a person can repair.
    pub fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            reason,
            message: message.into(),
        }
    }
}

// === impl Status ===

macro_rules! statuses {
    ($($status:ty),*) => {$(
        impl Status for $status {
            fn conditions(&self) -> &[StatusCondition] {
                &self.conditions
            }

            fn conditions_mut(&mut self) -> &mut Vec<StatusCondition> {
                &mut self.conditions
            }

            fn set_state(&mut self, state: String) {
                self.state = state;
            }

            fn set_observed_generation(&mut self, generation: Option<i64>) {
                self.observed_generation = generation;
            }
        }
    )*};
}

statuses!(
    IstioStatus,
    ComponentStatus,
    IstioRevisionTagStatus,
    ZTunnelStatus
);

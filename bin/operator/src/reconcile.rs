//! The reconcilers: what should be, from what is known and one custom resource.
//!
//! ```text
//! Istio ──▶ IstioRevision ──▶ istiod          ZTunnel, IstioCNI ──▶ their DaemonSets
//!              ▲        IstioRevisionTag ──▶ a second name for a revision
//! ```
//!
//! All of them are made alike. What is wrong with the resource, its namespace or the versions beside it
//! ends in a refusal: it becomes the condition `Reconciled` and an Event, and what runs stays as it is.
//! Otherwise objects are rendered and applied, and what they have become is read back into the other
//! conditions.

use crate::outcome::{Reconciler, Reconcilers};

pub mod cni;
pub mod istio;
pub mod revision;
pub mod tag;
pub mod ztunnel;

mod components;
mod conditions;
mod dependencies;
mod gates;
mod installed;
mod platform;
mod refusal;
mod serving;
mod uninstall;

/// The reconcilers of all kinds.
pub fn reconcilers() -> Reconcilers {
    Reconcilers {
        istio: Reconciler {
            reconcile: istio::reconcile,
            // Its revisions are removed with it by the cluster, each of which has a finalizer.
            finalize: None,
        },
        revision: Reconciler {
            reconcile: revision::reconcile,
            finalize: Some(revision::finalize),
        },
        tag: Reconciler {
            reconcile: tag::reconcile,
            finalize: Some(tag::finalize),
        },
        cni: Reconciler {
            reconcile: cni::reconcile,
            finalize: Some(cni::finalize),
        },
        ztunnel: Reconciler {
            reconcile: ztunnel::reconcile,
            finalize: Some(ztunnel::finalize),
        },
    }
}

#[cfg(test)]
mod tests;

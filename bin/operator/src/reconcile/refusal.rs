//! Why a resource is not carried out.

use mesh_api::sail::{
    condition::{self, StatusCondition, reason},
    version::{self, Release},
};

use crate::{
    lifecycle::{Skew, Wait},
    outcome::Happening,
    world::View,
};

/// Why a resource is not carried out: the condition `Reconciled`, and an Event. What runs stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// One word for machines.
    pub(super) reason: &'static str,
    /// For people, with the remedy.
    pub(super) message: String,
    /// Nobody has to do anything: it goes on by itself.
    pub(super) passes: bool,
}

// === impl Refusal ===

impl Refusal {
    /// The resource or its surroundings have to be changed.
    pub(super) fn error(message: impl Into<String>) -> Self {
        Self::of(reason::RECONCILE_ERROR, message)
    }

    pub(super) fn of(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            passes: false,
        }
    }

    pub(super) fn wait(wait: &Wait) -> Self {
        Self {
            reason: wait.first.waiting(),
            message: wait.to_string(),
            passes: true,
        }
    }

    pub(super) fn skew(skew: &Skew) -> Self {
        Self::of(reason::VERSION_SKEW, skew.to_string())
    }

    pub(super) fn condition(&self) -> StatusCondition {
        StatusCondition::fails(condition::RECONCILED, self.reason, &self.message)
    }

    pub(super) fn happening(&self) -> Happening {
        if self.passes {
            Happening::normal(self.reason, &self.message)
        } else {
            Happening::warning(self.reason, &self.message)
        }
    }
}

impl From<mesh_render::Error> for Refusal {
    fn from(error: mesh_render::Error) -> Self {
        Self::error(error.to_string())
    }
}

/// The release that a `spec.version` stands for.
pub(super) fn release(version: &str) -> Result<&'static Release, Refusal> {
    version::resolve(version).map_err(|error| Refusal::error(error.to_string()))
}

/// That objects can be made in the namespace.
pub(super) fn place(view: &View<'_>, namespace: &str) -> Result<(), Refusal> {
    match view.namespace(namespace) {
        Some(place) if !place.terminating => Ok(()),
        Some(_) => Err(Refusal::error(format!(
            "namespace \"{namespace}\" is being deleted: wait until it is gone and create it again"
        ))),
        None => Err(Refusal::error(format!(
            "namespace \"{namespace}\" doesn't exist: create it with kubectl create namespace {namespace}"
        ))),
    }
}

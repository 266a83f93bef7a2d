//! What is made and said of a resource that stands for one workload.

use std::time::Duration;

use mesh_api::sail::condition::StatusCondition;
use mesh_render::{Object, Rendered};

use super::{
    conditions::{self, Readiness},
    platform,
    refusal::Refusal,
};
use crate::{
    images::Component,
    key::ObjectRef,
    outcome::{Happening, Outcome, Prune},
    world::View,
};

/// What should be of a component.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) rendered: Rendered,
    /// Why it may not be applied now, if it may not.
    pub(super) held: Option<Refusal>,
}

/// What is said of a component, before its kind adds its own.
#[derive(Debug)]
pub(super) struct Report {
    /// `Reconciled`, `Ready`, `ValuesRecognized`, `PlatformSupported`, in this order.
    pub(super) conditions: Vec<StatusCondition>,
    pub(super) events: Vec<Happening>,
    pub(super) again: Option<Duration>,
    /// What is applied, if it is.
    pub(super) objects: Option<Vec<Object>>,
}

// === impl Report ===

impl Report {
    /// `before` are the conditions that the resource has now.
    pub(super) fn new(
        view: &View<'_>,
        component: Component,
        plan: Result<Plan, Refusal>,
        workload: &ObjectRef,
        before: &[StatusCondition],
    ) -> Self {
        let (rendered, refusal) = match plan {
            Ok(plan) => (Some(plan.rendered), plan.held),
            Err(refusal) => (None, Some(refusal)),
        };
        let Readiness {
            condition: ready,
            happening,
            again,
        } = conditions::readiness(view, workload, before);
        let mut conditions = vec![conditions::reconciled(refusal.as_ref()), ready];
        conditions.extend(
            rendered
                .as_ref()
                .map(|of| conditions::values(&of.notes, &[])),
        );
        conditions.extend(platform::condition(view, component));
        let mut events = Vec::from_iter(refusal.as_ref().map(Refusal::happening));
        events.extend(happening);
        Self {
            conditions,
            events,
            again,
            objects: rendered.filter(|_| refusal.is_none()).map(|of| of.objects),
        }
    }

    /// The answer of the reconciler with this status.
    pub(super) fn outcome<S>(self, status: S) -> Outcome<S> {
        let prune = match self.objects {
            Some(_) => Prune::Owned,
            None => Prune::Keep,
        };
        Outcome {
            apply: self.objects.unwrap_or_default(),
            prune,
            status,
            again: self.again,
            events: self.events,
        }
    }
}

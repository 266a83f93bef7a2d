//! IstioRevision: one control plane.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mesh_api::sail::{
    ComponentStatus, IstioRevision, IstioRevisionTag,
    condition::{self, StatusCondition, reason},
};
use serde_json::Value;

use super::{
    components, dependencies, gates,
    installed::{Plan, Report},
    platform,
    refusal::{self, Refusal},
    serving,
};
use crate::{
    images::Component,
    outcome::{Finalize, Outcome},
    usage::DEFAULT_REVISION,
    world::View,
};

/// What should be.
pub fn reconcile(view: &View<'_>, revision: &IstioRevision) -> Outcome<ComponentStatus> {
    let before = revision.status.as_ref();
    let before = before.map(|status| status.conditions.as_slice());
    let workload = gates::istiod_workload(revision);
    let plan = plan(view, revision);
    let mut report = Report::new(
        view,
        Component::Istiod,
        plan,
        &workload,
        before.unwrap_or_default(),
    );
    let openshift = platform::is_openshift(view);
    let own = [
        dependencies::condition(view, revision, openshift),
        usage(serving::in_use(view, revision)),
    ];
    // After `Reconciled` and `Ready`.
    report.conditions.splice(2..2, own);
    let order = dependencies::state_order(&report.conditions, &revision.spec.values);
    let status = ComponentStatus {
        state: condition::state(&report.conditions, order).to_owned(),
        conditions: report.conditions.clone(),
        observed_generation: None,
    };
    report.outcome(status)
}

/// What remains to be done when it is not wanted any more.
pub fn finalize(_view: &View<'_>, revision: &IstioRevision) -> Finalize<ComponentStatus> {
    Finalize::Remove {
        order: vec![gates::istiod_workload(revision)],
        namespace: revision.spec.namespace.clone(),
    }
}

/// The condition `InUse` of a revision or tag.
pub(super) fn usage(in_use: bool) -> StatusCondition {
    if in_use {
        return StatusCondition::holds(condition::IN_USE);
    }
    StatusCondition::fails(
        condition::IN_USE,
        reason::NOT_REFERENCED_BY_ANYTHING,
        "no namespace, pod, waypoint or tag refers to it",
    )
}

/// Whether the first of two resources that may not have the same name has it: the older one, and of two of
/// the same second the one whose uid comes first.
pub(super) fn precedes(one: &ObjectMeta, other: &ObjectMeta) -> bool {
    let age = |meta: &ObjectMeta| {
        let created = meta.creation_timestamp.as_ref();
        (created.map(|created| created.0), meta.uid.clone())
    };
    age(one) < age(other)
}

fn plan(view: &View<'_>, revision: &IstioRevision) -> Result<Plan, Refusal> {
    let release = refusal::release(&revision.spec.version)?;
    named(view, revision)?;
    refusal::place(view, &revision.spec.namespace)?;
    let settings = components::settings(view, release)?;
    Ok(Plan {
        rendered: mesh_render::istiod::control_plane(components::rendered(revision), &settings)?,
        held: gates::control_plane(view, revision),
    })
}

/// That name and namespace agree with the values, and that nobody else has the name.
fn named(view: &View<'_>, revision: &IstioRevision) -> Result<(), Refusal> {
    let name = components::name(revision);
    let values = &revision.spec.values;
    let named = values
        .get("revision")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let wanted = if name == DEFAULT_REVISION { "" } else { name };
    if named != wanted {
        return Err(Refusal::error(format!(
            "spec.values.revision: is \"{named}\" and has to be \"{wanted}\" in an IstioRevision named \
             \"{name}\""
        )));
    }
    let namespace = values
        .get("global")
        .and_then(|global| global.get("istioNamespace"));
    let namespace = namespace.and_then(Value::as_str);
    if let Some(other) = namespace.filter(|other| *other != revision.spec.namespace) {
        return Err(Refusal::error(format!(
            "spec.values.global.istioNamespace: is \"{other}\" and has to be spec.namespace, \"{}\"",
            revision.spec.namespace
        )));
    }
    let tag = view.get::<IstioRevisionTag>(name);
    match tag.filter(|tag| precedes(&tag.metadata, &revision.metadata)) {
        None => Ok(()),
        Some(_) => Err(Refusal::of(
            reason::NAME_ALREADY_EXISTS,
            format!(
                "an IstioRevisionTag named \"{name}\" exists already: rename or delete one of the two"
            ),
        )),
    }
}

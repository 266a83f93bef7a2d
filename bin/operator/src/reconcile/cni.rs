//! IstioCNI: the CNI agent on every node.

use mesh_api::sail::{
    ComponentStatus, IstioCNI,
    condition::{self, STATE_OF_NODE},
};
use mesh_render::object::NETWORK_ATTACHMENT_DEFINITION;

use super::{
    components, gates,
    installed::{Plan, Report},
    refusal::{self, Refusal},
    uninstall,
};
use crate::{
    images::Component,
    key::ObjectRef,
    outcome::{Finalize, Outcome},
    world::View,
};

/// What should be.
pub fn reconcile(view: &View<'_>, cni: &IstioCNI) -> Outcome<ComponentStatus> {
    let before = cni
        .status
        .as_ref()
        .map(|status| status.conditions.as_slice());
    let workload = gates::cni_workload(cni);
    let report = Report::new(
        view,
        Component::Cni,
        plan(view, cni),
        &workload,
        before.unwrap_or_default(),
    );
    let status = ComponentStatus {
        state: condition::state(&report.conditions, STATE_OF_NODE).to_owned(),
        conditions: report.conditions.clone(),
        observed_generation: None,
    };
    report.outcome(status)
}

/// What remains to be done when it is not wanted any more.
pub fn finalize(view: &View<'_>, cni: &IstioCNI) -> Finalize<ComponentStatus> {
    // The attachment lies where pods of all namespaces find it.
    let order = vec![gates::cni_workload(cni), attachment()];
    let objects = (order, cni.spec.namespace.as_str());
    uninstall::of_node_component(view, &cni.metadata, objects, cni.status.as_ref())
}

fn attachment() -> ObjectRef {
    ObjectRef::namespaced(
        NETWORK_ATTACHMENT_DEFINITION,
        mesh_render::cni::ATTACHMENT_NAMESPACE,
        mesh_render::cni::ACCOUNT,
    )
}

fn plan(view: &View<'_>, cni: &IstioCNI) -> Result<Plan, Refusal> {
    let release = refusal::release(&cni.spec.version)?;
    refusal::place(view, &cni.spec.namespace)?;
    let settings = components::settings(view, release)?;
    Ok(Plan {
        rendered: mesh_render::cni::render(&cni.spec, &settings)?,
        held: gates::cni(view),
    })
}

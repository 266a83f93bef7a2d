//! What keeps the node components from being removed.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mesh_api::sail::{
    UNINSTALL_ANNOTATION, UNINSTALL_FORCE,
    condition::{self, StatusCondition, reason},
};

use crate::{
    key::ObjectRef,
    outcome::{Finalize, Happening, Status},
    world::View,
};

/// Removes what is in `order`, with the DaemonSet first, and the rest, unless pods are in the mesh: without the
/// CNI agent and the node proxy they would have no network. `status` is that which the resource has now.
pub(super) fn of_node_component<S: Status>(
    view: &View<'_>,
    meta: &ObjectMeta,
    (order, namespace): (Vec<ObjectRef>, &str),
    status: Option<&S>,
) -> Finalize<S> {
    let annotations = meta.annotations.as_ref();
    let forced = annotations.and_then(|all| all.get(UNINSTALL_ANNOTATION));
    let forced = forced.is_some_and(|value| value == UNINSTALL_FORCE);
    let usage = view.enrolment();
    let runs = order
        .first()
        .is_some_and(|workload| view.live(workload).is_some());
    if forced || usage.enrolled_pods() == 0 || !runs {
        let namespace = namespace.to_owned();
        return Finalize::Remove { order, namespace };
    }
    let message = format!(
        "{}; take them out with kubectl label namespace NAME istio.io/dataplane-mode-, or annotate this \
         resource with {UNINSTALL_ANNOTATION}={UNINSTALL_FORCE}, after which they have no network until \
         they are restarted",
        usage.enrolled()
    );
    let mut status = status.cloned().unwrap_or_default();
    let blocked =
        StatusCondition::fails(condition::UNINSTALLED, reason::UNINSTALL_BLOCKED, &message);
    let conditions = status.conditions_mut();
    conditions.retain(|known| known.type_ != condition::UNINSTALLED);
    conditions.push(blocked);
    status.set_state(reason::UNINSTALL_BLOCKED.to_owned());
    Finalize::Blocked {
        status,
        events: vec![Happening::warning(reason::UNINSTALL_BLOCKED, message)],
        again: None,
    }
}

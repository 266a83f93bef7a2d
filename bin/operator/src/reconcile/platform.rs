//! What the cluster means for the mesh: how objects are rendered, and what it lacks.

use mesh_api::sail::condition::StatusCondition;
use mesh_render::{Platform, PlatformKind};

use super::refusal::Refusal;
use crate::{images::Component, platform::Detected, world::View};

/// The cluster as rendering sees it. Nothing is rendered while it is not known: objects for another kind of
/// cluster would break nodes.
pub(super) fn rendering(view: &View<'_>) -> Result<Platform, Refusal> {
    let detected = view.platform().map(Detected::platform);
    detected.ok_or_else(|| {
        Refusal::error(
            "it is not known yet what kind of cluster this is: the operator's log says what the API \
             server answers"
                .to_owned(),
        )
    })
}

/// Whether the cluster is an OpenShift.
pub(super) fn is_openshift(view: &View<'_>) -> bool {
    view.platform()
        .is_some_and(|detected| detected.kind == PlatformKind::OpenShift)
}

/// Whether `component` can work on this cluster. Nothing while that is not known.
pub(super) fn condition(view: &View<'_>, component: Component) -> Option<StatusCondition> {
    Some(view.platform()?.condition(component))
}

//! What the cluster means for the mesh: how objects are rendered, and what it lacks.

use mesh_api::sail::condition::StatusCondition;
use mesh_render::{Platform, PlatformKind};

use crate::world::View;

/// The cluster as rendering sees it.
pub(super) fn rendering(view: &View<'_>) -> Platform {
    let _detected = view.platform();
    Platform::default()
}

/// Whether the cluster is an OpenShift.
pub(super) fn is_openshift(view: &View<'_>) -> bool {
    rendering(view).kind == PlatformKind::OpenShift
}

/// Whether the mesh can work on this cluster. Nothing while that is not known.
pub(super) fn condition(_view: &View<'_>) -> Option<StatusCondition> {
    None
}

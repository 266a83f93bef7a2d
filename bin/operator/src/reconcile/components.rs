//! What rendering depends on beside the custom resource.

use mesh_api::sail::{
    IstioRevision,
    version::{self, Release},
};
use mesh_render::{Images, Settings, istiod::Revision};

use super::{platform, refusal::Refusal, serving};
use crate::{images::Component, usage::DEFAULT_REVISION, world::View};

/// What rendering depends on beside the custom resource.
pub(super) fn settings(view: &View<'_>, release: &Release) -> Result<Settings, Refusal> {
    let tag = release.tag();
    let overrides = &view.defaults().images;
    let names = version::images();
    let image = |component, name: &str| {
        let replaced = overrides.get(&tag, component);
        let released = || format!("{}/{name}:{tag}", version::hub());
        replaced.map_or_else(released, str::to_owned)
    };
    Ok(Settings {
        platform: platform::rendering(view)?,
        images: Images {
            istiod: image(Component::Istiod, &names.istiod),
            cni: image(Component::Cni, &names.cni),
            ztunnel: image(Component::Ztunnel, &names.ztunnel),
        },
        ztunnel_namespace: serving::ztunnel(view).map(|ztunnel| ztunnel.spec.namespace.clone()),
        release: tag,
    })
}

/// The revision as rendering sees it.
pub(super) fn rendered(revision: &IstioRevision) -> Revision<'_> {
    Revision {
        name: name(revision),
        namespace: &revision.spec.namespace,
        values: &revision.spec.values,
    }
}

/// The name of a revision.
pub(super) fn name(revision: &IstioRevision) -> &str {
    revision
        .metadata
        .name
        .as_deref()
        .unwrap_or(DEFAULT_REVISION)
}

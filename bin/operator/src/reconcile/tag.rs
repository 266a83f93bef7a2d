//! IstioRevisionTag: a further name for a revision.

use std::sync::Arc;

use mesh_api::sail::{
    IstioRevision, IstioRevisionTag, IstioRevisionTagStatus,
    condition::{self, STATE_OF_TAG, reason},
};

use super::{
    components, conditions,
    refusal::{self, Refusal},
    revision, serving,
};
use crate::{
    outcome::{Finalize, Outcome, Prune},
    world::View,
};

/// What should be.
pub fn reconcile(view: &View<'_>, tag: &IstioRevisionTag) -> Outcome<IstioRevisionTagStatus> {
    let name = tag.metadata.name.as_deref().unwrap_or_default();
    let plan = plan(view, tag, name);
    let refusal = plan.as_ref().err();
    let in_use = view.usage_of(name).refers_to(name);
    let conditions = vec![conditions::reconciled(refusal), revision::usage(in_use)];
    let before = tag.status.clone().unwrap_or_default();
    let (namespace, revision) = match &plan {
        Ok((revision, _)) => (
            revision.spec.namespace.clone(),
            components::name(revision).to_owned(),
        ),
        // What was made for the tag still stands for this one.
        Err(_) => (before.istiod_namespace, before.istio_revision),
    };
    let status = IstioRevisionTagStatus {
        state: condition::state(&conditions, STATE_OF_TAG).to_owned(),
        conditions,
        observed_generation: None,
        istiod_namespace: namespace,
        istio_revision: revision,
    };
    let events = refusal.map(Refusal::happening).into_iter().collect();
    match plan {
        Err(_) => Outcome {
            events,
            ..Outcome::held(status)
        },
        Ok((_, objects)) => Outcome {
            apply: objects,
            prune: Prune::Owned,
            events,
            ..Outcome::held(status)
        },
    }
}

/// What remains to be done when it is not wanted any more.
pub fn finalize(_view: &View<'_>, tag: &IstioRevisionTag) -> Finalize<IstioRevisionTagStatus> {
    let status = tag.status.clone().unwrap_or_default();
    Finalize::Remove {
        order: Vec::new(),
        namespace: status.istiod_namespace,
    }
}

type Planned<'a> = (&'a Arc<IstioRevision>, Vec<mesh_render::Object>);

fn plan<'a>(view: &View<'a>, tag: &IstioRevisionTag, name: &str) -> Result<Planned<'a>, Refusal> {
    let other = view.get::<IstioRevision>(name);
    if other.is_some_and(|other| revision::precedes(&other.metadata, &tag.metadata)) {
        return Err(Refusal::of(
            reason::NAME_ALREADY_EXISTS,
            format!(
                "an IstioRevision named \"{name}\" exists already: rename or delete one of the two"
            ),
        ));
    }
    let revision = serving::resolve(view, &tag.spec.target_ref)?;
    let release = refusal::release(&revision.spec.version)?;
    refusal::place(view, &revision.spec.namespace)?;
    let settings = components::settings(view, release)?;
    let rendered =
        mesh_render::istiod::revision_tag(name, components::rendered(revision), &settings)?;
    Ok((revision, rendered.objects))
}

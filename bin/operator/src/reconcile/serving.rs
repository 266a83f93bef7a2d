//! Which revision is meant: by a reference, by a tag, and by those who name none.

use std::sync::Arc;

use mesh_api::sail::{
    Istio, IstioRevision, IstioRevisionTag, TargetReference, ZTunnel, condition::reason,
    version::Number,
};

use super::{gates, refusal::Refusal};
use crate::{
    readiness,
    usage::{DEFAULT_REVISION, SERVING},
    world::View,
};

/// The name that the one IstioCNI and the one ZTunnel have.
pub(super) const THE_ONE: &str = "default";

/// The one ZTunnel, if it exists.
pub(super) fn ztunnel<'a>(view: &View<'a>) -> Option<&'a Arc<ZTunnel>> {
    view.get::<ZTunnel>(THE_ONE)
}

/// The revision that a reference stands for.
pub(super) fn resolve<'a>(
    view: &View<'a>,
    target: &TargetReference,
) -> Result<&'a Arc<IstioRevision>, Refusal> {
    let name = target.name.as_str();
    let missing = |kind: &str, name: &str| {
        Refusal::of(
            reason::REF_NOT_FOUND,
            format!(
                "spec.targetRef: there is no {kind} \"{name}\": create it, or refer to another"
            ),
        )
    };
    match target.kind.as_str() {
        "Istio" => {
            let istio = view.get::<Istio>(name);
            let istio = istio.ok_or_else(|| missing("Istio", name))?;
            let status = istio.status.as_ref();
            let active = status.map(|status| status.active_revision_name.as_str());
            let active = active.filter(|active| !active.is_empty());
            let revision = active.and_then(|active| view.get::<IstioRevision>(active));
            revision.ok_or_else(|| Refusal {
                passes: true,
                ..Refusal::error(format!(
                    "waiting for Istio \"{name}\" to have an active revision"
                ))
            })
        }
        "IstioRevision" => {
            let revision = view.get::<IstioRevision>(name);
            revision.ok_or_else(|| missing("IstioRevision", name))
        }
        kind => Err(Refusal::error(format!(
            "spec.targetRef.kind: `{kind}` is neither Istio nor IstioRevision"
        ))),
    }
}

/// The revision that serves the nodes, and with them everybody who names no revision: the one that the
/// ZTunnel refers to, otherwise the default one, otherwise the only or newest one.
pub(super) fn of_nodes<'a>(view: &View<'a>) -> Option<&'a Arc<IstioRevision>> {
    let ztunnel = ztunnel(view);
    if let Some(target) = ztunnel.and_then(|ztunnel| ztunnel.spec.target_ref.as_ref()) {
        return resolve(view, target).ok();
    }
    let named = ztunnel.and_then(|ztunnel| named(ztunnel));
    by_name(view, named.unwrap_or(DEFAULT_REVISION)).or_else(|| newest(view))
}

/// The revision of the highest version.
pub(super) fn newest<'a>(view: &View<'a>) -> Option<&'a Arc<IstioRevision>> {
    let version = |revision: &Arc<IstioRevision>| revision.spec.version.parse::<Number>().ok();
    let wanted = view
        .all::<IstioRevision>()
        .filter(|revision| revision.metadata.deletion_timestamp.is_none());
    wanted.max_by_key(|revision| version(revision))
}

/// Whether somebody uses the revision.
pub(super) fn in_use(view: &View<'_>, revision: &IstioRevision) -> bool {
    let name = revision.metadata.name.as_deref().unwrap_or_default();
    let tagged = || {
        view.all::<IstioRevisionTag>().any(|tag| {
            let status = tag.status.as_ref();
            status.is_some_and(|status| status.istio_revision == name)
        })
    };
    // A ZTunnel goes on to another revision by itself only if it refers to an Istio.
    let pinned = || {
        let target = ztunnel(view).and_then(|ztunnel| ztunnel.spec.target_ref.as_ref());
        target.is_some_and(|target| target.kind == "IstioRevision" && target.name == name)
    };
    let serves = || {
        view.usage_of(SERVING).needs_serving()
            && (of_nodes(view)
                .is_none_or(|serving| serving.metadata.name == revision.metadata.name)
                || still_serves(view, name))
    };
    let injects = || name == DEFAULT_REVISION && by_default(revision);
    view.usage_of(name).refers_to(name) || tagged() || pinned() || serves() || injects()
}

/// Whether node proxies may still talk to the revision although another one is to serve them: the ZTunnel
/// has not gone over yet, or pods of an older rollout are left, of which it is not known whom they talk to.
fn still_serves(view: &View<'_>, name: &str) -> bool {
    let Some(ztunnel) = ztunnel(view) else {
        return false;
    };
    let status = ztunnel.status.as_ref();
    let live = view.live(&gates::ztunnel_workload(ztunnel));
    status.is_some_and(|status| status.istio_revision == name)
        || live.is_some_and(|live| !readiness::of_daemon_set(Some(&live.body)).uniform)
}

/// Whether the values ask for injection into every namespace.
fn by_default(revision: &IstioRevision) -> bool {
    let webhook = revision.spec.values.get("sidecarInjectorWebhook");
    let everywhere = webhook.and_then(|webhook| webhook.get("enableNamespacesByDefault"));
    everywhere.is_some_and(|everywhere| everywhere == true)
}

/// The revision that a ZTunnel's values name.
fn named(ztunnel: &ZTunnel) -> Option<&str> {
    let chart = ztunnel.spec.values.get("ztunnel");
    let revision = chart
        .and_then(|chart| chart.get("revision"))
        .and_then(|name| name.as_str());
    revision.filter(|name| !name.is_empty())
}

/// The revision of this name, or that the tag of this name stands for.
fn by_name<'a>(view: &View<'a>, name: &str) -> Option<&'a Arc<IstioRevision>> {
    let tagged = || {
        let tag = view.get::<IstioRevisionTag>(name)?;
        view.get::<IstioRevision>(&tag.status.as_ref()?.istio_revision)
    };
    view.get::<IstioRevision>(name).or_else(tagged)
}

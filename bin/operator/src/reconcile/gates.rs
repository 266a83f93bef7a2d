//! The versions of all components as they are, for the gate of one of them.

use mesh_api::{
    control_plane, labels,
    sail::{IstioCNI, IstioRevision, version::Number},
};
use mesh_render::object::{DAEMON_SET, DEPLOYMENT};

use super::{
    refusal::{self, Refusal},
    serving::{self, THE_ONE},
};
use crate::{
    key::ObjectRef,
    lifecycle::{self, Component, Gate, Mesh, Standing},
    readiness::{self, Rollout},
    usage::DEFAULT_REVISION,
    world::View,
};

/// The DaemonSet of the CNI agent.
pub(super) fn cni_workload(cni: &IstioCNI) -> ObjectRef {
    ObjectRef::namespaced(
        DAEMON_SET,
        &cni.spec.namespace,
        mesh_render::cni::DAEMON_SET,
    )
}

/// The DaemonSet of the node proxy.
pub(super) fn ztunnel_workload(ztunnel: &mesh_api::sail::ZTunnel) -> ObjectRef {
    let chart = ztunnel.spec.values.get("ztunnel");
    let name = chart.and_then(|chart| chart.get("resourceName")?.as_str());
    let name = name.filter(|name| !name.is_empty());
    let name = name.unwrap_or(mesh_render::ztunnel::NAME);
    ObjectRef::namespaced(DAEMON_SET, &ztunnel.spec.namespace, name)
}

/// The Deployment of a revision's control plane.
pub(super) fn istiod_workload(revision: &IstioRevision) -> ObjectRef {
    let name = revision.metadata.name.as_deref().unwrap_or_default();
    let suffix = if name == DEFAULT_REVISION { "" } else { name };
    let name = control_plane::suffixed("istiod", suffix);
    ObjectRef::namespaced(DEPLOYMENT, &revision.spec.namespace, name)
}

/// Whether the CNI agent may get its version. Any control plane will do: the two do not talk.
pub(super) fn cni(view: &View<'_>) -> Option<Refusal> {
    let mesh = mesh(view, serving::newest(view).map(AsRef::as_ref));
    held(&mesh, Component::Cni)
}

/// Whether the node proxy may get its version.
pub(super) fn ztunnel(view: &View<'_>) -> Option<Refusal> {
    let mesh = mesh(view, serving::of_nodes(view).map(AsRef::as_ref));
    held(&mesh, Component::ZTunnel)
}

/// Whether the control plane of this revision may get its version. Those that do not serve the nodes are
/// free.
pub(super) fn control_plane(view: &View<'_>, revision: &IstioRevision) -> Option<Refusal> {
    let is_this = |other: &IstioRevision| other.metadata.name == revision.metadata.name;
    let mut mesh = mesh(view, Some(revision));
    if !serving::newest(view).is_some_and(|newest| is_this(newest)) {
        mesh.cni = Standing::default();
    }
    if !serving::of_nodes(view).is_some_and(|serving| is_this(serving)) {
        mesh.ztunnel = Standing::default();
    }
    held(&mesh, Component::ControlPlane)
}

fn held(mesh: &Mesh, component: Component) -> Option<Refusal> {
    match lifecycle::gate(mesh, component) {
        Gate::Open => None,
        Gate::Wait(wait) => Some(Refusal::wait(&wait)),
        Gate::Refused(skew) => Some(Refusal::skew(&skew)),
    }
}

fn mesh(view: &View<'_>, revision: Option<&IstioRevision>) -> Mesh {
    let control_plane = revision.map(|revision| {
        let deleting = revision.metadata.deletion_timestamp.is_some();
        let wanted = wanted(&revision.spec.version, deleting);
        standing(
            view,
            &istiod_workload(revision),
            wanted,
            readiness::of_deployment,
        )
    });
    let cni = view.get::<IstioCNI>(THE_ONE).map(|cni| {
        let wanted = wanted(&cni.spec.version, cni.metadata.deletion_timestamp.is_some());
        standing(view, &cni_workload(cni), wanted, readiness::of_daemon_set)
    });
    let ztunnel = serving::ztunnel(view).map(|ztunnel| {
        let deleting = ztunnel.metadata.deletion_timestamp.is_some();
        let wanted = wanted(&ztunnel.spec.version, deleting);
        standing(
            view,
            &ztunnel_workload(ztunnel),
            wanted,
            readiness::of_daemon_set,
        )
    });
    Mesh {
        control_plane: control_plane.unwrap_or_default(),
        cni: cni.unwrap_or_default(),
        ztunnel: ztunnel.unwrap_or_default(),
    }
}

/// The version that is asked for. One that cannot be had changes nothing, so nobody has to wait for it.
fn wanted(version: &str, deleting: bool) -> Option<Number> {
    let release = refusal::release(version).ok().filter(|_| !deleting)?;
    Some(release.number.clone())
}

fn standing(
    view: &View<'_>,
    workload: &ObjectRef,
    wanted: Option<Number>,
    rollout: impl Fn(Option<&serde_json::Value>) -> Rollout,
) -> Standing {
    let live = view.live(workload).map(|live| &live.body);
    let version = live.and_then(|live| live["metadata"]["labels"][labels::APP_VERSION].as_str());
    let rollout = rollout(live);
    Standing {
        running: version.and_then(|version| version.parse().ok()),
        wanted,
        uniform: rollout.uniform,
        ready: rollout.is_complete(),
    }
}

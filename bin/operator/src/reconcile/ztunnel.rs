//! ZTunnel: the node proxy.

use std::sync::Arc;

use mesh_api::{
    mesh_config,
    sail::{
        IstioRevision, Values, ZTunnel, ZTunnelStatus,
        condition::{self, STATE_OF_NODE, reason},
    },
    selector::Selector,
};

use super::{
    components, gates,
    installed::{Plan, Report},
    refusal::{self, Refusal},
    serving, uninstall,
};
use crate::{
    images,
    lifecycle::Component,
    outcome::{Finalize, Happening, Outcome},
    readiness,
    world::View,
};

/// The values of a revision that the node proxy takes over.
const INHERITED: &[&str] = &["meshConfig", "revision", "global"];

/// What should be.
pub fn reconcile(view: &View<'_>, ztunnel: &ZTunnel) -> Outcome<ZTunnelStatus> {
    let before = ztunnel.status.as_ref();
    let conditions = before.map(|status| status.conditions.as_slice());
    let target = target(view, ztunnel);
    let revision = match &target {
        Ok(revision) => revision.map(|revision| components::name(revision).to_owned()),
        // What runs goes on with the revision that it has.
        Err(_) => before.map(|status| status.istio_revision.clone()),
    };
    let plan = target.and_then(|target| plan(view, ztunnel, target));
    let held = plan.as_ref().is_ok_and(|plan| plan.held.is_some());
    let workload = gates::ztunnel_workload(ztunnel);
    let mut report = Report::new(
        view,
        images::Component::Ztunnel,
        plan,
        &workload,
        conditions.unwrap_or_default(),
    );
    if let Some(unseen) = undiscovered(view, ztunnel) {
        let ready = report.conditions.iter_mut();
        for ready in ready.filter(|known| known.type_ == condition::READY && !known.is_true()) {
            ready.message = format!("{}; {unseen}", ready.message);
        }
        report
            .events
            .push(Happening::warning("NamespaceNotDiscovered", unseen));
    }
    let kept = before.map(|status| status.istio_revision.clone());
    let status = ZTunnelStatus {
        state: condition::state(&report.conditions, STATE_OF_NODE).to_owned(),
        conditions: report.conditions.clone(),
        observed_generation: None,
        istio_revision: if held { kept } else { revision }.unwrap_or_default(),
    };
    report.outcome(status)
}

/// What remains to be done when it is not wanted any more.
pub fn finalize(view: &View<'_>, ztunnel: &ZTunnel) -> Finalize<ZTunnelStatus> {
    let order = vec![gates::ztunnel_workload(ztunnel)];
    let objects = (order, ztunnel.spec.namespace.as_str());
    uninstall::of_node_component(view, &ztunnel.metadata, objects, ztunnel.status.as_ref())
}

fn plan(
    view: &View<'_>,
    ztunnel: &ZTunnel,
    target: Option<&Arc<IstioRevision>>,
) -> Result<Plan, Refusal> {
    let release = refusal::release(&ztunnel.spec.version)?;
    refusal::place(view, &ztunnel.spec.namespace)?;
    let settings = components::settings(view, release)?;
    let base = target.map(|revision| inherited(&revision.spec.values));
    let moves = || target.and_then(|revision| moving(view, ztunnel, revision));
    Ok(Plan {
        rendered: mesh_render::ztunnel::render(&ztunnel.spec, base.as_ref(), &settings)?,
        held: gates::ztunnel(view).or_else(moves),
    })
}

fn target<'a>(
    view: &View<'a>,
    ztunnel: &ZTunnel,
) -> Result<Option<&'a Arc<IstioRevision>>, Refusal> {
    let target = ztunnel.spec.target_ref.as_ref();
    let found = target
        .map(|target| serving::resolve(view, target))
        .transpose();
    // What a node proxy refers to is no name of its own, so there is no reason of its own either.
    found.map_err(|refusal| Refusal {
        reason: reason::RECONCILE_ERROR,
        ..refusal
    })
}

fn inherited(values: &Values) -> Values {
    let taken = INHERITED
        .iter()
        .filter_map(|key| values.get_key_value(*key));
    taken
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// A node proxy that runs goes over to another revision only when that one answers.
fn moving(view: &View<'_>, ztunnel: &ZTunnel, revision: &IstioRevision) -> Option<Refusal> {
    let current = ztunnel.status.as_ref()?.istio_revision.as_str();
    let name = components::name(revision);
    let runs = view.live(&gates::ztunnel_workload(ztunnel)).is_some();
    if current.is_empty() || current == name || !runs {
        return None;
    }
    let workload = gates::istiod_workload(revision);
    let rollout = readiness::of_deployment(view.live(&workload).map(|live| &live.body));
    let pending = rollout.pending?;
    Some(Refusal {
        passes: true,
        ..Refusal::of(
            Component::ControlPlane.waiting(),
            format!(
                "ztunnel stays with revision {current} until revision {name} is ready: {workload}: {pending}"
            ),
        )
    })
}

/// Why the root certificate will not come, if the control plane does not look at the namespace.
fn undiscovered(view: &View<'_>, ztunnel: &ZTunnel) -> Option<String> {
    let revision = serving::of_nodes(view)?;
    let mesh = revision.spec.values.get("meshConfig")?;
    let mesh = serde_json::to_string(mesh).ok()?;
    let selectors = mesh_config::parse(&mesh).ok()?.config.discovery_selectors;
    let namespace = view.namespace(&ztunnel.spec.namespace)?;
    let mut selectors = selectors
        .iter()
        .filter_map(|one| Selector::try_new(one).ok())
        .peekable();
    selectors.peek()?;
    if selectors.any(|selector| selector.matches(&namespace.labels)) {
        return None;
    }
    Some(format!(
        "namespace \"{}\" is not selected by spec.values.meshConfig.discoverySelectors of IstioRevision \
         \"{}\", so the root certificate does not arrive there and pods cannot start: label the namespace \
         as they ask",
        ztunnel.spec.namespace,
        components::name(revision)
    ))
}

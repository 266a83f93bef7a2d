//! Istio: the control plane that is wanted. It is carried out by an IstioRevision.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use mesh_api::sail::{
    Istio, IstioRevision, IstioStatus, RevisionSummary, UpdateStrategyType, Values,
    condition::{self, StatusCondition, reason},
};
use mesh_render::{Object, istiod, istiod::Revision};
use serde_json::{Value, json};

use super::{
    components, conditions, dependencies, platform,
    refusal::{self, Refusal},
    serving,
};
use crate::{
    images::Component,
    key::{Managed, ObjectRef},
    outcome::{Outcome, Prune},
    world::View,
};

/// How long a revision that nobody uses stays, if the Istio does not say.
const GRACE: Duration = Duration::from_secs(30);

/// What is said of `updateWorkloads`.
const UPDATE_WORKLOADS: &str = "spec.updateStrategy.updateWorkloads has no effect: workloads of the ambient \
     mesh need no restart";

/// The revision that an Istio wants.
struct Active {
    name: String,
    object: Object,
    values: StatusCondition,
}

/// What is known of the revisions that an Istio has made.
struct Revisions<'a> {
    all: Vec<&'a Arc<IstioRevision>>,
    /// Those that can go now.
    doomed: Vec<ObjectRef>,
    /// When the next one may go.
    again: Option<Duration>,
}

/// What should be.
pub fn reconcile(view: &View<'_>, istio: &Istio) -> Outcome<IstioStatus> {
    let name = active_name(istio);
    let revisions = Revisions::of(view, istio, &name);
    match active(view, istio, &name) {
        Err(refusal) => Outcome {
            events: vec![refusal.happening()],
            ..Outcome::held(refused(istio, &refusal, revisions.summary()))
        },
        Ok(active) => {
            let status = accepted(view, &active, revisions.summary());
            Outcome {
                apply: vec![active.object],
                prune: Prune::Only(revisions.doomed),
                again: revisions.again,
                ..Outcome::held(status)
            }
        }
    }
}

fn refused(istio: &Istio, refusal: &Refusal, revisions: RevisionSummary) -> IstioStatus {
    let ready = StatusCondition::unknown(
        condition::READY,
        reason::RECONCILE_ERROR,
        "see the condition Reconciled",
    );
    let before = istio.status.as_ref();
    IstioStatus {
        observed_generation: None,
        conditions: vec![refusal.condition(), ready],
        state: refusal.reason.to_owned(),
        // The revision of a strategy or version that is refused was never made.
        active_revision_name: before
            .map(|before| before.active_revision_name.clone())
            .unwrap_or_default(),
        revisions: Some(revisions),
    }
}

fn accepted(view: &View<'_>, active: &Active, revisions: RevisionSummary) -> IstioStatus {
    let revision = view.get::<IstioRevision>(&active.name);
    let mut conditions = reported(active, revision.map(AsRef::as_ref));
    let none = Values::new();
    let values = revision.map_or(&none, |revision| &revision.spec.values);
    let order = dependencies::state_order(&conditions, values);
    let state = condition::state(&conditions, order).to_owned();
    conditions.push(active.values.clone());
    conditions.extend(platform::condition(view, Component::Istiod));
    IstioStatus {
        observed_generation: None,
        conditions,
        state,
        active_revision_name: active.name.clone(),
        revisions: Some(revisions),
    }
}

/// The name of the revision: that of the Istio, or one that goes with the version as it was written. An
/// alias keeps its name when it comes to mean another release.
pub(crate) fn active_name(istio: &Istio) -> String {
    let name = istio.metadata.name.clone().unwrap_or_default();
    match strategy(istio) {
        UpdateStrategyType::InPlace => name,
        UpdateStrategyType::RevisionBased => {
            format!("{name}-{}", istio.spec.version.replace('.', "-"))
        }
    }
}

fn strategy(istio: &Istio) -> UpdateStrategyType {
    let strategy = istio.spec.update_strategy.as_ref();
    strategy.map(|strategy| strategy.type_).unwrap_or_default()
}

fn active(view: &View<'_>, istio: &Istio, name: &str) -> Result<Active, Refusal> {
    let spec = &istio.spec;
    let release = refusal::release(&spec.version)?;
    let profile = profile(istio, platform::is_openshift(view));
    let values = istiod::revision_values(Some(&profile), &spec.values, name, &spec.namespace);
    let revision = Revision {
        name,
        namespace: &spec.namespace,
        values: &values,
    };
    // Values that cannot be rendered are refused here, so that the revision that runs keeps its own.
    let rendered = istiod::control_plane(revision, &components::settings(view, release)?)?;
    let strategy = spec.update_strategy.as_ref();
    let ignored = strategy.is_some_and(|strategy| strategy.update_workloads == Some(true));
    let others = ignored.then_some(UPDATE_WORKLOADS);
    Ok(Active {
        name: name.to_owned(),
        object: child(name, &release.name, &spec.namespace, &values),
        values: conditions::values(&rendered.notes, others.as_slice()),
    })
}

/// The profile that the revision names: the one in the values, as in Istio's charts, before that of the
/// resource.
fn profile(istio: &Istio, openshift: bool) -> String {
    let values = istio.spec.values.get("profile").and_then(Value::as_str);
    let own = istio.spec.profile.as_deref();
    let mut named = [values, own]
        .into_iter()
        .flatten()
        .filter(|name| !name.is_empty());
    let platform = if openshift { "openshift" } else { "default" };
    named.next().unwrap_or(platform).to_owned()
}

fn child(name: &str, version: &str, namespace: &str, values: &Values) -> Object {
    let kind = Managed::IstioRevision.kind();
    Object {
        kind,
        namespace: None,
        name: name.to_owned(),
        body: json!({
            "apiVersion": kind.api_version(),
            "kind": kind.kind,
            "metadata": {"name": name},
            "spec": {"version": version, "namespace": namespace, "values": values},
        }),
    }
}

/// The conditions of the revision, as those of the Istio.
fn reported(active: &Active, revision: Option<&IstioRevision>) -> Vec<StatusCondition> {
    let reconciled = || StatusCondition::holds(condition::RECONCILED);
    let ready = |reason, message| StatusCondition::fails(condition::READY, reason, message);
    let Some(revision) = revision else {
        let message = format!("IstioRevision \"{}\" does not exist yet", active.name);
        return vec![
            reconciled(),
            ready(reason::ACTIVE_REVISION_NOT_FOUND, message),
        ];
    };
    let status = revision.status.as_ref();
    let observed = status.and_then(|status| status.observed_generation);
    let current = observed.is_some() && observed == revision.metadata.generation;
    let specified = revision.spec.version == active.object.body["spec"]["version"]
        && json!(revision.spec.values) == active.object.body["spec"]["values"];
    let known = status.filter(|_| current && specified);
    let Some(known) = known.map(|status| &status.conditions) else {
        let message = format!(
            "IstioRevision \"{}\" has not taken over the last change yet",
            active.name
        );
        return vec![reconciled(), ready(reason::ISTIOD_NOT_READY, message)];
    };
    let types = [
        condition::RECONCILED,
        condition::READY,
        condition::DEPENDENCIES_HEALTHY,
    ];
    let found = types
        .iter()
        .filter_map(|type_| conditions::find(known, type_));
    found.map(conditions::copied).collect()
}

// === impl Revisions ===

impl<'a> Revisions<'a> {
    fn of(view: &View<'a>, istio: &Istio, active: &str) -> Self {
        let uid = istio.metadata.uid.as_deref().unwrap_or_default();
        let all = view.all::<IstioRevision>();
        let all = all
            .filter(|revision| is_owned(revision, uid))
            .collect::<Vec<_>>();
        let mut revisions = Self {
            all,
            doomed: Vec::new(),
            again: None,
        };
        if has_external_control_plane(istio) {
            return revisions;
        }
        let grace = grace(istio);
        let inactive = revisions
            .all
            .iter()
            .filter(|revision| components::name(revision) != active);
        for revision in inactive.copied().collect::<Vec<_>>() {
            let Some(since) = unused_since(view, revision) else {
                continue;
            };
            let left = grace.saturating_sub(conditions::elapsed(since, view.now()));
            if left.is_zero() {
                let kind = Managed::IstioRevision.kind();
                let name = components::name(revision);
                revisions.doomed.push(ObjectRef::global(kind, name));
            } else {
                revisions.again = Some(revisions.again.map_or(left, |again| again.min(left)));
            }
        }
        revisions
    }

    fn summary(&self) -> RevisionSummary {
        let count = |type_| {
            let holds = |revision: &&&Arc<IstioRevision>| {
                let status = revision.status.as_ref();
                let known = status.and_then(|status| conditions::find(&status.conditions, type_));
                known.is_some_and(StatusCondition::is_true)
            };
            i32::try_from(self.all.iter().filter(holds).count()).unwrap_or(i32::MAX)
        };
        RevisionSummary {
            total: i32::try_from(self.all.len()).unwrap_or(i32::MAX),
            ready: count(condition::READY),
            in_use: count(condition::IN_USE),
        }
    }
}

/// Since when nobody uses the revision; nothing if somebody does, or if that is not known.
fn unused_since(view: &View<'_>, revision: &IstioRevision) -> Option<Timestamp> {
    let status = revision.status.as_ref()?;
    let unused = conditions::find(&status.conditions, condition::IN_USE)?;
    if unused.status != "False" || serving::in_use(view, revision) {
        return None;
    }
    unused.last_transition_time.as_deref()?.parse().ok()
}

fn grace(istio: &Istio) -> Duration {
    let strategy = istio.spec.update_strategy.as_ref();
    let seconds = strategy.and_then(|of| of.inactive_revision_deletion_grace_period_seconds);
    let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
    seconds.map_or(GRACE, Duration::from_secs)
}

fn is_owned(revision: &IstioRevision, uid: &str) -> bool {
    let owners = revision.metadata.owner_references.iter().flatten();
    let mut controllers = owners.filter(|owner| owner.controller == Some(true));
    controllers.any(|owner| owner.uid == uid)
}

/// The revisions are then used by another cluster, of which nothing is known here.
fn has_external_control_plane(istio: &Istio) -> bool {
    let external = istio
        .spec
        .values
        .get("pilot")
        .and_then(|pilot| pilot.get("env"))
        .and_then(|env| env.get("EXTERNAL_ISTIOD"));
    external.is_some_and(|external| external == "true" || external == true)
}

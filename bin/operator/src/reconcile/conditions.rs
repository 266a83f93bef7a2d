//! The conditions that several kinds have.

use std::time::Duration;

use jiff::Timestamp;
use mesh_api::sail::condition::{self, StatusCondition, reason};
use mesh_render::{Note, object::DEPLOYMENT};

use super::refusal::Refusal;
use crate::{key::ObjectRef, outcome::Happening, readiness, world::View};

/// How long a rollout may take before people are told. As long as Kubernetes gives a Deployment.
const PATIENCE: Duration = Duration::from_secs(600);
/// Longest list of values in a message; the others are counted.
const VALUES_NAMED: usize = 20;

/// Whether what was applied runs.
#[derive(Debug)]
pub(super) struct Readiness {
    pub(super) condition: StatusCondition,
    pub(super) happening: Option<Happening>,
    pub(super) again: Option<Duration>,
}

pub(super) fn reconciled(refusal: Option<&Refusal>) -> StatusCondition {
    let holds = || StatusCondition::holds(condition::RECONCILED);
    refusal.map_or_else(holds, Refusal::condition)
}

/// Whether every value has an effect. `others` are further complaints in the form of notes.
pub(super) fn values(notes: &[Note], others: &[&str]) -> StatusCondition {
    if notes.is_empty() && others.is_empty() {
        return StatusCondition::holds(condition::VALUES_RECOGNIZED);
    }
    let unknown = notes.iter().any(|note| matches!(note, Note::Unknown(_)));
    let reason = if unknown {
        reason::UNKNOWN_VALUES
    } else {
        reason::VALUES_WITHOUT_EFFECT
    };
    let lines = notes.iter().map(ToString::to_string);
    let lines = lines.chain(others.iter().map(|line| (*line).to_owned()));
    let lines = lines.collect::<Vec<_>>();
    let (named, rest) = lines.split_at(lines.len().min(VALUES_NAMED));
    let mut message = named.join("\n");
    if !rest.is_empty() {
        message = format!("{message}\nand {} more", rest.len());
    }
    StatusCondition::fails(condition::VALUES_RECOGNIZED, reason, message)
}

/// How far the rollout of `workload` is. `before` are the conditions as they are now: by them it is known
/// since when it is not ready.
pub(super) fn readiness(
    view: &View<'_>,
    workload: &ObjectRef,
    before: &[StatusCondition],
) -> Readiness {
    let live = view.live(workload).map(|live| &live.body);
    let (rollout, reason) = if workload.kind == DEPLOYMENT {
        (readiness::of_deployment(live), reason::ISTIOD_NOT_READY)
    } else {
        (readiness::of_daemon_set(live), reason::DAEMON_SET_NOT_READY)
    };
    let Some(pending) = &rollout.pending else {
        return Readiness {
            condition: StatusCondition::holds(condition::READY),
            happening: None,
            again: None,
        };
    };
    let namespace = workload.namespace.as_deref().unwrap_or_default();
    let mut message = readiness::explain(workload, pending, view.stuck(namespace));
    let since = since(before).filter(|_| live.is_some());
    let waited = since.map_or(Duration::ZERO, |since| elapsed(since, view.now()));
    let stalled = waited >= PATIENCE;
    if let Some(since) = since.filter(|_| stalled) {
        message = format!("{message}; not ready since {since}");
    }
    Readiness {
        condition: StatusCondition::fails(condition::READY, reason, &message),
        happening: stalled.then(|| Happening::warning("RolloutStalled", message)),
        again: (live.is_some() && !stalled).then(|| PATIENCE.saturating_sub(waited)),
    }
}

/// Since when the resource is not ready, if it is not.
fn since(before: &[StatusCondition]) -> Option<Timestamp> {
    let mut ready = before
        .iter()
        .filter(|known| known.type_ == condition::READY);
    let ready = ready.next().filter(|ready| !ready.is_true())?;
    ready.last_transition_time.as_deref()?.parse().ok()
}

/// The time between two moments; none if the second comes before the first.
pub(super) fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}

/// The condition of a type.
pub(super) fn find<'a>(
    conditions: &'a [StatusCondition],
    type_: &str,
) -> Option<&'a StatusCondition> {
    conditions.iter().find(|known| known.type_ == type_)
}

/// A condition of another resource, to be reported as one's own.
pub(super) fn copied(condition: &StatusCondition) -> StatusCondition {
    StatusCondition {
        observed_generation: None,
        last_transition_time: None,
        ..condition.clone()
    }
}

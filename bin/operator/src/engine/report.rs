//! The status as it is written: what the reconciler says, with what only the engine knows.

use jiff::Timestamp;
use mesh_api::sail::condition::{RECONCILED, StatusCondition, reason};

use super::failure::Trouble;
use crate::{outcome::Status, world::Custom};

/// The whole status of `resource`: the generation that it was made for, since when its conditions are as
/// they are, and what went wrong.
pub(super) fn finished<K: Custom>(
    resource: &K,
    mut status: K::Status,
    trouble: Option<&Trouble>,
    now: Timestamp,
) -> K::Status {
    let generation = resource.meta().generation;
    if let Some(trouble) = trouble {
        replace(status.conditions_mut(), trouble.condition());
        status.set_state(reason::RECONCILE_ERROR.to_owned());
    }
    let before = resource
        .status()
        .map(Status::conditions)
        .unwrap_or_default();
    for condition in status.conditions_mut() {
        let same =
            |old: &&StatusCondition| old.type_ == condition.type_ && old.status == condition.status;
        let since = before.iter().find(same);
        let since = since.and_then(|old| old.last_transition_time.clone());
        condition.last_transition_time = Some(since.unwrap_or_else(|| in_seconds(now)));
        condition.observed_generation = generation;
    }
    status.set_observed_generation(generation);
    status
}

/// `Reconciled` comes first.
fn replace(conditions: &mut Vec<StatusCondition>, condition: StatusCondition) {
    conditions.retain(|other| other.type_ != RECONCILED);
    conditions.insert(0, condition);
}

fn in_seconds(time: Timestamp) -> String {
    let whole = Timestamp::from_second(time.as_second()).unwrap_or(time);
    whole.to_string()
}

#[cfg(test)]
mod tests {
    use mesh_api::sail::{ComponentStatus, IstioCNI, IstioCNISpec, condition::READY};

    use super::{super::failure::Failure, *};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn mk_status(ready: bool) -> ComponentStatus {
        let ready = if ready {
            StatusCondition::holds(READY)
        } else {
            StatusCondition::fails(READY, "Because", "m")
        };
        ComponentStatus {
            conditions: vec![StatusCondition::holds(RECONCILED), ready],
            state: "Healthy".to_owned(),
            ..ComponentStatus::default()
        }
    }

    fn mk_cni() -> IstioCNI {
        let mut cni = IstioCNI::new("default", IstioCNISpec::default());
        cni.metadata.generation = Some(3);
        cni
    }

    fn times(status: &ComponentStatus) -> Vec<&str> {
        let conditions = status.conditions.iter();
        conditions
            .filter_map(|condition| condition.last_transition_time.as_deref())
            .collect()
    }

    #[test]
    fn a_condition_keeps_its_time_for_as_long_as_its_status() {
        let mut cni = mk_cni();
        let first = finished(&cni, mk_status(true), None, at(1));
        assert_eq!(first.observed_generation, Some(3));
        assert_eq!(
            times(&first),
            ["1970-01-01T00:00:01Z", "1970-01-01T00:00:01Z"]
        );
        cni.status = Some(first.clone());
        assert_eq!(finished(&cni, mk_status(true), None, at(2)), first);
        let second = finished(&cni, mk_status(false), None, at(2));
        assert_eq!(
            times(&second),
            ["1970-01-01T00:00:01Z", "1970-01-01T00:00:02Z"]
        );
    }

    #[test]
    fn what_went_wrong_replaces_what_should_have_been() {
        let trouble = Trouble::of(vec![Failure::Blind("pods".into())]).unwrap();
        let status = finished(&mk_cni(), mk_status(true), Some(&trouble), at(1));
        assert_eq!(status.state, "ReconcileError");
        let reconciled = &status.conditions[0];
        assert_eq!(
            (reconciled.type_.as_str(), reconciled.status.as_str()),
            (RECONCILED, "False")
        );
        assert!(reconciled.message.contains("pods"), "{reconciled:?}");
        assert_eq!(status.conditions[1].type_, READY);
    }
}

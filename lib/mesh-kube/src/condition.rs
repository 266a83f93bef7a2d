//! Conditions of a status: pure functions that keep their rules.
//!
//! One [`Condition`] serves Kubernetes' own form and Istio's, which differ in what may be absent.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use serde::{Deserialize, Serialize};

/// One condition of an object's status, as it is read and written.
///
/// Kubernetes requires `reason` and `lastTransitionTime`; Istio's conditions may lack them and may hold
/// `lastProbeTime`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// What this is about; at most one condition of a status has this type.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why, in one PascalCase word for machines.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Why, for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The generation of the object that this judges. A smaller one than the object's is out of date.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When `status` last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Timestamp>,
    /// When somebody last looked; only in Istio's form. It is kept as it is read and never set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_probe_time: Option<Timestamp>,
}

/// Replaces or adds the condition of `new`'s type and says whether anything changed.
///
/// The time of transition is `now` if the status changed or there was none, the old one otherwise,
/// whatever `new` holds.
pub fn set(conditions: &mut Vec<Condition>, new: Condition, now: Timestamp) -> bool {
    let old = conditions.iter_mut().find(|old| old.type_ == new.type_);
    let new = Condition {
        last_transition_time: Some(transition(old.as_deref(), &new, now)),
        ..new
    };
    match old {
        Some(old) if *old == new => false,
        Some(old) => {
            *old = new;
            true
        }
        None => {
            conditions.push(new);
            true
        }
    }
}

/// The whole set that one reporter writes: `desired` in its order, with the times of transition that
/// follow from what is `live`.
///
/// Conditions of other types are not in the answer: with server-side apply they belong to others and
/// stay, and the reporter's own that are no longer desired go away.
pub fn merge(live: &[Condition], desired: Vec<Condition>, now: Timestamp) -> Vec<Condition> {
    let merged = desired.into_iter().map(|new| {
        let old = live.iter().find(|old| old.type_ == new.type_);
        let at = transition(old, &new, now);
        Condition {
            last_transition_time: Some(at),
            ..new
        }
    });
    merged.collect()
}

/// Whether the condition of this type holds for `generation`: its status is `True` and it does not judge
/// an older generation.
pub fn is_true(conditions: &[Condition], type_: &str, generation: Option<i64>) -> bool {
    let found = conditions.iter().find(|condition| condition.type_ == type_);
    found.is_some_and(|condition| {
        let current = match (condition.observed_generation, generation) {
            (Some(observed), Some(generation)) => observed >= generation,
            _ => true,
        };
        current && condition.status == "True"
    })
}

fn transition(old: Option<&Condition>, new: &Condition, now: Timestamp) -> Timestamp {
    let same = old.filter(|old| old.status == new.status);
    let since = same.and_then(|old| old.last_transition_time);
    since.unwrap_or_else(|| to_seconds(now))
}

/// Times of objects have whole seconds: with more, what is written would differ from what is read.
fn to_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

// === impl Condition ===

impl From<meta::Condition> for Condition {
    fn from(condition: meta::Condition) -> Self {
        Self {
            type_: condition.type_,
            status: condition.status,
            reason: condition.reason,
            message: condition.message,
            observed_generation: condition.observed_generation,
            last_transition_time: Some(condition.last_transition_time.0),
            last_probe_time: None,
        }
    }
}

impl From<Condition> for meta::Condition {
    /// A condition without a time has not been through [`set`] or [`merge`]; it gets the epoch.
    fn from(condition: Condition) -> Self {
        Self {
            type_: condition.type_,
            status: condition.status,
            reason: condition.reason,
            message: condition.message,
            observed_generation: condition.observed_generation,
            last_transition_time: meta::Time(condition.last_transition_time.unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn mk_condition(status: &str, message: &str) -> Condition {
        Condition {
            type_: "Ready".into(),
            status: status.into(),
            reason: "Because".into(),
            message: message.into(),
            observed_generation: Some(3),
            ..Condition::default()
        }
    }

    #[test]
    fn the_time_moves_with_the_status_and_not_with_the_message() {
        let mut conditions = Vec::new();
        let times: Vec<_> = [("True", "a", 1), ("True", "b", 2), ("False", "b", 3)]
            .into_iter()
            .map(|(status, message, now)| {
                assert!(set(&mut conditions, mk_condition(status, message), at(now)));
                conditions[0].last_transition_time
            })
            .collect();
        assert_eq!(times, [Some(at(1)), Some(at(1)), Some(at(3))]);
        assert!(!set(&mut conditions, mk_condition("False", "b"), at(4)));
        assert_eq!(conditions.len(), 1);
    }

    #[test]
    fn a_reporter_writes_its_own_conditions_and_no_others() {
        let foreign = Condition {
            type_: "Foreign".into(),
            ..Condition::default()
        };
        let since = Condition {
            last_transition_time: Some(at(1)),
            ..mk_condition("True", "old")
        };
        let merged = merge(&[foreign, since], vec![mk_condition("True", "new")], at(9));
        let expected = Condition {
            last_transition_time: Some(at(1)),
            ..mk_condition("True", "new")
        };
        assert_eq!(merged, [expected]);
    }

    #[test]
    fn a_condition_of_an_older_generation_does_not_hold() {
        let conditions = [mk_condition("True", "")];
        assert!(is_true(&conditions, "Ready", Some(3)));
        assert!(is_true(&conditions, "Ready", None));
        assert!(!is_true(&conditions, "Ready", Some(4)));
        assert!(!is_true(&conditions, "Other", None));
    }

    #[test]
    fn istios_form_and_kubernetes_form_are_read_and_written_back_unchanged() {
        let istio = json!({
            "type": "Ready", "status": "True", "lastProbeTime": "2026-01-01T00:00:00Z",
        });
        let kubernetes = json!({
            "type": "Ready", "status": "False", "reason": "Because", "message": "m",
            "observedGeneration": 3, "lastTransitionTime": "2026-01-01T00:00:00Z",
        });
        for form in [istio, kubernetes] {
            let condition: Condition = serde_json::from_value(form.clone()).unwrap();
            assert_eq!(serde_json::to_value(condition).unwrap(), form);
        }
    }

    #[test]
    fn a_time_is_written_in_whole_seconds() {
        let mut conditions = Vec::new();
        let now = Timestamp::from_millisecond(1_500).unwrap();
        set(&mut conditions, mk_condition("True", ""), now);
        assert_eq!(conditions[0].last_transition_time, Some(at(1)));
    }
}

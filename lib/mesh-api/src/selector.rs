//! Whether labels are selected: Kubernetes' rules, without asking Kubernetes.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// Why a selector cannot be used. Its author is at fault; until it is repaired it selects nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An operator that Kubernetes does not have.
    #[error("`{0}` is no operator of a label selector: use In, NotIn, Exists or DoesNotExist")]
    Operator(String),
    /// `In` or `NotIn` without values.
    #[error("{operator} on label `{key}` needs values")]
    NoValues {
        /// The operator.
        operator: String,
        /// The label.
        key: String,
    },
    /// `Exists` or `DoesNotExist` with values.
    #[error("{operator} on label `{key}` cannot have values")]
    Values {
        /// The operator.
        operator: String,
        /// The label.
        key: String,
    },
    /// A requirement without a key.
    #[error("a requirement of a label selector needs a key")]
    NoKey,
}

/// A selector that was checked, so that matching cannot fail. An empty one selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    requirements: Box<[Requirement]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: Box<str>,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    In(Box<[Box<str>]>),
    NotIn(Box<[Box<str>]>),
    Exists,
    DoesNotExist,
}

// === impl Selector ===

impl Selector {
    /// The selector of a Kubernetes object.
    pub fn try_new(selector: &LabelSelector) -> Result<Self, Error> {
        let labels = selector.match_labels.iter().flatten();
        let expressions = selector.match_expressions.iter().flatten();
        let requirements = labels
            .map(|(key, value)| Ok(Requirement::equal(key, value)))
            .chain(expressions.map(Requirement::try_new))
            .collect::<Result<_, _>>()?;
        Ok(Self { requirements })
    }

    /// A selector of labels that must all be there with these values.
    pub fn of_labels(labels: &BTreeMap<String, String>) -> Self {
        let requirements = labels.iter().map(|(k, v)| Requirement::equal(k, v));
        Self {
            requirements: requirements.collect(),
        }
    }

    /// Whether it selects whatever has any labels or none.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_with(|key| labels.get(key).map(String::as_str))
    }

    /// The same for labels that are kept in another way.
    pub fn matches_with<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|r| r.holds(label(&r.key)))
    }
}

// === impl Requirement ===

impl Requirement {
    fn equal(key: &str, value: &str) -> Self {
        Self {
            key: key.into(),
            test: Test::In([value.into()].into()),
        }
    }

    fn try_new(requirement: &LabelSelectorRequirement) -> Result<Self, Error> {
        let LabelSelectorRequirement {
            key,
            operator,
            values,
        } = requirement;
        if key.is_empty() {
            return Err(Error::NoKey);
        }
        let values: Box<[Box<str>]> = values.iter().flatten().map(|v| v.as_str().into()).collect();
        let (key, operator) = (key.clone(), operator.clone());
        let test = match operator.as_str() {
            "In" | "NotIn" if values.is_empty() => return Err(Error::NoValues { operator, key }),
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                return Err(Error::Values { operator, key });
            }
            "In" => Test::In(values),
            "NotIn" => Test::NotIn(values),
            "Exists" => Test::Exists,
            "DoesNotExist" => Test::DoesNotExist,
            _ => return Err(Error::Operator(operator)),
        };
        Ok(Self {
            key: key.into(),
            test,
        })
    }

    /// Without the label, NotIn holds, as it does in Kubernetes.
    fn holds(&self, value: Option<&str>) -> bool {
        match (&self.test, value) {
            (Test::In(values), Some(value)) => values.iter().any(|v| **v == *value),
            (Test::NotIn(values), Some(value)) => values.iter().all(|v| **v != *value),
            (Test::Exists, found) => found.is_some(),
            (Test::DoesNotExist, found) => found.is_none(),
            (Test::In(_), None) => false,
            (Test::NotIn(_), None) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: serde_json::Value) -> LabelSelector {
        serde_json::from_value(json).unwrap()
    }

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pairs = pairs.iter();
        pairs
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn a_selector_means_what_it_means_to_kubernetes() {
        let expression = |operator: &str, values: &[&str]| {
            let values = (!values.is_empty()).then_some(values);
            let expression =
                serde_json::json!({ "key": "env", "operator": operator, "values": values });
            Selector::try_new(&of(serde_json::json!({ "matchExpressions": [expression] }))).unwrap()
        };
        let (a, c, none) = (
            labels(&[("env", "a")]),
            labels(&[("env", "c")]),
            labels(&[]),
        );
        for (selector, expected) in [
            (expression("In", &["a", "b"]), [true, false, false]),
            (expression("NotIn", &["a", "b"]), [false, true, true]),
            (expression("Exists", &[]), [true, true, false]),
            (expression("DoesNotExist", &[]), [false, false, true]),
            (Selector::default(), [true, true, true]),
            (Selector::of_labels(&a), [true, false, false]),
        ] {
            let found = [&a, &c, &none].map(|labels| selector.matches(labels));
            assert_eq!(found, expected, "{selector:?}");
        }
    }

    #[test]
    fn all_requirements_must_hold() {
        let json = serde_json::json!({
            "matchLabels": { "app": "pay" },
            "matchExpressions": [{ "key": "env", "operator": "Exists" }],
        });
        let selector = Selector::try_new(&of(json)).unwrap();
        assert!(selector.matches(&labels(&[("app", "pay"), ("env", ""), ("x", "y")])));
        assert!(!selector.matches(&labels(&[("app", "pay")])));
        assert!(!selector.matches(&labels(&[("env", "")])));
    }

    #[test]
    fn a_selector_that_means_nothing_is_refused() {
        for (expression, text) in [
            (
                serde_json::json!({ "key": "a", "operator": "Is" }),
                "`Is` is no operator",
            ),
            (
                serde_json::json!({ "key": "a", "operator": "In" }),
                "In on label `a` needs values",
            ),
            (
                serde_json::json!({ "key": "a", "operator": "Exists", "values": ["b"] }),
                "Exists on label `a` cannot have values",
            ),
            (
                serde_json::json!({ "key": "", "operator": "Exists" }),
                "needs a key",
            ),
        ] {
            let selector = of(serde_json::json!({ "matchExpressions": [expression] }));
            let error = Selector::try_new(&selector).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}

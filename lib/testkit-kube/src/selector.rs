//! Label and field selectors, as they come in a query.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::registry::Resource;

/// Which objects a list or watch is about.
#[derive(Debug, Clone, Default)]
pub struct Selector {
    /// One namespace, or all.
    pub namespace: Option<String>,
    labels: Vec<Requirement>,
    fields: Vec<Field>,
}

/// Why a selector cannot be used: the caller's fault, answered with 400.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It does not parse.
    #[error("unable to parse requirement: {0:?}")]
    Malformed(String),
    /// The resource can be selected by its name alone.
    #[error("{0:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")]
    NameOnly(String),
    /// The resource cannot be selected by this field.
    #[error("field label not supported: {0}")]
    UnknownField(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    is: Is,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Is {
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Present,
    Absent,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Field {
    path: String,
    value: String,
    equal: bool,
}

// === impl Selector ===

impl Selector {
    /// Reads both selectors; the field selector may use what the resource offers.
    pub fn parse(resource: &Resource, labels: &str, fields: &str) -> Result<Self, Error> {
        Ok(Self {
            namespace: None,
            labels: requirements(labels)?,
            fields: field_requirements(resource, fields)?,
        })
    }

    /// Whether everything in the namespace is meant.
    pub fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The one name that is selected, by which RBAC can allow a list or watch.
    pub fn name(&self) -> Option<&str> {
        let name = self
            .fields
            .iter()
            .find(|field| field.path == "metadata.name" && field.equal);
        name.map(|field| &*field.value)
    }

    /// Whether an object is meant, its namespace aside.
    pub fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.labels.iter().all(|it| it.matches(labels))
            && self.fields.iter().all(|it| it.matches(object))
    }
}

// === impl Requirement ===

impl Requirement {
    fn matches(&self, labels: &Value) -> bool {
        let label = labels.get(&self.key).and_then(Value::as_str);
        match &self.is {
            Is::In(values) => label.is_some_and(|label| values.contains(label)),
            Is::NotIn(values) => label.is_none_or(|label| !values.contains(label)),
            Is::Present => label.is_some(),
            Is::Absent => label.is_none(),
        }
    }
}

// === impl Field ===

impl Field {
    fn matches(&self, object: &Value) -> bool {
        let mut value = object;
        for part in self.path.split('.') {
            value = &value[part];
        }
        let equal = match value {
            Value::String(text) => *text == self.value,
            Value::Null if is_flag(&self.path) => self.value == "false",
            Value::Null => self.value.is_empty(),
            Value::Bool(flag) => self.value.parse() == Ok(*flag),
            other => serde_json::from_str(&self.value).is_ok_and(|value: Value| value == *other),
        };
        equal == self.equal
    }
}

/// Fields that are absent where they are false.
fn is_flag(path: &str) -> bool {
    matches!(path, "spec.unschedulable" | "spec.hostNetwork")
}

fn requirements(text: &str) -> Result<Vec<Requirement>, Error> {
    clauses(text)
        .into_iter()
        .map(|clause| requirement(clause).ok_or_else(|| Error::Malformed(clause.to_owned())))
        .collect()
}

/// Splits at the commas outside parentheses.
fn clauses(text: &str) -> Vec<&str> {
    let mut depth = 0_u32;
    let clauses = text.split(|letter| {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        letter == ',' && depth == 0
    });
    clauses
        .map(str::trim)
        .filter(|clause| !clause.is_empty())
        .collect()
}

fn requirement(clause: &str) -> Option<Requirement> {
    let one = |value: &str| BTreeSet::from([value.trim().to_owned()]);
    let (key, is) = if let Some(key) = clause.strip_prefix('!') {
        (key, Is::Absent)
    } else if let Some((key, value)) = clause.split_once("!=") {
        (key, Is::NotIn(one(value)))
    } else if let Some((key, value)) = clause.split_once("==").or_else(|| clause.split_once('=')) {
        (key, Is::In(one(value)))
    } else if let Some((head, values)) = clause.split_once('(') {
        let values = values.strip_suffix(')')?.split(',');
        let values = values.map(|value| value.trim().to_owned()).collect();
        match head.split_whitespace().collect::<Vec<_>>()[..] {
            [key, "in"] => (key, Is::In(values)),
            [key, "notin"] => (key, Is::NotIn(values)),
            _ => return None,
        }
    } else {
        (clause, Is::Present)
    };
    let key = key.trim();
    let is_key = |letter: char| letter.is_ascii_alphanumeric() || "-_./".contains(letter);
    (!key.is_empty() && key.chars().all(is_key)).then(|| Requirement {
        key: key.to_owned(),
        is,
    })
}

fn field_requirements(resource: &Resource, text: &str) -> Result<Vec<Field>, Error> {
    let clauses = text.split(',').filter(|clause| !clause.is_empty());
    clauses
        .map(|clause| {
            let (path, value, equal) = if let Some((path, value)) = clause.split_once("!=") {
                (path, value, false)
            } else {
                let (path, value) = clause
                    .split_once("==")
                    .or_else(|| clause.split_once('='))
                    .ok_or_else(|| Error::Malformed(clause.to_owned()))?;
                (path, value, true)
            };
            let known = matches!(path, "metadata.name" | "metadata.namespace")
                || resource.selectable.iter().any(|field| field == path);
            if !known && resource.selectable.is_empty() && !resource.is_custom() {
                return Err(Error::NameOnly(path.to_owned()));
            }
            if !known {
                return Err(Error::UnknownField(path.to_owned()));
            }
            Ok(Field {
                path: stored_path(resource, path),
                value: value.to_owned(),
                equal,
            })
        })
        .collect()
}

/// Where a field is in the stored object: events are stored in the terms of their older API.
fn stored_path(resource: &Resource, path: &str) -> String {
    if resource.storage.resource != "events" {
        return path.to_owned();
    }
    match path {
        "source" => "source.component".to_owned(),
        "reportingController" => "reportingComponent".to_owned(),
        path => path.strip_prefix("regarding.").map_or_else(
            || path.to_owned(),
            |field| format!("involvedObject.{field}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::Registry;

    fn selects(labels: &str, fields: &str, object: &Value) -> bool {
        let pods = Registry::default().find("", "v1", "pods").unwrap();
        Selector::parse(&pods, labels, fields)
            .unwrap()
            .matches(object)
    }

    #[test]
    fn labels_are_selected_in_all_forms() {
        let object = json!({"metadata": {"labels": {"app": "web", "a.b/tier": ""}}});
        for yes in [
            "",
            "app=web",
            "app==web",
            "app!=db",
            "other!=x",
            "app in (db, web)",
            "app notin (db)",
            "other notin (x)",
            "app,a.b/tier",
            "!other",
            "a.b/tier=",
            "app in (web),!other,a.b/tier",
        ] {
            assert!(selects(yes, "", &object), "{yes}");
        }
        for no in [
            "app=db",
            "app!=web",
            "other",
            "!app",
            "app notin (web,db)",
            "app in (db)",
            "other=",
        ] {
            assert!(!selects(no, "", &object), "{no}");
        }
    }

    #[test]
    fn fields_are_selected_where_the_resource_offers_them() {
        let object = json!({"metadata": {"name": "one"}, "spec": {"nodeName": "n1"}});
        assert!(selects("", "metadata.name=one,spec.nodeName=n1", &object));
        assert!(selects("", "spec.nodeName!=", &object));
        assert!(selects("", "status.phase=", &object));
        assert!(!selects("", "spec.nodeName==n2", &object));
        let pods = Registry::default().find("", "v1", "pods").unwrap();
        let error = Selector::parse(&pods, "", "spec.foo=1").unwrap_err();
        assert_eq!(error, Error::UnknownField("spec.foo".to_owned()));
    }

    #[test]
    fn an_absent_flag_is_false() {
        let nodes = Registry::default().find("", "v1", "nodes").unwrap();
        let schedulable = Selector::parse(&nodes, "", "spec.unschedulable=false").unwrap();
        assert!(schedulable.matches(&json!({"spec": {}})));
        assert!(!schedulable.matches(&json!({"spec": {"unschedulable": true}})));
    }

    #[test]
    fn what_does_not_parse_is_refused() {
        let pods = Registry::default().find("", "v1", "pods").unwrap();
        for bad in ["a b", "=x", "app in web", "app in (web", "app within (a)"] {
            assert!(Selector::parse(&pods, bad, "").is_err(), "{bad}");
        }
        assert!(Selector::parse(&pods, "", "metadata.name").is_err());
    }
}

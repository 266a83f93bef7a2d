//! Merged values to types: what nobody reads is told, what is of the wrong kind is an error with its path.

use mesh_api::sail::{
    Values,
    values::{Component, without_effect},
};
use serde::de::DeserializeOwned;
use serde_ignored::Path;
use serde_json::Value;

use crate::{Error, Note};

/// Values as their types.
#[derive(Clone, Debug)]
pub struct Decoded<T> {
    /// The values.
    pub values: T,
    /// What the user wrote and has no effect.
    pub notes: Vec<Note>,
}

/// Decodes `merged`. What the user wrote and has no effect in the component is told: with its reason
/// where Istio has it, as unknown where the types do not.
pub fn decode<T: DeserializeOwned>(
    component: Component,
    merged: Values,
    user: &Values,
) -> Result<Decoded<T>, Error> {
    let mut ignored = Vec::new();
    let mut note = |path: Path<'_>| ignored.push(segments(&path));
    let tree = Value::Object(merged);
    let source = serde_ignored::Deserializer::new(tree, &mut note);
    let values = serde_path_to_error::deserialize(source).map_err(|error| Error::Value {
        path: error.path().to_string(),
        problem: error.inner().to_string(),
    })?;
    let mut notes = Vec::new();
    explained(component, "", user, &mut notes);
    let unknown = ignored.iter().filter(|path| stands(user, path));
    let unknown = unknown.map(|path| path.join("."));
    let unknown = unknown.filter(|path| without_effect(component, path).is_none());
    notes.extend(unknown.map(Note::Unknown));
    notes.sort();
    notes.dedup();
    Ok(Decoded { values, notes })
}

/// Notes about what Istio has and has no effect here: of a whole object one, if there is a reason for it.
fn explained(component: Component, parent: &str, values: &Values, notes: &mut Vec<Note>) {
    for (key, value) in values.iter().filter(|(_, value)| !value.is_null()) {
        let path = if parent.is_empty() {
            key.clone()
        } else {
            format!("{parent}.{key}")
        };
        if let Some(why) = without_effect(component, &path) {
            notes.push(Note::WithoutEffect { path, why });
        } else if let Value::Object(inner) = value {
            explained(component, &path, inner, notes);
        }
    }
}

fn segments(path: &Path<'_>) -> Vec<String> {
    match path {
        Path::Root => Vec::new(),
        Path::Seq { parent, index } => pushed(parent, index.to_string()),
        Path::Map { parent, key } => pushed(parent, key.clone()),
        Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => segments(parent),
    }
}

fn pushed(parent: &Path<'_>, segment: String) -> Vec<String> {
    let mut segments = segments(parent);
    segments.push(segment);
    segments
}

fn stands(values: &Values, path: &[String]) -> bool {
    let Some((first, rest)) = path.split_first() else {
        return false;
    };
    let found = rest.iter().try_fold(values.get(first), |value, segment| {
        let value = value?;
        Some(match value {
            Value::Array(list) => segment.parse::<usize>().ok().and_then(|at| list.get(at)),
            other => other.get(segment),
        })
    });
    found.flatten().is_some_and(|value| !value.is_null())
}

#[cfg(test)]
mod tests {
    use mesh_api::sail::values::IstioValues;
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> Values {
        match value {
            Value::Object(map) => map,
            other => panic!("{other} is no object"),
        }
    }

    #[test]
    fn what_nobody_reads_is_told_with_its_path() {
        let user = map(json!({
            "pilot": {"replicaCounts": 1, "replicaCount": 2},
            "base": {"excludedCRDs": [], "other": {}},
        }));
        let mut merged = user.clone();
        merged.insert("ours".to_owned(), json!(1));
        let mut user = user;
        user.insert("telemetry".to_owned(), Value::Null);
        let decoded = decode::<IstioValues>(Component::Istio, merged, &user).unwrap();
        let notes: Vec<_> = decoded.notes.iter().map(ToString::to_string).collect();
        assert_eq!(
            notes,
            [
                "spec.values.pilot.replicaCounts is not known and has no effect",
                "spec.values.base has no effect: the CRDs come with the operator, and there is no \
                 webhook",
            ]
        );
        assert_eq!(decoded.values.pilot.replica_count, Some(2));
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_an_error_with_its_path() {
        let user = map(json!({"pilot": {"replicaCount": {}}}));
        let error = decode::<IstioValues>(Component::Istio, user.clone(), &user).unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("spec.values.pilot.replicaCount: invalid type"),
            "{text}"
        );
    }
}

//! Merged values to types: what nobody reads is told, what is of the wrong kind is an error with its path.

use mesh_api::sail::Values;
use serde::de::DeserializeOwned;
use serde_ignored::Path;
use serde_json::Value;

use crate::{Error, Note};

/// A path of Istio's values below which nothing has an effect here, and why.
pub type WithoutEffect = (&'static str, &'static str);

/// Values as their types.
#[derive(Clone, Debug)]
pub struct Decoded<T> {
    /// The values.
    pub values: T,
    /// What the user wrote and nobody reads.
    pub notes: Vec<Note>,
}

/// Decodes `merged`. What the types do not have is told if it stands in one of `written`, the layers that
/// people wrote; with its reason if one of `without_effect` is its path or a part of it.
pub fn decode<T: DeserializeOwned>(
    merged: Values,
    written: &[&Values],
    without_effect: &[WithoutEffect],
) -> Result<Decoded<T>, Error> {
    let mut ignored = Vec::new();
    let mut note = |path: Path<'_>| ignored.push(segments(&path));
    let tree = Value::Object(merged);
    let source = serde_ignored::Deserializer::new(tree, &mut note);
    let values = serde_path_to_error::deserialize(source).map_err(|error| Error::Value {
        path: error.path().to_string(),
        problem: error.inner().to_string(),
    })?;
    let told = ignored
        .iter()
        .filter(|path| written.iter().any(|layer| stands(layer, path)));
    let mut notes: Vec<_> = told.map(|path| judged(path, without_effect)).collect();
    notes.sort();
    notes.dedup();
    Ok(Decoded { values, notes })
}

/// The note about a path that nobody reads.
fn judged(path: &[String], without_effect: &[WithoutEffect]) -> Note {
    let known = without_effect.iter().find(|(known, _)| {
        let known: Vec<_> = known.split('.').collect();
        known.len() <= path.len() && known.iter().zip(path).all(|(known, part)| known == part)
    });
    let path = path.join(".");
    match known {
        Some((_, why)) => Note::WithoutEffect { path, why },
        None => Note::Unknown(path),
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
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(default)]
    struct Root {
        pilot: Option<Pilot>,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(default)]
    struct Pilot {
        replicas: Option<i32>,
        env: BTreeMap<String, String>,
    }

    fn map(value: Value) -> Values {
        match value {
            Value::Object(map) => map,
            other => panic!("{other} is no object"),
        }
    }

    const NO_EFFECT: &[WithoutEffect] = &[("injector", "there is no injector")];

    #[test]
    fn what_nobody_reads_is_told_with_its_path() {
        let user = map(json!({"pilot": {"replica": 1, "replicas": 2}, "injector": {"policy": 1}}));
        let mut merged = user.clone();
        merged.insert("ours".to_owned(), json!(1));
        let decoded = decode::<Root>(merged, &[&user], NO_EFFECT).unwrap();
        let notes: Vec<_> = decoded.notes.iter().map(ToString::to_string).collect();
        assert_eq!(
            notes,
            [
                "spec.values.pilot.replica is not known and has no effect",
                "spec.values.injector has no effect: there is no injector",
            ]
        );
        let pilot = decoded.values.pilot.unwrap();
        assert_eq!((pilot.replicas, pilot.env.len()), (Some(2), 0));
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_an_error_with_its_path() {
        let user = map(json!({"pilot": {"env": {"A": true}}}));
        let error = decode::<Root>(user.clone(), &[&user], &[]).unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("spec.values.pilot.env.A: invalid type"),
            "{text}"
        );
    }
}

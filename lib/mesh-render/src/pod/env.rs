//! Environment variables of a container, in their order, each name once.
//!
//! Server-side apply takes the name for the key of the list, and refuses a list in which it stands twice.
//! A user's variable of a name that is there takes its place, unless the program needs the one that is there:
//! then the user's is left out, and told of with [`needed`].

use k8s_openapi::{
    api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, ResourceFieldSelector},
    apimachinery::pkg::api::resource::Quantity,
};

use crate::Note;

/// Environment variables of a container.
#[derive(Clone, Debug, Default)]
pub(crate) struct Env(Vec<EnvVar>);

/// Says that the user's variable at `path` is left out, since the program would not work with it.
pub(crate) fn needed(path: String) -> Note {
    Note::WithoutEffect {
        path,
        why: "the program works only with what the operator sets it to",
    }
}

/// A variable that is a text.
pub(crate) fn text(name: &str, value: impl Into<String>) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(value.into()),
        ..EnvVar::default()
    }
}

/// A variable that is found elsewhere.
pub(crate) fn source(name: &str, source: EnvVarSource) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value_from: Some(source),
        ..EnvVar::default()
    }
}

/// A variable that is what a field of the pod holds.
pub(crate) fn field(name: &str, path: &str) -> EnvVar {
    let field = ObjectFieldSelector {
        field_path: path.to_owned(),
        ..ObjectFieldSelector::default()
    };
    let from = EnvVarSource {
        field_ref: Some(field),
        ..EnvVarSource::default()
    };
    source(name, from)
}

/// A variable that is what the container may use, such as `limits.cpu` in whole cores: rounded up, and all
/// that the node has where there is no limit.
pub(crate) fn resource(name: &str, resource: &str) -> EnvVar {
    let resource = ResourceFieldSelector {
        resource: resource.to_owned(),
        divisor: Some(Quantity("1".to_owned())),
        ..ResourceFieldSelector::default()
    };
    let from = EnvVarSource {
        resource_field_ref: Some(resource),
        ..EnvVarSource::default()
    };
    source(name, from)
}

// === impl Env ===

impl Env {
    /// Sets a variable to a text.
    pub(crate) fn text(&mut self, name: &str, value: impl Into<String>) {
        self.set(text(name, value));
    }

    /// Sets a variable to what a field of the pod holds.
    pub(crate) fn field(&mut self, name: &str, path: &str) {
        self.set(field(name, path));
    }

    /// Sets a variable to what the container may use: see [`resource`].
    pub(crate) fn resource(&mut self, name: &str, resource: &str) {
        self.set(self::resource(name, resource));
    }

    /// Sets a variable.
    pub(crate) fn set(&mut self, variable: EnvVar) {
        let present = self.0.iter_mut().find(|known| known.name == variable.name);
        match present {
            Some(known) => *known = variable,
            None => self.0.push(variable),
        }
    }

    /// The variables.
    pub(crate) fn into_vec(self) -> Vec<EnvVar> {
        self.0
    }
}

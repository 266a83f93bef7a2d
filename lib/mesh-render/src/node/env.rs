//! Environment variables of a container, in their order, each name once.
//!
//! Server-side apply takes the name for the key of the list, and refuses a list in which it stands twice.
//! A user's variable of a name that is there takes its place.

use k8s_openapi::{
    api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, ResourceFieldSelector},
    apimachinery::pkg::api::resource::Quantity,
};

/// Environment variables of a container.
#[derive(Clone, Debug, Default)]
pub(crate) struct Env(Vec<EnvVar>);

// === impl Env ===

impl Env {
    /// Sets a variable to a text.
    pub(crate) fn text(&mut self, name: &str, value: impl Into<String>) {
        self.set(EnvVar {
            name: name.to_owned(),
            value: Some(value.into()),
            ..EnvVar::default()
        });
    }

    /// Sets a variable to what a field of the pod holds.
    pub(crate) fn field(&mut self, name: &str, path: &str) {
        let source = EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: path.to_owned(),
                ..ObjectFieldSelector::default()
            }),
            ..EnvVarSource::default()
        };
        self.source(name, source);
    }

    /// Sets a variable to what the container may use, such as `limits.cpu` in whole cores: rounded up,
    /// and all that the node has where there is no limit.
    pub(crate) fn resource(&mut self, name: &str, resource: &str) {
        let source = EnvVarSource {
            resource_field_ref: Some(ResourceFieldSelector {
                resource: resource.to_owned(),
                divisor: Some(Quantity("1".to_owned())),
                ..ResourceFieldSelector::default()
            }),
            ..EnvVarSource::default()
        };
        self.source(name, source);
    }

    /// Sets a variable to what is found elsewhere.
    pub(crate) fn source(&mut self, name: &str, source: EnvVarSource) {
        self.set(EnvVar {
            name: name.to_owned(),
            value_from: Some(source),
            ..EnvVar::default()
        });
    }

    /// The variables.
    pub(crate) fn into_vec(self) -> Vec<EnvVar> {
        self.0
    }

    fn set(&mut self, variable: EnvVar) {
        let present = self.0.iter_mut().find(|known| known.name == variable.name);
        match present {
            Some(known) => *known = variable,
            None => self.0.push(variable),
        }
    }
}

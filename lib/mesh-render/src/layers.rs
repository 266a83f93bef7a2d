//! Layers of values, merged as Helm merges them.
//!
//! From weak to strong: what the component says itself, the profile, what an older behaviour needs
//! (`compatibilityVersion`), the platform, what another resource passes on, what the user wrote.

use mesh_api::sail::{Values, values::Component};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    Error, Settings,
    decode::{self, Decoded},
};

mod profile;

pub use self::profile::PROFILES;

/// The layers of one component's values.
#[derive(Debug)]
pub struct Layers<'a> {
    /// Whose values they are.
    pub component: Component,
    /// What the component says itself.
    pub defaults: Value,
    /// The profile's name; empty for `default`.
    pub profile: &'a str,
    /// What another resource passes on: the settings of the revision that a ZTunnel refers to.
    pub inherited: Option<&'a Values>,
    /// What the user wrote.
    pub user: &'a Values,
}

// === impl Layers ===

impl Layers<'_> {
    /// The values that are in force, as their types, and notes on what the user wrote without effect. What
    /// another resource passes on is judged there.
    pub fn read<T: DeserializeOwned>(&self, settings: &Settings) -> Result<Decoded<T>, Error> {
        decode::decode(self.component, self.merged(settings)?, self.user)
    }

    /// The values that are in force.
    pub fn merged(&self, settings: &Settings) -> Result<Values, Error> {
        let mut merged = Value::Object(Values::new());
        let mut add = |layer| merge(&mut merged, layer);
        add(profile::ambient());
        add(self.defaults.clone());
        for layer in profile::layers(self.profile)? {
            add(layer);
        }
        if let Some(version) = self.text("/compatibilityVersion") {
            for layer in profile::compatibility(version)? {
                add(layer);
            }
        }
        let platform = match self.text("/global/platform") {
            Some(name) => profile::platform_named(name)?,
            None if profile::is_openshift(self.profile) => crate::PlatformKind::OpenShift,
            None => settings.platform.kind,
        };
        add(profile::platform(platform));
        for layer in self.inherited.into_iter().chain([self.user]) {
            add(Value::Object(layer.clone()));
        }
        prune(&mut merged);
        match merged {
            Value::Object(values) => Ok(values),
            _ => Ok(Values::new()),
        }
    }

    /// A text that the user or the resource before him set; an empty one is none.
    fn text(&self, pointer: &str) -> Option<&str> {
        let layers = [Some(self.user), self.inherited];
        let found = layers
            .into_iter()
            .flatten()
            .find_map(|layer| find(layer, pointer));
        found?.as_str().filter(|text| !text.is_empty())
    }
}

/// The value at `pointer`, which is as in RFC 6901 and has no escapes.
pub(crate) fn find<'a>(values: &'a Values, pointer: &str) -> Option<&'a Value> {
    let mut segments = pointer.split('/').skip(1);
    let first = values.get(segments.next()?)?;
    segments.try_fold(first, |value, segment| value.get(segment))
}

/// Puts one layer over another: objects key by key, everything else as a whole. A `null` takes away what
/// was below it.
pub fn merge(below: &mut Value, above: Value) {
    match (below, above) {
        (Value::Object(below), Value::Object(above)) => {
            for (key, value) in above {
                match below.get_mut(&key) {
                    Some(present) => merge(present, value),
                    None => {
                        below.insert(key, value);
                    }
                }
            }
        }
        (below, above) => *below = above,
    }
}

/// Takes out the keys whose value is `null`: that is how a user unsets a default.
fn prune(value: &mut Value) {
    if let Value::Object(map) = value {
        map.retain(|_, value| !value.is_null());
        map.values_mut().for_each(prune);
    }
}

#[cfg(test)]
mod tests;

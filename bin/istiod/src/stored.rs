//! Objects as they may be stored rather than as they should be.

use std::borrow::Cow;

use kube::{Resource, core::ObjectMeta};
use mesh_api::security::{AuthorizationPolicy, PeerAuthentication};
use mesh_index::Object;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::{Map, Value};

/// An object whose missing `spec` is an empty one.
///
/// The CRDs of Istio let a policy be stored without a spec. It then has no rules and allows nothing, as it
/// does with an empty spec; not to understand it would leave open what its author has closed.
#[derive(Clone, Debug)]
pub(crate) struct Stored<K>(K);

impl<'de, K: DeserializeOwned> Deserialize<'de> for Stored<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut object = Map::deserialize(deserializer)?;
        let spec = object.entry("spec").or_insert(Value::Null);
        if spec.is_null() {
            *spec = Value::Object(Map::new());
        }
        let object = K::deserialize(Value::Object(object));
        object.map(Self).map_err(serde::de::Error::custom)
    }
}

impl<K: Resource> Resource for Stored<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.meta_mut()
    }
}

impl From<Stored<AuthorizationPolicy>> for Object {
    fn from(stored: Stored<AuthorizationPolicy>) -> Self {
        stored.0.into()
    }
}

impl From<Stored<PeerAuthentication>> for Object {
    fn from(stored: Stored<PeerAuthentication>) -> Self {
        stored.0.into()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_policy_without_a_spec_is_one_without_rules() {
        for spec in [json!({}), json!({"spec": null}), json!({"spec": {}})] {
            let mut object = json!({"metadata": {"name": "bare", "namespace": "demo"}});
            object
                .as_object_mut()
                .unwrap()
                .extend(spec.as_object().unwrap().clone());
            let policy: Stored<AuthorizationPolicy> = serde_json::from_value(object).unwrap();
            assert!(policy.0.spec.rules.is_empty());
            assert_eq!(policy.meta().name.as_deref(), Some("bare"));
        }
    }
}

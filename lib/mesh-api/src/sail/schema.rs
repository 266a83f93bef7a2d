//! Parts of the schemas of the operator's resources that their types do not say by themselves.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::{
    condition::StatusCondition,
    values::{CniValues, IstioValues, ZtunnelValues},
    version,
};
use crate::schema::rule;

/// The profiles that Sail's schema takes, whether or not there is one of that name here.
const PROFILES: [&str; 10] = [
    "ambient",
    "default",
    "demo",
    "empty",
    "external",
    "openshift",
    "openshift-ambient",
    "preview",
    "remote",
    "stable",
];

/// What holds where `values.global.istioNamespace` may be left out.
const SAME_NAMESPACE: &str = "!has(self.values) || !has(self.values.global) || \
                              !has(self.values.global.istioNamespace) || \
                              self.values.global.istioNamespace == self.__namespace__";

/// What holds where it may not.
const NAMESPACE_SAID: &str = "has(self.values) && has(self.values.global) && \
                              has(self.values.global.istioNamespace) && \
                              self.values.global.istioNamespace == self.__namespace__";

const NAMESPACES_DIFFER: &str = "spec.values.global.istioNamespace must match spec.namespace";

/// The namespace of an Istio, where its values name it too.
pub(super) fn same_namespace() -> Value {
    json!([rule(SAME_NAMESPACE, NAMESPACES_DIFFER)])
}

/// The namespace of an IstioRevision, whose values name it too.
pub(super) fn namespace_said() -> Value {
    json!([rule(NAMESPACE_SAID, NAMESPACES_DIFFER)])
}

/// A version of Istio and IstioCNI.
pub(super) fn version(_: &mut SchemaGenerator) -> Schema {
    one_of(&version::names())
}

/// A version of IstioRevision.
pub(super) fn revision_version(_: &mut SchemaGenerator) -> Schema {
    one_of(&version::names_of_revisions())
}

/// A version of ZTunnel.
pub(super) fn ztunnel_version(_: &mut SchemaGenerator) -> Schema {
    one_of(&version::names_of_ztunnels())
}

fn one_of(words: &[&str]) -> Schema {
    json_schema!({ "type": "string", "enum": words })
}

/// A namespace that cannot be changed.
pub(super) fn namespace(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 63,
        "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        "x-kubernetes-validations": [rule("self == oldSelf", "Value is immutable")],
    })
}

/// A profile.
pub(super) fn profile(_: &mut SchemaGenerator) -> Schema {
    one_of(&PROFILES)
}

/// How a new version comes.
pub(super) fn update_strategy_type(_: &mut SchemaGenerator) -> Schema {
    one_of(&["InPlace", "RevisionBased"])
}

/// What can be referred to.
pub(super) fn target_kind(_: &mut SchemaGenerator) -> Schema {
    one_of(&["Istio", "IstioRevision"])
}

/// Conditions, one entry per type.
pub(super) fn conditions(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 32,
        "items": StatusCondition::json_schema(generator),
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    })
}

/// The values of Istio and IstioRevision.
pub(super) fn istio_values(generator: &mut SchemaGenerator) -> Schema {
    IstioValues::json_schema(generator)
}

/// The values of IstioCNI.
pub(super) fn cni_values(generator: &mut SchemaGenerator) -> Schema {
    CniValues::json_schema(generator)
}

/// The values of ZTunnel.
pub(super) fn ztunnel_values(generator: &mut SchemaGenerator) -> Schema {
    ZtunnelValues::json_schema(generator)
}

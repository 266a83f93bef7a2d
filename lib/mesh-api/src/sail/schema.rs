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
    version_of(
        "The version to run: a release, or a name that stands for one and moves with updates of the operator.",
        &version::names(),
    )
}

/// A version of IstioRevision.
pub(super) fn revision_version(_: &mut SchemaGenerator) -> Schema {
    version_of("The release that runs.", &version::names_of_revisions())
}

/// A version of ZTunnel.
pub(super) fn ztunnel_version(_: &mut SchemaGenerator) -> Schema {
    version_of(
        "The version to run: a release, or a name that stands for one and moves with updates of the \
         operator. Not newer than the control plane, and at most one minor release older.",
        &version::names_of_ztunnels(),
    )
}

fn version_of(description: &str, names: &[&str]) -> Schema {
    json_schema!({ "description": description, "type": "string", "enum": names })
}

/// A namespace that cannot be changed.
pub(super) fn namespace(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "The namespace to install into. It must exist, and cannot be changed.",
        "type": "string",
        "minLength": 1,
        "maxLength": 63,
        "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        "x-kubernetes-validations": [rule("self == oldSelf", "Value is immutable")],
    })
}

/// A profile.
pub(super) fn profile(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "A collection of values to begin with. `remote` and `external` are refused: a \
                        control plane outside of the cluster is not supported.",
        "type": "string",
        "enum": PROFILES,
    })
}

/// How a new version comes.
pub(super) fn update_strategy_type(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "`InPlace` changes the one revision. `RevisionBased` makes a new one beside it, \
                        named after the version; the old one goes when nobody uses it any more.",
        "type": "string",
        "enum": ["InPlace", "RevisionBased"],
    })
}

/// What can be referred to.
pub(super) fn target_kind(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "Istio, which stands for its active revision, or IstioRevision.",
        "type": "string",
        "enum": ["Istio", "IstioRevision"],
    })
}

/// Conditions, one entry per type.
pub(super) fn conditions(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "What holds for the resource now, one entry per type.",
        "type": "array",
        "maxItems": 32,
        "items": StatusCondition::json_schema(generator),
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    })
}

/// The values of Istio and IstioRevision.
pub(super) fn istio_values(generator: &mut SchemaGenerator) -> Schema {
    values_of::<IstioValues>(generator)
}

/// The values of IstioCNI.
pub(super) fn cni_values(generator: &mut SchemaGenerator) -> Schema {
    values_of::<CniValues>(generator)
}

/// The values of ZTunnel.
pub(super) fn ztunnel_values(generator: &mut SchemaGenerator) -> Schema {
    values_of::<ZtunnelValues>(generator)
}

fn values_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = T::json_schema(generator);
    let description = "Values by their paths in Istio's Helm charts. What this operator does not know is \
                       kept and reported in the condition ValuesRecognized.";
    schema.insert("description".to_owned(), json!(description));
    schema
}

use kube::core::GroupVersionKind;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Cause, Schema};

mod builtin;
mod custom;
mod rules;

/// A schema with these properties below `spec`.
fn spec(properties: &Value) -> Schema {
    let text = json!({
        "type": "object",
        "properties": {"spec": {"type": "object", "properties": properties}},
    });
    Schema::from_openapi(&text).unwrap()
}

fn refusal(schema: &Value) -> String {
    Schema::from_openapi(schema).unwrap_err().to_string()
}

fn builtin_schema(group: &str, version: &str, kind: &str) -> &'static Schema {
    Schema::builtin(&GroupVersionKind::gvk(group, version, kind)).unwrap()
}

fn texts(causes: &[Cause]) -> Vec<String> {
    causes
        .iter()
        .map(|cause| format!("{}: {}", cause.field, cause.message))
        .collect()
}

/// What is wrong with a specification.
fn faults(schema: &Schema, spec: &Value) -> Vec<String> {
    texts(&schema.validate(&json!({"spec": spec}), None))
}

/// Any JSON, small.
pub(crate) fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z./~\\[\\]{}:$\"]{0,8}".prop_map(Value::from),
        Just(json!("object")),
        Just(json!("array")),
        Just(json!("string")),
    ];
    let names = [
        "type",
        "properties",
        "items",
        "spec",
        "additionalProperties",
        "default",
        "enum",
        "pattern",
        "x-kubernetes-list-type",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-validations",
        "rule",
        "anyOf",
        "not",
        "required",
        "minimum",
        "maxLength",
        "name",
        "metadata",
    ];
    leaf.prop_recursive(5, 48, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(prop::sample::select(names.to_vec()), inner, 0..5)
                .prop_map(|map| map
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect()),
        ]
    })
}

proptest! {
    #[test]
    fn no_schema_and_no_object_is_too_strange(schema in any_json(), object in any_json()) {
        if let Ok(schema) = Schema::from_openapi(&schema) {
            let mut object = object;
            schema.prune(&mut object);
            schema.apply_defaults(&mut object);
            let first = schema.validate(&object, None);
            prop_assert_eq!(first, schema.validate(&object, Some(&Value::Null)));
        }
    }

    #[test]
    fn pruning_and_defaulting_settle_at_once(object in any_json()) {
        let schema = builtin_schema("apps", "v1", "Deployment");
        let mut object = json!({"spec": {"template": {"spec": object}}});
        schema.prune(&mut object);
        schema.apply_defaults(&mut object);
        let mut again = object.clone();
        prop_assert_eq!(schema.prune(&mut again), Vec::<String>::new());
        schema.apply_defaults(&mut again);
        prop_assert_eq!(again, object);
    }
}

//! Filling in what was left out.

use serde_json::{Map, Value};

use super::node::{Kind, Node};

/// Drops nulls and empty lists that mean nothing and fills in defaults, from the outside inwards: a default
/// is itself completed.
pub(crate) fn fill(node: &Node, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, value| {
                !value.is_null() || node.field(name).is_none_or(|node| node.nullable)
            });
            for name in &node.terse {
                if fields.get(name.as_ref()).is_some_and(is_empty) {
                    fields.remove(name.as_ref());
                }
            }
            for (name, child) in &node.properties {
                if let Some(default) = &child.default
                    && !fields.contains_key(name.as_ref())
                {
                    fields.insert(name.to_string(), default.clone());
                }
            }
            for (name, value) in fields {
                if let Some(child) = node.field(name) {
                    fill(child, value);
                }
            }
        }
        Value::Array(items) => {
            if let Some(node) = &node.items {
                for item in items {
                    fill(node, item);
                }
            }
        }
        Value::Number(number) if node.kind == Kind::Quantity => {
            *value = Value::String(number.to_string());
        }
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty)
}

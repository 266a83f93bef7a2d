//! Removing what the schema does not know.

use serde_json::Value;

use super::{node::Node, path::Path};

/// Removes fields that are not named and notes their paths.
pub(crate) fn prune(node: &Node, value: &mut Value, path: Path<'_>, removed: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let knows = |name: &str| node.preserve || node.field(name).is_some();
            fields.retain(|name, _| {
                let known = knows(name);
                if !known {
                    removed.push(path.field(name).to_string());
                }
                known
            });
            for (name, value) in fields {
                if let Some(child) = node.field(name) {
                    prune(child, value, path.field(name), removed);
                }
            }
        }
        Value::Array(items) => {
            let Some(node) = &node.items else { return };
            for (index, item) in items.iter_mut().enumerate() {
                prune(node, item, path.index(index), removed);
            }
        }
        _ => {}
    }
}

//! The client: one stream to the control plane, kept up for ever.
//!
//! [`Machine`] decides what to send and what a response means; [`run`] connects it to gRPC and starts
//! again, with back-off, when the stream ends.

use mesh_proto::discovery as proto;
use serde_json::{Map, Value};

mod backoff;
mod driver;
mod machine;
mod outage;

pub use driver::{BoxError, Connect, Connection, Error, Sink, credentials, run};
pub use machine::{Machine, Reason, Received, Rejection};

/// What does not change while the program runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who we are.
    pub node: Node,
    /// Largest request, in bytes. A reconnecting client that holds more names than fit names the
    /// ones that do; see [`Machine`].
    pub request_limit: usize,
    /// Largest response that is accepted, in bytes after decompression. A larger one ends the stream.
    pub response_limit: usize,
}

/// Who asks, as the control plane is told once per stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// `ztunnel~<ip>~<pod>.<namespace>~<namespace>.svc.<cluster domain>`.
    pub id: String,
    /// `NAME`, `NAMESPACE`, `INSTANCE_IPS`, `NODE_NAME` and what the environment adds.
    pub metadata: Map<String, Value>,
}

/// Servers in Go refuse messages above 4 MiB unless they are told otherwise, and istiod is not.
const DEFAULT_REQUEST_LIMIT: usize = 4 * 1024 * 1024;

/// What ztunnels have always accepted; some hundred thousand workloads.
const DEFAULT_RESPONSE_LIMIT: usize = 200 * 1024 * 1024;

// === impl Config ===

impl Config {
    /// The limits that work with every control plane.
    pub fn new(node: Node) -> Self {
        Self {
            node,
            request_limit: DEFAULT_REQUEST_LIMIT,
            response_limit: DEFAULT_RESPONSE_LIMIT,
        }
    }
}

// === impl Node ===

impl From<&Node> for proto::Node {
    fn from(node: &Node) -> Self {
        Self {
            id: node.id.clone(),
            metadata: Some(to_struct(&node.metadata)),
            ..Self::default()
        }
    }
}

fn to_struct(map: &Map<String, Value>) -> prost_types::Struct {
    let field = |(key, value): (&String, &Value)| (key.clone(), to_value(value));
    prost_types::Struct {
        fields: map.iter().map(field).collect(),
    }
}

fn to_value(value: &Value) -> prost_types::Value {
    use prost_types::value::Kind;

    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(bool) => Kind::BoolValue(*bool),
        // Every JSON number is a double on this wire.
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(values) => Kind::ListValue(prost_types::ListValue {
            values: values.iter().map(to_value).collect(),
        }),
        Value::Object(map) => Kind::StructValue(to_struct(map)),
    };
    prost_types::Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_reaches_the_wire_with_its_structure() {
        let metadata = serde_json::json!({
            "NODE_NAME": "n1", "COUNT": 3, "ON": true, "NONE": null, "LIST": ["a", {"b": 1.5}],
        });
        let node = Node {
            id: "id".into(),
            metadata: metadata.as_object().unwrap().clone(),
        };
        let fields = proto::Node::from(&node).metadata.unwrap().fields;
        let text = |text: &str| prost_types::Value::from(text.to_owned());
        let inner = [("b".to_owned(), prost_types::Value::from(1.5))];
        let inner = prost_types::Value::from(std::collections::BTreeMap::from(inner));
        let list = vec![text("a"), inner];
        assert_eq!(fields["NODE_NAME"], text("n1"));
        assert_eq!(fields["COUNT"], prost_types::Value::from(3.0));
        assert_eq!(fields["ON"], prost_types::Value::from(true));
        assert_eq!(fields["LIST"], prost_types::Value::from(list));
        assert_eq!(fields.len(), 5);
    }
}

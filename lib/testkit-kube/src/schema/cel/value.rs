//! What a rule sees of a JSON value.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use cel::{
    Value as CelValue,
    objects::{Key, OptionalValue},
};
use serde_json::{Number, Value};

use crate::schema::{
    format,
    node::{Kind, Node},
};

/// Words of the language that cannot be names of fields.
const KEYWORDS: [&str; 20] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
];

/// A value as its schema describes it.
pub(super) fn of(node: &Node, value: &Value) -> CelValue {
    match value {
        Value::Object(fields) => {
            let mut seen = HashMap::with_capacity(fields.len());
            for (name, value) in fields {
                if let Some(child) = node.properties.get(name.as_str()) {
                    seen.insert(Key::from(escape(name).into_owned()), of(child, value));
                } else if let Some(child) = &node.additional {
                    seen.insert(Key::from(name.clone()), of(child, value));
                } else if node.kind == Kind::Any {
                    seen.insert(Key::from(name.clone()), of(node, value));
                }
            }
            seen.into()
        }
        Value::Array(items) => {
            let child = node.items.as_deref().unwrap_or(node);
            CelValue::List(Arc::new(items.iter().map(|item| of(child, item)).collect()))
        }
        Value::String(text) => string(node, text),
        Value::Number(number) => self::number(node.kind, number),
        Value::Bool(bool) => (*bool).into(),
        Value::Null => CelValue::Null,
    }
}

/// A value that may be absent.
pub(super) fn optional(value: Option<CelValue>) -> CelValue {
    CelValue::Opaque(Arc::new(
        value.map_or_else(OptionalValue::none, OptionalValue::of),
    ))
}

fn string(node: &Node, text: &str) -> CelValue {
    let format = node
        .checks
        .as_ref()
        .and_then(|checks| checks.format.as_deref());
    let typed = match format {
        Some("date-time") => chrono::DateTime::parse_from_rfc3339(text)
            .ok()
            .map(CelValue::Timestamp),
        Some("duration") => {
            let duration = format::duration(text).map(chrono::Duration::nanoseconds);
            duration.map(CelValue::Duration)
        }
        Some("byte") => STANDARD
            .decode(text)
            .ok()
            .map(|bytes| CelValue::Bytes(Arc::new(bytes))),
        _ => None,
    };
    typed.unwrap_or_else(|| text.into())
}

fn number(kind: Kind, number: &Number) -> CelValue {
    let float = || number.as_f64().unwrap_or_default().into();
    match (kind, number.as_i64()) {
        (Kind::Number, _) | (_, None) => float(),
        (_, Some(integer)) => integer.into(),
    }
}

/// The name of a field in expressions: what is no identifier is spelled out.
pub(super) fn escape(name: &str) -> Cow<'_, str> {
    if KEYWORDS.contains(&name) {
        return Cow::Owned(format!("__{name}__"));
    }
    if !name.contains("__") && !name.contains(['.', '-', '/']) {
        return Cow::Borrowed(name);
    }
    let name = name.replace("__", "__underscores__");
    let name = name.replace('.', "__dot__").replace('-', "__dash__");
    Cow::Owned(name.replace('/', "__slash__"))
}

//! The words in which the API server refuses a field.

use std::fmt::Display;

use serde_json::Value;

use super::{Cause, Reason};

// === impl Cause ===

impl Cause {
    /// `Required value`, with what would help if that is not plain.
    pub(crate) fn required(field: impl Display, detail: &str) -> Self {
        Self::new(
            field,
            Reason::Required,
            with_detail("Required value", detail),
        )
    }

    /// `Invalid value: "x": what is wrong with it`.
    pub(crate) fn invalid(field: impl Display, value: &Value, detail: impl Display) -> Self {
        let message = format!("Invalid value: {}: {detail}", quoted(value));
        Self::new(field, Reason::Invalid, message)
    }

    /// A value of another JSON type, which is named in place of the value.
    pub(crate) fn type_invalid(field: impl Display, actual: &str, detail: impl Display) -> Self {
        let message = format!("Invalid value: \"{actual}\": {detail}");
        Self::new(field, Reason::TypeInvalid, message)
    }

    /// `Unsupported value: "x": supported values: "a", "b"`.
    pub(crate) fn not_supported(field: impl Display, value: &Value, supported: &[&str]) -> Self {
        let supported: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
        let message = format!(
            "Unsupported value: {}: supported values: {}",
            quoted(value),
            supported.join(", ")
        );
        Self::new(field, Reason::NotSupported, message)
    }

    /// `Duplicate value: "x"`.
    pub(crate) fn duplicate(field: impl Display, value: &Value) -> Self {
        let message = format!("Duplicate value: {}", quoted(value));
        Self::new(field, Reason::Duplicate, message)
    }

    /// `Forbidden: why`.
    pub(crate) fn forbidden(field: impl Display, detail: &str) -> Self {
        Self::new(field, Reason::Forbidden, with_detail("Forbidden", detail))
    }

    /// `Too long: may not be more than 3 bytes`.
    pub(crate) fn too_long(field: impl Display, most: u64) -> Self {
        let message = format!("Too long: may not be more than {most} bytes");
        Self::new(field, Reason::TooLong, message)
    }

    /// `Too many: 5: must have at most 3 items`.
    pub(crate) fn too_many(field: impl Display, actual: usize, most: u64) -> Self {
        let message = format!("Too many: {actual}: must have at most {most} items");
        Self::new(field, Reason::TooMany, message)
    }

    pub(crate) fn new(field: impl Display, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            field: field.to_string(),
            reason,
            message: message.into(),
        }
    }
}

fn with_detail(words: &str, detail: &str) -> String {
    if detail.is_empty() {
        words.to_owned()
    } else {
        format!("{words}: {detail}")
    }
}

/// A value as messages show it: strings in quotes, the rest as JSON.
pub(crate) fn quoted(value: &Value) -> String {
    value.to_string()
}

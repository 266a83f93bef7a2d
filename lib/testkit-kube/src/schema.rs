//! What objects of a kind look like: defaulting, pruning and validation of JSON values.

use kube::core::GroupVersionKind;
use serde_json::Value;

/// A structural schema of one version of one kind.
#[derive(Debug, Clone, Default)]
pub struct Schema {}

/// Why a field is refused, in the words of `metav1.CauseType` and `field.ErrorType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// `FieldValueRequired`
    Required,
    /// `FieldValueInvalid`
    Invalid,
    /// `FieldValueNotSupported`
    NotSupported,
    /// `FieldValueDuplicate`
    Duplicate,
    /// `FieldValueForbidden`
    Forbidden,
    /// `FieldValueTooLong`
    TooLong,
    /// `FieldValueTooMany`
    TooMany,
    /// `FieldValueTypeInvalid`
    TypeInvalid,
    /// `FieldValueNotFound`
    NotFound,
}

/// One field that is refused: an entry of `status.details.causes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// The path of the field: `spec.ports[0].name`.
    pub field: String,
    /// The kind of fault.
    pub reason: Reason,
    /// What is wrong, without the field: `Required value`.
    pub message: String,
}

/// Why a schema cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text of the schema is at fault; the CRD needs another.
    #[error("{path}: {message}")]
    NotStructural {
        /// Where in the schema.
        path: String,
        /// What is wrong.
        message: String,
    },
}

// === impl Reason ===

impl Reason {
    /// The name in `causes[].reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::NotFound => "FieldValueNotFound",
        }
    }
}

// === impl Schema ===

impl Schema {
    /// Reads `spec.versions[].schema.openAPIV3Schema` of a CRD.
    pub fn from_openapi(_schema: &Value) -> Result<Self, Error> {
        Ok(Self::default())
    }

    /// The schema of a built-in kind, `None` when it has none (such kinds are taken as they are).
    pub fn builtin(_kind: &GroupVersionKind) -> Option<&'static Self> {
        None
    }

    /// Fills in the defaults.
    pub fn apply_defaults(&self, _object: &mut Value) {}

    /// Removes fields that the schema does not know and names them, as `spec.foo[0].bar`.
    pub fn prune(&self, _object: &mut Value) -> Vec<String> {
        Vec::new()
    }

    /// What is wrong with an object; `old` is what it replaces.
    pub fn validate(&self, _object: &Value, _old: Option<&Value>) -> Vec<Cause> {
        Vec::new()
    }
}

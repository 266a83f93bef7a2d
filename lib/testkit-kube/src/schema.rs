//! What objects of a kind look like: defaulting, pruning and validation of JSON values.
//!
//! A [`Schema`] is read once into a typed tree and then only walked. Custom kinds bring a structural schema
//! with rules; built-in kinds have what k8s-openapi knows of them, completed by tables of ours, and some
//! rules in code.

pub(crate) mod builtin;
mod builtin_rules;
mod cause;
mod cel;
mod defaults;
mod format;
pub(crate) mod node;
mod parse;
mod path;
mod prune;
mod structural;
mod validate;

use std::sync::{Arc, OnceLock};

use kube::core::GroupVersionKind;
use serde_json::Value;

use node::Node;

/// A structural schema of one version of one kind.
///
/// Cheap to clone. The default knows nothing and takes everything.
#[derive(Debug, Clone, Default)]
pub struct Schema {
    origin: Origin,
    /// The tree; that of a built-in kind is read when its first object arrives.
    root: OnceLock<Arc<Node>>,
}

/// Where a schema comes from.
#[derive(Debug, Clone, Default)]
pub(crate) enum Origin {
    /// Nowhere: anything goes.
    #[default]
    Open,
    /// Ours.
    Builtin(&'static builtin::Entry),
    /// A CRD, with the text as it was written.
    Custom(Arc<Value>),
}

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
    /// The path of the field: `spec.ports[0].name`; `<nil>` when it is no single field.
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
        /// Where: `openAPIV3Schema.properties[spec].type`.
        path: String,
        /// What is wrong, in the words of [`Cause::message`].
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
    /// Reads `spec.versions[].schema.openAPIV3Schema` of a CRD, and compiles its rules.
    pub fn from_openapi(schema: &Value) -> Result<Self, Error> {
        let root = parse::Parser::new(parse::Flavour::Custom).root(schema, "")?;
        Ok(Self {
            origin: Origin::Custom(Arc::new(schema.clone())),
            root: root.into(),
        })
    }

    /// The schema of a built-in kind, `None` when it has none (such kinds are taken as they are).
    pub fn builtin(kind: &GroupVersionKind) -> Option<&'static Self> {
        builtin::schema(kind)
    }

    /// Drops nulls that mean nothing and fills in the defaults. An object that has been through this does
    /// not change when it goes through again.
    pub fn apply_defaults(&self, object: &mut Value) {
        defaults::fill(self.root(), object);
        if let Origin::Builtin(entry) = self.origin {
            builtin_rules::complete(&entry.gvk(), object);
        }
    }

    /// Removes fields that the schema does not know and names them, as `spec.foo[0].bar`.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        let mut removed = Vec::new();
        prune::prune(self.root(), object, path::Path::Root, &mut removed);
        removed
    }

    /// What is wrong with an object; `old` is what it replaces. What has not changed is not judged again.
    pub fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<Cause> {
        let mut causes = validate::validate(self.root(), object, old);
        if let Origin::Builtin(entry) = self.origin {
            // Built-in lists are held to their keys one by one, by the rules of each kind.
            causes.retain(|cause| cause.reason != Reason::Duplicate);
            // Rules of ours expect the types that the schema names.
            let sound = !causes
                .iter()
                .any(|cause| cause.reason == Reason::TypeInvalid);
            if sound && old != Some(object) {
                causes.extend(builtin_rules::check(&entry.gvk(), object, old));
            }
        }
        causes
    }

    /// The tree.
    pub(crate) fn root(&self) -> &Arc<Node> {
        self.root.get_or_init(|| match &self.origin {
            Origin::Builtin(entry) => builtin::tree(entry),
            Origin::Open | Origin::Custom(_) => Arc::new(Node::open()),
        })
    }

    /// Where it comes from.
    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }
}

#[cfg(test)]
mod tests;

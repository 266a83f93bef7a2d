//! Which resources exist: the built-in ones and those of CRDs.

use std::{ops::Deref, sync::Arc};

use kube::core::GroupVersionKind;

use crate::{schema::Schema, store::GroupResource};

/// One version of a resource, as discovery shows it.
#[derive(Debug, Clone)]
pub struct Resource {
    /// Where its objects are kept.
    pub storage: GroupResource,
    /// Group, version and kind.
    pub kind: GroupVersionKind,
    /// The plural name in paths.
    pub plural: String,
    /// The singular name, for kubectl.
    pub singular: String,
    /// The short names, for kubectl.
    pub short_names: Vec<String>,
    /// The categories, for kubectl: `all`.
    pub categories: Vec<String>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// What can be done with it.
    pub verbs: Vec<&'static str>,
    /// Its subresources: `status`, `log`.
    pub subresources: Vec<Subresource>,
    /// How its objects look; `None` takes them as they are.
    pub schema: Option<SchemaRef>,
    /// Whether a CRD defines it.
    pub custom: bool,
}

/// A subresource, as discovery shows it.
#[derive(Debug, Clone)]
pub struct Subresource {
    /// `status`
    pub name: &'static str,
    /// What is sent and answered.
    pub kind: GroupVersionKind,
    /// What can be done with it.
    pub verbs: Vec<&'static str>,
}

/// A schema, wherever it lives.
#[derive(Debug, Clone)]
pub enum SchemaRef {
    /// Of a built-in kind.
    Builtin(&'static Schema),
    /// Of a CRD.
    Custom(Arc<Schema>),
}

// === impl SchemaRef ===

impl Deref for SchemaRef {
    type Target = Schema;

    fn deref(&self) -> &Schema {
        match self {
            Self::Builtin(schema) => schema,
            Self::Custom(schema) => schema,
        }
    }
}

//! Objects in memory: what there is, and in which order it changed.

use std::{borrow::Cow, sync::Arc};

use serde_json::Value;

/// A resource without its version: objects are stored once, however many versions show them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupResource {
    /// The API group, empty for core.
    pub group: Cow<'static, str>,
    /// The plural name.
    pub resource: Cow<'static, str>,
}

/// Where an object is kept within its resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Empty for cluster-scoped objects.
    pub namespace: Arc<str>,
    /// The object's name.
    pub name: Arc<str>,
}

/// All objects. Access is direct: neither admission nor controllers see it. Shared by reference.
#[derive(Debug, Default)]
pub struct Store {}

// === impl GroupResource ===

impl GroupResource {
    /// A resource of a group, empty for core.
    pub const fn new(group: &'static str, resource: &'static str) -> Self {
        Self {
            group: Cow::Borrowed(group),
            resource: Cow::Borrowed(resource),
        }
    }
}

// === impl Store ===

impl Store {
    /// One object.
    pub fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let _ = (resource, namespace, name);
        None
    }

    /// All objects of a resource, or those of one namespace, in the order of namespace and name.
    pub fn list(&self, resource: &GroupResource, namespace: Option<&str>) -> Vec<Arc<Value>> {
        let _ = (resource, namespace);
        Vec::new()
    }

    /// The version of the last change.
    pub fn resource_version(&self) -> u64 {
        0
    }
}

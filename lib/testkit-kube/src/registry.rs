//! Which resources exist: the built-in ones and those of CRDs.

mod builtin;
mod definition;

use std::{cmp::Ordering, sync::Arc};

use kube::core::GroupVersionKind;
use parking_lot::RwLock;
use serde_json::Value;
use tokio::sync::watch;

use crate::{
    schema::{self, Schema},
    store::GroupResource,
};

pub use definition::Definition;

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
    /// The kind of its lists.
    pub list_kind: String,
    /// The short names, for kubectl.
    pub short_names: Vec<String>,
    /// The categories, for kubectl: `all`.
    pub categories: Vec<String>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// What can be done with it.
    pub verbs: &'static [&'static str],
    /// Its subresources: `status`, `log`.
    pub subresources: Vec<Subresource>,
    /// Where its schema is; [`Resource::schema`] fetches it.
    pub source: Source,
    /// What kubectl shows of a custom resource.
    pub columns: Vec<Column>,
    /// The fields that field selectors know, besides name and namespace.
    pub selectable: Vec<String>,
    /// Whether objects count changes of what is desired in `metadata.generation`.
    pub generations: bool,
    /// Whether an update must name the resource version that it replaces.
    pub versioned_updates: bool,
}

/// A subresource, as discovery shows it.
#[derive(Debug, Clone)]
pub struct Subresource {
    /// `status`
    pub name: &'static str,
    /// What is sent and answered.
    pub kind: GroupVersionKind,
    /// What can be done with it.
    pub verbs: &'static [&'static str],
}

/// Where the schema of a resource is.
#[derive(Debug, Clone)]
pub enum Source {
    /// With the built-in ones, made when it is first needed.
    Builtin,
    /// In a CRD.
    Custom(Arc<Schema>),
}

/// An entry of `additionalPrinterColumns`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// The heading, before kubectl writes it in capitals.
    pub name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub kind: String,
    /// `name` for the column of names, `int64` and the like.
    pub format: String,
    /// For people.
    pub description: String,
    /// 0 is always shown, more with `-o wide`.
    pub priority: i64,
    /// Where the value is: `.spec.replicas`.
    pub path: String,
}

/// Why a CRD cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The schema of a version cannot be used: the CRD needs another.
    #[error("spec.versions[{version}].schema.openAPIV3Schema")]
    Schema {
        /// The place of the version in the CRD.
        version: usize,
        /// What is wrong with it.
        source: schema::Error,
    },
}

/// All resources of a server.
#[derive(Debug)]
pub struct Registry {
    resources: RwLock<Arc<[Arc<Resource>]>>,
    /// Counts the resources that are no longer served.
    removals: watch::Sender<u64>,
}

/// The verbs of a resource that is stored.
const ALL: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
const CREATE: &[&str] = &["create"];
const READ_WRITE: &[&str] = &["get", "patch", "update"];

// === impl Resource ===

impl Resource {
    /// Its schema; without one, objects are taken as they are.
    pub fn schema(&self) -> Option<&Schema> {
        match &self.source {
            Source::Builtin => Schema::builtin(&self.kind),
            Source::Custom(schema) => Some(schema),
        }
    }

    /// Whether a CRD defines it.
    pub fn is_custom(&self) -> bool {
        matches!(self.source, Source::Custom(_))
    }

    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        self.kind.api_version()
    }

    /// Whether there is such a subresource.
    pub fn has(&self, subresource: &str) -> bool {
        self.subresources.iter().any(|it| it.name == subresource)
    }

    /// `pods` or `deployments.apps`, as messages name it.
    pub fn qualified(&self) -> String {
        if self.kind.group.is_empty() {
            self.plural.clone()
        } else {
            format!("{}.{}", self.plural, self.kind.group)
        }
    }

    /// Whether objects are kept at all; reviews are not.
    pub fn is_stored(&self) -> bool {
        self.verbs.contains(&"get")
    }
}

// === impl Registry ===

impl Default for Registry {
    fn default() -> Self {
        Self {
            resources: RwLock::new(builtin::resources().map(Arc::new).collect()),
            removals: watch::Sender::new(0),
        }
    }
}

impl Registry {
    /// All versions of all resources: groups in discovery's order, versions from the preferred one down.
    pub fn all(&self) -> Arc<[Arc<Resource>]> {
        self.resources.read().clone()
    }

    /// One version of a resource, by its plural name.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        let resources = self.resources.read();
        let found = resources
            .iter()
            .find(|it| it.plural == plural && it.kind.version == version && it.kind.group == group);
        found.cloned()
    }

    /// The preferred version of what is kept there.
    pub fn stored(&self, storage: &GroupResource) -> Option<Arc<Resource>> {
        let resources = self.resources.read();
        resources.iter().find(|it| it.storage == *storage).cloned()
    }

    /// Serves a CRD, in place of what it served before.
    pub fn define(&self, definition: &Definition) {
        let storage = definition.storage();
        let mut resources = self.resources.write();
        let others = resources.iter().filter(|it| it.storage != storage).cloned();
        let versions = definition.resources.iter().cloned().map(Arc::new);
        let mut all: Vec<Arc<Resource>> = others.chain(versions).collect();
        all.sort_by(|one, other| discovery_order(one, other));
        *resources = all.into();
    }

    /// Stops serving a CRD's resource.
    pub fn remove(&self, storage: &GroupResource) {
        let mut resources = self.resources.write();
        *resources = resources
            .iter()
            .filter(|it| it.storage != *storage || !it.is_custom())
            .cloned()
            .collect();
        drop(resources);
        self.removals.send_modify(|count| *count += 1);
    }

    /// Changes whenever a resource is no longer served, for what goes on as long as one is.
    pub fn removals(&self) -> watch::Receiver<u64> {
        self.removals.subscribe()
    }
}

/// Built-in groups as they are in the table, then the others by name; versions by preference.
fn discovery_order(one: &Resource, other: &Resource) -> Ordering {
    let rank = |it: &Resource| builtin::rank(&it.kind.group);
    rank(one)
        .cmp(&rank(other))
        .then_with(|| one.kind.group.cmp(&other.kind.group))
        .then_with(|| prefer(&one.kind.version, &other.kind.version))
}

/// Kubernetes' order of versions, the preferred first: v10, v2, v1, v2beta1, v1beta1, v1alpha1, then others
/// by name.
pub fn prefer(one: &str, other: &str) -> Ordering {
    match (priority(one), priority(other)) {
        (Some(one), Some(other)) => other.cmp(&one),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => one.cmp(other),
    }
}

fn priority(version: &str) -> Option<(u8, u32, u32)> {
    let rest = version.strip_prefix('v')?;
    let (rank, (major, minor)) = if let Some(parts) = rest.split_once("beta") {
        (1, parts)
    } else if let Some(parts) = rest.split_once("alpha") {
        (0, parts)
    } else {
        (2, (rest, "0"))
    };
    Some((rank, major.parse().ok()?, minor.parse().ok()?))
}

fn strings(value: &Value) -> Vec<String> {
    let items = value.as_array().into_iter().flatten();
    items
        .filter_map(|item| item.as_str().map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_versions_are_preferred() {
        let mut versions = ["foo", "v1alpha1", "v1beta1", "v2beta1", "v1", "v10", "v2"];
        versions.sort_by(|one, other| prefer(one, other));
        assert_eq!(
            versions,
            ["v10", "v2", "v1", "v2beta1", "v1beta1", "v1alpha1", "foo"]
        );
    }

    #[test]
    fn a_crd_comes_and_goes() {
        let registry = Registry::default();
        let built_in = registry.all().len();
        let crd = serde_json::json!({"spec": {
            "group": "example.org",
            "names": {"kind": "Widget", "plural": "widgets", "shortNames": ["wd"]},
            "scope": "Namespaced",
            "versions": [
                {"name": "v1beta1", "served": true, "storage": false, "schema": {"openAPIV3Schema": {"type": "object"}}},
                {"name": "v1", "served": true, "storage": true, "subresources": {"status": {}}, "schema": {"openAPIV3Schema": {"type": "object"}}},
                {"name": "v0", "served": false, "storage": false, "schema": {"openAPIV3Schema": {"type": "object"}}},
            ],
        }});
        let definition = Definition::parse(&crd).unwrap();
        registry.define(&definition);
        let all = registry.all();
        let versions: Vec<&str> = all[built_in..].iter().map(|it| &*it.kind.version).collect();
        assert_eq!(versions, ["v1", "v1beta1"]);
        let widget = registry.find("example.org", "v1", "widgets").unwrap();
        assert!(widget.has("status") && widget.namespaced && widget.generations);
        assert_eq!(widget.list_kind, "WidgetList");
        registry.remove(&widget.storage);
        assert_eq!(registry.all().len(), built_in);
    }

    #[test]
    fn events_of_both_groups_are_kept_in_one_place() {
        let registry = Registry::default();
        let old = registry.find("", "v1", "events").unwrap();
        let new = registry.find("events.k8s.io", "v1", "events").unwrap();
        assert_eq!(old.storage, new.storage);
    }
}

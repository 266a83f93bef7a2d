//! What controllers make of writes and removals: the garbage collector, and the calls to the others.

use std::sync::Arc;

use serde_json::Value;

use super::{
    Cluster, definition,
    delete::{DeleteOptions, FOREGROUND, Propagation},
    namespace,
};
use crate::{
    auth::rbac,
    meta,
    store::{GroupResource, Key},
};

/// An owner that is named in a reference.
#[derive(Debug)]
enum Owner {
    /// It is there.
    Present(GroupResource, Arc<Value>),
    /// It is not.
    Absent,
    /// Its kind is not known, so nobody can tell. The collector waits.
    Unknown,
}

impl Cluster {
    /// Called after each write of an object, creations included.
    pub(super) fn after_write(&self, storage: &GroupResource, object: &Arc<Value>) {
        if *storage == namespace::NAMESPACES && !meta::is_deleting(object) {
            self.furnish(meta::text(object, "name"));
        }
        if *storage == definition::DEFINITIONS && !meta::is_deleting(object) {
            self.establish(object);
        }
        if *storage == rbac::CLUSTER_ROLES {
            self.aggregate();
        }
        if !meta::is_deleting(object) && !references(object).is_empty() {
            self.collect(storage, &Key::of(object));
        }
    }

    /// Called after each replacement: an owner may have waited for a dependent that is not its own any more.
    pub(super) fn after_replacement(&self, old: &Value, new: &Value) {
        let namespace = meta::text(old, "namespace");
        for reference in references(old) {
            if !references(new).contains(reference)
                && let Owner::Present(storage, owner) = self.owner(reference, namespace)
            {
                self.release(&storage, &owner);
            }
        }
    }

    /// Roles that consist of others follow them.
    fn aggregate(&self) {
        for role in rbac::aggregated(&self.store) {
            self.store.put(&rbac::CLUSTER_ROLES, role);
        }
    }

    /// Called after each removal, with the last state.
    pub(super) fn after_removal(&self, storage: &GroupResource, last: &Value) {
        for (storage, key) in self.store.dependents(meta::text(last, "uid")) {
            self.collect(&storage, &key);
        }
        let namespace = meta::text(last, "namespace");
        for reference in references(last) {
            if let Owner::Present(storage, owner) = self.owner(reference, namespace) {
                self.release(&storage, &owner);
            }
        }
        self.after_departure(storage, last);
        if *storage == rbac::CLUSTER_ROLES {
            self.aggregate();
        }
        if *storage == definition::DEFINITIONS {
            self.registry.remove(&definition::instances(last));
        } else {
            self.after_instance(storage);
        }
    }

    /// Deletes an object whose owners are all gone, and frees one that has others from those that are.
    fn collect(&self, storage: &GroupResource, key: &Key) {
        let Some(live) = self.store.get(storage, &key.namespace, &key.name) else {
            return;
        };
        let owners: Vec<Owner> = references(&live)
            .iter()
            .map(|reference| self.owner(reference, &key.namespace))
            .collect();
        let absent = owners
            .iter()
            .filter(|owner| matches!(owner, Owner::Absent))
            .count();
        if absent == 0 {
            return;
        }
        if absent == owners.len() {
            let options = DeleteOptions {
                propagation: collector_policy(&live),
                ..DeleteOptions::default()
            };
            self.begin_deletion(storage, &live, &options);
            return;
        }
        self.keep_references(storage, &live, |reference| {
            !matches!(self.owner(reference, &key.namespace), Owner::Absent)
        });
    }

    /// Frees all dependents from an owner.
    pub(super) fn orphan(&self, uid: &str) {
        for (storage, key) in self.store.dependents(uid) {
            if let Some(live) = self.store.get(&storage, &key.namespace, &key.name) {
                self.keep_references(&storage, &live, |reference| reference["uid"] != uid);
            }
        }
    }

    /// Deletes all dependents of an owner, theirs first.
    pub(super) fn delete_dependents(&self, uid: &str) {
        for (storage, key) in self.store.dependents(uid) {
            let Some(live) = self.store.get(&storage, &key.namespace, &key.name) else {
                continue;
            };
            let others = references(&live).iter().any(|reference| {
                let owner = self.owner(reference, &key.namespace);
                reference["uid"] != uid && matches!(owner, Owner::Present(..) | Owner::Unknown)
            });
            if others {
                self.keep_references(&storage, &live, |reference| reference["uid"] != uid);
            } else if !meta::is_deleting(&live) {
                let has_dependents = !self.store.dependents(meta::text(&live, "uid")).is_empty();
                let options = DeleteOptions {
                    propagation: has_dependents.then_some(Propagation::Foreground),
                    ..DeleteOptions::default()
                };
                self.begin_deletion(&storage, &live, &options);
            }
        }
    }

    /// Lets an owner go that waited for its dependents, once none that blocks it is left.
    pub(super) fn release(&self, storage: &GroupResource, owner: &Value) {
        let waits =
            meta::is_deleting(owner) && meta::finalizers(owner).iter().any(|it| it == FOREGROUND);
        if !waits {
            return;
        }
        let uid = meta::text(owner, "uid");
        let blocked = self.store.dependents(uid).iter().any(|(storage, key)| {
            let dependent = self.store.get(storage, &key.namespace, &key.name);
            dependent.is_some_and(|dependent| {
                let mut references = references(&dependent).iter();
                references.any(|it| it["uid"] == uid && it["blockOwnerDeletion"] == true)
            })
        });
        if !blocked {
            self.drop_finalizer(storage, owner, FOREGROUND);
        }
    }

    fn keep_references(
        &self,
        storage: &GroupResource,
        live: &Value,
        keep: impl Fn(&Value) -> bool,
    ) {
        let kept: Vec<Value> = references(live)
            .iter()
            .filter(|it| keep(it))
            .cloned()
            .collect();
        let mut object = live.clone();
        meta::set(
            &mut object,
            "ownerReferences",
            (!kept.is_empty()).then(|| kept.into()),
        );
        self.store.put(storage, object);
    }

    fn owner(&self, reference: &Value, namespace: &str) -> Owner {
        let text = |field: &str| reference[field].as_str().unwrap_or_default();
        let group = text("apiVersion")
            .split_once('/')
            .map_or("", |(group, _)| group);
        let resources = self.registry.all();
        let resource = resources
            .iter()
            .find(|it| it.kind.group == group && it.kind.kind == text("kind") && it.is_stored());
        let Some(resource) = resource else {
            return Owner::Unknown;
        };
        let namespace = if resource.namespaced { namespace } else { "" };
        match self.store.get(&resource.storage, namespace, text("name")) {
            Some(owner) if meta::text(&owner, "uid") == text("uid") => {
                Owner::Present(resource.storage.clone(), owner)
            }
            _ => Owner::Absent,
        }
    }
}

/// An object's owner references.
fn references(object: &Value) -> &[Value] {
    let references = object["metadata"]["ownerReferences"].as_array();
    references.map(Vec::as_slice).unwrap_or_default()
}

/// The collector deletes in the background, unless the object has been told otherwise before.
fn collector_policy(object: &Value) -> Option<Propagation> {
    let finalizers = meta::finalizers(object);
    let told = finalizers
        .iter()
        .any(|it| it == FOREGROUND || it == super::delete::ORPHAN);
    (!told).then_some(Propagation::Background)
}

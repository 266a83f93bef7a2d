//! The objects that the operator has made, as they are.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::key::ObjectRef;

/// Live objects by what names them and by who owns them.
#[derive(Clone, Debug, Default)]
pub struct Owned {
    objects: BTreeMap<ObjectRef, Live>,
    by_owner: BTreeMap<String, BTreeSet<ObjectRef>>,
}

/// An object as the API server holds it, with its managed fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// All of it.
    pub body: Value,
}

// === impl Owned ===

impl Owned {
    /// The object, if it exists and is ours.
    pub fn get(&self, object: &ObjectRef) -> Option<&Live> {
        self.objects.get(object)
    }

    /// The objects whose controlling owner has this uid.
    pub fn of_owner<'a>(
        &'a self,
        uid: &str,
    ) -> impl Iterator<Item = (&'a ObjectRef, &'a Live)> + use<'a> {
        let owned = self.by_owner.get(uid).into_iter().flatten();
        owned.filter_map(|object| self.objects.get_key_value(object))
    }

    /// The object exists in this form.
    pub fn insert(&mut self, object: ObjectRef, live: Live) {
        self.remove(&object);
        if let Some(owner) = live.owner() {
            let owned = self.by_owner.entry(owner.to_owned()).or_default();
            owned.insert(object.clone());
        }
        self.objects.insert(object, live);
    }

    /// The object is gone. Returns what it was.
    pub fn remove(&mut self, object: &ObjectRef) -> Option<Live> {
        let live = self.objects.remove(object)?;
        if let Some(owner) = live.owner()
            && let Some(owned) = self.by_owner.get_mut(owner)
        {
            owned.remove(object);
            if owned.is_empty() {
                self.by_owner.remove(owner);
            }
        }
        Some(live)
    }
}

// === impl Live ===

impl Live {
    /// The uid of its controlling owner.
    pub fn owner(&self) -> Option<&str> {
        let owners = self.body.pointer("/metadata/ownerReferences")?.as_array()?;
        let mut controllers = owners.iter().filter(|owner| owner["controller"] == true);
        controllers.next()?.get("uid")?.as_str()
    }

    /// Whether it is being deleted.
    pub fn is_deleting(&self) -> bool {
        self.body.pointer("/metadata/deletionTimestamp").is_some()
    }

    /// Its version as a number, which grows with every change as far as this API server's do.
    pub fn version(&self) -> Option<u64> {
        let version = self.body.pointer("/metadata/resourceVersion")?;
        version.as_str()?.parse().ok()
    }
}

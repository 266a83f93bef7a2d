//! The objects that the operator has made, as they are.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use mesh_kube::owned;
use serde_json::Value;

use crate::key::ObjectRef;

/// Live objects by what names them and by who owns them.
#[derive(Clone, Debug, Default)]
pub struct Owned {
    objects: BTreeMap<ObjectRef, Live>,
    by_owner: BTreeMap<String, BTreeSet<ObjectRef>>,
    /// Objects that a write has told of and no watch yet, and since when.
    hearsay: BTreeMap<ObjectRef, Timestamp>,
}

/// An object as the API server holds it, with its managed fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// All of it.
    pub body: Value,
}

/// How long an object counts that the API server has answered to a write and that no watch tells of. It
/// may have been deleted while the watch had a gap, which then nobody tells.
const HEARSAY: SignedDuration = SignedDuration::from_secs(60);

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

    /// The object exists in this form, as a watch tells. False if a newer form is known.
    pub fn insert(&mut self, object: ObjectRef, live: Live) -> bool {
        let known = self.objects.get(&object).and_then(Live::version);
        if matches!((known, live.version()), (Some(known), Some(new)) if known > new) {
            return false;
        }
        self.remove(&object);
        if let Some(owner) = live.owner() {
            let owned = self.by_owner.entry(owner.to_owned()).or_default();
            owned.insert(object.clone());
        }
        self.objects.insert(object, live);
        true
    }

    /// The object exists in this form, as a write was answered. False if a newer form is known.
    pub fn learn(&mut self, object: ObjectRef, live: Live, now: Timestamp) -> bool {
        let news = !self.objects.contains_key(&object) || self.hearsay.contains_key(&object);
        let inserted = self.insert(object.clone(), live);
        if inserted && news {
            self.hearsay.insert(object, now);
        }
        inserted
    }

    /// Forgets what was learned some time ago and was not confirmed since.
    pub fn doubt(&mut self, now: Timestamp) {
        let old = |since: &Timestamp| now.duration_since(*since) > HEARSAY;
        let doubtful = self.hearsay.iter().filter(|(_, since)| old(since));
        let doubtful: Vec<_> = doubtful.map(|(object, _)| object.clone()).collect();
        for object in doubtful {
            self.remove(&object);
        }
    }

    /// The object is gone. Returns what it was.
    pub fn remove(&mut self, object: &ObjectRef) -> Option<Live> {
        self.hearsay.remove(object);
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
        let controller = owners.iter().find(|owner| owner["controller"] == true)?;
        controller.get("uid")?.as_str()
    }

    /// Whether it is being deleted.
    pub fn is_deleting(&self) -> bool {
        owned::is_deleting(&self.body)
    }

    /// Its version as a number, which grows with every change as far as this API server's do.
    pub fn version(&self) -> Option<u64> {
        let version = self.body.pointer("/metadata/resourceVersion")?;
        version.as_str()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use mesh_render::object::CONFIG_MAP;
    use serde_json::json;

    use super::*;

    fn mk_live(version: &str, owner: &str) -> Live {
        let owners = json!([{"uid": owner, "controller": true}]);
        let metadata = json!({"resourceVersion": version, "ownerReferences": owners});
        Live {
            body: json!({"metadata": metadata}),
        }
    }

    fn mk_ref(name: &str) -> ObjectRef {
        ObjectRef::namespaced(CONFIG_MAP, "n", name)
    }

    fn names(owned: &Owned, uid: &str) -> Vec<String> {
        let of_owner = owned.of_owner(uid);
        of_owner.map(|(object, _)| object.name.clone()).collect()
    }

    #[test]
    fn objects_are_found_by_their_owner_also_when_it_changes() {
        let mut owned = Owned::default();
        assert!(owned.insert(mk_ref("a"), mk_live("1", "x")));
        assert!(owned.insert(mk_ref("b"), mk_live("2", "x")));
        assert_eq!(names(&owned, "x"), ["a", "b"]);
        assert!(owned.insert(mk_ref("a"), mk_live("3", "y")));
        assert_eq!(
            (names(&owned, "x"), names(&owned, "y")),
            (vec!["b".into()], vec!["a".into()])
        );
        owned.remove(&mk_ref("a"));
        assert!(names(&owned, "y").is_empty() && owned.get(&mk_ref("a")).is_none());
    }

    #[test]
    fn an_older_form_does_not_replace_a_newer_one() {
        let mut owned = Owned::default();
        assert!(owned.learn(mk_ref("a"), mk_live("10", "x"), Timestamp::UNIX_EPOCH));
        assert!(!owned.insert(mk_ref("a"), mk_live("9", "y")));
        assert_eq!(names(&owned, "x"), ["a"]);
    }

    #[test]
    fn what_no_watch_confirms_is_forgotten() {
        let mut owned = Owned::default();
        let begin = Timestamp::UNIX_EPOCH;
        owned.learn(mk_ref("a"), mk_live("1", "x"), begin);
        owned.learn(mk_ref("b"), mk_live("2", "x"), begin);
        owned.insert(mk_ref("b"), mk_live("2", "x"));
        owned.doubt(begin + HEARSAY);
        assert_eq!(names(&owned, "x"), ["a", "b"]);
        owned.doubt(begin + HEARSAY + SignedDuration::from_secs(1));
        assert_eq!(names(&owned, "x"), ["b"]);
    }
}

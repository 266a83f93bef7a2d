//! What is to be written so that an owner's objects are as they should be: a pure comparison.
//!
//! [`step`] looks at one object that is wanted and at what lives under its name; [`surplus`] at what
//! lives and is not wanted. Whoever calls them does the writing.

use serde_json::{Map, Value, json};

use crate::apply::{self, Manager};

/// Who owns an object: the controller in its owner references.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Its `apiVersion`.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its identity.
    pub uid: String,
}

/// What is to be done about an object that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing: it is as it should be.
    Keep,
    /// Nothing: whoever set the annotation looks after it.
    Ignore,
    /// Nothing yet: it is being deleted. It is made again when it is gone.
    Wait,
    /// Apply it.
    Apply,
    /// Nothing: another controller owns it.
    Foreign(Owner),
}

// === impl Owner ===

impl Owner {
    /// The controller that `object` names.
    pub fn of(object: &Value) -> Option<Self> {
        let owners = object.pointer("/metadata/ownerReferences")?.as_array()?;
        let controller = owners.iter().find(|owner| owner["controller"] == true)?;
        let text = |name: &str| Some(controller.get(name)?.as_str()?.to_owned());
        Some(Self {
            api_version: text("apiVersion")?,
            kind: text("kind")?,
            name: text("name")?,
            uid: text("uid")?,
        })
    }

    /// Names this owner in `object`, as its controller and the only one, so that it goes with it.
    pub fn adopt(&self, object: &mut Value) {
        let reference = json!([{
            "apiVersion": self.api_version,
            "kind": self.kind,
            "name": self.name,
            "uid": self.uid,
            "controller": true,
            "blockOwnerDeletion": true,
        }]);
        if let Some(metadata) = metadata(object) {
            metadata.insert("ownerReferences".to_owned(), reference);
        }
    }
}

/// What is to be done so that `live` holds what is `wanted`. `wanted` names its owner; an annotation
/// `ignore` of the value `"true"` on the live object leaves it alone.
pub fn step(wanted: &Value, live: Option<&Value>, manager: &Manager, ignore: &str) -> Step {
    let Some(live) = live else {
        return Step::Apply;
    };
    let owner = Owner::of(live);
    let ours = Owner::of(wanted);
    if let Some(other) = owner.filter(|owner| Some(&owner.uid) != ours.as_ref().map(|o| &o.uid)) {
        return Step::Foreign(other);
    }
    if is_deleting(live) {
        return Step::Wait;
    }
    if is_ignored(live, ignore) {
        return Step::Ignore;
    }
    if apply::holds(wanted, live, manager) {
        Step::Keep
    } else {
        Step::Apply
    }
}

/// Whether a live object that is not wanted any more is to be deleted: unless that is under way, or the
/// annotation `ignore` leaves it alone.
pub fn surplus(live: &Value, ignore: &str) -> bool {
    !is_deleting(live) && !is_ignored(live, ignore)
}

/// Whether the object is being deleted.
pub fn is_deleting(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some()
}

fn is_ignored(live: &Value, annotation: &str) -> bool {
    let annotations = live.pointer("/metadata/annotations");
    let found = annotations.and_then(|annotations| annotations.get(annotation));
    found.is_some_and(|value| value == "true")
}

/// Adds a label to an object.
pub fn label(object: &mut Value, name: &str, value: &str) {
    let Some(metadata) = metadata(object) else {
        return;
    };
    let labels = metadata.entry("labels").or_insert_with(|| json!({}));
    if let Some(labels) = labels.as_object_mut() {
        labels.insert(name.to_owned(), value.into());
    }
}

fn metadata(object: &mut Value) -> Option<&mut Map<String, Value>> {
    let metadata = object.as_object_mut()?.entry("metadata");
    metadata.or_insert_with(|| json!({})).as_object_mut()
}

#[cfg(test)]
mod tests {
    use super::*;

    const IGNORE: &str = "example.com/ignore";

    fn mk_owner(uid: &str) -> Owner {
        Owner {
            api_version: "example.com/v1".into(),
            kind: "Mesh".into(),
            name: "default".into(),
            uid: uid.into(),
        }
    }

    fn mk_wanted() -> Value {
        let mut wanted = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "x", "namespace": "n"}, "data": {"a": "1"},
        });
        label(&mut wanted, "managed", "us");
        mk_owner("u1").adopt(&mut wanted);
        wanted
    }

    /// The object as it is after its application.
    fn mk_live() -> Value {
        let mut live = mk_wanted();
        live["metadata"]["managedFields"] = json!([{
            "manager": "us", "operation": "Apply", "apiVersion": "v1",
            "fieldsV1": {
                "f:data": {"f:a": {}},
                "f:metadata": {
                    "f:labels": {"f:managed": {}},
                    "f:ownerReferences": {"k:{\"uid\":\"u1\"}": {}},
                },
            },
        }]);
        live
    }

    fn next(live: &Value) -> Step {
        step(&mk_wanted(), Some(live), &Manager::owner("us"), IGNORE)
    }

    #[test]
    fn what_is_as_it_should_be_is_kept_and_what_differs_is_applied() {
        assert_eq!(next(&mk_live()), Step::Keep);
        let mut drifted = mk_live();
        drifted["data"]["a"] = "2".into();
        assert_eq!(next(&drifted), Step::Apply);
        let missing = step(&mk_wanted(), None, &Manager::owner("us"), IGNORE);
        assert_eq!(missing, Step::Apply);
    }

    #[test]
    fn what_another_controller_owns_is_not_taken() {
        let mut live = mk_live();
        mk_owner("u2").adopt(&mut live);
        assert_eq!(next(&live), Step::Foreign(mk_owner("u2")));
        live["metadata"]["ownerReferences"][0]["controller"] = false.into();
        assert_eq!(next(&live), Step::Apply);
    }

    #[test]
    fn what_is_to_be_ignored_is_neither_corrected_nor_deleted() {
        let mut live = mk_live();
        live["data"]["a"] = "2".into();
        live["metadata"]["annotations"] = json!({IGNORE: "true"});
        assert_eq!(next(&live), Step::Ignore);
        assert!(!surplus(&live, IGNORE));
        live["metadata"]["annotations"] = json!({IGNORE: "no"});
        assert_eq!(next(&live), Step::Apply);
        assert!(surplus(&live, IGNORE));
    }

    #[test]
    fn what_is_being_deleted_is_waited_for() {
        let mut live = mk_live();
        live["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        assert_eq!(next(&live), Step::Wait);
        assert!(!surplus(&live, IGNORE));
    }
}

//! Between the version that is stored and the version that is asked for.
//!
//! Versions of a custom resource differ in nothing but `apiVersion` (conversion strategy `None`). Events are
//! stored in the terms of core/v1 and shown in those of events.k8s.io too.

use std::sync::Arc;

use serde_json::Value;

use crate::registry::Resource;

/// The fields of an event: core/v1, events.k8s.io/v1.
const EVENT_FIELDS: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// A stored object, in the version of a resource.
pub fn present(resource: &Resource, object: &Arc<Value>) -> Arc<Value> {
    let version = resource.api_version();
    if object["apiVersion"] == *version {
        return object.clone();
    }
    let mut object = Value::clone(object);
    if resource.kind.group == "events.k8s.io" {
        rename(&mut object, EVENT_FIELDS.iter().copied());
    }
    object["apiVersion"] = version.into();
    Arc::new(object)
}

/// An object in the version of a resource, as it is stored.
pub fn to_storage(resource: &Resource, mut object: Value) -> Value {
    if resource.kind.group == "events.k8s.io" {
        rename(
            &mut object,
            EVENT_FIELDS.iter().map(|&(old, new)| (new, old)),
        );
        object["apiVersion"] = "v1".into();
    }
    object
}

fn rename<'a>(object: &mut Value, fields: impl Iterator<Item = (&'a str, &'a str)>) {
    let Some(object) = object.as_object_mut() else {
        return;
    };
    for (from, to) in fields {
        if let Some(value) = object.remove(from) {
            object.insert(to.to_owned(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::Registry;

    #[test]
    fn an_event_reads_the_same_in_both_of_its_apis() {
        let registry = Registry::default();
        let new = registry.find("events.k8s.io", "v1", "events").unwrap();
        let event = json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": "a"},
            "regarding": {"kind": "Pod"},
            "note": "text",
            "reportingController": "me",
        });
        let stored = to_storage(&new, event.clone());
        assert_eq!(stored["involvedObject"]["kind"], "Pod");
        assert_eq!(
            (&stored["message"], &stored["apiVersion"]),
            (&json!("text"), &json!("v1"))
        );
        assert_eq!(*present(&new, &Arc::new(stored)), event);
    }
}

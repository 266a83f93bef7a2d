//! Whether a live object holds what a manager wants, by the fields that it owns.
//!
//! The API server keeps, for each manager, the set of fields of its last apply (`fieldsV1`): a tree
//! with `f:name` for a field, `k:{…}` for an element of a list by its keys, `v:…` for an element of a
//! set, `.` for the thing itself, and an empty node for a value that is owned whole. If what is wanted
//! has exactly these fields, and the live object the same values in them, an apply would change nothing.

use serde_json::{Map, Value};

use super::Part;

/// Fields that identify an object and that nobody owns.
const IDENTITY: [&str; 2] = ["apiVersion", "kind"];
const METADATA_IDENTITY: [&str; 5] = [
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "managedFields",
];

/// Whether applying `wanted` to `live` as `manager` would change nothing. False in doubt.
pub(super) fn holds(wanted: &Value, live: &Value, manager: &str, part: Part) -> bool {
    let (Some(fields), Some(live)) = (without_identity(wanted), live.as_object()) else {
        return false;
    };
    let Some(entry) = entry_of(live, manager, part) else {
        // We name nothing and have named nothing.
        return fields.is_empty() && is_tracked(live);
    };
    // The fields of another version may have other names.
    let same_version = entry.get("apiVersion") == wanted.get("apiVersion");
    let owned = entry.get("fieldsV1").and_then(Value::as_object);
    same_version && owned.is_some_and(|owned| same_fields(owned, &fields, live))
}

/// The fields of `wanted` that a manager can own.
fn without_identity(wanted: &Value) -> Option<Map<String, Value>> {
    let mut fields = wanted.as_object()?.clone();
    for name in IDENTITY {
        fields.remove(name);
    }
    if let Some(Value::Object(metadata)) = fields.get_mut("metadata") {
        for name in METADATA_IDENTITY {
            metadata.remove(name);
        }
        if metadata.is_empty() {
            fields.remove("metadata");
        }
    }
    Some(fields)
}

/// What the server remembers of the manager's last apply.
fn entry_of<'a>(live: &'a Map<String, Value>, manager: &str, part: Part) -> Option<&'a Value> {
    let entries = live.get("metadata")?.get("managedFields")?.as_array()?;
    let subresource = part.subresource().unwrap_or_default();
    entries.iter().find(|entry| {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
        text("manager") == manager
            && text("operation") == "Apply"
            && text("subresource") == subresource
    })
}

/// Whether we see who owns what: an index may have dropped it to save memory.
fn is_tracked(live: &Map<String, Value>) -> bool {
    let metadata = live.get("metadata");
    metadata.is_some_and(|metadata| metadata.get("managedFields").is_some())
}

/// Whether `wanted` and `live` agree below a node of the tree.
fn same(owned: &Value, wanted: &Value, live: &Value) -> bool {
    let Some(owned) = owned.as_object() else {
        return false;
    };
    if owned.keys().all(|key| key == ".") {
        return wanted == live || is_filled(wanted, live);
    }
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => same_fields(owned, wanted, live),
        (Value::Array(wanted), Value::Array(live)) => same_elements(owned, wanted, live),
        _ => false,
    }
}

/// Whether `live` is `wanted` with what API servers fill in where a value is owned whole. Elsewhere what
/// is filled in is nobody's field; a reference to a field or a resource of a container is one value.
fn is_filled(wanted: &Value, live: &Value) -> bool {
    let Some(wanted) = wanted.as_object() else {
        return false;
    };
    let (name, default) = if wanted.contains_key("fieldPath") {
        ("apiVersion", "v1")
    } else if wanted.contains_key("resource") {
        ("divisor", "0")
    } else {
        return false;
    };
    let mut filled = wanted.clone();
    filled.entry(name).or_insert_with(|| default.into());
    live.as_object() == Some(&filled)
}

fn same_fields(
    owned: &Map<String, Value>,
    wanted: &Map<String, Value>,
    live: &Map<String, Value>,
) -> bool {
    let fields = owned.iter().filter(|(key, _)| *key != ".");
    let mut count = 0;
    for (key, below) in fields {
        count += 1;
        let name = key.strip_prefix("f:");
        let Some((wanted, live)) = name.and_then(|name| Some((wanted.get(name)?, live.get(name)?)))
        else {
            return false;
        };
        if !same(below, wanted, live) {
            return false;
        }
    }
    count == wanted.len()
}

fn same_elements(owned: &Map<String, Value>, wanted: &[Value], live: &[Value]) -> bool {
    let elements = owned.iter().filter(|(key, _)| *key != ".");
    let mut count = 0;
    for (key, below) in elements {
        count += 1;
        let found = if let Some(keys) = key.strip_prefix("k:") {
            same_element(keys, below, wanted, live)
        } else if let Some(value) = key.strip_prefix("v:") {
            let value = serde_json::from_str::<Value>(value).ok();
            value.is_some_and(|value| wanted.contains(&value) && live.contains(&value))
        } else {
            // By position: a form that is defined and that nobody uses.
            false
        };
        if !found {
            return false;
        }
    }
    count == wanted.len()
}

/// An element that its keys name. One that is wanted may leave a key out that has a default.
fn same_element(keys: &str, below: &Value, wanted: &[Value], live: &[Value]) -> bool {
    let Ok(Value::Object(keys)) = serde_json::from_str(keys) else {
        return false;
    };
    let is_named = |element: &Value, lax: bool| {
        let named = |(key, value)| element.get(key).map_or(lax, |found: &Value| found == value);
        keys.iter().all(named)
    };
    let mut candidates = wanted.iter().filter(|element| is_named(element, true));
    let (Some(wanted), None) = (candidates.next(), candidates.next()) else {
        return false;
    };
    let live = live.iter().find(|element| is_named(element, false));
    live.is_some_and(|live| same(below, wanted, live))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mk_live(fields: &Value, content: &Value) -> Value {
        let mut live = content.clone();
        live["metadata"] = json!({
            "name": "x", "resourceVersion": "5",
            "labels": {"ours": "1", "theirs": "2"},
            "managedFields": [
                {"manager": "other", "operation": "Apply", "apiVersion": "v1", "fieldsV1": {}},
                {"manager": "us", "operation": "Apply", "apiVersion": "v1", "fieldsV1": fields},
            ],
        });
        live
    }

    fn mk_service(wanted_ports: &Value, live_ports: &Value, owned: &Value) -> (Value, Value) {
        let wanted = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "x", "labels": {"ours": "1"}},
            "spec": {"ports": wanted_ports},
        });
        let fields = json!({
            "f:metadata": {"f:labels": {"f:ours": {}}},
            "f:spec": {"f:ports": owned},
        });
        let content = json!({
            "apiVersion": "v1", "kind": "Service",
            "spec": {"clusterIP": "10.0.0.1", "ports": live_ports},
        });
        (wanted, mk_live(&fields, &content))
    }

    fn is_held(wanted: &Value, live: &Value) -> bool {
        holds(wanted, live, "us", Part::Object)
    }

    const PORT: &str = r#"k:{"port":80,"protocol":"TCP"}"#;

    #[test]
    fn what_the_server_has_defaulted_and_others_have_added_is_no_difference() {
        let owned = json!({PORT: {".": {}, "f:name": {}, "f:port": {}}});
        let wanted = json!([{"name": "http", "port": 80}]);
        let live = json!([
            {"name": "theirs", "port": 81, "protocol": "TCP"},
            {"name": "http", "port": 80, "protocol": "TCP", "targetPort": 80},
        ]);
        let (wanted, live) = mk_service(&wanted, &live, &owned);
        assert!(is_held(&wanted, &live));
        assert!(!holds(&wanted, &live, "other", Part::Object));
        assert!(!holds(&wanted, &live, "nobody", Part::Object));
        assert!(!holds(&wanted, &live, "us", Part::Status));
    }

    #[test]
    fn a_changed_an_added_and_a_dropped_field_are_differences() {
        let owned = json!({PORT: {".": {}, "f:name": {}, "f:port": {}}});
        let live = json!([{"name": "http", "port": 80, "protocol": "TCP"}]);
        let cases = [
            json!([{"name": "web", "port": 80}]),
            json!([{"name": "http", "port": 80, "nodePort": 1}]),
            json!([{"port": 80}]),
            json!([{"name": "http", "port": 80}, {"name": "more", "port": 81}]),
            json!([]),
            json!("text"),
        ];
        for ports in cases {
            let (wanted, live) = mk_service(&ports, &live, &owned);
            assert!(!is_held(&wanted, &live), "{ports}");
        }
    }

    #[test]
    fn what_others_have_changed_is_a_difference() {
        let owned = json!({PORT: {".": {}, "f:name": {}, "f:port": {}}});
        let wanted = json!([{"name": "http", "port": 80}]);
        let live = json!([{"name": "theirs", "port": 80, "protocol": "TCP"}]);
        let (wanted, live) = mk_service(&wanted, &live, &owned);
        assert!(!is_held(&wanted, &live));
    }

    #[test]
    fn sets_and_atomic_values_are_compared_by_value() {
        let wanted = json!({
            "apiVersion": "v1", "kind": "Thing", "metadata": {"name": "x"},
            "spec": {"set": ["a", "b"], "whole": {"x": [1, 2]}},
        });
        let fields = json!({
            "f:spec": {"f:set": {"v:\"a\"": {}, "v:\"b\"": {}}, "f:whole": {}},
        });
        let live = |set: Value, whole: Value| {
            mk_live(&fields, &json!({"spec": {"set": set, "whole": whole}}))
        };
        assert!(is_held(
            &wanted,
            &live(json!(["b", "z", "a"]), json!({"x": [1, 2]}))
        ));
        assert!(!is_held(
            &wanted,
            &live(json!(["b", "z"]), json!({"x": [1, 2]}))
        ));
        assert!(!is_held(
            &wanted,
            &live(json!(["a", "b"]), json!({"x": [2, 1]}))
        ));
    }

    #[test]
    fn a_reference_that_the_server_has_completed_is_no_difference() {
        let fields = json!({"f:spec": {"f:env": {"f:a": {"f:fieldRef": {}}, "f:b": {"f:resourceFieldRef": {}}}}});
        let env = |a: Value, b: Value| json!({"spec": {"env": {"a": {"fieldRef": a}, "b": {"resourceFieldRef": b}}}});
        let mut wanted = env(json!({"fieldPath": "x"}), json!({"resource": "limits.cpu"}));
        wanted["apiVersion"] = "v1".into();
        let held = |a: Value, b: Value| is_held(&wanted, &mk_live(&fields, &env(a, b)));
        let (path, cpu) = (json!({"fieldPath": "x"}), json!({"resource": "limits.cpu"}));
        assert!(held(path, cpu.clone()));
        let completed = json!({"apiVersion": "v1", "fieldPath": "x"});
        assert!(held(
            completed.clone(),
            json!({"divisor": "0", "resource": "limits.cpu"})
        ));
        assert!(!held(json!({"apiVersion": "v2", "fieldPath": "x"}), cpu));
        assert!(!held(
            completed,
            json!({"divisor": "1", "resource": "limits.cpu"})
        ));
    }

    #[test]
    fn nothing_is_held_where_nothing_was_named() {
        let nothing = json!({"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "x"}});
        let live = mk_live(&json!({"f:spec": {"f:a": {}}}), &json!({"spec": {"a": 1}}));
        assert!(holds(&nothing, &live, "nobody", Part::Status));
        assert!(!is_held(&nothing, &live));
        let stripped = json!({"metadata": {"name": "x"}});
        assert!(!holds(&nothing, &stripped, "nobody", Part::Status));
    }

    #[test]
    fn fields_of_another_version_are_not_trusted() {
        let live = mk_live(&json!({"f:spec": {"f:a": {}}}), &json!({"spec": {"a": 1}}));
        let wanted = |version: &str| json!({"apiVersion": version, "kind": "T", "spec": {"a": 1}});
        assert!(is_held(&wanted("v1"), &live));
        assert!(!is_held(&wanted("v2"), &live));
    }
}

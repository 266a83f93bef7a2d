//! What the server itself knows of some built-in kinds, beyond their schemas.

use serde_json::{Value, json};

use super::{definition, namespace, service};
use crate::store::GroupResource;

/// Where pods are kept.
pub(super) const PODS: GroupResource = GroupResource::new("", "pods");
/// Where service accounts are kept.
pub(super) const ACCOUNTS: GroupResource = GroupResource::new("", "serviceaccounts");
/// Where config maps are kept.
pub(super) const CONFIG_MAPS: GroupResource = GroupResource::new("", "configmaps");

/// Gives a new object the status that it starts with.
pub(super) fn begin(storage: &GroupResource, object: &mut Value) {
    match (&*storage.group, &*storage.resource) {
        ("", "namespaces") => namespace::begin(object),
        ("", "pods") => {
            let class = quality(&object["spec"]);
            object["status"] = json!({"phase": "Pending", "qosClass": class});
        }
        ("", "services") => object["status"] = json!({"loadBalancer": {}}),
        ("", "persistentvolumeclaims") => object["status"] = json!({"phase": "Pending"}),
        ("apps", "deployments" | "statefulsets" | "replicasets" | "daemonsets")
        | ("batch", "jobs" | "cronjobs") => object["status"] = json!({}),
        _ => {}
    }
}

/// Fills in what depends on more than the object.
pub(super) fn complete(storage: &GroupResource, object: &mut Value) {
    match (&*storage.group, &*storage.resource) {
        ("", "namespaces") => namespace::complete(object),
        ("", "pods") => complete_pod(object),
        ("apiextensions.k8s.io", "customresourcedefinitions") => definition::complete(object),
        _ => {}
    }
}

/// Takes over what the server gave the object that is there and the caller left out.
pub(super) fn inherit(storage: &GroupResource, object: &mut Value, old: &Value) {
    if *storage == service::SERVICES {
        service::inherit(object, old);
    }
    if *storage == namespace::NAMESPACES {
        object["spec"]["finalizers"] = old["spec"]["finalizers"].clone();
    }
}

fn complete_pod(pod: &mut Value) {
    let Some(spec) = pod["spec"].as_object_mut() else {
        return;
    };
    let account = ["serviceAccountName", "serviceAccount"]
        .into_iter()
        .filter_map(|field| spec.get(field)?.as_str())
        .find(|name| !name.is_empty())
        .unwrap_or("default")
        .to_owned();
    spec.insert("serviceAccountName".to_owned(), account.clone().into());
    spec.insert("serviceAccount".to_owned(), account.into());
}

/// The quality of service class of a pod.
fn quality(spec: &Value) -> &'static str {
    let containers = || spec["containers"].as_array().into_iter().flatten();
    let has = |container: &Value, field: &str| {
        let map = container["resources"][field].as_object();
        map.is_some_and(|map| map.contains_key("cpu") || map.contains_key("memory"))
    };
    let guaranteed = |container: &Value| {
        let resources = &container["resources"];
        ["cpu", "memory"].iter().all(|name| {
            let (limit, request) = (&resources["limits"][*name], &resources["requests"][*name]);
            !limit.is_null() && (request.is_null() || request == limit)
        })
    };
    if containers().all(|it| !has(it, "limits") && !has(it, "requests")) {
        "BestEffort"
    } else if containers().all(guaranteed) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

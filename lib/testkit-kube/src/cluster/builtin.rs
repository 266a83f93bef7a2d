//! What the server itself knows of some built-in kinds, beyond their schemas.

use serde_json::{Map, Value, json};

use super::{definition, namespace, service};
use crate::{
    meta,
    schema::{Cause, Reason},
    store::GroupResource,
};

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

/// Fills in defaults and checks what the schemas do not say.
pub(super) fn complete(
    storage: &GroupResource,
    object: &mut Value,
    old: Option<&Value>,
) -> Vec<Cause> {
    match (&*storage.group, &*storage.resource) {
        ("", "namespaces") => namespace::complete(object),
        ("", "pods") => complete_pod(object),
        ("", "secrets") => return complete_secret(object, old),
        ("apiextensions.k8s.io", "customresourcedefinitions") => definition::complete(object),
        _ => {}
    }
    Vec::new()
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
    for (field, value) in [
        ("restartPolicy", json!("Always")),
        ("dnsPolicy", json!("ClusterFirst")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("schedulerName", json!("default-scheduler")),
        ("securityContext", json!({})),
        ("enableServiceLinks", json!(true)),
    ] {
        fill(spec, field, value);
    }
    for list in ["initContainers", "containers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers
            .into_iter()
            .flatten()
            .filter_map(Value::as_object_mut)
        {
            complete_container(container);
        }
    }
}

fn complete_container(container: &mut Map<String, Value>) {
    let image = container
        .get("image")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let latest = image.ends_with(":latest")
        || !image
            .rsplit('/')
            .next()
            .is_some_and(|it| it.contains([':', '@']));
    let pull = if latest { "Always" } else { "IfNotPresent" };
    for (field, value) in [
        ("imagePullPolicy", json!(pull)),
        ("resources", json!({})),
        ("terminationMessagePath", json!("/dev/termination-log")),
        ("terminationMessagePolicy", json!("File")),
    ] {
        fill(container, field, value);
    }
    let ports = container.get_mut("ports").and_then(Value::as_array_mut);
    for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
        fill(port, "protocol", json!("TCP"));
    }
}

fn complete_secret(secret: &mut Value, old: Option<&Value>) -> Vec<Cause> {
    if let Some(Value::Object(plain)) = secret
        .as_object_mut()
        .and_then(|it| it.remove("stringData"))
    {
        if !secret["data"].is_object() {
            secret["data"] = json!({});
        }
        for (key, value) in plain {
            let value = value.as_str().unwrap_or_default();
            let encoded = openssl::base64::encode_block(value.as_bytes());
            secret["data"][key] = encoded.into();
        }
    }
    if let Some(fields) = secret.as_object_mut() {
        fill(fields, "type", json!("Opaque"));
    }
    let mut causes = Vec::new();
    if old.is_some_and(|old| old["type"] != secret["type"]) {
        let message = format!("Invalid value: {}: field is immutable", secret["type"]);
        causes.push(meta::cause("type", Reason::Invalid, &message));
    }
    causes
}

fn fill(fields: &mut Map<String, Value>, field: &str, value: Value) {
    if fields.get(field).is_none_or(Value::is_null) {
        fields.insert(field.to_owned(), value);
    }
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

//! `autoscaling/v1` Scale: the replicas of an object, as an object of their own.

use serde_json::{Value, json};

use crate::status::Status;

/// The scale of a Deployment, ReplicaSet or StatefulSet.
pub(super) fn of(object: &Value) -> Value {
    let metadata = &object["metadata"];
    let mut scale = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {},
        "spec": {"replicas": object["spec"]["replicas"].as_i64().unwrap_or_default()},
        "status": {
            "replicas": object["status"]["replicas"].as_i64().unwrap_or_default(),
            "selector": selector(&object["spec"]["selector"]["matchLabels"]),
        },
    });
    for field in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ] {
        scale["metadata"][field] = metadata[field].clone();
    }
    scale
}

/// The object with the replicas of a scale.
pub(super) fn apply(object: &Value, scale: &Value) -> Result<Value, Status> {
    let replicas = scale["spec"]["replicas"].as_u64();
    let replicas = replicas.ok_or_else(|| {
        Status::bad_request("spec.replicas: the value must be an integer that is not negative")
    })?;
    let mut object = object.clone();
    object["spec"]["replicas"] = replicas.into();
    object["metadata"]["resourceVersion"] = scale["metadata"]["resourceVersion"].clone();
    if object["metadata"]["resourceVersion"].is_null() {
        crate::meta::set(&mut object, "resourceVersion", None);
    }
    Ok(object)
}

fn selector(labels: &Value) -> String {
    let labels = labels.as_object().into_iter().flatten();
    let labels = labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    labels.collect::<Vec<_>>().join(",")
}

//! Objects as controllers and kubelets would make them.

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use serde_json::{Value, json};

pub(crate) fn node(name: &str) -> Node {
    of(json!({
        "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": "zone-1"}},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }))
}

/// A running pod with a service account of its own, in the mesh.
pub(crate) fn pod(namespace: &str, name: &str, node: &str, address: [u8; 4]) -> Pod {
    let address = std::net::Ipv4Addr::from(address).to_string();
    of(json!({
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"app": name},
            "annotations": {"ambient.istio.io/redirection": "enabled"},
        },
        "spec": {
            "nodeName": node,
            "serviceAccountName": name,
            "containers": [{"name": "app", "image": "app", "ports": [{"containerPort": 8080, "name": "http"}]}],
        },
        "status": {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }))
}

pub(crate) fn with_account(mut pod: Pod, account: &str) -> Pod {
    pod.spec.as_mut().unwrap().service_account_name = Some(account.to_owned());
    pod
}

/// A service in front of the pods that are labelled with its name.
pub(crate) fn service(namespace: &str, name: &str) -> Service {
    of(json!({
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
        },
    }))
}

fn of<K: serde::de::DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).unwrap()
}

//! The objects that a cluster's own parts write.

use mesh_core::workload::Workload;
use serde_json::{Value, json};

use super::super::{NAMESPACE, ProxyPod, ZTUNNEL as PROXY};

/// The namespaces of the mesh and of the lab's pods.
pub(super) const NAMESPACES: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: istio-system}
---
apiVersion: v1
kind: Namespace
metadata: {name: demo}
---
apiVersion: v1
kind: Namespace
metadata: {name: istio-cni}
";

/// Who the proxies are.
pub(super) const ZTUNNEL: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: ztunnel, namespace: istio-system}
";

/// A node that takes pods.
pub(super) fn node(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
        }},
        "status": {"conditions": [ready()]},
    })
}

/// The service account of a pod.
pub(super) fn account(pod: &Workload) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": pod.service_account, "namespace": pod.namespace},
    })
}

/// A pod that runs, labelled with its name.
pub(super) fn pod(pod: &Workload) -> Value {
    let addresses: Vec<String> = pod.addresses.iter().map(ToString::to_string).collect();
    running(
        (&pod.namespace, &pod.name),
        (&pod.node, &pod.service_account),
        &addresses,
    )
}

/// A pod of the proxies' DaemonSet.
pub(super) fn proxy(proxy: &ProxyPod<'_>) -> Value {
    let key = (NAMESPACE, proxy.name);
    running(key, (proxy.node, PROXY), &[proxy.address.to_string()])
}

fn running(
    (namespace, name): (&str, &str),
    (node, account): (&str, &str),
    addresses: &[String],
) -> Value {
    let addresses: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {
            "nodeName": node,
            "serviceAccountName": account,
            "containers": [{"name": "app", "image": "lab"}],
        },
        "status": {
            "phase": "Running",
            "podIP": addresses[0]["ip"],
            "podIPs": addresses,
            "conditions": [ready()],
            "containerStatuses": [{
                "name": "app",
                "image": "lab",
                "imageID": "",
                "ready": true,
                "restartCount": 0,
                "state": {"running": {}},
            }],
        },
    })
}

fn ready() -> Value {
    json!({"type": "Ready", "status": "True"})
}

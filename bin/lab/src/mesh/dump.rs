//! What to look for in the configuration dump of a proxy, ours or Istio's.

use serde_json::Value;

fn items<'a>(dump: &'a Value, kind: &str) -> impl Iterator<Item = &'a Value> {
    let list = dump.get(kind).and_then(Value::as_array);
    list.into_iter().flatten()
}

/// Whether a service of this host name is in a dump.
pub fn has_service(dump: &Value, hostname: &str) -> bool {
    items(dump, "services").any(|service| service["hostname"] == hostname)
}

/// Whether a service of this host name is in a dump, with at least one pod behind it.
pub fn has_endpoints(dump: &Value, hostname: &str) -> bool {
    let mut services = items(dump, "services").filter(|service| service["hostname"] == hostname);
    services.any(|service| {
        let endpoints = service["endpoints"].as_object();
        endpoints.is_some_and(|endpoints| !endpoints.is_empty())
    })
}

/// Whether a policy of this name is in a dump.
pub fn has_policy(dump: &Value, name: &str) -> bool {
    items(dump, "policies").any(|policy| policy["name"] == name)
}

/// Whether a pod is in a dump, and spoken to by this protocol: `HBONE` or `TCP`.
pub fn has_protocol(dump: &Value, uid: &str, protocol: &str) -> bool {
    items(dump, "workloads").any(|w| w["uid"] == uid && w["protocol"] == protocol)
}

/// Whether a workload of this uid is in a dump.
pub fn has_workload(dump: &Value, uid: &str) -> bool {
    items(dump, "workloads").any(|workload| workload["uid"] == uid)
}

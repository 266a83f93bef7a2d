//! The columns of built-in kinds, as `kubectl get` shows them.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Cells, pod, time, workload};
use crate::registry::{Column, Resource};

type Columns = &'static [(&'static str, &'static str, i64)];
type Make = fn(&Value, Timestamp) -> Vec<Value>;

/// Name, type and priority, after the name.
const AGE: (&str, &str, i64) = ("Age", "string", 0);

/// The table of a built-in resource.
pub(super) fn table(resource: &Resource) -> (Arc<[Column]>, Cells) {
    let (columns, make) = of(&resource.storage.group, &resource.storage.resource);
    let name = std::iter::once(column("Name", "string", "name", 0));
    // Events are shown by when, not by name.
    let name = name.filter(|_| resource.storage.resource != "events");
    let others = columns
        .iter()
        .map(|&(name, kind, priority)| column(name, kind, "", priority));
    (name.chain(others).collect(), Cells::Builtin(make))
}

pub(super) fn column(name: &str, kind: &str, format: &str, priority: i64) -> Column {
    Column {
        name: name.to_owned(),
        kind: kind.to_owned(),
        format: format.to_owned(),
        description: String::new(),
        priority,
        path: String::new(),
    }
}

fn of(group: &str, resource: &str) -> (Columns, Make) {
    match (group, resource) {
        ("", "pods") => (pod::COLUMNS, pod::cells),
        ("", "nodes") => (NODE, node),
        ("", "services") => (SERVICE, service),
        ("", "namespaces" | "persistentvolumeclaims") => {
            (&[("Status", "string", 0), AGE], namespace)
        }
        ("", "configmaps") => (&[("Data", "integer", 0), AGE], config_map),
        ("", "secrets") => (
            &[("Type", "string", 0), ("Data", "integer", 0), AGE],
            secret,
        ),
        ("", "serviceaccounts") => (&[("Secrets", "integer", 0), AGE], service_account),
        ("", "endpoints") => (&[("Endpoints", "string", 0), AGE], endpoints),
        ("", "events") => (EVENT, event),
        ("apps", "deployments") => (workload::DEPLOYMENT, workload::deployment),
        ("apps", "daemonsets") => (workload::DAEMON_SET, workload::daemon_set),
        ("apps", "replicasets") => (workload::REPLICA_SET, workload::replica_set),
        ("apps", "statefulsets") => (workload::STATEFUL_SET, workload::stateful_set),
        ("batch", "jobs") => (workload::JOB, workload::job),
        ("discovery.k8s.io", "endpointslices") => (SLICE, endpoint_slice),
        ("coordination.k8s.io", "leases") => (&[("Holder", "string", 0), AGE], lease),
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => (BINDING, binding),
        ("rbac.authorization.k8s.io" | "apiextensions.k8s.io", _) => {
            (&[("Created At", "date", 0)], created)
        }
        _ => (&[AGE], plain),
    }
}

const NODE: Columns = &[
    ("Status", "string", 0),
    ("Roles", "string", 0),
    AGE,
    ("Version", "string", 0),
    ("Internal-IP", "string", 1),
    ("External-IP", "string", 1),
    ("OS-Image", "string", 1),
    ("Kernel-Version", "string", 1),
    ("Container-Runtime", "string", 1),
];
const SERVICE: Columns = &[
    ("Type", "string", 0),
    ("Cluster-IP", "string", 0),
    ("External-IP", "string", 0),
    ("Port(s)", "string", 0),
    AGE,
    ("Selector", "string", 1),
];
const EVENT: Columns = &[
    ("Last Seen", "string", 0),
    ("Type", "string", 0),
    ("Reason", "string", 0),
    ("Object", "string", 0),
    ("Subobject", "string", 1),
    ("Source", "string", 1),
    ("Message", "string", 0),
    ("First Seen", "string", 1),
    ("Count", "string", 1),
    ("Name", "string", 1),
];
const SLICE: Columns = &[
    ("AddressType", "string", 0),
    ("Ports", "string", 0),
    ("Endpoints", "string", 0),
    AGE,
];
const BINDING: Columns = &[
    ("Role", "string", 0),
    AGE,
    ("Users", "string", 1),
    ("Groups", "string", 1),
    ("ServiceAccounts", "string", 1),
];

pub(super) fn name(object: &Value) -> Value {
    object["metadata"]["name"].clone()
}

pub(super) fn age(object: &Value, now: Timestamp) -> Value {
    let created = object["metadata"]["creationTimestamp"].as_str();
    time::since(created.unwrap_or_default(), now).into()
}

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub(super) fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A text, or what kubectl shows for none.
pub(super) fn or<'a>(text: &'a str, none: &'a str) -> &'a str {
    if text.is_empty() { none } else { text }
}

pub(super) fn join(texts: impl Iterator<Item = String>) -> String {
    texts.collect::<Vec<_>>().join(",")
}

/// `key=value` pairs.
pub(super) fn pairs(map: &Value) -> String {
    let pairs = map.as_object().into_iter().flatten();
    let pairs = join(pairs.map(|(key, value)| format!("{key}={}", text(value))));
    or(&pairs, "<none>").to_owned()
}

fn plain(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), age(object, now)]
}

fn created(object: &Value, _: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        object["metadata"]["creationTimestamp"].clone(),
    ]
}

fn namespace(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        object["status"]["phase"].clone(),
        age(object, now),
    ]
}

fn count(map: &Value) -> usize {
    map.as_object().map_or(0, serde_json::Map::len)
}

fn config_map(object: &Value, now: Timestamp) -> Vec<Value> {
    let data = count(&object["data"]) + count(&object["binaryData"]);
    vec![name(object), data.into(), age(object, now)]
}

fn secret(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        object["type"].clone(),
        count(&object["data"]).into(),
        age(object, now),
    ]
}

fn service_account(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        items(&object["secrets"]).len().into(),
        age(object, now),
    ]
}

fn lease(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        text(&object["spec"]["holderIdentity"]).into(),
        age(object, now),
    ]
}

fn node(object: &Value, now: Timestamp) -> Vec<Value> {
    let ready = items(&object["status"]["conditions"])
        .iter()
        .find(|it| it["type"] == "Ready");
    let mut status = match ready.map(|condition| text(&condition["status"])) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if object["spec"]["unschedulable"] == true {
        status.push_str(",SchedulingDisabled");
    }
    let labels = object["metadata"]["labels"]
        .as_object()
        .into_iter()
        .flatten();
    let roles = join(labels.filter_map(|(label, _)| {
        label
            .strip_prefix("node-role.kubernetes.io/")
            .map(str::to_owned)
    }));
    let address = |kind: &str| {
        let address = items(&object["status"]["addresses"])
            .iter()
            .find(|it| it["type"] == kind);
        or(address.map_or("", |it| text(&it["address"])), "<none>").to_owned()
    };
    let info = |field: &str| or(text(&object["status"]["nodeInfo"][field]), "<unknown>").to_owned();
    vec![
        name(object),
        status.into(),
        or(&roles, "<none>").into(),
        age(object, now),
        text(&object["status"]["nodeInfo"]["kubeletVersion"]).into(),
        address("InternalIP").into(),
        address("ExternalIP").into(),
        info("osImage").into(),
        info("kernelVersion").into(),
        info("containerRuntimeVersion").into(),
    ]
}

fn service(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let ports = join(items(&spec["ports"]).iter().map(|port| {
        let node_port = port["nodePort"].as_u64().filter(|&number| number > 0);
        let node_port = node_port.map_or_else(String::new, |number| format!(":{number}"));
        format!(
            "{}{node_port}/{}",
            port["port"],
            or(text(&port["protocol"]), "TCP")
        )
    }));
    vec![
        name(object),
        or(text(&spec["type"]), "ClusterIP").into(),
        or(text(&spec["clusterIP"]), "<none>").into(),
        external(object).into(),
        or(&ports, "<none>").into(),
        age(object, now),
        pairs(&spec["selector"]).into(),
    ]
}

fn external(service: &Value) -> String {
    let spec = &service["spec"];
    let given = join(
        items(&spec["externalIPs"])
            .iter()
            .map(|it| text(it).to_owned()),
    );
    match text(&spec["type"]) {
        "ExternalName" => text(&spec["externalName"]).to_owned(),
        "LoadBalancer" => {
            let ingress = items(&service["status"]["loadBalancer"]["ingress"]).iter();
            let ingress =
                join(ingress.map(|it| or(text(&it["ip"]), text(&it["hostname"])).to_owned()));
            or(&ingress, or(&given, "<pending>")).to_owned()
        }
        _ => or(&given, "<none>").to_owned(),
    }
}

fn endpoints(object: &Value, now: Timestamp) -> Vec<Value> {
    let subsets = items(&object["subsets"]).iter();
    let all = subsets.flat_map(|subset| {
        items(&subset["addresses"]).iter().flat_map(move |address| {
            let ports = items(&subset["ports"]).iter();
            ports.map(move |port| format!("{}:{}", text(&address["ip"]), port["port"]))
        })
    });
    vec![name(object), some(all.collect()).into(), age(object, now)]
}

fn endpoint_slice(object: &Value, now: Timestamp) -> Vec<Value> {
    let ports = items(&object["ports"]).iter();
    let ports = ports.map(|port| match &port["port"] {
        Value::Null => "*".to_owned(),
        number => number.to_string(),
    });
    let endpoints = items(&object["endpoints"]).iter();
    let addresses = endpoints.flat_map(|endpoint| items(&endpoint["addresses"]));
    let addresses = addresses.map(|address| text(address).to_owned()).collect();
    let ports = some(ports.collect());
    vec![
        name(object),
        object["addressType"].clone(),
        ports.replace("<none>", "<unset>").into(),
        some(addresses).replace("<none>", "<unset>").into(),
        age(object, now),
    ]
}

/// The first three of a list, and how many more there are.
fn some(texts: Vec<String>) -> String {
    const SHOWN: usize = 3;
    if texts.is_empty() {
        return "<none>".to_owned();
    }
    let more = texts.len().saturating_sub(SHOWN);
    let shown = join(texts.into_iter().take(SHOWN));
    if more == 0 {
        return shown;
    }
    format!("{shown} + {more} more...")
}

fn event(object: &Value, now: Timestamp) -> Vec<Value> {
    // Either API's fields, whichever version is shown.
    let either = |one: &str, other: &str| {
        let value = &object[one];
        if value.is_null() {
            object[other].clone()
        } else {
            value.clone()
        }
    };
    let about = either("involvedObject", "regarding");
    let first = either("firstTimestamp", "deprecatedFirstTimestamp");
    let last = either("lastTimestamp", "deprecatedLastTimestamp");
    let noted = object["eventTime"].clone();
    let since = |times: [&Value; 2]| {
        let time = times.into_iter().find(|time| !text(time).is_empty());
        time::since(time.map_or("", text), now)
    };
    let series = text(&object["series"]["lastObservedTime"]);
    let seen = if series.is_empty() {
        since([&last, &noted])
    } else {
        time::since(series, now)
    };
    let source = either("source", "deprecatedSource");
    let reporter = either("reportingComponent", "reportingController");
    let count = either("count", "deprecatedCount")
        .as_u64()
        .or_else(|| object["series"]["count"].as_u64());
    let kind = text(&about["kind"]).to_lowercase();
    vec![
        seen.into(),
        object["type"].clone(),
        object["reason"].clone(),
        format!("{kind}/{}", text(&about["name"])).into(),
        text(&about["fieldPath"]).into(),
        or(text(&source["component"]), text(&reporter)).into(),
        text(&either("message", "note")).trim().into(),
        since([&first, &noted]).into(),
        json!(count.unwrap_or(1).to_string()),
        name(object),
    ]
}

fn binding(object: &Value, now: Timestamp) -> Vec<Value> {
    let role = &object["roleRef"];
    let subjects = |kind: &str| {
        let subjects = items(&object["subjects"])
            .iter()
            .filter(|subject| subject["kind"] == kind);
        join(subjects.map(|subject| {
            let namespace = text(&subject["namespace"]);
            let slash = if namespace.is_empty() { "" } else { "/" };
            format!("{namespace}{slash}{}", text(&subject["name"]))
        }))
    };
    vec![
        name(object),
        format!("{}/{}", text(&role["kind"]), text(&role["name"])).into(),
        age(object, now),
        subjects("User").into(),
        subjects("Group").into(),
        subjects("ServiceAccount").into(),
    ]
}

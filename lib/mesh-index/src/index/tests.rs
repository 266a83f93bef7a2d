//! Objects in, whole values out.

use std::collections::BTreeMap;

use mesh_core::{
    change::Change,
    policy::Authorization,
    service::Service,
    workload::{Locality, Workload, WorkloadType},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Index;
use crate::{
    Key, Kind, Object, Output, Settings,
    output::{Condition, StatusUpdate},
};

mod discovery;
mod entries;
mod limits;
mod noise;
mod pods;
mod policies;
mod sequence;
mod services;
mod statuses;
mod waypoints;

/// An index and all that it has said, as a proxy and a status writer would hold it.
struct Mesh {
    index: Index,
    workloads: BTreeMap<String, Workload>,
    services: BTreeMap<String, Service>,
    policies: BTreeMap<String, Authorization>,
    statuses: BTreeMap<(Kind, Key, &'static str), StatusUpdate>,
    problems: Vec<String>,
}

impl Mesh {
    fn with(settings: Settings, objects: impl IntoIterator<Item = Object>) -> Self {
        let mut mesh = Self {
            index: Index::new(settings),
            workloads: BTreeMap::new(),
            services: BTreeMap::new(),
            policies: BTreeMap::new(),
            statuses: BTreeMap::new(),
            problems: Vec::new(),
        };
        for object in objects {
            mesh.index.apply(object);
        }
        mesh.hear();
        mesh
    }

    fn of(objects: impl IntoIterator<Item = Object>) -> Self {
        Self::with(Settings::default(), objects)
    }

    /// Applies an object and returns what is said about it.
    fn apply(&mut self, object: Object) -> Output {
        self.index.apply(object);
        self.hear()
    }

    fn delete(&mut self, kind: Kind, namespace: &str, name: &str) -> Output {
        self.index.delete(kind, &Key::new(namespace, name));
        self.hear()
    }

    /// Drains the index and takes in what it says.
    fn hear(&mut self) -> Output {
        let output = self.index.drain();
        for change in output.changes.clone() {
            match change {
                Change::Workload(w) => drop(self.workloads.insert(w.uid.to_string(), w)),
                Change::Service(s) => drop(self.services.insert(s.key().to_string(), s)),
                Change::Policy(p) => drop(self.policies.insert(p.key().to_string(), p)),
                Change::RemoveAddress(name) => {
                    let known = self.workloads.remove(&*name).is_some();
                    let known = known || self.services.remove(&*name).is_some();
                    assert!(known, "{name} was removed and never said");
                }
                Change::RemovePolicy(name) => {
                    let known = self.policies.remove(&*name);
                    assert!(known.is_some(), "{name} was removed and never said");
                }
            }
        }
        for status in output.statuses.clone() {
            let id = (status.kind, status.key.clone(), status.reporter);
            self.statuses.insert(id, status);
        }
        let problems = output.problems.iter().map(ToString::to_string);
        self.problems.extend(problems);
        output
    }

    /// The workload whose uid ends like this.
    #[track_caller]
    fn workload(&self, end: &str) -> &Workload {
        let mut found = self.workloads.iter().filter(|(uid, _)| uid.ends_with(end));
        match (found.next(), found.next()) {
            (Some((_, workload)), None) => workload,
            _ => panic!("not one of {:?} ends in {end}", self.workloads.keys()),
        }
    }

    #[track_caller]
    fn service(&self, key: &str) -> &Service {
        let service = self.services.get(key);
        service.unwrap_or_else(|| panic!("no {key} in {:?}", self.services.keys()))
    }

    /// The conditions that were said last about an object.
    fn conditions(&self, kind: Kind, namespace: &str, name: &str) -> Vec<&Condition> {
        let key = Key::new(namespace, name);
        let of = self
            .statuses
            .iter()
            .filter(|((k, n, _), _)| *k == kind && *n == key);
        of.flat_map(|(_, status)| &status.conditions).collect()
    }

    /// `type=status/reason` of each condition.
    fn reasons(&self, kind: Kind, namespace: &str, name: &str) -> Vec<String> {
        let conditions = self.conditions(kind, namespace, name).into_iter();
        conditions
            .map(|c| {
                format!(
                    "{}={}/{}",
                    c.kind.trim_start_matches("istio.io/"),
                    c.status,
                    c.reason
                )
            })
            .collect()
    }
}

// === objects ===

#[expect(clippy::unnecessary_box_returns, reason = "what an Object holds")]
fn read<T: DeserializeOwned>(object: Value) -> Box<T> {
    Box::new(serde_json::from_value(object).unwrap())
}

/// Lays one object over another; null removes what it is laid over.
fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                if value.is_null() {
                    base.remove(&key);
                } else {
                    merge(base.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (base, over) => *base = over,
    }
}

fn merged(mut base: Value, over: Value) -> Value {
    merge(&mut base, over);
    base
}

/// A pod `name` of namespace `shop` on node `n1` with address 10.0.0.1, ready, in the mesh; `over` says
/// what differs.
fn pod(name: &str, over: Value) -> Object {
    let base = json!({
        "metadata": {
            "name": name, "namespace": "shop", "uid": format!("uid-{name}"),
            "labels": {"app": name},
            "annotations": {"ambient.istio.io/redirection": "enabled"},
        },
        "spec": {"nodeName": "n1", "serviceAccountName": "sa", "containers": []},
        "status": {
            "phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    Object::Pod(read(merged(base, over)))
}

/// What that pod comes to.
fn pod_workload(name: &str) -> Workload {
    Workload {
        name: name.into(),
        namespace: "shop".into(),
        service_account: "sa".into(),
        addresses: vec!["10.0.0.1".parse().unwrap()],
        protocol: mesh_core::workload::TunnelProtocol::Hbone,
        node: "n1".into(),
        canonical_name: name.into(),
        canonical_revision: "latest".into(),
        workload_name: name.into(),
        workload_type: WorkloadType::Pod,
        ..Workload::with_uid(format!("Kubernetes//Pod/shop/{name}"))
    }
}

fn node(name: &str, over: Value) -> Object {
    let base = json!({
        "metadata": {"name": name, "labels": {
            "topology.kubernetes.io/region": "r1",
            "topology.kubernetes.io/zone": "z1",
            "topology.istio.io/subzone": "s1",
        }},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    });
    Object::Node(read(merged(base, over)))
}

fn locality() -> Locality {
    Locality {
        region: "r1".into(),
        zone: "z1".into(),
        subzone: "s1".into(),
    }
}

fn namespace(name: &str, over: Value) -> Object {
    let base = json!({"metadata": {"name": name}});
    Object::Namespace(read(merged(base, over)))
}

/// A service `name` of namespace `shop` in front of pods `app: <name>`, port 80 to 8080.
fn service(name: &str, over: Value) -> Object {
    let base = json!({
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "ipFamilies": ["IPv4"],
            "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
        },
    });
    Object::Service(read(merged(base, over)))
}

fn slice(name: &str, service: &str, over: Value) -> Object {
    let base = json!({
        "metadata": {
            "name": name, "namespace": "shop",
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 9090, "protocol": "TCP"}],
        "endpoints": [],
    });
    Object::EndpointSlice(read(merged(base, over)))
}

/// A ServiceEntry of namespace `shop`, port 443.
fn entry(name: &str, over: Value) -> Object {
    let base = json!({
        "metadata": {"name": name, "namespace": "shop", "generation": 1},
        "spec": {
            "hosts": [format!("{name}.example")],
            "ports": [{"number": 443, "name": "tls", "protocol": "TLS"}],
        },
    });
    Object::ServiceEntry(read(merged(base, over)))
}

fn workload_entry(name: &str, over: Value) -> Object {
    let base = json!({
        "metadata": {"name": name, "namespace": "shop", "generation": 1},
        "spec": {"address": "192.0.2.1", "labels": {"app": name}},
    });
    Object::WorkloadEntry(read(merged(base, over)))
}

/// A waypoint of namespace `shop` that is ready.
fn gateway(name: &str, over: Value) -> Object {
    let base = json!({
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "gatewayClassName": "istio-waypoint",
            "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
        },
        "status": {"addresses": [
            {"type": "IPAddress", "value": "10.96.0.99"},
            {"type": "Hostname", "value": format!("{name}.shop.svc.cluster.local")},
        ]},
    });
    Object::Gateway(read(merged(base, over)))
}

fn class(name: &str, over: Value) -> Object {
    let base = json!({
        "metadata": {"name": name},
        "spec": {"controllerName": "istio.io/mesh-controller"},
    });
    Object::GatewayClass(read(merged(base, over)))
}

fn authorization_policy(name: &str, over: Value) -> Object {
    let base =
        json!({"metadata": {"name": name, "namespace": "shop", "generation": 1}, "spec": {}});
    Object::AuthorizationPolicy(read(merged(base, over)))
}

fn peer_authentication(name: &str, over: Value) -> Object {
    let base =
        json!({"metadata": {"name": name, "namespace": "shop", "generation": 1}, "spec": {}});
    Object::PeerAuthentication(read(merged(base, over)))
}

/// What metadata with these labels looks like.
#[expect(clippy::needless_pass_by_value, reason = "takes json! as it comes")]
fn labelled(labels: Value) -> Value {
    json!({"metadata": {"labels": labels}})
}

/// The same with annotations.
#[expect(clippy::needless_pass_by_value, reason = "takes json! as it comes")]
fn annotated(annotations: Value) -> Value {
    json!({"metadata": {"annotations": annotations}})
}

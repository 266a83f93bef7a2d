//! Services: their addresses, node ports and defaults.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, Ipv6Addr},
};

use serde_json::{Map, Value, json};

use crate::{
    meta,
    schema::{Cause, Reason},
    store::{GroupResource, Store},
};

/// Where services are kept.
pub(super) const SERVICES: GroupResource = GroupResource::new("", "services");

/// The start of the service addresses, 10.96.0.0/12 as kubeadm has it.
const FIRST_V4: u32 = Ipv4Addr::new(10, 96, 0, 0).to_bits();
/// Their number, without the first and the last.
const COUNT: u32 = (1 << 20) - 2;
/// The start of the addresses of the second family.
const FIRST_V6: u128 = Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0).to_bits();
/// Node ports and their number, a cluster's defaults.
const FIRST_NODE_PORT: u32 = 30_000;
const NODE_PORTS: u32 = 2_768;

/// Where the search for the next free address and port goes on.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    last: u32,
    last_port: u32,
}

/// What other services have.
#[derive(Debug, Default)]
struct Taken {
    addresses: HashSet<String>,
    ports: HashSet<u64>,
}

// === impl Addresses ===

impl Addresses {
    /// Completes a service: what it asks for is checked, what it lacks is given.
    pub(super) fn assign(
        &mut self,
        store: &Store,
        service: &mut Value,
        old: Option<&Value>,
    ) -> Vec<Cause> {
        let mut causes = Vec::new();
        let Some(spec) = service["spec"].as_object_mut() else {
            return causes;
        };
        complete(spec);
        if text(spec, "type") == "ExternalName" {
            return causes;
        }
        if let Some(old) = old {
            causes.extend(check_immutable(spec, &old["spec"]));
        }
        let given = old.is_none() && !matches!(text(spec, "clusterIP"), "" | "None");
        let allocates = text(spec, "clusterIP").is_empty() || given;
        let exposes = matches!(text(spec, "type"), "NodePort" | "LoadBalancer");
        if allocates || exposes {
            let own = (
                meta::text(service, "namespace"),
                meta::text(service, "name"),
            );
            let taken = Taken::by_others(store, own);
            let Some(spec) = service["spec"].as_object_mut() else {
                return causes;
            };
            causes.extend(taken.refuse(spec));
            self.give(&taken, spec);
        }
        causes
    }

    fn give(&mut self, taken: &Taken, spec: &mut Map<String, Value>) {
        let families = families(spec);
        if text(spec, "clusterIP").is_empty() {
            let number = self.next_address(taken);
            let addresses: Vec<Value> = families
                .iter()
                .map(|family| address(family, number).into())
                .collect();
            spec.insert("clusterIP".to_owned(), addresses[0].clone());
            spec.insert("clusterIPs".to_owned(), addresses.into());
        }
        let dual = if families.len() > 1 {
            "PreferDualStack"
        } else {
            "SingleStack"
        };
        fill(spec, "ipFamilyPolicy", json!(dual));
        fill(spec, "ipFamilies", families.into());
        if let Some(address) = spec.get("clusterIP").cloned() {
            fill(spec, "clusterIPs", json!([address]));
        }
        if matches!(text(spec, "type"), "NodePort" | "LoadBalancer") {
            let mut own = HashSet::new();
            let ports = spec.get_mut("ports").and_then(Value::as_array_mut);
            for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
                if port
                    .get("nodePort")
                    .and_then(Value::as_u64)
                    .unwrap_or_default()
                    == 0
                {
                    let number = self.next_port(taken, &own);
                    own.insert(number);
                    port.insert("nodePort".to_owned(), number.into());
                }
            }
        }
    }

    fn next_address(&mut self, taken: &Taken) -> u32 {
        for _ in 0..COUNT {
            self.last = self.last % COUNT + 1;
            if !taken.addresses.contains(&address("IPv4", self.last)) {
                break;
            }
        }
        self.last
    }

    fn next_port(&mut self, taken: &Taken, own: &HashSet<u64>) -> u64 {
        let mut port = 0;
        for _ in 0..NODE_PORTS {
            self.last_port = (self.last_port + 1) % NODE_PORTS;
            port = u64::from(FIRST_NODE_PORT + self.last_port);
            if !taken.ports.contains(&port) && !own.contains(&port) {
                break;
            }
        }
        port
    }
}

// === impl Taken ===

impl Taken {
    fn by_others(store: &Store, own: (&str, &str)) -> Self {
        let mut taken = Self::default();
        for service in store.list(&SERVICES, None) {
            if own
                == (
                    meta::text(&service, "namespace"),
                    meta::text(&service, "name"),
                )
            {
                continue;
            }
            let addresses = service["spec"]["clusterIPs"]
                .as_array()
                .into_iter()
                .flatten();
            taken
                .addresses
                .extend(addresses.filter_map(|it| it.as_str().map(str::to_owned)));
            let ports = service["spec"]["ports"].as_array().into_iter().flatten();
            taken
                .ports
                .extend(ports.filter_map(|port| port["nodePort"].as_u64()));
        }
        taken
    }

    fn refuse(&self, spec: &Map<String, Value>) -> Option<Cause> {
        let address = text(spec, "clusterIP");
        (address != "None" && self.addresses.contains(address)).then(|| {
            let message = format!("Invalid value: {address:?}: provided IP is already allocated");
            meta::cause("spec.clusterIPs", Reason::Invalid, &message)
        })
    }
}

/// What an update leaves out stays, unless its type has no address any more.
pub(super) fn inherit(service: &mut Value, old: &Value) {
    let old = &old["spec"];
    let Some(spec) = service["spec"].as_object_mut() else {
        return;
    };
    if text(spec, "type") == "ExternalName" {
        return;
    }
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        let absent = spec.get(field).is_none_or(|it| it.is_null() || it == "");
        if absent && !old[field].is_null() {
            spec.insert(field.to_owned(), old[field].clone());
        }
    }
    if matches!(text(spec, "type"), "NodePort" | "LoadBalancer") {
        let before = old["ports"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let ports = spec.get_mut("ports").and_then(Value::as_array_mut);
        for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
            let same = before
                .iter()
                .find(|it| Some(&it["port"]) == port.get("port"));
            if let Some(number) = same.and_then(|it| it["nodePort"].as_u64()) {
                fill(port, "nodePort", number.into());
            }
        }
    }
}

fn complete(spec: &mut Map<String, Value>) {
    fill(spec, "type", json!("ClusterIP"));
    fill(spec, "sessionAffinity", json!("None"));
    let kind = text(spec, "type").to_owned();
    if kind != "ExternalName" {
        fill(spec, "internalTrafficPolicy", json!("Cluster"));
    }
    if matches!(&*kind, "NodePort" | "LoadBalancer") {
        fill(spec, "externalTrafficPolicy", json!("Cluster"));
    }
    if kind == "LoadBalancer" {
        fill(spec, "allocateLoadBalancerNodePorts", json!(true));
    }
    let ports = spec.get_mut("ports").and_then(Value::as_array_mut);
    for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
        fill(port, "protocol", json!("TCP"));
        if let Some(number) = port.get("port").cloned() {
            fill(port, "targetPort", number);
        }
    }
}

fn check_immutable(spec: &Map<String, Value>, old: &Value) -> Option<Cause> {
    let before = old["clusterIP"].as_str().unwrap_or_default();
    let after = text(spec, "clusterIP");
    let fixed = !before.is_empty() && old["type"] != "ExternalName";
    (fixed && after != before).then(|| {
        let message = format!("Invalid value: {after:?}: may not change once set");
        meta::cause("spec.clusterIPs[0]", Reason::Invalid, &message)
    })
}

/// The families that a service wants, the first being that of `clusterIP`.
fn families(spec: &Map<String, Value>) -> Vec<String> {
    let mut families: Vec<String> = spec
        .get("ipFamilies")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|it| it.as_str().map(str::to_owned))
        .collect();
    if families.is_empty() {
        let first = if text(spec, "clusterIP").contains(':') {
            "IPv6"
        } else {
            "IPv4"
        };
        families.push(first.to_owned());
    }
    let dual = matches!(
        text(spec, "ipFamilyPolicy"),
        "PreferDualStack" | "RequireDualStack"
    );
    if dual && families.len() == 1 {
        let second = if families[0] == "IPv4" {
            "IPv6"
        } else {
            "IPv4"
        };
        families.push(second.to_owned());
    }
    families
}

fn address(family: &str, number: u32) -> String {
    if family == "IPv6" {
        Ipv6Addr::from_bits(FIRST_V6 + u128::from(number)).to_string()
    } else {
        Ipv4Addr::from_bits(FIRST_V4 + number).to_string()
    }
}

fn text<'a>(spec: &'a Map<String, Value>, field: &str) -> &'a str {
    spec.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn fill(fields: &mut Map<String, Value>, field: &str, value: Value) {
    let absent = fields
        .get(field)
        .is_none_or(|it| it.is_null() || it == "" || it == 0);
    if absent {
        fields.insert(field.to_owned(), value);
    }
}

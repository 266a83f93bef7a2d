//! Services and what belongs to them.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{Judged, default, immutable, items, items_mut, one_of, port, text, unique};
use crate::schema::Cause;

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

pub(super) fn complete(object: &mut Value) {
    let Some(spec) = object.get_mut("spec") else {
        return;
    };
    default(spec, "internalTrafficPolicy", |spec| {
        (text(spec, "type") != "ExternalName").then(|| json!("Cluster"))
    });
    for port in items_mut(spec, "ports") {
        default(port, "targetPort", |port| port.get("port").cloned());
    }
}

pub(super) fn check(judged: &Judged<'_>, causes: &mut Vec<Cause>) {
    let Some(spec) = judged.object.get("spec") else {
        causes.push(Cause::required("spec", ""));
        return;
    };
    one_of(spec, "type", "spec.type", &TYPES, causes);
    one_of(
        spec,
        "sessionAffinity",
        "spec.sessionAffinity",
        &["ClientIP", "None"],
        causes,
    );
    let ports = items(spec, "ports");
    let headless = text(spec, "clusterIP") == "None";
    let external = text(spec, "type") == "ExternalName";
    if ports.is_empty() && !headless && !external {
        causes.push(Cause::required("spec.ports", ""));
    }
    if external && text(spec, "externalName").is_empty() {
        causes.push(Cause::required("spec.externalName", ""));
    }
    for (index, item) in ports.iter().enumerate() {
        let at = format!("spec.ports[{index}]");
        port(item.get("port"), &format!("{at}.port"), causes);
        port(item.get("targetPort"), &format!("{at}.targetPort"), causes);
        one_of(
            item,
            "protocol",
            &format!("{at}.protocol"),
            &PROTOCOLS,
            causes,
        );
        if ports.len() > 1 && text(item, "name").is_empty() {
            causes.push(Cause::required(format!("{at}.name"), ""));
        }
    }
    unique(ports, "name", "spec.ports", causes);
    let number = |port: &Value| (port.get("port").cloned(), port.get("protocol").cloned());
    for (index, item) in ports.iter().enumerate() {
        if ports
            .iter()
            .take(index)
            .any(|earlier| number(earlier) == number(item))
        {
            let value = json!({"port": item.get("port"), "protocol": item.get("protocol")});
            causes.push(Cause::duplicate(format!("spec.ports[{index}]"), &value));
        }
    }
    let had_address = judged.old.and_then(|old| old.pointer("/spec/clusterIP"));
    if had_address.is_some_and(|address| address != "") && !external {
        immutable(judged, "/spec/clusterIP", "spec.clusterIP", causes);
    }
}

pub(super) fn check_slice(judged: &Judged<'_>, causes: &mut Vec<Cause>) {
    let object = judged.object;
    let kinds = ["FQDN", "IPv4", "IPv6"];
    one_of(object, "addressType", "addressType", &kinds, causes);
    immutable(judged, "/addressType", "addressType", causes);
    let kind = text(object, "addressType");
    for (index, endpoint) in items(object, "endpoints").iter().enumerate() {
        let at = format!("endpoints[{index}].addresses");
        let addresses = items(endpoint, "addresses");
        if addresses.is_empty() {
            causes.push(Cause::required(&at, "must contain at least 1 address"));
        }
        for (index, address) in addresses.iter().enumerate() {
            let parsed = address.as_str().map(str::parse::<IpAddr>);
            let fits = match parsed {
                Some(Ok(IpAddr::V4(_))) => kind != "IPv6",
                Some(Ok(IpAddr::V6(_))) => kind != "IPv4",
                _ => kind == "FQDN",
            };
            if !fits {
                let detail = format!("must be a valid {kind} address");
                causes.push(Cause::invalid(format!("{at}[{index}]"), address, detail));
            }
        }
    }
    for (index, item) in items(object, "ports").iter().enumerate() {
        port(item.get("port"), &format!("ports[{index}].port"), causes);
        one_of(
            item,
            "protocol",
            &format!("ports[{index}].protocol"),
            &PROTOCOLS,
            causes,
        );
    }
}

pub(super) fn check_lease(judged: &Judged<'_>, causes: &mut Vec<Cause>) {
    let Some(spec) = judged.object.get("spec") else {
        return;
    };
    let mut least = |name: &str, least: i64, words: &str| {
        if let Some(value) = spec
            .get(name)
            .filter(|value| value.as_i64().is_some_and(|value| value < least))
        {
            causes.push(Cause::invalid(format!("spec.{name}"), value, words));
        }
    };
    least("leaseDurationSeconds", 1, "must be greater than 0");
    least("leaseTransitions", 0, "must be greater than or equal to 0");
}

pub(super) fn complete_policy(object: &mut Value) {
    let Some(spec) = object.get_mut("spec") else {
        return;
    };
    default(spec, "policyTypes", |spec| {
        let egress = spec.get("egress").is_some();
        Some(if egress {
            json!(["Ingress", "Egress"])
        } else {
            json!(["Ingress"])
        })
    });
}

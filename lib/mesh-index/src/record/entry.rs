//! ServiceEntries.

use std::{collections::HashSet, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mesh_api::{
    annotations, labels,
    mesh_config::Visibility,
    networking::{self, ServiceEntrySpec},
    status::Status,
};

use mesh_core::service::AppProtocol;

use super::{
    Age, Reader, annotation,
    binding::Binding,
    endpoint::{Address, Endpoint, reported},
    excerpt, marked, protocol,
    service::{Distribution, distribution},
};
use crate::{output::AllocatedAddress, text::Labels};

/// What is kept of a ServiceEntry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceEntry {
    pub(crate) age: Age,
    /// Valid host names, each once.
    pub(crate) hosts: Box<[Arc<str>]>,
    pub(crate) addresses: Box<[IpAddr]>,
    pub(crate) ranges: Box<[IpNet]>,
    /// Whether addresses are stated, usable or not. If so, none is allocated.
    pub(crate) addressed: bool,
    /// Whether the object wants no address allocated.
    pub(crate) opted_out: bool,
    /// What the status says has been allocated.
    pub(crate) allocated: Box<[AllocatedAddress]>,
    pub(crate) ports: Box<[Port]>,
    pub(crate) resolution: Resolution,
    pub(crate) endpoints: Box<[Endpoint]>,
    /// The labels of the workloads of the namespace that are endpoints; without labels it is none.
    pub(crate) selector: Option<Labels>,
    pub(crate) visibility: Option<Visibility>,
    pub(crate) subject_alt_names: Box<[Arc<str>]>,
    pub(crate) strategy: Strategy,
    pub(crate) distribution: Option<Distribution>,
    pub(crate) binding: Option<Box<Binding>>,
    pub(crate) generation: i64,
    /// Whether the object's status holds a condition of ours.
    pub(crate) reported: bool,
}

/// A port of a ServiceEntry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) name: Arc<str>,
    pub(crate) number: u16,
    /// The port of endpoints that do not have their own for this name.
    pub(crate) target: u16,
    /// What is spoken, as far as it is stated.
    pub(crate) protocol: Option<AppProtocol>,
}

/// How the endpoints are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resolution {
    /// Connections go where they were going.
    None,
    /// The endpoints have addresses.
    Static,
    /// Names are resolved by the client's proxy.
    Dns,
    /// As `Dns`, and for whichever of the wildcard's names is asked for.
    DynamicDns,
}

/// How the addresses of a name are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strategy {
    /// As ztunnel does.
    Default,
    /// All at once; the first that answers is kept.
    Race,
}

/// Hosts of an entry that are looked at; the schema allows as many.
const MAX_HOSTS: usize = 256;
/// Addresses of an entry that are looked at; the schema allows as many.
const MAX_ADDRESSES: usize = 256;
/// Ports of an entry that are looked at; the schema allows as many.
const MAX_PORTS: usize = 256;
/// Endpoints of an entry that are looked at; the schema allows as many.
const MAX_ENDPOINTS: usize = 4096;
/// Identities of an entry that are looked at.
const MAX_NAMES: usize = 256;
/// Longest identity: a SPIFFE ID (SPIFFE ID §2.3).
const MAX_NAME: usize = 2048;

// === impl ServiceEntry ===

impl ServiceEntry {
    /// What is kept of a ServiceEntry; nothing if no host of it can be used.
    pub(crate) fn read(entry: &networking::ServiceEntry, reader: &mut Reader<'_>) -> Option<Self> {
        let (meta, spec) = (&entry.metadata, &entry.spec);
        let hosts = hosts(spec, reader);
        let resolution = resolution(spec, reader)?;
        if hosts.is_empty() {
            return None;
        }
        let namespace = reader.key().namespace.clone();
        let (addresses, ranges) = addresses(spec, reader);
        let selector = spec.workload_selector.as_ref();
        let selector = selector.map(|selector| reader.label_map(Some(&selector.labels)));
        if selector.as_ref().is_some_and(Labels::is_empty) {
            let reason = "is empty and selects nothing: name at least one label";
            reader.problem("spec.workloadSelector.labels", reason);
        }
        Some(Self {
            age: Age::of(meta),
            hosts,
            addresses,
            ranges,
            addressed: !spec.addresses.is_empty(),
            opted_out: marked(meta, labels::ENABLE_AUTOALLOCATE_IP, "false"),
            allocated: allocated(entry.status.as_ref(), reader),
            ports: ports(spec, reader),
            endpoints: endpoints(spec, resolution, reader),
            resolution,
            selector,
            visibility: export(spec, reader),
            subject_alt_names: names(spec, reader),
            strategy: strategy(meta, resolution, reader),
            distribution: distribution(meta, reader),
            binding: Binding::read(meta, &namespace, reader),
            generation: meta.generation.unwrap_or_default(),
            reported: reported(entry.status.as_ref()),
        })
    }

    /// Whether a name stands for many.
    pub(crate) fn is_wildcard(host: &str) -> bool {
        host.starts_with('*')
    }
}

fn hosts(spec: &ServiceEntrySpec, reader: &mut Reader<'_>) -> Box<[Arc<str>]> {
    let mut hosts = Vec::new();
    let mut known = HashSet::new();
    for (at, host) in reader
        .bounded("spec.hosts", &spec.hosts, MAX_HOSTS)
        .iter()
        .enumerate()
    {
        let host = host.strip_suffix('.').unwrap_or(host);
        if let Some(host) = reader.hostname(&format!("spec.hosts[{at}]"), host, true)
            && known.insert(host.clone())
        {
            hosts.push(host);
        }
    }
    if spec.hosts.is_empty() {
        reader.problem("spec.hosts", "is empty: name at least one host");
    }
    hosts.into()
}

fn resolution(spec: &ServiceEntrySpec, reader: &mut Reader<'_>) -> Option<Resolution> {
    match spec.resolution.as_deref() {
        None | Some("" | "NONE") => Some(Resolution::None),
        Some("STATIC") => Some(Resolution::Static),
        Some("DNS" | "DNS_ROUND_ROBIN") => Some(Resolution::Dns),
        Some("DYNAMIC_DNS") => Some(Resolution::DynamicDns),
        Some(other) => {
            let reason = format!(
                "`{}` is unknown: use NONE, STATIC, DNS, DNS_ROUND_ROBIN or DYNAMIC_DNS; the entry \
                 is not used",
                excerpt(other)
            );
            reader.problem("spec.resolution", reason);
            None
        }
    }
}

fn addresses(spec: &ServiceEntrySpec, reader: &mut Reader<'_>) -> (Box<[IpAddr]>, Box<[IpNet]>) {
    let (mut addresses, mut ranges) = (Vec::new(), Vec::new());
    let all = reader.bounded("spec.addresses", &spec.addresses, MAX_ADDRESSES);
    for (at, text) in all.iter().enumerate() {
        let field = format!("spec.addresses[{at}]");
        if !text.contains('/') {
            let address = reader.ip(&field, text);
            addresses.extend(address);
            continue;
        }
        match text.parse::<IpNet>() {
            Ok(net) if net.prefix_len() == net.max_prefix_len() => addresses.push(net.addr()),
            Ok(net) => ranges.push(net.trunc()),
            Err(_) => reader.problem(
                field,
                format!("`{}` is neither an address nor a prefix", excerpt(text)),
            ),
        }
    }
    addresses.sort_unstable();
    addresses.dedup();
    ranges.sort_unstable();
    ranges.dedup();
    (addresses.into(), ranges.into())
}

fn allocated(status: Option<&Status>, reader: &mut Reader<'_>) -> Box<[AllocatedAddress]> {
    let all = status
        .map(|status| &status.addresses[..])
        .unwrap_or_default();
    let mut allocated = Vec::new();
    // One of each family for each host.
    for address in all.iter().take(2 * MAX_HOSTS) {
        // Written by whoever leads; what it cannot have written is allocated anew.
        if let (Some(host), Ok(value)) = (&address.host, address.value.parse()) {
            let host = reader.text(host);
            allocated.push(AllocatedAddress { host, value });
        }
    }
    allocated.into()
}

fn ports(spec: &ServiceEntrySpec, reader: &mut Reader<'_>) -> Box<[Port]> {
    let mut ports: Vec<Port> = Vec::new();
    let mut known = HashSet::new();
    let all = reader.bounded("spec.ports", &spec.ports, MAX_PORTS);
    for (at, port) in all.iter().enumerate() {
        let field = format!("spec.ports[{at}]");
        let protocol = port.protocol.as_deref().unwrap_or_default();
        if protocol.eq_ignore_ascii_case("UDP") {
            continue;
        }
        let number = reader.port(&format!("{field}.number"), port.number);
        let target = match port.target_port {
            None | Some(0) => number,
            Some(target) => reader.port(&format!("{field}.targetPort"), target),
        };
        let (Some(number), Some(target)) = (number, target) else {
            continue;
        };
        if !known.insert(number) {
            reader.problem(
                format!("{field}.number"),
                format!("{number} stands here twice"),
            );
            continue;
        }
        let name = reader.text(&port.name);
        ports.push(Port {
            name,
            number,
            target,
            protocol: protocol::parse(protocol),
        });
    }
    ports.into()
}

fn endpoints(
    spec: &ServiceEntrySpec,
    resolution: Resolution,
    reader: &mut Reader<'_>,
) -> Box<[Endpoint]> {
    if spec.endpoints.is_empty() {
        return Box::default();
    }
    if spec.workload_selector.is_some() {
        reader.problem(
            "spec.endpoints",
            "are not used, because workloadSelector is set",
        );
        return Box::default();
    }
    if resolution == Resolution::None {
        reader.problem("spec.endpoints", "are not used with resolution NONE");
        return Box::default();
    }
    let mut endpoints = Vec::new();
    let mut known = HashSet::new();
    let all = reader.bounded("spec.endpoints", &spec.endpoints, MAX_ENDPOINTS);
    for (at, spec) in all.iter().enumerate() {
        let field = format!("spec.endpoints[{at}]");
        let Some(endpoint) = Endpoint::read(&field, spec, None, reader) else {
            continue;
        };
        let named = matches!(endpoint.address, Address::Hostname(_));
        if named && resolution == Resolution::Static {
            let reason = "is no IP address, as resolution STATIC needs";
            reader.problem(format!("{field}.address"), reason);
        } else if known.insert(endpoint.address.clone()) {
            endpoints.push(endpoint);
        } else {
            let reason = "stands here twice; the first one is used";
            reader.problem(format!("{field}.address"), reason);
        }
    }
    endpoints.into()
}

/// Only names that clients resolve can have several addresses to choose from.
fn strategy(meta: &ObjectMeta, resolution: Resolution, reader: &mut Reader<'_>) -> Strategy {
    let resolved = matches!(resolution, Resolution::Dns | Resolution::DynamicDns);
    match annotation(meta, annotations::CONNECT_STRATEGY) {
        Some(annotations::CONNECT_STRATEGY_RACE) if resolved => Strategy::Race,
        None | Some(annotations::CONNECT_STRATEGY_RACE | "DEFAULT") => Strategy::Default,
        Some(other) => {
            let field = format!("metadata.annotations[{}]", annotations::CONNECT_STRATEGY);
            let race = annotations::CONNECT_STRATEGY_RACE;
            let reason = format!("`{}` is unknown: use {race}, or none", excerpt(other));
            reader.problem(field, reason);
            Strategy::Default
        }
    }
}

/// Who sees the entry, as far as it says so itself.
fn export(spec: &ServiceEntrySpec, reader: &mut Reader<'_>) -> Option<Visibility> {
    let own = |namespace: &String| namespace == "." || **namespace == *reader.key().namespace;
    let to = &spec.export_to;
    if to.is_empty() || to.iter().any(|namespace| namespace == "*") {
        return None;
    }
    if to.iter().any(|namespace| namespace == "~") {
        return Some(Visibility::None);
    }
    if !to.iter().all(own) {
        reader.problem(
            "spec.exportTo",
            "can be `*`, `.` or `~`: single namespaces cannot be told apart; the entry is seen by its \
             own namespace only",
        );
    }
    Some(Visibility::Namespace)
}

fn names(spec: &ServiceEntrySpec, reader: &mut Reader<'_>) -> Box<[Arc<str>]> {
    let all = reader.bounded("spec.subjectAltNames", &spec.subject_alt_names, MAX_NAMES);
    let mut names = Vec::new();
    for (at, name) in all.iter().enumerate() {
        if name.is_empty() || name.len() > MAX_NAME {
            let reason = format!("has {} bytes instead of 1 to {MAX_NAME}", name.len());
            reader.problem(format!("spec.subjectAltNames[{at}]"), reason);
        } else {
            names.push(reader.text(name));
        }
    }
    names.into()
}

//! What a pod's annotations ask for, and what they say.

use std::collections::BTreeMap;

use mesh_redirect::{Options, model::InterfaceName};

/// Says whether the pod is in the mesh.
pub(crate) const REDIRECTION: &str = "ambient.istio.io/redirection";

/// The pod is in the mesh.
pub(crate) const ENABLED: &str = "enabled";

/// The rules are in, ztunnel does not serve the pod yet.
pub(crate) const PENDING: &str = "pending";

/// Whether plain text reaches the pod without ztunnel.
const BYPASS_INBOUND: &str = "ambient.istio.io/bypass-inbound-capture";

/// Whether ztunnel answers the pod's DNS queries.
const DNS_CAPTURE: &str = "ambient.istio.io/dns-capture";

/// Interfaces of guests in the pod.
const VIRTUAL_INTERFACES: &str = "istio.io/reroute-virtual-interfaces";

/// The sidecar injector was here.
const SIDECAR: &str = "sidecar.istio.io/status";

/// Most interfaces of guests; each adds rules.
const MOST_INTERFACES: usize = 64;

/// Most faults of a pod that are told. Who writes annotations is not to fill the log of the node.
const MOST_INVALID: usize = 8;

/// What a pod's annotations ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Annotations {
    /// Whether it has a sidecar.
    pub(crate) sidecar: bool,
    /// What it says of being in the mesh.
    pub(crate) shown: Shown,
    ingress_mode: Option<bool>,
    dns_capture: Option<bool>,
    virtual_interfaces: Vec<InterfaceName>,
    /// What is not in force, because it cannot be read; the first eight.
    pub(crate) invalid: Vec<Invalid>,
}

/// What the annotation of the mesh says at present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Shown {
    /// It is not there.
    #[default]
    Nothing,
    /// [`PENDING`]
    Pending,
    /// [`ENABLED`]
    Enabled,
    /// What nobody of the mesh writes.
    Other,
}

/// An annotation that has no effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("annotation {name} has no effect: {value:?} is not {expected}")]
pub(crate) struct Invalid {
    name: &'static str,
    value: String,
    expected: &'static str,
}

// === impl Annotations ===

impl Annotations {
    /// Reads those that matter. A value that cannot be read is as if it were not there.
    pub(crate) fn read(annotations: &BTreeMap<String, String>) -> Self {
        let mut read = Self {
            sidecar: annotations.contains_key(SIDECAR),
            shown: Shown::read(annotations.get(REDIRECTION).map(String::as_str)),
            ..Self::default()
        };
        read.ingress_mode = read.boolean(annotations, BYPASS_INBOUND);
        read.dns_capture = read.boolean(annotations, DNS_CAPTURE);
        if let Some(list) = annotations.get(VIRTUAL_INTERFACES) {
            read.interfaces(list);
        }
        read
    }

    fn boolean(&mut self, all: &BTreeMap<String, String>, name: &'static str) -> Option<bool> {
        let value = all.get(name)?;
        let read = boolean(value);
        if read.is_none() {
            self.refuse(name, value, "true or false");
        }
        read
    }

    fn interfaces(&mut self, list: &str) {
        let names = list
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty());
        for (index, name) in names.enumerate() {
            match name.parse() {
                _ if index >= MOST_INTERFACES => {
                    self.refuse(VIRTUAL_INTERFACES, list, "a list of at most 64 interfaces");
                    return;
                }
                Ok(interface) => self.virtual_interfaces.push(interface),
                Err(_invalid) => self.refuse(VIRTUAL_INTERFACES, name, "the name of an interface"),
            }
        }
    }

    fn refuse(&mut self, name: &'static str, value: &str, expected: &'static str) {
        if self.invalid.len() < MOST_INVALID {
            self.invalid.push(Invalid {
                name,
                value: value.chars().take(64).collect(),
                expected,
            });
        }
    }

    /// The rules of a pod with these annotations.
    pub(crate) fn options(&self, default: &Options) -> Options {
        Options {
            dns_capture: self.dns_capture.unwrap_or(default.dns_capture),
            ingress_mode: self.ingress_mode.unwrap_or(default.ingress_mode),
            virtual_interfaces: self.virtual_interfaces.clone(),
            ..default.clone()
        }
    }
}

/// As Istio's agent reads them.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

// === impl Shown ===

impl Shown {
    /// What this value, if any, says.
    pub(crate) fn read(value: Option<&str>) -> Self {
        match value {
            None => Self::Nothing,
            Some(PENDING) => Self::Pending,
            Some(ENABLED) => Self::Enabled,
            Some(_) => Self::Other,
        }
    }

    /// The annotation's value; none for no annotation.
    pub(crate) fn value(self) -> Option<&'static str> {
        match self {
            Self::Pending => Some(PENDING),
            Self::Enabled => Some(ENABLED),
            Self::Nothing | Self::Other => None,
        }
    }
}

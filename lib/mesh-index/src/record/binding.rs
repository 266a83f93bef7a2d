//! Which waypoint an object or namespace chooses.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mesh_api::{annotations, labels};

use super::{Reader, annotation, excerpt};
use crate::{object::Key, settings::WaypointUnready};

/// What an object or namespace says about its waypoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Binding {
    /// The waypoint.
    pub(crate) choice: Choice,
    /// A second one that takes a share of the connections; it goes with the choice of this object.
    pub(crate) canary: Option<Canary>,
    /// What happens when the waypoint cannot take traffic.
    pub(crate) unready: Option<WaypointUnready>,
    /// Whether connections from ingress gateways go through the waypoint too.
    pub(crate) ingress: Option<bool>,
}

/// A choice of waypoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// None is made here; that of the namespace holds.
    Inherit,
    /// No waypoint, whatever the namespace says.
    OptOut,
    /// This Gateway.
    Gateway(Key),
}

/// A second waypoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Canary {
    /// The Gateway.
    pub(crate) gateway: Key,
    /// Its share in percent; `None` if what is written is no share.
    pub(crate) weight: Option<u8>,
}

/// Label or annotation of an object or namespace: what happens to traffic whose waypoint cannot take it.
/// `bypass` lets it go directly; `close`, the default, closes it.
pub(crate) const WAYPOINT_UNREADY: &str = "mesh.lateen.io/waypoint-unready";
const BYPASS: &str = "bypass";
const CLOSE: &str = "close";

impl Binding {
    /// That of an object that says nothing about waypoints.
    const NOTHING: Self = Self {
        choice: Choice::Inherit,
        canary: None,
        unready: None,
        ingress: None,
    };

    /// What the labels and annotations of an object in `namespace`, or of the namespace itself, say;
    /// `None` if they say nothing.
    pub(crate) fn read(
        meta: &ObjectMeta,
        namespace: &Arc<str>,
        reader: &mut Reader<'_>,
    ) -> Option<Box<Self>> {
        let gateway = |name: &str, at: &str, reader: &mut Reader<'_>| Key {
            namespace: match label(meta, at).filter(|namespace| !namespace.is_empty()) {
                Some(namespace) => reader.text(namespace),
                None => namespace.clone(),
            },
            name: reader.text(name),
        };
        let choice = match label(meta, labels::USE_WAYPOINT) {
            None => Choice::Inherit,
            Some("") => {
                reader.problem(
                    format!("metadata.labels[{}]", labels::USE_WAYPOINT),
                    "is empty: name a Gateway, or `none`",
                );
                Choice::Inherit
            }
            Some(labels::USE_WAYPOINT_NONE) => Choice::OptOut,
            Some(name) => Choice::Gateway(gateway(name, labels::USE_WAYPOINT_NAMESPACE, reader)),
        };
        let canary = label(meta, labels::USE_WAYPOINT_CANARY).filter(|name| !name.is_empty());
        let canary = canary.map(|name| Canary {
            gateway: gateway(name, labels::USE_WAYPOINT_CANARY_NAMESPACE, reader),
            weight: annotation(meta, annotations::USE_WAYPOINT_CANARY_WEIGHT)
                .and_then(|weight| weight.parse().ok())
                .filter(|weight| *weight <= 100),
        });
        let binding = Self {
            choice,
            canary,
            unready: unready(meta, reader),
            ingress: ingress(meta, reader),
        };
        (binding != Self::NOTHING).then(|| Box::new(binding))
    }
}

fn label<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(key).map(String::as_str)
}

/// Spelled as Istio takes it.
fn ingress(meta: &ObjectMeta, reader: &mut Reader<'_>) -> Option<bool> {
    let key = labels::INGRESS_USE_WAYPOINT;
    match label(meta, key)? {
        "true" | "True" | "TRUE" | "t" | "T" | "1" => Some(true),
        "false" | "False" | "FALSE" | "f" | "F" | "0" => Some(false),
        other => {
            reader.problem(
                format!("metadata.labels[{key}]"),
                format!("`{}` is unknown: use `true` or `false`", excerpt(other)),
            );
            // Not past what enforces policies because of a slip of the pen.
            Some(true)
        }
    }
}

fn unready(meta: &ObjectMeta, reader: &mut Reader<'_>) -> Option<WaypointUnready> {
    let key = WAYPOINT_UNREADY;
    match annotation(meta, key).or_else(|| label(meta, key))? {
        BYPASS => Some(WaypointUnready::Bypass),
        CLOSE => Some(WaypointUnready::Close),
        other => {
            reader.problem(
                key,
                format!("`{}` is unknown: use `bypass` or `close`", excerpt(other)),
            );
            // Whoever wrote this wanted something else than the default; the safe one is to close.
            Some(WaypointUnready::Close)
        }
    }
}

//! Which waypoint stands in front of an object.
//!
//! The choice is the object's own, else its namespace's. Where the chosen Gateway cannot take the
//! traffic, the binding stays and leads to a name that proxies cannot reach: connections fail with the
//! waypoint's name as the reason, instead of passing it by and with it the policies that only it can
//! enforce. To pass it by is a choice that somebody must have made.

use std::sync::Arc;

use mesh_api::condition::reason;
use mesh_core::{
    address::{GatewayAddress, GatewayDestination, NamespacedHostname, NetworkAddress},
    route::HBONE_PORT,
    service::WeightedWaypoint,
};

use crate::{
    cluster::Cluster,
    object::Key,
    record::{
        binding::{Binding, Canary, Choice},
        gateway::{Address, Allowed, Gateway, Terms, TrafficType},
        service::Role,
    },
    settings::{WaypointUnready, matches},
};

/// The object that a waypoint is looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) namespace: &'a Arc<str>,
    /// What the object itself says.
    pub(crate) binding: Option<&'a Binding>,
    pub(crate) role: &'a Role,
    pub(crate) side: Side,
    /// The object's own host name, if it is a service.
    pub(crate) hostname: Option<&'a str>,
    /// Whether only its own namespace sees the object: a waypoint elsewhere would show it to others.
    pub(crate) confined: bool,
}

/// The traffic that is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Traffic to the service.
    Service,
    /// Traffic to the workload's own address.
    Workload {
        /// Whether a waypoint for other traffic is a mistake if the object names it: an endpoint has
        /// only what its ServiceEntry names, and there it may be meant for the service.
        explicit: bool,
    },
}

/// What has become of the choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    /// The waypoint to publish.
    pub(crate) gateway: Option<GatewayAddress>,
    /// The waypoints to publish where there are two; else none.
    pub(crate) weighted: Vec<WeightedWaypoint>,
    /// Whether ingress gateways go through the waypoint, or wait for it, too.
    pub(crate) ingress: bool,
    /// What to tell the user.
    pub(crate) verdict: Verdict,
}

/// What to tell the user about a binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing: no waypoint is meant for this object.
    Unbound,
    /// Traffic goes through the waypoint.
    Accepted {
        waypoint: Key,
        /// A second waypoint and its share in percent.
        canary: Option<(Key, u8)>,
        /// Whether connections from ingress gateways do so too.
        ingress: bool,
    },
    /// The waypoint cannot take the traffic.
    Refused {
        waypoint: Key,
        refusal: Refusal,
        /// Whether traffic goes past it.
        bypassed: bool,
    },
    /// Traffic goes through the waypoint, but the second one gets none of it.
    CanaryRefused { waypoint: Key, refusal: Refusal },
}

/// Why a waypoint cannot take traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Missing,
    NotReady,
    Denied,
    /// The waypoint is in another namespace than an object that only its own may see.
    Confined,
    OtherTraffic,
    CanaryWeight,
    CanaryIsPrimary,
    /// The second waypoint itself is refused.
    Canary(Key, Box<Self>),
}

/// A choice, and whether the object made it itself.
struct Reference<'a> {
    gateway: &'a Key,
    own: bool,
    canary: Option<&'a Canary>,
    ingress: bool,
}

/// GatewayClasses of waypoints and of gateways between networks.
const MESH_CLASSES: [&str; 2] = ["istio-waypoint", "istio-east-west"];

/// The waypoint of an object. The Gateways that were looked at are added to `gateways`.
pub(crate) fn resolve(cluster: &Cluster, subject: &Subject<'_>, gateways: &mut Vec<Key>) -> Bound {
    let namespace = cluster.spaces.get(subject.namespace);
    let namespace = namespace.and_then(|space| space.namespace.as_ref());
    let inherited = namespace.and_then(|namespace| namespace.binding.as_deref());
    let Some(reference) = reference(cluster, subject, inherited) else {
        return Bound::UNBOUND;
    };
    if is_machinery(cluster, subject, gateways) {
        return Bound::UNBOUND;
    }
    let waypoint = reference.gateway.clone();
    gateways.push(waypoint.clone());
    match examine(cluster, subject, &waypoint) {
        Ok(gateway) if leads_to(&gateway, subject) => Bound::UNBOUND,
        Ok(gateway) => accepted(cluster, subject, (gateway, waypoint), &reference, gateways),
        Err(Refusal::OtherTraffic) if is_meant_for_others(subject, &reference) => Bound::UNBOUND,
        Err(refusal) => {
            let mut stated = [subject.binding, inherited].into_iter().flatten();
            let stated = stated.find_map(|binding| binding.unready);
            let unready = stated.unwrap_or(cluster.settings.waypoint_unready);
            // A waypoint for workloads only, chosen by the namespace, leaves services alone.
            let elsewhere = refusal == Refusal::OtherTraffic && !reference.own;
            let bypassed = elsewhere || unready == WaypointUnready::Bypass;
            let closed = unreachable(cluster, &waypoint);
            if !bypassed && leads_to(&closed, subject) {
                return Bound::UNBOUND;
            }
            Bound {
                gateway: (!bypassed).then_some(closed),
                weighted: Vec::new(),
                ingress: !bypassed && reference.ingress,
                verdict: Verdict::Refused {
                    waypoint,
                    refusal,
                    bypassed,
                },
            }
        }
    }
}

/// The choice that holds for the object.
fn reference<'a>(
    cluster: &Cluster,
    subject: &Subject<'a>,
    inherited: Option<&'a Binding>,
) -> Option<Reference<'a>> {
    let own = subject.binding;
    let mut stated = [own, inherited].into_iter().flatten();
    let ingress = stated.find_map(|binding| binding.ingress).unwrap_or(false);
    match own.map_or(&Choice::Inherit, |binding| &binding.choice) {
        Choice::OptOut => None,
        Choice::Gateway(gateway) => Some(Reference {
            gateway,
            own: true,
            canary: own.and_then(|binding| binding.canary.as_ref()),
            ingress,
        }),
        Choice::Inherit => {
            let system = **subject.namespace == *cluster.settings.system_namespace;
            let inherited = inherited?;
            match &inherited.choice {
                Choice::Gateway(gateway) if !(system && *subject.role == Role::System) => {
                    let canary = own.and_then(|binding| binding.canary.as_ref());
                    Some(Reference {
                        gateway,
                        own: false,
                        canary: canary.or(inherited.canary.as_ref()),
                        ingress,
                    })
                }
                _ => None,
            }
        }
    }
}

/// Whether the object runs a waypoint or a gateway between networks, in front of which there is none.
fn is_machinery(cluster: &Cluster, subject: &Subject<'_>, gateways: &mut Vec<Key>) -> bool {
    let Role::Gateway { name, mesh } = subject.role else {
        return false;
    };
    if *mesh {
        return true;
    }
    let key = Key {
        namespace: subject.namespace.clone(),
        name: name.clone(),
    };
    let gateway = cluster.gateway(&key);
    gateways.push(key);
    gateway.is_some_and(|(gateway, terms)| {
        let hbone = gateway.listeners.iter().any(|l| l.hbone);
        hbone || terms.binding.is_some() || MESH_CLASSES.contains(&&*gateway.class)
    })
}

/// A waypoint for other traffic is no mistake if the namespace chose it: it is then meant for the other
/// objects of the namespace.
fn is_meant_for_others(subject: &Subject<'_>, reference: &Reference<'_>) -> bool {
    match subject.side {
        Side::Service => false,
        Side::Workload { explicit } => !(reference.own && explicit),
    }
}

/// Where a waypoint takes the subject's traffic, or why it does not.
fn examine(cluster: &Cluster, subject: &Subject<'_>, key: &Key) -> Result<GatewayAddress, Refusal> {
    if subject.confined && *key.namespace != **subject.namespace {
        return Err(Refusal::Confined);
    }
    let (gateway, terms) = cluster.gateway(key).ok_or(Refusal::Missing)?;
    let traffic = terms.traffic.unwrap_or(TrafficType::Service);
    let takes = match (traffic, subject.side) {
        (TrafficType::All, _)
        | (TrafficType::Service, Side::Service)
        | (TrafficType::Workload, Side::Workload { .. }) => true,
        (TrafficType::None | TrafficType::Service | TrafficType::Workload, _) => false,
    };
    if !takes {
        return Err(Refusal::OtherTraffic);
    }
    if !allows(cluster, subject, key, gateway, terms) {
        return Err(Refusal::Denied);
    }
    let destination = match gateway.address.as_ref().ok_or(Refusal::NotReady)? {
        Address::Hostname(hostname) => GatewayDestination::Hostname(NamespacedHostname {
            namespace: key.namespace.clone(),
            hostname: hostname.clone(),
        }),
        Address::Ip(address) => GatewayDestination::Address(NetworkAddress {
            network: cluster.names.network.clone(),
            address: *address,
        }),
    };
    Ok(GatewayAddress {
        destination,
        hbone_mtls_port: HBONE_PORT,
    })
}

/// Whether the listener that takes the mesh's traffic allows the subject's namespace. Without such a
/// listener only the Gateway's own may attach.
fn allows(
    cluster: &Cluster,
    subject: &Subject<'_>,
    key: &Key,
    gateway: &Gateway,
    terms: Terms,
) -> bool {
    let bound = terms.binding.and_then(|binding| binding.port);
    let bound = bound.and_then(|port| gateway.listener(port));
    let hbone = || gateway.listener(HBONE_PORT).filter(|l| l.hbone);
    let listener = bound.or_else(hbone);
    match listener.map_or(&Allowed::Same, |listener| &listener.allowed) {
        Allowed::None => false,
        Allowed::Same => *subject.namespace == key.namespace,
        Allowed::All => true,
        Allowed::Selected(selector) => {
            let space = cluster.spaces.get(subject.namespace);
            let labels = space.and_then(|space| space.labels());
            labels.is_some_and(|labels| matches(selector, labels))
        }
    }
}

/// The waypoint is there; perhaps a second one takes a share.
fn accepted(
    cluster: &Cluster,
    subject: &Subject<'_>,
    (gateway, waypoint): (GatewayAddress, Key),
    reference: &Reference<'_>,
    gateways: &mut Vec<Key>,
) -> Bound {
    let canary = reference.canary.filter(|_| subject.side == Side::Service);
    let Some(canary) = canary else {
        return Bound {
            gateway: Some(gateway),
            weighted: Vec::new(),
            ingress: reference.ingress,
            verdict: Verdict::Accepted {
                waypoint,
                canary: None,
                ingress: reference.ingress,
            },
        };
    };
    gateways.push(canary.gateway.clone());
    let second = match canary.weight {
        _ if canary.gateway == waypoint => Err(Refusal::CanaryIsPrimary),
        None => Err(Refusal::CanaryWeight),
        Some(weight) => examine(cluster, subject, &canary.gateway)
            .map(|gateway| (gateway, weight))
            .map_err(|refusal| Refusal::Canary(canary.gateway.clone(), Box::new(refusal))),
    };
    match second {
        Ok((second, weight)) => Bound {
            weighted: vec![
                WeightedWaypoint {
                    destination: gateway.clone(),
                    weight: u32::from(100 - weight),
                },
                WeightedWaypoint {
                    destination: second,
                    weight: u32::from(weight),
                },
            ],
            gateway: Some(gateway),
            ingress: reference.ingress,
            verdict: Verdict::Accepted {
                waypoint,
                canary: Some((canary.gateway.clone(), weight)),
                ingress: reference.ingress,
            },
        },
        // All traffic keeps going through the first waypoint.
        Err(refusal) => Bound {
            gateway: Some(gateway),
            weighted: Vec::new(),
            ingress: reference.ingress,
            verdict: Verdict::CanaryRefused { waypoint, refusal },
        },
    }
}

/// The name that a waypoint's service would have. Proxies cannot reach it as long as the waypoint is not
/// there, and a waypoint that has not accepted the object does not know it.
fn unreachable(cluster: &Cluster, waypoint: &Key) -> GatewayAddress {
    GatewayAddress {
        destination: GatewayDestination::Hostname(NamespacedHostname {
            namespace: waypoint.namespace.clone(),
            hostname: cluster.hostname(&waypoint.namespace, &waypoint.name),
        }),
        hbone_mtls_port: HBONE_PORT,
    }
}

/// Whether a waypoint is the subject itself.
fn leads_to(gateway: &GatewayAddress, subject: &Subject<'_>) -> bool {
    match (&gateway.destination, subject.hostname) {
        (GatewayDestination::Hostname(name), Some(own)) => {
            name.namespace == *subject.namespace && *name.hostname == *own
        }
        _ => false,
    }
}

// === impl Subject ===

impl<'a> Subject<'a> {
    /// An application's workload that is addressed directly.
    pub(super) fn workload(namespace: &'a Arc<str>, binding: Option<&'a Binding>) -> Self {
        Self {
            namespace,
            binding,
            role: &Role::Application,
            side: Side::Workload { explicit: true },
            hostname: None,
            confined: false,
        }
    }
}

// === impl Bound ===

impl Bound {
    const UNBOUND: Self = Self {
        gateway: None,
        weighted: Vec::new(),
        ingress: false,
        verdict: Verdict::Unbound,
    };
}

// === impl Refusal ===

impl Refusal {
    /// The word for machines.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Missing | Self::NotReady => reason::WAYPOINT_IS_NOT_READY,
            Self::Denied => reason::ATTACHMENT_DENIED,
            Self::Confined => reason::CROSS_NAMESPACE_WAYPOINT_FORBIDDEN,
            Self::OtherTraffic => reason::UNSUPPORTED_TRAFFIC_TYPE,
            Self::CanaryWeight => reason::CANARY_INVALID_WEIGHT,
            Self::CanaryIsPrimary => reason::CANARY_SAME_AS_PRIMARY,
            Self::Canary(_, refusal) => refusal.reason(),
        }
    }

    /// The sentence for people.
    pub(crate) fn explain(&self, waypoint: &Key) -> String {
        match self {
            Self::Missing => format!("waypoint {waypoint} does not exist"),
            Self::NotReady => format!("waypoint {waypoint} is not ready: it has no address yet"),
            Self::Denied => format!(
                "waypoint {waypoint} does not allow this namespace: see allowedRoutes of its listener"
            ),
            Self::Confined => format!(
                "waypoint {waypoint} is in another namespace, and only its own may see this object: \
                 use a waypoint of its namespace, or let the whole mesh see the object"
            ),
            Self::OtherTraffic => format!(
                "waypoint {waypoint} is not for this kind of traffic: see its label \
                 istio.io/waypoint-for"
            ),
            Self::CanaryWeight => "the second waypoint needs a weight from 0 to 100 in annotation \
                 istio.io/use-waypoint-canary-weight"
                .into(),
            Self::CanaryIsPrimary => format!("the second waypoint is {waypoint}, the first one"),
            Self::Canary(canary, refusal) => refusal.explain(canary),
        }
    }
}

//! What goes in: objects, told apart by kind and key.

use std::{fmt, sync::Arc};

use k8s_openapi::{
    api::{
        core::v1::{Namespace, Node, Pod, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use mesh_api::{
    gateway::{Gateway, GatewayClass},
    networking::{ServiceEntry, WorkloadEntry},
    security::{AuthorizationPolicy, PeerAuthentication},
};
use serde::Serialize;

/// An object as the API server gave it. The index takes what it needs and lets go of the rest.
#[derive(Clone, Debug)]
pub enum Object {
    /// A pod.
    Pod(Box<Pod>),
    /// A node.
    Node(Box<Node>),
    /// A namespace.
    Namespace(Box<Namespace>),
    /// A service.
    Service(Box<Service>),
    /// Some of the endpoints of a service.
    EndpointSlice(Box<EndpointSlice>),
    /// A service that the cluster's registry does not hold.
    ServiceEntry(Box<ServiceEntry>),
    /// A workload that is no pod.
    WorkloadEntry(Box<WorkloadEntry>),
    /// A gateway, perhaps a waypoint.
    Gateway(Box<Gateway>),
    /// A kind of gateway.
    GatewayClass(Box<GatewayClass>),
    /// A policy of who may speak to whom.
    AuthorizationPolicy(Box<AuthorizationPolicy>),
    /// A policy of which connections need an identity.
    PeerAuthentication(Box<PeerAuthentication>),
}

/// The kinds of objects that are indexed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum Kind {
    /// `v1` Pod.
    Pod,
    /// `v1` Node.
    Node,
    /// `v1` Namespace.
    Namespace,
    /// `v1` Service.
    Service,
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// `networking.istio.io/v1` ServiceEntry.
    ServiceEntry,
    /// `networking.istio.io/v1` WorkloadEntry.
    WorkloadEntry,
    /// `gateway.networking.k8s.io/v1` Gateway.
    Gateway,
    /// `gateway.networking.k8s.io/v1` GatewayClass.
    GatewayClass,
    /// `security.istio.io/v1` AuthorizationPolicy.
    AuthorizationPolicy,
    /// `security.istio.io/v1` PeerAuthentication.
    PeerAuthentication,
}

/// Which object of a kind. Prints as `namespace/name`, or as the name alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Key {
    /// The namespace; empty for objects of the cluster.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

// === impl Kind ===

impl Kind {
    /// All kinds, in an order that suits a first read: what others refer to comes first.
    pub const ALL: [Self; 11] = [
        Self::Namespace,
        Self::Node,
        Self::GatewayClass,
        Self::Gateway,
        Self::Service,
        Self::ServiceEntry,
        Self::AuthorizationPolicy,
        Self::PeerAuthentication,
        Self::WorkloadEntry,
        Self::EndpointSlice,
        Self::Pod,
    ];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

// === impl Key ===

impl Key {
    /// The key of an object in a namespace; the namespace is empty for objects of the cluster.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

// === impl Object ===

/// What is the same for each kind.
macro_rules! for_each_kind {
    ($($kind:ident),* $(,)?) => {
        impl Kind {
            /// The kind as an object's `kind` spells it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => stringify!($kind),)*
                }
            }
        }

        impl Object {
            /// The tag of this object.
            pub fn kind(&self) -> Kind {
                match self {
                    $(Self::$kind(_) => Kind::$kind,)*
                }
            }

            /// What every object says about itself.
            pub fn metadata(&self) -> &ObjectMeta {
                match self {
                    $(Self::$kind(object) => &object.metadata,)*
                }
            }
        }

        $(impl From<$kind> for Object {
            fn from(object: $kind) -> Self {
                Self::$kind(Box::new(object))
            }
        })*
    };
}

for_each_kind!(
    Pod,
    Node,
    Namespace,
    Service,
    EndpointSlice,
    ServiceEntry,
    WorkloadEntry,
    Gateway,
    GatewayClass,
    AuthorizationPolicy,
    PeerAuthentication,
);

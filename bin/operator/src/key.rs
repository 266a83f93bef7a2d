//! What is reconciled, and how objects are named.

use std::fmt;

use mesh_api::sail::GROUP;
use mesh_render::{Kind, Object};

/// The kinds of custom resources that the operator reconciles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Managed {
    /// The control plane that is wanted.
    Istio,
    /// One control plane.
    IstioRevision,
    /// A name for a control plane.
    IstioRevisionTag,
    /// The CNI agent.
    IstioCni,
    /// The node proxy.
    ZTunnel,
}

/// One custom resource. All of them are objects of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Its kind.
    pub kind: Managed,
    /// Its name.
    pub name: String,
}

/// One object of any kind that may be rendered, or an IstioRevision.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; `None` for an object of the cluster.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

// === impl Managed ===

impl Managed {
    /// All of them, those first on which others depend.
    pub const ALL: [Self; 5] = [
        Self::Istio,
        Self::IstioRevision,
        Self::IstioRevisionTag,
        Self::IstioCni,
        Self::ZTunnel,
    ];

    /// The names that manifests, addresses and permissions use.
    pub const fn kind(self) -> Kind {
        let (kind, plural) = match self {
            Self::Istio => ("Istio", "istios"),
            Self::IstioRevision => ("IstioRevision", "istiorevisions"),
            Self::IstioRevisionTag => ("IstioRevisionTag", "istiorevisiontags"),
            Self::IstioCni => ("IstioCNI", "istiocnis"),
            Self::ZTunnel => ("ZTunnel", "ztunnels"),
        };
        Kind {
            group: GROUP,
            version: "v1",
            kind,
            plural,
            namespaced: false,
        }
    }

    /// The kind that these names stand for, if it is one of ours.
    pub fn of(kind: Kind) -> Option<Self> {
        Self::ALL.into_iter().find(|managed| managed.kind() == kind)
    }

    /// The resource of this name.
    pub fn named(self, name: impl Into<String>) -> Key {
        Key {
            kind: self,
            name: name.into(),
        }
    }
}

impl fmt::Display for Managed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind().kind)
    }
}

// === impl Key ===

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

// === impl ObjectRef ===

impl ObjectRef {
    /// What names `object`.
    pub fn of(object: &Object) -> Self {
        Self {
            kind: object.kind,
            namespace: object.namespace.clone(),
            name: object.name.clone(),
        }
    }

    /// An object of the cluster.
    pub fn global(kind: Kind, name: impl Into<String>) -> Self {
        Self {
            kind,
            namespace: None,
            name: name.into(),
        }
    }

    /// An object of a namespace.
    pub fn namespaced(kind: Kind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            kind,
            namespace: Some(namespace.into()),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectRef {
    /// `Deployment istio-system/istiod`, as conditions and logs name it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.kind)?;
        f.write_str(" ")?;
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.name)
    }
}

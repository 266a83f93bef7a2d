//! What rendering depends on beside the custom resource.

use mesh_api::sail::version::{self, Release};

/// What rendering depends on beside the custom resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The cluster.
    pub platform: Platform,
    /// The release that is asked for, such as `1.30.3`: without the leading `v`, aliases resolved.
    pub release: String,
    /// The images of that release.
    pub images: Images,
    /// Where the cluster's ztunnels run, whose certificates the control plane signs; `ztunnel` where no
    /// ZTunnel says otherwise.
    pub ztunnel_namespace: Option<String>,
}

/// References of images, complete with registry and tag or digest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Images {
    /// The control plane.
    pub istiod: String,
    /// The CNI agent.
    pub cni: String,
    /// The node proxy.
    pub ztunnel: String,
}

/// The cluster, as far as objects differ by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Platform {
    /// Which Kubernetes it is.
    pub kind: PlatformKind,
    /// Whether the nodes run in FIPS mode.
    pub fips: bool,
    /// The cluster's TLS profile, where components are asked to honour it.
    pub tls: Option<TlsProfile>,
}

/// Which Kubernetes a cluster is. The names are those of `global.platform`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlatformKind {
    /// Any other.
    #[default]
    Kubernetes,
    /// OpenShift, also MicroShift and hosted ones.
    OpenShift,
    /// Google's.
    Gke,
    /// k3d.
    K3d,
    /// k3s.
    K3s,
    /// MicroK8s.
    Microk8s,
    /// minikube.
    Minikube,
}

/// What the cluster's administrator wants of TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsProfile {
    /// `TLSV1_2` or `TLSV1_3`, as the mesh configuration names it.
    pub min_version: String,
    /// Cipher suites of TLS 1.2 by their OpenSSL names; empty for TLS 1.3.
    pub ciphers: Vec<String>,
}

// === impl Settings ===

impl Settings {
    /// Those of a release with its own images, on a cluster.
    pub fn released(release: &Release, platform: Platform) -> Self {
        Self {
            platform,
            release: release.tag(),
            images: Images::released(release),
            ztunnel_namespace: None,
        }
    }
}

// === impl Images ===

impl Images {
    /// The images of a release as they are published.
    pub fn released(release: &Release) -> Self {
        let names = version::images();
        let image = |name: &str| format!("{}/{name}:{}", version::hub(), release.tag());
        Self {
            istiod: image(&names.istiod),
            cni: image(&names.cni),
            ztunnel: image(&names.ztunnel),
        }
    }
}

// === impl PlatformKind ===

impl PlatformKind {
    /// The kind of this name; the name of Kubernetes itself may be left empty.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "" | "kubernetes" => Self::Kubernetes,
            "openshift" => Self::OpenShift,
            "gke" => Self::Gke,
            "k3d" => Self::K3d,
            "k3s" => Self::K3s,
            "microk8s" => Self::Microk8s,
            "minikube" => Self::Minikube,
            _ => return None,
        })
    }
}

//! Which Kubernetes a node belongs to.

use serde::Serialize;

use super::Host;

macro_rules! kinds {
    ($($(#[doc = $doc:literal])* $kind:ident: $name:literal, $title:literal;)*) => {
        /// Which Kubernetes it is, where that makes a difference.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
        #[serde(rename_all = "lowercase")]
        pub enum Kind {
            $($(#[doc = $doc])* $kind,)*
            /// Any other.
            #[default]
            Other,
        }

        impl Kind {
            /// As `global.platform` calls it, where it has a value.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                    Self::Other => "other",
                }
            }

            /// As people call it.
            pub const fn title(self) -> &'static str {
                match self {
                    $(Self::$kind => $title,)*
                    Self::Other => "this platform",
                }
            }
        }
    };
}

kinds! {
    /// Red Hat OpenShift, also MicroShift and OKD.
    OpenShift: "openshift", "OpenShift";
    /// Google's.
    Gke: "gke", "GKE";
    /// Amazon's.
    Eks: "eks", "EKS";
    /// Microsoft's.
    Aks: "aks", "AKS";
    /// Canonical's, in a snap.
    MicroK8s: "microk8s", "MicroK8s";
    /// k3s in Docker.
    K3d: "k3d", "k3d";
    /// SUSE's for small machines.
    K3s: "k3s", "k3s";
    /// SUSE's for large ones.
    Rke2: "rke2", "RKE2";
    /// For one's own machine.
    Minikube: "minikube", "minikube";
    /// In Docker, for tests.
    Kind: "kind", "kind";
    /// An operating system with a read-only root and no shell.
    Talos: "talos", "Talos Linux";
    /// Amazon's operating system with a read-only root.
    Bottlerocket: "bottlerocket", "Bottlerocket";
}

/// Folders of a platform on its nodes, where they are not those of everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Folders {
    /// Where plugins go.
    pub(crate) bin: &'static str,
    /// Where the configuration is.
    pub(crate) conf: &'static str,
}

// === impl Kind ===

impl Kind {
    /// The folders that the platform's container runtime, or Multus on it, looks into.
    pub(crate) const fn folders(self) -> Folders {
        let (bin, conf) = match self {
            Self::OpenShift => ("/var/lib/cni/bin", "/etc/cni/multus/net.d"),
            Self::Gke => ("/home/kubernetes/bin", "/etc/cni/net.d"),
            Self::K3s => (
                "/var/lib/rancher/k3s/data/cni",
                "/var/lib/rancher/k3s/agent/etc/cni/net.d",
            ),
            Self::K3d => ("/bin", "/var/lib/rancher/k3s/agent/etc/cni/net.d"),
            Self::MicroK8s => (
                "/var/snap/microk8s/current/opt/cni/bin",
                "/var/snap/microk8s/current/args/cni-network",
            ),
            _ => ("/opt/cni/bin", "/etc/cni/net.d"),
        };
        Folders { bin, conf }
    }

    /// Whether `global.platform` has a value for it, which sets the folders.
    pub(crate) const fn is_value(self) -> bool {
        matches!(
            self,
            Self::OpenShift | Self::Gke | Self::K3s | Self::K3d | Self::MicroK8s | Self::Minikube
        )
    }
}

/// Which Kubernetes the host belongs to. Labels of the platform's own go before the version, which others
/// take over, and the operating system comes last.
pub(super) fn of(host: &Host) -> Kind {
    let Some(node) = &host.node else {
        return of_system(host);
    };
    let labelled = |key: &str| node.labels.contains_key(key);
    let version = node.kubelet_version.as_str();
    if labelled("node.openshift.io/os_id") || labelled("node.openshift.io/os_version") {
        Kind::OpenShift
    } else if version.contains("-gke.") || labelled("cloud.google.com/gke-nodepool") {
        Kind::Gke
    } else if version.contains("-eks-") || labelled("eks.amazonaws.com/nodegroup") {
        Kind::Eks
    } else if labelled("kubernetes.azure.com/cluster") {
        Kind::Aks
    } else if labelled("microk8s.io/cluster") {
        Kind::MicroK8s
    } else if version.contains("+k3s") && node.name.starts_with("k3d-") {
        Kind::K3d
    } else if version.contains("+k3s") {
        Kind::K3s
    } else if version.contains("+rke2") {
        Kind::Rke2
    } else if labelled("minikube.k8s.io/name") {
        Kind::Minikube
    } else if node.provider_id.starts_with("kind://") {
        Kind::Kind
    } else {
        of_system(host)
    }
}

/// By the operating system alone, which is all that is known while the API server does not answer.
fn of_system(host: &Host) -> Kind {
    let id = host.os_release.get("ID").map(String::as_str);
    let variant = host.os_release.get("VARIANT_ID").map(String::as_str);
    let image = host.node.as_ref().map(|node| node.os_image.as_str());
    let image = image.unwrap_or_default();
    match (id, variant) {
        (Some("rhcos" | "scos"), _) | (Some("rhel" | "centos"), Some("coreos")) => Kind::OpenShift,
        (Some("talos"), _) => Kind::Talos,
        (Some("bottlerocket"), _) => Kind::Bottlerocket,
        _ if image.starts_with("Talos") => Kind::Talos,
        _ if image.starts_with("Bottlerocket") => Kind::Bottlerocket,
        _ => Kind::Other,
    }
}

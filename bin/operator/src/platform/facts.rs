//! What was read of the cluster, as it was read.

use std::collections::{BTreeMap, BTreeSet};

use mesh_api::openshift::{APIServerSpec, NetworkSpec};

use super::{Finding, Reason};
use crate::images::Component;

/// What was read of the cluster. What is not there is empty; what could not be read is in
/// [`unread`](Self::unread) too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The node that the operator runs on is in FIPS mode.
    pub fips: bool,
    /// The version of Kubernetes, with what its makers append to it: `v1.30.4+k3s1`.
    pub kubernetes: String,
    /// The API groups that the API server has.
    pub groups: BTreeSet<String>,
    /// All nodes together.
    pub nodes: Nodes,
    /// OpenShift's network settings.
    pub network: Option<NetworkSpec>,
    /// OpenShift's settings of API servers.
    pub api_server: Option<APIServerSpec>,
    /// The version of OpenShift.
    pub openshift: Option<String>,
    /// Where OpenShift's control plane runs: `External` if it is another cluster.
    pub topology: String,
    /// The version of MicroShift.
    pub microshift: Option<String>,
    /// The settings of Cilium.
    pub cilium: Option<BTreeMap<String, String>>,
    /// Programs of meshes that this operator does not manage.
    pub neighbours: Vec<Neighbour>,
    /// What could not be read.
    pub unread: Vec<Unread>,
}

/// What nodes are like, each property once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nodes {
    /// Their processors, as Go names them: `amd64`.
    pub architectures: BTreeSet<String>,
    /// Their operating systems, as they call themselves.
    pub operating_systems: BTreeSet<String>,
    /// Their container runtimes: `containerd://1.7.22`.
    pub runtimes: BTreeSet<String>,
    /// The keys of their labels that tell of a distribution.
    pub marks: BTreeSet<Mark>,
}

/// What a node's labels and name tell of a distribution of Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// minikube.
    Minikube,
    /// MicroK8s.
    Microk8s,
    /// k3d.
    K3d,
}

/// A program of a mesh that this operator does not manage.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbour {
    /// What it does.
    pub role: Role,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Who made it, as far as its labels tell.
    pub maker: Option<&'static str>,
}

/// What a program does in a mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Reconciles the same custom resources.
    Operator,
    /// Is a control plane.
    ControlPlane,
    /// Is a CNI agent.
    Agent,
    /// Is a node proxy.
    Proxy,
    /// Is a ServiceMeshControlPlane of OpenShift Service Mesh 2.
    ServiceMesh2,
}

/// Something that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// What, as in `the network settings`.
    pub what: &'static str,
    /// What cannot be told for lack of it.
    pub unclear: &'static str,
    /// The permission that is missing, as in `get networks.operator.openshift.io`; `None` if that is not
    /// why.
    pub permission: Option<&'static str>,
    /// What the API server said.
    pub why: String,
}

// === impl Facts ===

impl Facts {
    /// Whether the cluster's control plane runs in another cluster.
    pub fn is_hosted(&self) -> bool {
        self.topology == "External"
    }

    /// Whether OVN-Kubernetes sends packets through the host; `None` on other networks.
    pub fn routing_via_host(&self) -> Option<bool> {
        self.network.as_ref()?.routing_via_host()
    }
}

// === impl Unread ===

impl Unread {
    /// As a finding.
    pub(super) fn finding(&self) -> Finding {
        let remedy = match self.permission {
            Some(permission) => format!(
                "Grant the operator `{permission}`, which its manifests do: a cluster administrator \
                 applies them again"
            ),
            None => "It is tried again every ten minutes".to_owned(),
        };
        Finding {
            reason: Reason::NotReadable,
            concerns: &Component::ALL,
            message: format!(
                "The operator cannot read {}, so that it does not know {} ({})",
                self.what, self.unclear, self.why
            ),
            remedy,
        }
    }
}

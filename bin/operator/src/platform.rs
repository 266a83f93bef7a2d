//! What kind of cluster this is, as far as the mesh cares, and what stands in the mesh's way on it.
//!
//! ```text
//! API server, /proc ── reader ──▶ facts ── detect ──▶ detected ──▶ rendering (paths, SCCs, FIPS, TLS)
//!                                                        └──────▶ condition PlatformSupported
//! ```
//!
//! Detection is a pure function of what was read. It is done again when the cluster's network or TLS
//! settings change, and every ten minutes. What it finds is reported with the remedy; nothing is ever
//! changed, because all of it belongs to the cluster's administrator.

use std::{collections::BTreeSet, fmt};

use mesh_api::sail::condition::{PLATFORM_SUPPORTED, StatusCondition};
use mesh_render::{Platform, PlatformKind, TlsProfile};

use crate::images::Component;

pub mod facts;
mod neighbours;
mod network;
pub mod read;
pub mod run;
mod tls;
mod versions;

pub use self::facts::Facts;

/// What is known of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Detected {
    /// Which Kubernetes it is, where that makes a difference.
    pub kind: PlatformKind,
    /// The version of Kubernetes, such as `v1.33.2`; empty if it could not be read.
    pub kubernetes: String,
    /// The version of OpenShift, such as `4.19.3`.
    pub openshift: Option<String>,
    /// The version of MicroShift.
    pub microshift: Option<String>,
    /// The control plane of the cluster runs in another cluster.
    pub hosted: bool,
    /// The node that the operator runs on is in FIPS mode. Nodes of a cluster are alike in this.
    pub fips: bool,
    /// The cluster's TLS profile, if all components are asked to honour it.
    pub tls: Option<TlsProfile>,
    /// Whether OVN-Kubernetes sends packets through the host; `None` on other networks.
    pub routing_via_host: Option<bool>,
    /// Operating systems of the nodes, as they call themselves.
    pub operating_systems: BTreeSet<String>,
    /// Container runtimes of the nodes, with their versions.
    pub runtimes: BTreeSet<String>,
    /// What people should know, the gravest first.
    pub findings: Vec<Finding>,
}

/// Something about the cluster that people should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub reason: Reason,
    /// The components that it matters to.
    pub concerns: &'static [Component],
    /// What was found, and what comes of it.
    pub message: String,
    /// What to do, and who can do it.
    pub remedy: String,
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gravity {
    /// The mesh does not work like this.
    Unsupported,
    /// It cannot be told whether the mesh works.
    Undetermined,
    /// The mesh works, and there is something to be aware of.
    Advice,
}

mesh_kube::reasons! {
    /// What a finding is about; its name is the reason of the condition.
    pub enum Reason, gravity: Gravity;
    /// OVN-Kubernetes moves packets past the host's network stack, and with them the kubelet's probes.
    SharedGatewayMode: Unsupported;
    /// Kubernetes or OpenShift is older than what the mesh is made for.
    VersionTooOld: Unsupported;
    /// An operator for the same custom resources runs beside this one.
    OtherOperator: Unsupported;
    /// A CNI agent of another installation runs on the nodes.
    OtherAgent: Unsupported;
    /// A node proxy of another installation runs on the nodes.
    OtherProxy: Unsupported;
    /// Cilium takes the plugin's configuration away.
    CiliumExclusive: Unsupported;
    /// Cilium's masquerading in BPF breaks the kubelet's probes.
    CiliumMasquerade: Unsupported;
    /// Cilium chooses endpoints in the pods' sockets, before the mesh sees the service.
    CiliumSocketBalancing: Unsupported;
    /// Nodes have a processor for which there is no image.
    ArchitectureWithoutImage: Unsupported;
    /// Something could not be read that decides whether the mesh works.
    NotReadable: Undetermined;
    /// The cluster's TLS profile has no cipher suite that the mesh can use.
    NoCommonCipher: Advice;
    /// OpenShift is older than what ambient meshes are supported on.
    VersionUntested: Advice;
    /// A control plane of another installation runs in the cluster.
    OtherControlPlane: Advice;
    /// OpenShift Service Mesh 2 runs in the cluster.
    ServiceMesh2: Advice;
    /// A mesh of another kind is installed.
    OtherMesh: Advice;
    /// MicroShift has other folders for CNI than OpenShift, depending on its packages.
    MicroShiftFolders: Advice;
}

/// Both programs on the nodes.
const NODE: &[Component] = &[Component::Cni, Component::Ztunnel];

// === impl Detected ===

impl Detected {
    /// What `facts` mean.
    pub fn from_facts(facts: &Facts) -> Self {
        let (tls, tls_finding) = tls::profile(facts);
        let mut findings = Vec::new();
        findings.extend(network::findings(facts));
        findings.extend(versions::findings(facts));
        findings.extend(neighbours::findings(facts));
        findings.extend(tls_finding);
        findings.extend(facts.unread.iter().map(facts::Unread::finding));
        findings.sort_by_key(|finding| (finding.reason.gravity(), finding.reason));
        Self {
            kind: versions::kind(facts),
            kubernetes: facts.kubernetes.clone(),
            openshift: facts.openshift.clone(),
            microshift: facts.microshift.clone(),
            hosted: facts.is_hosted(),
            fips: facts.fips,
            tls,
            routing_via_host: facts.routing_via_host(),
            operating_systems: facts.nodes.operating_systems.clone(),
            runtimes: facts.nodes.runtimes.clone(),
            findings,
        }
    }

    /// The cluster as far as objects differ by it.
    pub fn platform(&self) -> Platform {
        Platform {
            kind: self.kind,
            fips: self.fips,
            tls: self.tls.clone(),
        }
    }

    /// Whether `component` works on this cluster, as a condition of its resource.
    pub fn condition(&self, component: Component) -> StatusCondition {
        let concerned = self.findings.iter();
        let concerned = concerned.filter(|finding| finding.concerns.contains(&component));
        let concerned: Vec<_> = concerned.collect();
        let sentences: Vec<_> = concerned.iter().map(ToString::to_string).collect();
        let message = sentences.join(" ");
        let Some(gravest) = concerned.first().map(|finding| finding.reason) else {
            return StatusCondition::holds(PLATFORM_SUPPORTED).because(self.to_string());
        };
        match gravest.gravity() {
            Gravity::Unsupported => {
                StatusCondition::fails(PLATFORM_SUPPORTED, gravest.as_str(), message)
            }
            Gravity::Undetermined => {
                StatusCondition::unknown(PLATFORM_SUPPORTED, gravest.as_str(), message)
            }
            Gravity::Advice => {
                StatusCondition::holds(PLATFORM_SUPPORTED).because(format!("{self}. {message}"))
            }
        }
    }
}

/// `OpenShift 4.19.3 on Kubernetes v1.32.5, hosted control plane, FIPS`
impl fmt::Display for Detected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.openshift, &self.microshift) {
            (_, Some(version)) => write!(f, "MicroShift {version} on ")?,
            (Some(version), None) => write!(f, "OpenShift {version} on ")?,
            (None, None) if self.kind == PlatformKind::OpenShift => f.write_str("OpenShift on ")?,
            _ => {}
        }
        f.write_str("Kubernetes")?;
        if !self.kubernetes.is_empty() {
            write!(f, " {}", self.kubernetes)?;
        }
        if self.hosted {
            f.write_str(", hosted control plane")?;
        }
        if self.fips {
            f.write_str(", FIPS")?;
        }
        Ok(())
    }
}

// === impl Finding ===

/// Two sentences: what was found, and what to do.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}. {}.", self.message, self.remedy)
    }
}

#[cfg(test)]
mod tests;

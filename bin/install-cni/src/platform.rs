//! What the node is, as far as the mesh cares, and what will not work on it.
//!
//! ```text
//! /proc, folders, API server ── gather ──▶ Host ── detect ──▶ Report ──▶ log, metric, debug view
//! ```
//!
//! Detection is a pure function of what was gathered, and nothing is ever changed: what stands in the way
//! belongs to the node's administrator. The operator looks at the cluster in the same way; the agent sees
//! what only a node knows, and is there also where nobody runs the operator.

use std::fmt;

use serde::Serialize;

mod folders;
pub mod gather;
mod host;
mod kernel;
mod kind;
pub mod metrics;
mod network;
#[cfg(test)]
mod tests;

pub use self::{
    host::{
        Cilium, ConfFile, Family, Folder, Host, KernelFeatures, NodeFacts, Presence, SeLinux,
        Unread,
    },
    kind::Kind,
};

/// What was detected on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Which Kubernetes the node belongs to.
    pub kind: Kind,
    /// The operating system, as it calls itself; empty if that is not known.
    pub operating_system: String,
    /// The kernel's release.
    pub kernel: String,
    /// What people should know, the gravest first.
    pub findings: Vec<Finding>,
}

/// Something about the node that people should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// What it is.
    pub reason: Reason,
    /// How much it matters.
    pub severity: Severity,
    /// What was found, and what will not work for it.
    pub message: String,
    /// What to do, and who can do it.
    pub remedy: String,
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Pods do not work in the mesh, or do not get into it.
    Error,
    /// Some pods or some cases do not work.
    Warning,
    /// The mesh works, and there is something to be aware of.
    Advice,
}

mesh_kube::reasons! {
    /// What a finding is about; its name is a label of the metric.
    #[derive(Serialize)]
    pub enum Reason, severity: Severity;
    /// A folder that has to be written to is not there.
    FolderMissing: Error;
    /// A folder that has to be written to is read-only.
    FolderReadOnly: Error;
    /// Programs in the folder of plugins cannot be executed.
    FolderNoExec: Error;
    /// Neither nftables nor iptables has what the rules need.
    NoPacketFilter: Error;
    /// Cilium takes the plugin's configuration away.
    CiliumExclusive: Error;
    /// Cilium's masquerading in BPF breaks the kubelet's probes.
    CiliumMasquerade: Error;
    /// Calico's eBPF data plane is older than the first that lets the kubelet's probes through.
    CalicoBpf: Error;
    /// OVN-Kubernetes moves packets past the host's network stack, and with them the kubelet's probes.
    SharedGatewayMode: Error;
    /// Folders are mounted that this platform's container runtime does not use.
    WrongFolder: Warning;
    /// SELinux keeps the agent from its work.
    SeLinuxConfined: Warning;
    /// Cilium routes packets past the host's network stack.
    CiliumHostRouting: Warning;
    /// Cilium chooses endpoints in the pods' sockets, before the mesh sees the service.
    CiliumSocketBalancing: Warning;
    /// The kubelet's probes of pods with security groups of their own are lost.
    BranchInterfaces: Warning;
    /// Network namespaces are elsewhere than where the agent looks for them.
    NamespaceFolder: Warning;
    /// A configuration that only container runtimes read stands before those that the agent edits.
    UnseenConfiguration: Warning;
    /// Pods on this node have a network stack of their own, which rules of the kernel do not reach.
    SandboxedPods: Warning;
    /// The plugin of another mesh is in the chain.
    OtherMesh: Warning;
    /// Calico's eBPF data plane, of a version that is not known.
    CalicoBpfVersion: Advice;
    /// nftables lacks something; iptables is used.
    NftablesIncomplete: Advice;
    /// The kernel has no IPv6.
    Ipv6Disabled: Advice;
    /// Multus calls the plugin once for each of its networks.
    MultusChained: Advice;
    /// Something could not be read that would tell whether the mesh works.
    NotReadable: Advice;
}

/// What `host` means for the mesh.
pub fn detect(host: &Host) -> Report {
    let kind = kind::of(host);
    let mut findings = Vec::new();
    findings.extend(folders::findings(host, kind));
    findings.extend(kernel::findings(host));
    findings.extend(network::findings(host));
    findings.extend(host.unread.iter().map(Unread::finding));
    findings.sort_by_key(|finding| (finding.severity, finding.reason));
    Report {
        kind,
        operating_system: host.operating_system(),
        kernel: host.kernel.release.clone(),
        findings,
    }
}

// === impl Report ===

impl Report {
    /// Says it once in the log, each finding in the level of its severity.
    pub fn log(&self) {
        tracing::info!(
            platform = self.kind.as_str(),
            os = self.operating_system,
            kernel = self.kernel,
            findings = self.findings.len(),
            "looked at the node"
        );
        for finding in &self.findings {
            let reason = finding.reason.as_str();
            match finding.severity {
                Severity::Error => tracing::error!(reason, "{finding}"),
                Severity::Warning => tracing::warn!(reason, "{finding}"),
                Severity::Advice => tracing::info!(reason, "{finding}"),
            }
        }
    }

    /// Whether this was found.
    pub fn has(&self, reason: Reason) -> bool {
        self.findings.iter().any(|finding| finding.reason == reason)
    }
}

// === impl Finding ===

impl Finding {
    fn new(reason: Reason, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            reason,
            severity: reason.severity(),
            message: message.into(),
            remedy: remedy.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}. {}", self.message, self.remedy)
    }
}

// === impl Severity ===

impl Severity {
    /// One word for metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Advice => "advice",
        }
    }
}

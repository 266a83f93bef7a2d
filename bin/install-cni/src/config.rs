//! What the program is told at its start. Values only; [`args`](crate::args) reads them.

use std::{net::SocketAddr, path::PathBuf};

use mesh_cni::enrolment::Selector;
use mesh_redirect::{Families, options::ProbeAddresses};
use mesh_runtime::log;

use crate::{installer::Mode, kernel::Variant};

/// All of it.
#[derive(Clone, Debug)]
pub struct Config {
    /// The pod that the agent runs in.
    pub pod: Pod,
    /// The node whose pods it looks after.
    pub node: String,
    /// The namespace of the control plane.
    pub system_namespace: String,
    /// How the API server is reached; without one from inside the cluster.
    pub kubeconfig: Option<PathBuf>,
    /// The program's ports.
    pub listen: Listen,
    /// Sockets and files.
    pub paths: Paths,
    /// What is installed on the node, and how.
    pub install: Install,
    /// Which pods belong in the mesh.
    pub enrolment: Enrolment,
    /// What is put into their network namespaces.
    pub rules: Rules,
    /// Whether the plugin stays when the agent ends while its DaemonSet lives on.
    pub safe_upgrade: bool,
    /// Logs.
    pub log: log::Config,
}

/// The pod that the agent runs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
}

/// The program's ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Metrics; `None` for no metrics.
    pub metrics: Option<SocketAddr>,
    /// Liveness and readiness.
    pub probes: SocketAddr,
    /// Debug views and log levels, for the node alone; `None` for none.
    pub debug: Option<SocketAddr>,
}

/// Sockets and files, as this process sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// The directory of the plugin's sockets and of what the plugin reads.
    pub run_dir: PathBuf,
    /// Where ztunnels connect.
    pub ztunnel: PathBuf,
    /// The node's root directory.
    pub host: PathBuf,
    /// The node's network namespace; `None` if it is ours.
    pub host_network: Option<PathBuf>,
    /// The directory with the plugin to be installed.
    pub image_bin: PathBuf,
    /// Where plugins are on the node.
    pub cni_bin: PathBuf,
    /// Where the node's CNI configuration is.
    pub cni_net: PathBuf,
}

/// What is installed on the node, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Install {
    /// What is done with the container runtime's configuration.
    pub mode: Mode,
    /// Whether the group may read files that we make.
    pub group_read: bool,
    /// The level at which the plugin logs.
    pub plugin_log_level: String,
    /// Whether the node is not ready while the agent cannot take pods into the mesh.
    pub status_needs_agent: bool,
}

/// Which pods belong in the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolment {
    /// Selectors of pods and namespaces, of which one has to match.
    pub selectors: Vec<Selector>,
    /// Namespaces whose pods are left alone.
    pub excluded: Vec<String>,
}

/// What is put into the network namespaces of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Whether nftables is used; `None` to find out what the node has.
    pub native_nftables: Option<bool>,
    /// Which of the two iptables; `None` to find out which one the node uses.
    pub iptables: Option<Variant>,
    /// Whether probes are led back from pods with a network interface of the cloud (AWS).
    pub branch_interfaces: bool,
    /// The families that are captured.
    pub families: Families,
    /// Whether ztunnel answers DNS, unless a pod says otherwise.
    pub dns_capture: bool,
    /// Where probes of pods seem to come from.
    pub probes: ProbeAddresses,
}

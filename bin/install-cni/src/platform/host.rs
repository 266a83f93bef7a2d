//! What is gathered about a node.

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, Reason};

/// A node, as far as it tells about itself. Whatever could not be gathered is `None` or empty, and listed in
/// `unread` if it matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// What the API server says about the node.
    pub node: Option<NodeFacts>,
    /// The host's `os-release`.
    pub os_release: BTreeMap<String, String>,
    /// The kernel.
    pub kernel: KernelFeatures,
    /// Values of sysctls by their names with dots, as far as they were asked for.
    pub sysctls: BTreeMap<String, String>,
    /// Where plugins go.
    pub bin_folder: Folder,
    /// Where the CNI configuration is.
    pub conf_folder: Folder,
    /// What is in the CNI configuration folder, in the order in which container runtimes read it.
    pub conf_files: Vec<ConfFile>,
    /// The settings of the Cilium agent that runs on the node.
    pub cilium: Option<Cilium>,
    /// Whether Calico's agent on the node runs its eBPF data plane; `None` if there is none.
    pub calico_bpf: Option<bool>,
    /// SELinux on the host.
    pub selinux: SeLinux,
    /// Where the host keeps network namespaces that have a name, of the folders that are asked for.
    pub netns_folders: BTreeSet<String>,
    /// Those of them that this process sees under the host's root.
    pub netns_mounted: BTreeSet<String>,
    /// Whether IPv6 is asked for.
    pub ipv6_wanted: bool,
    /// Whether the plugin is chained behind another one.
    pub chained: bool,
    /// What could not be read.
    pub unread: Vec<Unread>,
}

/// What the API server says about a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// `spec.providerID`.
    pub provider_id: String,
    /// `status.nodeInfo.kubeletVersion`.
    pub kubelet_version: String,
    /// `status.nodeInfo.osImage`.
    pub os_image: String,
    /// `status.nodeInfo.containerRuntimeVersion`.
    pub container_runtime: String,
    /// The images of the containers that run on it.
    pub images: BTreeSet<String>,
}

/// What the kernel has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelFeatures {
    /// Its release, such as `5.14.0-427.el9.x86_64`.
    pub release: String,
    /// Modules by their names with underscores. What is not asked for is not in here.
    pub modules: BTreeMap<&'static str, Presence>,
}

/// Whether the kernel has a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Loaded, or part of the kernel.
    Present,
    /// In the folder of modules: the kernel loads it when it is needed.
    Loadable,
    /// Nowhere.
    Absent,
    /// The folder of modules cannot be seen.
    Unknown,
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A folder of the host that is mounted into the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folder {
    /// Where this process sees it.
    pub path: String,
    /// Where it is within its file system on the host, if that is known; more or less the path on the host.
    pub on_host: Option<String>,
    /// Whether it is there.
    pub exists: bool,
    /// Whether it is mounted read-only.
    pub read_only: bool,
    /// Whether programs in it cannot be executed.
    pub no_exec: bool,
}

/// A file in the CNI configuration folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfFile {
    /// Its name.
    pub name: String,
    /// The types of its plugins, in order; none if it is no valid configuration.
    pub plugins: Vec<String>,
}

/// Settings of a Cilium agent by their keys in its ConfigMap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cilium {
    /// Those that were asked for and are set; `None` if the agent runs and its settings cannot be read.
    pub settings: Option<BTreeMap<String, String>>,
}

/// SELinux as far as it concerns the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeLinux {
    /// Whether it denies what is not allowed.
    pub enforcing: bool,
    /// The type of this process's context, such as `spc_t`.
    pub domain: Option<String>,
}

/// Something that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// What, and what it would have told.
    pub what: String,
    /// Why not.
    pub why: String,
    /// What helps.
    pub remedy: String,
}

// === impl Host ===

impl Host {
    /// The operating system, as it calls itself.
    pub(super) fn operating_system(&self) -> String {
        let own = self.os_release.get("PRETTY_NAME");
        let told = self.node.as_ref().map(|node| &node.os_image);
        own.or(told).cloned().unwrap_or_default()
    }

    /// A label of the node.
    pub(super) fn label(&self, key: &str) -> Option<&str> {
        Some(self.node.as_ref()?.labels.get(key)?.as_str())
    }

    /// An annotation of the node.
    pub(super) fn annotation(&self, key: &str) -> Option<&str> {
        Some(self.node.as_ref()?.annotations.get(key)?.as_str())
    }

    /// A sysctl, without white space around it.
    pub(super) fn sysctl(&self, name: &str) -> Option<&str> {
        self.sysctls.get(name).map(|value| value.trim())
    }

    /// Whether a plugin of this type is in any configuration.
    pub(super) fn has_plugin(&self, kind: &str) -> bool {
        let mut plugins = self.conf_files.iter().flat_map(|file| &file.plugins);
        plugins.any(|plugin| plugin == kind)
    }
}

// === impl Unread ===

impl Unread {
    pub(super) fn finding(&self) -> Finding {
        let message = format!("Could not read {}: {}", self.what, self.why);
        Finding::new(Reason::NotReadable, message, self.remedy.clone())
    }
}

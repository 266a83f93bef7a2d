//! SecurityContextConstraints: which pods an account may run.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::core::v1::{SELinuxOptions, Volume},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// What pods may ask for whose account may use it. What is not granted here is refused.
///
/// The fields stand at the top of the object; there is no `spec`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "the API has these fields")]
pub struct SecurityContextConstraints {
    /// `security.openshift.io/v1`.
    pub api_version: String,
    /// `SecurityContextConstraints`.
    pub kind: String,
    /// Name, labels and annotations.
    pub metadata: ObjectMeta,
    /// Whether a container may be privileged.
    pub allow_privileged_container: bool,
    /// Whether a container may gain more rights than its parent. Needed with `SYS_ADMIN`.
    pub allow_privilege_escalation: bool,
    /// Whether files and directories of the host may be mounted, all of them: paths cannot be limited.
    pub allow_host_dir_volume_plugin: bool,
    /// Whether a pod may share the host's network.
    pub allow_host_network: bool,
    /// Whether a pod may share the host's processes.
    #[serde(rename = "allowHostPID")]
    pub allow_host_pid: bool,
    /// Whether a pod may share the host's inter-process communication.
    #[serde(rename = "allowHostIPC")]
    pub allow_host_ipc: bool,
    /// Whether a pod may take ports of the host.
    pub allow_host_ports: bool,
    /// Whether the root file system of containers has to be read-only.
    pub read_only_root_filesystem: bool,
    /// Capabilities that a container may add.
    pub allowed_capabilities: Vec<String>,
    /// Capabilities that every container gets.
    pub default_add_capabilities: Vec<String>,
    /// Capabilities that every container loses.
    pub required_drop_capabilities: Vec<String>,
    /// Which users containers may run as.
    pub run_as_user: UserRange,
    /// Which SELinux context containers get.
    pub se_linux_context: Strategy,
    /// Which groups own volumes.
    pub fs_group: Strategy,
    /// Which further groups containers may have.
    pub supplemental_groups: Strategy,
    /// Which seccomp profiles containers may have; the first is given to those that name none.
    pub seccomp_profiles: Vec<String>,
    /// Which kinds of volumes pods may have, see [`VOLUME_SOURCES`].
    pub volumes: Vec<String>,
    /// Accounts that may use it. Ours stay empty: a Role says who may.
    pub users: Vec<String>,
    /// Groups that may use it. Ours stay empty too.
    pub groups: Vec<String>,
    /// Which of several that fit is taken; the higher one wins.
    pub priority: i32,
}

/// Which users containers may run as.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct UserRange {
    /// `RunAsAny`, `MustRunAs`, `MustRunAsRange` or `MustRunAsNonRoot`.
    #[serde(rename = "type")]
    pub type_: String,
    /// The one of `MustRunAs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<i64>,
}

/// How a property of containers is chosen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Strategy {
    /// `RunAsAny` or `MustRunAs`.
    #[serde(rename = "type")]
    pub type_: String,
    /// The SELinux context of `MustRunAs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub se_linux_options: Option<SELinuxOptions>,
}

/// The kinds of volumes that constraints know by name, which is also the name of the field of a volume.
/// An ephemeral volume counts as `ephemeral`.
pub const VOLUME_SOURCES: [&str; 28] = [
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "gitRepo",
    "glusterfs",
    "hostPath",
    "image",
    "iscsi",
    "nfs",
    "persistentVolumeClaim",
    "photonPersistentDisk",
    "portworxVolume",
    "projected",
    "quobyte",
    "rbd",
    "scaleIO",
    "secret",
];

/// The kinds of `volumes`, by their names in [`SecurityContextConstraints::volumes`].
pub fn volume_sources<'a>(volumes: impl IntoIterator<Item = &'a Volume>) -> BTreeSet<&'static str> {
    let mut found = BTreeSet::new();
    for volume in volumes {
        let volume = json!(volume);
        let sources = VOLUME_SOURCES.into_iter();
        found.extend(sources.filter(|source| volume.get(source).is_some()));
    }
    found
}

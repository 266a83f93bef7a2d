//! Folders of the host: whether they can be written to, and whether they are the ones that count.

use std::path::{Component, Path};

use super::{Finding, Folder, Host, Kind, Reason};

/// Where network namespaces with a name are if the container runtime is Docker.
pub(super) const DOCKER_NAMESPACES: &str = "/var/run/docker/netns";

/// What is to be said about folders.
pub(super) fn findings(host: &Host, kind: Kind) -> Vec<Finding> {
    let bin = Use {
        folder: &host.bin_folder,
        what: "CNI plugins",
        value: "cni.cniBinDir",
        expected: kind.folders().bin,
    };
    let conf = Use {
        folder: &host.conf_folder,
        what: "CNI configurations",
        value: "cni.cniConfDir",
        expected: kind.folders().conf,
    };
    let mut findings = Vec::new();
    for used in [&bin, &conf] {
        findings.extend(used.writable(kind).or_else(|| used.meant(kind)));
    }
    findings.extend(bin.executable());
    findings.extend(confined(host));
    findings.extend(namespaces(host));
    findings
}

/// A folder, and what it is used for.
struct Use<'a> {
    folder: &'a Folder,
    what: &'static str,
    /// The value that sets it.
    value: &'static str,
    /// Where it is on this platform.
    expected: &'static str,
}

// === impl Use ===

impl Use<'_> {
    fn writable(&self, kind: Kind) -> Option<Finding> {
        let Folder { path, .. } = self.folder;
        let (reason, fault) = if !self.folder.exists {
            (Reason::FolderMissing, "is not there")
        } else if self.folder.read_only {
            (Reason::FolderReadOnly, "is mounted read-only")
        } else {
            return None;
        };
        let message = format!(
            "The folder of {}, {path}, {fault}, so that new pods start outside of the mesh",
            self.what
        );
        Some(Finding::new(reason, message, self.remedy(kind)))
    }

    fn executable(&self) -> Option<Finding> {
        if !self.folder.no_exec {
            return None;
        }
        let message = format!(
            "The folder of {}, {}, is mounted `noexec`, so that no plugin in it can be called",
            self.what, self.folder.path
        );
        let remedy = format!(
            "Mount the host's file system without `noexec`, or set `{}` to a folder on another one that the \
             container runtime looks into",
            self.value
        );
        Some(Finding::new(Reason::FolderNoExec, message, remedy))
    }

    /// Whether the folder is the one of this platform. Its path on the host is known only from the root of
    /// its file system on, so that the shorter one has to be the end of the longer one.
    fn meant(&self, kind: Kind) -> Option<Finding> {
        let on_host = self.folder.on_host.as_deref()?;
        // Elsewhere the container runtime may be set up in any way.
        if fits(on_host, self.expected) || !kind.is_value() {
            return None;
        }
        let message = format!(
            "The folder of {} is {on_host} on the host, but on {} it is {}: a container runtime that looks \
             there does not find the plugin",
            self.what,
            kind.title(),
            self.expected
        );
        Some(Finding::new(
            Reason::WrongFolder,
            message,
            self.remedy(kind),
        ))
    }

    fn remedy(&self, kind: Kind) -> String {
        if kind.is_value() {
            format!(
                "Set `global.platform` to `{}`, or `{}` to {}",
                kind.as_str(),
                self.value,
                self.expected
            )
        } else {
            format!(
                "Set `{}` to the folder that the container runtime uses and that can be written to",
                self.value
            )
        }
    }
}

/// Whether the shorter of two paths is the end of the longer one. A folder called `current` is a link to any
/// other.
fn fits(on_host: &str, expected: &str) -> bool {
    let found = Path::new(on_host).components().rev();
    let wanted = Path::new(expected).components().rev();
    let mut pairs = found.zip(wanted);
    pairs.all(|(found, wanted)| {
        let is_root = found == Component::RootDir || wanted == Component::RootDir;
        is_root || found == wanted || wanted.as_os_str() == "current"
    })
}

fn confined(host: &Host) -> Option<Finding> {
    let domain = host.selinux.domain.as_deref()?;
    let is_free = ["spc_t", "unconfined_t", "super_t", "control_t", "kernel_t"].contains(&domain);
    if !host.selinux.enforcing || is_free {
        return None;
    }
    let message = format!(
        "SELinux is enforcing and the agent runs as `{domain}`, which may neither change CNI folders nor enter \
         the network namespaces of pods; denials are in the host's audit log"
    );
    let remedy = "Set `cni.seLinuxOptions.type` to `spc_t` (on OpenShift, set `global.platform` to `openshift`)";
    Some(Finding::new(Reason::SeLinuxConfined, message, remedy))
}

/// Network namespaces are asked for by their path on the host.
fn namespaces(host: &Host) -> Option<Finding> {
    let mut unseen = host.netns_folders.difference(&host.netns_mounted);
    let folder = unseen.next()?;
    let message = format!(
        "The container runtime keeps network namespaces in {folder}, which is not mounted into the agent: pods \
         are found by their processes instead, and only once these run"
    );
    let remedy = if folder == DOCKER_NAMESPACES {
        format!("Set `cni.cniNetnsDir` to {folder} (`global.platform: minikube` does)")
    } else {
        format!("Set `cni.cniNetnsDir` to {folder}")
    };
    Some(Finding::new(Reason::NamespaceFolder, message, remedy))
}

//! OpenShift's leave to run the pods of node programs: own SecurityContextConstraints instead of the
//! built-in `privileged`.
//!
//! The constraints grant what the pod asks for and nothing else, because they are read off the pod. Each
//! privilege has its reason beside it, in an annotation. Paths of the host cannot be limited by
//! constraints: that is what is left of `privileged`.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::core::v1::{Container, PodSpec, SELinuxOptions, SeccompProfile, SecurityContext},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use mesh_api::openshift::{
    SECURITY_GROUP, SecurityContextConstraints, Strategy, UserRange, volume_sources,
};
use serde_json::json;

use crate::{
    Object,
    meta::{Installation, texts},
    object::SECURITY_CONTEXT_CONSTRAINTS,
    rbac::{self, named},
};

/// On a pod, the constraints that it has to be admitted under: no others take over, even if its account
/// may use them.
pub const REQUIRED: &str = "openshift.io/required-scc";

/// What `oc describe` and the console show of an object.
const DESCRIPTION: &str = "kubernetes.io/description";

/// The sensitivity level of programs that are not confined to a category of the namespace. Without a level
/// OpenShift would take the namespace's, and refuse the pod for naming none.
const LEVEL: &str = "s0";

/// Why a program needs what it asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reasons {
    /// Whose constraints these are, as a sentence.
    pub(crate) purpose: &'static str,
    /// Capabilities, each with what it is for. The container has these and no others.
    pub(crate) capabilities: &'static [(&'static str, &'static str)],
    /// Why it runs as root.
    pub(crate) root: &'static str,
    /// Why it mounts folders of the host.
    pub(crate) host_path: &'static str,
    /// Why its SELinux context is what it is.
    pub(crate) se_linux: &'static str,
}

/// The constraints called `name` for `pod`, and the leave of `account` to use them.
pub(crate) fn grant(
    of: &Installation,
    name: &str,
    account: &str,
    pod: &PodSpec,
    reasons: &Reasons,
) -> [Object; 3] {
    let constraints = constraints(of, name, pod, reasons);
    let use_it = named(
        SECURITY_GROUP,
        SECURITY_CONTEXT_CONSTRAINTS.plural,
        &[name],
        &["use"],
    );
    let [role, binding] = rbac::role(of, name, vec![use_it], account);
    [
        Object {
            kind: SECURITY_CONTEXT_CONSTRAINTS,
            namespace: None,
            name: name.to_owned(),
            body: json!(constraints),
        },
        role,
        binding,
    ]
}

/// The SELinux context of a container as the values want it; on OpenShift with a level, which constraints
/// need to compare.
pub(crate) fn confinement(
    wanted: Option<SELinuxOptions>,
    openshift: bool,
) -> Option<SELinuxOptions> {
    if !openshift {
        return wanted;
    }
    let mut context = wanted.unwrap_or_default();
    let level = context.level.get_or_insert_default();
    if level.is_empty() {
        LEVEL.clone_into(level);
    }
    Some(context)
}

fn constraints(
    of: &Installation,
    name: &str,
    pod: &PodSpec,
    reasons: &Reasons,
) -> SecurityContextConstraints {
    let any = |test: fn(&SecurityContext) -> Option<bool>| {
        contexts(pod).any(|context| test(context).unwrap_or_default())
    };
    let volumes = volumes(pod);
    let host_network = pod.host_network.unwrap_or_default();
    let granted = SecurityContextConstraints {
        api_version: SECURITY_CONTEXT_CONSTRAINTS.api_version(),
        kind: SECURITY_CONTEXT_CONSTRAINTS.kind.to_owned(),
        allow_privileged_container: any(|context| context.privileged),
        allow_privilege_escalation: any(|context| context.allow_privilege_escalation),
        allow_host_dir_volume_plugin: volumes.contains("hostPath"),
        allow_host_network: host_network,
        allow_host_pid: pod.host_pid.unwrap_or_default(),
        allow_host_ipc: pod.host_ipc.unwrap_or_default(),
        allow_host_ports: host_network || pod.containers.iter().any(takes_host_port),
        read_only_root_filesystem: contexts(pod)
            .all(|context| context.read_only_root_filesystem == Some(true)),
        allowed_capabilities: capabilities(pod),
        run_as_user: user(pod),
        se_linux_context: se_linux(pod),
        fs_group: strategy("RunAsAny"),
        supplemental_groups: strategy("RunAsAny"),
        seccomp_profiles: seccomp(pod),
        volumes: volumes.into_iter().map(Into::into).collect(),
        ..SecurityContextConstraints::default()
    };
    let description = description(&granted, reasons);
    SecurityContextConstraints {
        metadata: ObjectMeta {
            annotations: Some(texts([(DESCRIPTION, description.as_str())])),
            ..of.cluster_meta(name)
        },
        ..granted
    }
}

/// One line per privilege: what, and what it is for.
fn description(granted: &SecurityContextConstraints, reasons: &Reasons) -> String {
    let mut lines = vec![reasons.purpose.to_owned()];
    for capability in &granted.allowed_capabilities {
        let known = reasons.capabilities.iter();
        let reason = known.clone().find(|(name, _)| name == capability);
        let reason = reason.map_or("asked for by spec.values", |(_, reason)| reason);
        lines.push(format!("{capability}: {reason}."));
    }
    let mut say = |granted: bool, what: &str, why: &str| {
        if granted {
            lines.push(format!("{what}: {why}."));
        }
    };
    say(
        granted.allow_privilege_escalation,
        "Privilege escalation",
        "Kubernetes couples it to SYS_ADMIN and does not admit one without the other",
    );
    say(granted.run_as_user.uid == Some(0), "User 0", reasons.root);
    say(
        granted.allow_host_dir_volume_plugin,
        "Folders of the host",
        reasons.host_path,
    );
    say(
        granted.allow_host_network,
        "Network and ports of the host",
        "spec.values.cni.ambient.shareHostNetworkNamespace asks for them",
    );
    say(
        granted.se_linux_context.se_linux_options.is_some(),
        "SELinux context",
        reasons.se_linux,
    );
    lines.join("\n")
}

fn contexts(pod: &PodSpec) -> impl Iterator<Item = &SecurityContext> {
    let containers = pod.containers.iter();
    containers.filter_map(|container| container.security_context.as_ref())
}

fn takes_host_port(container: &Container) -> bool {
    let mut ports = container.ports.iter().flatten();
    ports.any(|port| port.host_port.is_some())
}

fn capabilities(pod: &PodSpec) -> Vec<String> {
    let added = contexts(pod).filter_map(|context| context.capabilities.as_ref()?.add.as_ref());
    let added: BTreeSet<_> = added.flatten().cloned().collect();
    added.into_iter().collect()
}

/// The kinds of volumes of the pod. The token of its account comes in a projected one, which the API
/// server adds.
fn volumes(pod: &PodSpec) -> BTreeSet<&'static str> {
    let mut kinds = volume_sources(pod.volumes.iter().flatten());
    if pod.automount_service_account_token != Some(false) {
        kinds.insert("projected");
    }
    kinds
}

fn user(pod: &PodSpec) -> UserRange {
    let users: BTreeSet<_> = contexts(pod).map(|context| context.run_as_user).collect();
    let users: Vec<_> = users.into_iter().collect();
    match users.as_slice() {
        [Some(user)] => UserRange {
            type_: "MustRunAs".to_owned(),
            uid: Some(*user),
        },
        _ => UserRange {
            type_: "RunAsAny".to_owned(),
            uid: None,
        },
    }
}

fn se_linux(pod: &PodSpec) -> Strategy {
    let options = contexts(pod).find_map(|context| context.se_linux_options.clone());
    Strategy {
        type_: "MustRunAs".to_owned(),
        se_linux_options: options,
    }
}

fn strategy(type_: &str) -> Strategy {
    Strategy {
        type_: type_.to_owned(),
        se_linux_options: None,
    }
}

fn seccomp(pod: &PodSpec) -> Vec<String> {
    let profiles = contexts(pod).filter_map(|context| context.seccomp_profile.as_ref());
    let names: BTreeSet<_> = profiles.map(seccomp_name).collect();
    names.into_iter().collect()
}

/// How constraints name a profile.
fn seccomp_name(profile: &SeccompProfile) -> String {
    match profile.type_.as_str() {
        "Unconfined" => "unconfined".to_owned(),
        "Localhost" => {
            let file = profile.localhost_profile.as_deref();
            format!("localhost/{}", file.unwrap_or_default())
        }
        _ => "runtime/default".to_owned(),
    }
}

#[cfg(test)]
mod tests;

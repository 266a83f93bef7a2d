//! Other meshes in the cluster.

use super::{
    Finding, NODE, Reason,
    facts::{Facts, Neighbour, Role},
};
use crate::images::Component;

/// API groups by which other meshes are known, and what those are called.
const GROUPS: [(&str, &str); 4] = [
    ("consul.hashicorp.com", "Consul"),
    ("kuma.io", "Kuma"),
    ("linkerd.io", "Linkerd"),
    ("policy.linkerd.io", "Linkerd"),
];

/// What is to be said about other meshes.
pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let roles = [
        Role::Operator,
        Role::ControlPlane,
        Role::Agent,
        Role::Proxy,
        Role::ServiceMesh2,
    ];
    let installed = roles.into_iter().filter_map(|role| {
        let neighbours = facts.neighbours.iter();
        let named: Vec<_> = neighbours
            .filter(|neighbour| neighbour.role == role)
            .map(in_words)
            .collect();
        (!named.is_empty()).then(|| finding(role, &named.join(", ")))
    });
    installed.chain(foreign(facts)).collect()
}

/// `istiod in istio-system (made by Helm)`
fn in_words(neighbour: &Neighbour) -> String {
    let Neighbour {
        name,
        namespace,
        maker,
        ..
    } = neighbour;
    match maker {
        Some(maker) => format!("{name} in {namespace} (made by {maker})"),
        None => format!("{name} in {namespace}"),
    }
}

fn finding(role: Role, named: &str) -> Finding {
    let (reason, concerns, message, remedy): (_, &[Component], _, _) = match role {
        Role::Operator => (
            Reason::OtherOperator,
            &Component::ALL,
            format!(
                "Another operator reconciles the same custom resources: {named}. The two undo each \
                     other's work"
            ),
            "Remove it; what it made is taken over. Its custom resources stay if its CRDs are kept",
        ),
        Role::ControlPlane => (
            Reason::OtherControlPlane,
            &[Component::Istiod],
            format!(
                "Another control plane runs in the cluster: {named}. Both distribute their roots in \
                     the namespaces that they see"
            ),
            "Keep their namespaces apart with meshConfig.discoverySelectors, or remove one of them",
        ),
        Role::Agent => (
            Reason::OtherAgent,
            &[Component::Cni],
            format!(
                "Another CNI agent runs on the nodes: {named}. Two agents overwrite each other's \
                     plugin and rules"
            ),
            "Remove one of them",
        ),
        Role::Proxy => (
            Reason::OtherProxy,
            &[Component::Ztunnel],
            format!(
                "Another node proxy runs on the nodes: {named}. The CNI agent hands pods to the \
                     newer of the two"
            ),
            "Remove one of them",
        ),
        Role::ServiceMesh2 => (
            Reason::ServiceMesh2,
            &Component::ALL,
            format!("OpenShift Service Mesh 2 runs in the cluster: {named}"),
            "Keep its member namespaces out of this mesh until they are moved: a pod belongs to one mesh",
        ),
    };
    Finding {
        reason,
        concerns,
        message,
        remedy: remedy.to_owned(),
    }
}

fn foreign(facts: &Facts) -> Option<Finding> {
    let installed = GROUPS
        .iter()
        .filter(|(group, _)| facts.groups.contains(*group));
    let mut names: Vec<_> = installed.map(|(_, name)| *name).collect();
    names.dedup();
    (!names.is_empty()).then(|| Finding {
        reason: Reason::OtherMesh,
        concerns: NODE,
        message: format!("{} is installed in the cluster too", names.join(" and ")),
        remedy: "Keep namespaces and pods in one mesh each".to_owned(),
    })
}

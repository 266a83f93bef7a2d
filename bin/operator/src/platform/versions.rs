//! Which Kubernetes it is, and whether it is new enough.

use mesh_api::openshift::SECURITY_GROUP;
use mesh_render::PlatformKind;

use super::{
    Finding, NODE, Reason,
    facts::{Facts, Mark},
};
use crate::images::Component;

/// The oldest minor release of Kubernetes 1 that the mesh is made for: that of Istio's own operator.
const KUBERNETES: u32 = 27;
/// The oldest minor release of OpenShift 4 that it is made for: the one with [`KUBERNETES`].
const OPENSHIFT: u32 = 14;
/// The oldest minor release of OpenShift 4 on which ambient meshes are supported by its makers.
const OPENSHIFT_AMBIENT: u32 = 19;

/// Processors for which there are images.
const ARCHITECTURES: [&str; 4] = ["amd64", "arm64", "ppc64le", "s390x"];

/// Which Kubernetes it is, where that makes a difference to the objects.
pub(super) fn kind(facts: &Facts) -> PlatformKind {
    let marked = |mark| facts.nodes.marks.contains(&mark);
    let built = |by: &str| facts.kubernetes.contains(by);
    if facts.groups.contains(SECURITY_GROUP) {
        PlatformKind::OpenShift
    } else if built("-gke.") {
        PlatformKind::Gke
    } else if marked(Mark::Microk8s) {
        PlatformKind::Microk8s
    } else if built("+k3s") && marked(Mark::K3d) {
        PlatformKind::K3d
    } else if built("+k3s") {
        PlatformKind::K3s
    } else if marked(Mark::Minikube) && has_docker(facts) {
        // With other runtimes minikube's folders are those of everybody.
        PlatformKind::Minikube
    } else {
        PlatformKind::Kubernetes
    }
}

fn has_docker(facts: &Facts) -> bool {
    let mut runtimes = facts.nodes.runtimes.iter();
    runtimes.any(|runtime| runtime.starts_with("docker:"))
}

/// What is to be said about versions and processors.
pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let all = [openshift(facts), kubernetes(facts), processors(facts)];
    all.into_iter().flatten().collect()
}

fn openshift(facts: &Facts) -> Option<Finding> {
    let version = facts.openshift.as_deref()?;
    let minor = minor(version, 4)?;
    if minor < OPENSHIFT {
        return Some(Finding {
            reason: Reason::VersionTooOld,
            concerns: &Component::ALL,
            message: format!("OpenShift {version} is older than 4.{OPENSHIFT}"),
            remedy: format!("Update the cluster, to 4.{OPENSHIFT_AMBIENT} or later"),
        });
    }
    (minor < OPENSHIFT_AMBIENT).then(|| Finding {
        reason: Reason::VersionUntested,
        concerns: NODE,
        message: format!(
            "Ambient meshes are not tested on OpenShift before 4.{OPENSHIFT_AMBIENT}; this is {version}"
        ),
        remedy: format!("Update the cluster, to 4.{OPENSHIFT_AMBIENT} or later"),
    })
}

fn kubernetes(facts: &Facts) -> Option<Finding> {
    let version = &facts.kubernetes;
    let old = facts.openshift.is_none() && minor(version, 1)? < KUBERNETES;
    old.then(|| Finding {
        reason: Reason::VersionTooOld,
        concerns: &Component::ALL,
        message: format!("Kubernetes {version} is older than 1.{KUBERNETES}"),
        remedy: format!("Update the cluster, to 1.{KUBERNETES} or later"),
    })
}

fn processors(facts: &Facts) -> Option<Finding> {
    let processors = facts.nodes.architectures.iter().map(String::as_str);
    let unknown: Vec<_> = processors
        .filter(|processor| !ARCHITECTURES.contains(processor))
        .collect();
    (!unknown.is_empty()).then(|| Finding {
        reason: Reason::ArchitectureWithoutImage,
        concerns: NODE,
        message: format!(
            "There are nodes with {} processors, for which there is no image; pods on them cannot be in \
             the mesh",
            unknown.join(" and ")
        ),
        remedy: "Keep the components off them with `affinity`, or build images for them".to_owned(),
    })
}

/// The minor release of a version of this major release, such as 30 of `v1.30.4+k3s1`.
fn minor(version: &str, major: u32) -> Option<u32> {
    let mut numbers = version.trim_start_matches('v').split('.');
    let found: u32 = numbers.next()?.parse().ok()?;
    let minor = numbers.next()?;
    let digits = minor.find(|c: char| !c.is_ascii_digit());
    let minor = minor.get(..digits.unwrap_or(minor.len()))?;
    (found == major).then(|| minor.parse().ok()).flatten()
}

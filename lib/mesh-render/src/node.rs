//! What the two programs that run on every node have in common.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetUpdateStrategy, RollingUpdateDaemonSet},
    api::core::v1::{
        Capabilities, EmptyDirVolumeSource, HostPathVolumeSource, LocalObjectReference,
        PodTemplateSpec, ResourceQuota, ResourceQuotaSpec, ResourceRequirements, ScopeSelector,
        ScopedResourceSelectorRequirement, SeccompProfile, Toleration, Volume,
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};
use mesh_api::{
    labels::{DATAPLANE_MODE, dataplane_mode},
    sail::values::ResourceQuotas,
};

use crate::{
    Object,
    meta::{Installation, Texts, texts},
    object::{DAEMON_SET, RESOURCE_QUOTA},
};

mod policy;

pub(crate) use self::policy::network_policy;

/// The priority of what a node cannot do without.
pub(crate) const PRIORITY: &str = "system-node-critical";

/// Pods that a quota admits if the values do not say how many: more than a cluster has nodes.
const QUOTA_PODS: i64 = 5000;

/// The first of these that says something.
pub(crate) fn first<'a>(
    candidates: impl IntoIterator<Item = Option<&'a String>>,
) -> Option<&'a str> {
    let mut texts = candidates.into_iter().flatten().map(String::as_str);
    texts.find(|text| !text.is_empty())
}

/// Whether release `a` is of the minor release 1.`minor` or later. A release that cannot be read is taken
/// for the newest.
pub(crate) fn since(release: &str, minor: u32) -> bool {
    let mut numbers = release.split(['.', '-']);
    let (major, found) = (numbers.next(), numbers.next());
    match (
        major.and_then(|n| n.parse::<u32>().ok()),
        found.and_then(|n| n.parse::<u32>().ok()),
    ) {
        (Some(1), Some(found)) => found >= minor,
        _ => true,
    }
}

/// A DaemonSet of the pods that are `selected`.
pub(crate) fn daemon_set(
    metadata: ObjectMeta,
    selected: Texts,
    template: PodTemplateSpec,
    update: DaemonSetUpdateStrategy,
) -> Object {
    let set = DaemonSet {
        metadata,
        spec: Some(DaemonSetSpec {
            selector: LabelSelector {
                match_labels: Some(selected),
                ..LabelSelector::default()
            },
            template,
            update_strategy: Some(update),
            ..DaemonSetSpec::default()
        }),
        ..DaemonSet::default()
    };
    Object::new(DAEMON_SET, &set)
}

/// Replaces pods on one node at a time: with a surge, the new pod takes over before the old one ends.
pub(crate) fn one_by_one(surge: bool) -> DaemonSetUpdateStrategy {
    let (surge, unavailable) = if surge { (Some(1), 0) } else { (None, 1) };
    DaemonSetUpdateStrategy {
        type_: Some("RollingUpdate".to_owned()),
        rolling_update: Some(RollingUpdateDaemonSet {
            max_surge: surge.map(IntOrString::Int),
            max_unavailable: Some(IntOrString::Int(unavailable)),
        }),
    }
}

/// Labels of pods: the user's, what they are `selected` by, and that the mesh leaves them alone.
pub(crate) fn pod_labels(of: &Installation, users: &Texts, selected: Texts) -> Texts {
    let mut labels = of.labels();
    labels.extend(users.clone());
    labels.extend(selected);
    labels.extend(texts([
        ("sidecar.istio.io/inject", "false"),
        (DATAPLANE_MODE, dataplane_mode::NONE),
    ]));
    labels
}

/// Leaves those objects that `global.resourceScope` asks for.
pub(crate) fn scoped(objects: Vec<Object>, scope: Option<&str>) -> Vec<Object> {
    let wanted = |object: &Object| match scope {
        Some("cluster") => !object.kind.namespaced,
        Some("namespace") => object.kind.namespaced,
        _ => true,
    };
    objects.into_iter().filter(wanted).collect()
}

/// Tolerations of a pod that every node needs, whatever its taints.
pub(crate) fn everywhere() -> Vec<Toleration> {
    let exists = |effect: Option<&str>, key: Option<&str>| Toleration {
        effect: effect.map(Into::into),
        key: key.map(Into::into),
        operator: Some("Exists".to_owned()),
        ..Toleration::default()
    };
    vec![
        exists(Some("NoSchedule"), None),
        exists(None, Some("CriticalAddonsOnly")),
        exists(Some("NoExecute"), None),
    ]
}

/// Nodes with Linux, and what else is asked of them.
pub(crate) fn on_linux(more: &Texts) -> Texts {
    let mut nodes = texts([("kubernetes.io/os", "linux")]);
    nodes.extend(more.clone());
    nodes
}

/// What a container asks for where the values say nothing.
pub(crate) fn requests(cpu: &str, memory: &str) -> ResourceRequirements {
    let quantities = [("cpu", cpu), ("memory", memory)];
    let quantity = |(name, value): (&str, &str)| (name.to_owned(), Quantity(value.to_owned()));
    ResourceRequirements {
        requests: Some(quantities.map(quantity).into()),
        ..ResourceRequirements::default()
    }
}

/// References of secrets by their names.
pub(crate) fn secrets(names: &[String]) -> Vec<LocalObjectReference> {
    let reference = |name: &String| LocalObjectReference { name: name.clone() };
    names.iter().map(reference).collect()
}

/// A folder of the host; `kind` says whether it has to be there or is made.
pub(crate) fn host_path(name: &str, path: &str, kind: Option<&str>) -> Volume {
    Volume {
        name: name.to_owned(),
        host_path: Some(HostPathVolumeSource {
            path: path.to_owned(),
            type_: kind.map(Into::into),
        }),
        ..Volume::default()
    }
}

/// A folder that goes with the pod.
pub(crate) fn empty_dir(name: &str) -> Volume {
    Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    }
}

/// Drops all capabilities but these.
pub(crate) fn only(capabilities: impl IntoIterator<Item = &'static str>) -> Capabilities {
    Capabilities {
        add: Some(capabilities.into_iter().map(Into::into).collect()),
        drop: Some(vec!["ALL".to_owned()]),
    }
}

/// The runtime's own seccomp profile. It lets pass what the capabilities of a container allow: with
/// `SYS_ADMIN` that is `setns`, `unshare` and `mount`, which is all that the node's programs need of what
/// it otherwise forbids.
pub(crate) fn runtime_default() -> SeccompProfile {
    SeccompProfile {
        type_: "RuntimeDefault".to_owned(),
        ..SeccompProfile::default()
    }
}

/// A quota that admits pods of [`PRIORITY`] to the namespace. Some clusters, GKE's among them, admit them
/// nowhere but in `kube-system` without one.
pub(crate) fn quota(of: &Installation, name: &str, wanted: &ResourceQuotas) -> Option<Object> {
    if !wanted.enabled.unwrap_or_default() {
        return None;
    }
    let pods = Quantity(wanted.pods.unwrap_or(QUOTA_PODS).to_string());
    let critical = ScopedResourceSelectorRequirement {
        operator: "In".to_owned(),
        scope_name: "PriorityClass".to_owned(),
        values: Some(vec![PRIORITY.to_owned()]),
    };
    let quota = ResourceQuota {
        metadata: of.meta(name),
        spec: Some(ResourceQuotaSpec {
            hard: Some(BTreeMap::from([("pods".to_owned(), pods)])),
            scope_selector: Some(ScopeSelector {
                match_expressions: Some(vec![critical]),
            }),
            ..ResourceQuotaSpec::default()
        }),
        ..ResourceQuota::default()
    };
    Some(Object::new(RESOURCE_QUOTA, &quota))
}

#[cfg(test)]
mod tests;

//! Who made a pod: the name and kind that telemetry shows.

use k8s_openapi::{
    api::core::v1::Pod,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use mesh_core::workload::WorkloadType;

use super::annotation;

/// Label by which a Deployment tells its ReplicaSets apart.
const POD_TEMPLATE_HASH: &str = "pod-template-hash";
/// Annotation of the pods of an OpenShift DeploymentConfig.
const DEPLOYMENT_CONFIG: &str = "openshift.io/deployment-config.name";

/// The workload that a pod belongs to, as people know it: a Deployment rather than its ReplicaSet, a
/// CronJob rather than one of its Jobs.
pub(crate) fn workload(pod: &Pod) -> (&str, WorkloadType) {
    let meta = &pod.metadata;
    let Some(owner) = controller(meta) else {
        return (meta.name.as_deref().unwrap_or_default(), WorkloadType::Pod);
    };
    match owner.kind.as_str() {
        "ReplicaSet" => (
            deployment(meta, owner).unwrap_or(&owner.name),
            WorkloadType::Deployment,
        ),
        "ReplicationController" => (
            annotation(meta, DEPLOYMENT_CONFIG).unwrap_or(&owner.name),
            WorkloadType::Deployment,
        ),
        "Job" => match cron_job(&owner.name) {
            Some(name) => (name, WorkloadType::CronJob),
            None => (&owner.name, WorkloadType::Job),
        },
        "CronJob" => (&owner.name, WorkloadType::CronJob),
        // Static pods belong to their node.
        "Node" => (meta.name.as_deref().unwrap_or_default(), WorkloadType::Pod),
        // StatefulSets, DaemonSets and what extensions bring behave like Deployments.
        _ => (&owner.name, WorkloadType::Deployment),
    }
}

fn controller(meta: &ObjectMeta) -> Option<&OwnerReference> {
    let mut owners = meta.owner_references.iter().flatten();
    owners.find(|owner| owner.controller == Some(true))
}

/// A Deployment calls its ReplicaSets `<name>-<hash>` and labels the pods with the hash.
fn deployment<'a>(meta: &'a ObjectMeta, owner: &'a OwnerReference) -> Option<&'a str> {
    let hash = meta.labels.as_ref()?.get(POD_TEMPLATE_HASH)?;
    let name = owner.name.strip_suffix(hash.as_str())?.strip_suffix('-')?;
    (!hash.is_empty() && !name.is_empty()).then_some(name)
}

/// A CronJob calls its Jobs `<name>-<minutes since 1970>`, which has 8 digits until 2160; older
/// Kubernetes wrote seconds, with 10.
fn cron_job(job: &str) -> Option<&str> {
    let (name, time) = job.rsplit_once('-')?;
    let digits = matches!(time.len(), 8 | 10) && time.bytes().all(|c| c.is_ascii_digit());
    (digits && !name.is_empty()).then_some(name)
}

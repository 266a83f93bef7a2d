//! Pods of the mesh's own components, read only as far as they say why one does not come up.

use std::borrow::Cow;

use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{ContainerStatus, Pod, PodCondition},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::Resource;
use serde::Deserialize;

use crate::world::Stuck;

/// A pod of which most is not read.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct ComponentPod {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    node_name: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    conditions: Vec<PodCondition>,
    container_statuses: Vec<ContainerStatus>,
    init_container_statuses: Vec<ContainerStatus>,
}

/// What selects these pods: labels that every component's pods have.
pub(crate) const SELECTOR: &str =
    "app.kubernetes.io/part-of=istio,app.kubernetes.io/name in (istiod,cni,ztunnel)";

/// States in which a container is on its way.
const ON_THE_WAY: [&str; 2] = ["ContainerCreating", "PodInitializing"];

// === impl ComponentPod ===

impl ComponentPod {
    /// Why the pod does not come up, if something is wrong.
    pub(crate) fn stuck(&self) -> Option<Stuck> {
        if self.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let (reason, message) = self.unscheduled().or_else(|| self.waiting())?;
        let mut owners = self.metadata.owner_references.iter().flatten();
        let controller = owners.find(|owner| owner.controller == Some(true));
        Some(Stuck {
            labels: self.metadata.labels.clone().unwrap_or_default(),
            controller: controller.map_or_else(String::new, |owner| owner.name.clone()),
            node: self.spec.node_name.clone(),
            reason,
            message,
        })
    }

    fn unscheduled(&self) -> Option<(String, String)> {
        let mut conditions = self.status.conditions.iter();
        let scheduled = conditions.find(|condition| condition.type_ == "PodScheduled")?;
        let reason = scheduled.reason.clone()?;
        let message = scheduled.message.clone().unwrap_or_default();
        (scheduled.status == "False").then_some((reason, message))
    }

    fn waiting(&self) -> Option<(String, String)> {
        let status = &self.status;
        let mut containers = status
            .init_container_statuses
            .iter()
            .chain(&status.container_statuses);
        containers.find_map(|container| {
            let waiting = container.state.as_ref()?.waiting.as_ref()?;
            let reason = waiting.reason.clone()?;
            if ON_THE_WAY.contains(&reason.as_str()) {
                return None;
            }
            Some((reason, waiting.message.clone().unwrap_or_default()))
        })
    }
}

impl Resource for ComponentPod {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        Pod::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        Pod::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        Pod::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        Pod::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn reason(status: &Value) -> Option<String> {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n"}, "status": status});
        let pod: ComponentPod = serde_json::from_value(pod).unwrap();
        pod.stuck().map(|stuck| stuck.reason)
    }

    fn waiting(reason: &str) -> Value {
        let state = json!({"waiting": {"reason": reason, "message": "m"}});
        json!({"containerStatuses": [{
            "name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 3,
            "state": state,
        }]})
    }

    #[test]
    fn a_pod_says_why_it_does_not_come_up() {
        assert_eq!(
            reason(&waiting("ImagePullBackOff")),
            Some("ImagePullBackOff".into())
        );
        assert_eq!(reason(&waiting("ContainerCreating")), None);
        let unscheduled = json!({"conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "m",
        }]});
        assert_eq!(reason(&unscheduled), Some("Unschedulable".into()));
        assert_eq!(reason(&json!({})), None);
    }
}

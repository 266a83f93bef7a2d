//! How many control planes there are.

use k8s_openapi::{
    api::{
        autoscaling::v2::{
            CrossVersionObjectReference, HorizontalPodAutoscaler, HorizontalPodAutoscalerBehavior,
            HorizontalPodAutoscalerSpec, MetricSpec, MetricTarget, ResourceMetricSource,
        },
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use serde_json::Value;

use super::Plan;
use crate::{
    Error,
    object::{self, Object},
};

/// Whether the number follows the load.
pub(super) fn is_autoscaled(plan: &Plan<'_>) -> bool {
    let pilot = &plan.values.pilot;
    pilot.autoscale_enabled == Some(true)
        && pilot.autoscale_min.is_some()
        && pilot.autoscale_max.is_some()
}

/// The HorizontalPodAutoscaler, if the number follows the load.
pub(super) fn autoscaler(plan: &Plan<'_>) -> Result<Option<Object>, Error> {
    if !is_autoscaled(plan) {
        return Ok(None);
    }
    let pilot = &plan.values.pilot;
    let count = |count: Option<i64>| count.and_then(|count| i32::try_from(count).ok());
    let metrics = [
        metric("cpu", count(pilot.cpu.target_average_utilization)),
        metric("memory", count(pilot.memory.target_average_utilization)),
    ];
    let spec = HorizontalPodAutoscalerSpec {
        behavior: behavior(plan)?,
        max_replicas: count(pilot.autoscale_max).unwrap_or(1),
        metrics: Some(metrics.into_iter().flatten().collect()),
        min_replicas: count(pilot.autoscale_min),
        scale_target_ref: CrossVersionObjectReference {
            api_version: Some(object::DEPLOYMENT.api_version()),
            kind: object::DEPLOYMENT.kind.to_owned(),
            name: plan.name(),
        },
    };
    let mut metadata = plan.installation.meta(&plan.name());
    plan.label(&mut metadata);
    let autoscaler = HorizontalPodAutoscaler {
        metadata,
        spec: Some(spec),
        ..HorizontalPodAutoscaler::default()
    };
    Ok(Some(Object::new(
        object::HORIZONTAL_POD_AUTOSCALER,
        &autoscaler,
    )))
}

fn behavior(plan: &Plan<'_>) -> Result<Option<HorizontalPodAutoscalerBehavior>, Error> {
    let behavior = &plan.values.pilot.autoscale_behavior;
    if behavior.is_empty() {
        return Ok(None);
    }
    let behavior = serde_json::from_value(Value::Object(behavior.clone()));
    behavior.map(Some).map_err(|error| Error::Value {
        path: "pilot.autoscaleBehavior".to_owned(),
        problem: error.to_string(),
    })
}

fn metric(resource: &str, utilization: Option<i32>) -> Option<MetricSpec> {
    Some(MetricSpec {
        resource: Some(ResourceMetricSource {
            name: resource.to_owned(),
            target: MetricTarget {
                average_utilization: Some(utilization?),
                type_: "Utilization".to_owned(),
                ..MetricTarget::default()
            },
        }),
        type_: "Resource".to_owned(),
        ..MetricSpec::default()
    })
}

/// The PodDisruptionBudget, unless there is one control plane only: a node with it could not be drained.
pub(super) fn disruption_budget(plan: &Plan<'_>) -> Option<Object> {
    let pilot = &plan.values.pilot;
    let fewest = if is_autoscaled(plan) {
        pilot.autoscale_min
    } else {
        pilot.replica_count
    };
    let wanted = plan.values.global.default_pod_disruption_budget.enabled == Some(true);
    if !wanted || fewest.unwrap_or(1) <= 1 {
        return None;
    }
    let budget = &pilot.pdb;
    // The API takes one of both.
    let min_available = budget.min_available.clone();
    let min_available = min_available.filter(|_| budget.max_unavailable.is_none());
    let mut metadata = plan.installation.meta(&plan.name());
    plan.label(&mut metadata);
    let budget = PodDisruptionBudget {
        metadata,
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: budget.max_unavailable.clone(),
            min_available,
            selector: Some(LabelSelector {
                match_labels: Some(plan.service_selector()),
                ..LabelSelector::default()
            }),
            unhealthy_pod_eviction_policy: budget.unhealthy_pod_eviction_policy.clone(),
        }),
        ..PodDisruptionBudget::default()
    };
    Some(Object::new(object::POD_DISRUPTION_BUDGET, &budget))
}

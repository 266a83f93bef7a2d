//! Defaults of the built-in kinds, which the API server has in its code rather than in its schemas. What is
//! computed from other fields is in [`builtin_rules`](crate::schema::builtin_rules).

use serde_json::Value;

use super::merge::property;
use crate::schema::parse::Text;

/// The definition without `io.k8s.api.`, the field, and its default as JSON.
const DEFAULTS: [(&str, &str, &str); 71] = [
    (
        "admissionregistration.v1.MutatingWebhook",
        "failurePolicy",
        "\"Fail\"",
    ),
    (
        "admissionregistration.v1.MutatingWebhook",
        "matchPolicy",
        "\"Equivalent\"",
    ),
    (
        "admissionregistration.v1.MutatingWebhook",
        "namespaceSelector",
        "{}",
    ),
    (
        "admissionregistration.v1.MutatingWebhook",
        "objectSelector",
        "{}",
    ),
    (
        "admissionregistration.v1.MutatingWebhook",
        "reinvocationPolicy",
        "\"Never\"",
    ),
    (
        "admissionregistration.v1.MutatingWebhook",
        "timeoutSeconds",
        "10",
    ),
    (
        "admissionregistration.v1.RuleWithOperations",
        "scope",
        "\"*\"",
    ),
    ("admissionregistration.v1.ServiceReference", "port", "443"),
    (
        "admissionregistration.v1.ValidatingWebhook",
        "failurePolicy",
        "\"Fail\"",
    ),
    (
        "admissionregistration.v1.ValidatingWebhook",
        "matchPolicy",
        "\"Equivalent\"",
    ),
    (
        "admissionregistration.v1.ValidatingWebhook",
        "namespaceSelector",
        "{}",
    ),
    (
        "admissionregistration.v1.ValidatingWebhook",
        "objectSelector",
        "{}",
    ),
    (
        "admissionregistration.v1.ValidatingWebhook",
        "timeoutSeconds",
        "10",
    ),
    ("apps.v1.DaemonSetSpec", "revisionHistoryLimit", "10"),
    (
        "apps.v1.DaemonSetSpec",
        "updateStrategy",
        r#"{"type":"RollingUpdate","rollingUpdate":{"maxSurge":0,"maxUnavailable":1}}"#,
    ),
    ("apps.v1.DeploymentSpec", "progressDeadlineSeconds", "600"),
    ("apps.v1.DeploymentSpec", "replicas", "1"),
    ("apps.v1.DeploymentSpec", "revisionHistoryLimit", "10"),
    (
        "apps.v1.DeploymentSpec",
        "strategy",
        r#"{"type":"RollingUpdate","rollingUpdate":{"maxSurge":"25%","maxUnavailable":"25%"}}"#,
    ),
    ("apps.v1.ReplicaSetSpec", "replicas", "1"),
    (
        "apps.v1.StatefulSetSpec",
        "podManagementPolicy",
        "\"OrderedReady\"",
    ),
    ("apps.v1.StatefulSetSpec", "replicas", "1"),
    ("apps.v1.StatefulSetSpec", "revisionHistoryLimit", "10"),
    (
        "apps.v1.StatefulSetSpec",
        "updateStrategy",
        r#"{"type":"RollingUpdate","rollingUpdate":{"partition":0}}"#,
    ),
    (
        "autoscaling.v2.HorizontalPodAutoscalerSpec",
        "minReplicas",
        "1",
    ),
    ("batch.v1.CronJobSpec", "concurrencyPolicy", "\"Allow\""),
    ("batch.v1.CronJobSpec", "failedJobsHistoryLimit", "1"),
    ("batch.v1.CronJobSpec", "successfulJobsHistoryLimit", "3"),
    ("batch.v1.CronJobSpec", "suspend", "false"),
    ("batch.v1.JobSpec", "backoffLimit", "6"),
    ("batch.v1.JobSpec", "completionMode", "\"NonIndexed\""),
    ("batch.v1.JobSpec", "completions", "1"),
    ("batch.v1.JobSpec", "parallelism", "1"),
    ("batch.v1.JobSpec", "suspend", "false"),
    ("core.v1.ConfigMapVolumeSource", "defaultMode", "420"),
    ("core.v1.Container", "resources", "{}"),
    (
        "core.v1.Container",
        "terminationMessagePath",
        "\"/dev/termination-log\"",
    ),
    ("core.v1.Container", "terminationMessagePolicy", "\"File\""),
    ("core.v1.ContainerPort", "protocol", "\"TCP\""),
    ("core.v1.DownwardAPIVolumeSource", "defaultMode", "420"),
    ("core.v1.EndpointPort", "protocol", "\"TCP\""),
    ("core.v1.HTTPGetAction", "path", "\"/\""),
    ("core.v1.HTTPGetAction", "scheme", "\"HTTP\""),
    ("core.v1.HostPathVolumeSource", "type", "\"\""),
    ("core.v1.ObjectFieldSelector", "apiVersion", "\"v1\""),
    (
        "core.v1.PersistentVolumeClaimSpec",
        "volumeMode",
        "\"Filesystem\"",
    ),
    (
        "core.v1.PersistentVolumeSpec",
        "persistentVolumeReclaimPolicy",
        "\"Retain\"",
    ),
    (
        "core.v1.PersistentVolumeSpec",
        "volumeMode",
        "\"Filesystem\"",
    ),
    ("core.v1.PodSpec", "dnsPolicy", "\"ClusterFirst\""),
    ("core.v1.PodSpec", "enableServiceLinks", "true"),
    ("core.v1.PodSpec", "restartPolicy", "\"Always\""),
    ("core.v1.PodSpec", "schedulerName", "\"default-scheduler\""),
    ("core.v1.PodSpec", "securityContext", "{}"),
    ("core.v1.PodSpec", "terminationGracePeriodSeconds", "30"),
    ("core.v1.Probe", "failureThreshold", "3"),
    ("core.v1.Probe", "periodSeconds", "10"),
    ("core.v1.Probe", "successThreshold", "1"),
    ("core.v1.Probe", "timeoutSeconds", "1"),
    ("core.v1.ProjectedVolumeSource", "defaultMode", "420"),
    ("core.v1.Secret", "type", "\"Opaque\""),
    ("core.v1.SecretVolumeSource", "defaultMode", "420"),
    (
        "core.v1.ServiceAccountTokenProjection",
        "expirationSeconds",
        "3600",
    ),
    ("core.v1.ServicePort", "protocol", "\"TCP\""),
    ("core.v1.ServiceSpec", "sessionAffinity", "\"None\""),
    ("core.v1.ServiceSpec", "type", "\"ClusterIP\""),
    ("discovery.v1.EndpointPort", "name", "\"\""),
    ("discovery.v1.EndpointPort", "protocol", "\"TCP\""),
    ("networking.v1.NetworkPolicyPort", "protocol", "\"TCP\""),
    (
        "rbac.v1.RoleRef",
        "apiGroup",
        "\"rbac.authorization.k8s.io\"",
    ),
    ("storage.v1.StorageClass", "reclaimPolicy", "\"Delete\""),
    (
        "storage.v1.StorageClass",
        "volumeBindingMode",
        "\"Immediate\"",
    ),
];

/// Writes the table into the definitions.
pub(super) fn annotate(definitions: &mut Text) {
    for (definition, field, default) in DEFAULTS {
        let property = property(definitions, &format!("api.{definition}"), field);
        if let (Some(property), Ok(default)) = (property, serde_json::from_str::<Value>(default)) {
            property["default"] = default;
        }
    }
}

/// Rows that name no field, or no JSON.
#[cfg(test)]
pub(super) fn unmatched(definitions: &Text) -> Vec<String> {
    let missing = DEFAULTS.into_iter().filter(|(definition, field, default)| {
        let definition = definitions.get(&format!("io.k8s.api.{definition}"));
        let found = definition.and_then(|text| text["properties"].get(field));
        found.is_none() || serde_json::from_str::<Value>(default).is_err()
    });
    missing
        .map(|(definition, field, _)| format!("{definition} {field}"))
        .collect()
}

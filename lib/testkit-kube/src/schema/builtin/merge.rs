//! How lists and maps of the built-in kinds merge, which k8s-openapi's schemas do not say. The facts are
//! those of the API server's own OpenAPI documents for Kubernetes 1.33.

use serde_json::{Value, json};

use crate::schema::parse::Text;

/// Lists of objects: the definition without `io.k8s.`, the field, the key of strategic merge patches (none:
/// such a patch replaces the list), and the keys of server-side apply.
const MAPS: [(&str, &str, &str, &[&str]); 58] = [
    (
        "api.admissionregistration.v1.MutatingWebhook",
        "matchConditions",
        "name",
        &["name"],
    ),
    (
        "api.admissionregistration.v1.MutatingWebhookConfiguration",
        "webhooks",
        "name",
        &["name"],
    ),
    (
        "api.admissionregistration.v1.ValidatingAdmissionPolicySpec",
        "matchConditions",
        "name",
        &["name"],
    ),
    (
        "api.admissionregistration.v1.ValidatingAdmissionPolicySpec",
        "variables",
        "name",
        &["name"],
    ),
    (
        "api.admissionregistration.v1.ValidatingAdmissionPolicyStatus",
        "conditions",
        "",
        &["type"],
    ),
    (
        "api.admissionregistration.v1.ValidatingWebhook",
        "matchConditions",
        "name",
        &["name"],
    ),
    (
        "api.admissionregistration.v1.ValidatingWebhookConfiguration",
        "webhooks",
        "name",
        &["name"],
    ),
    (
        "api.apps.v1.DaemonSetStatus",
        "conditions",
        "type",
        &["type"],
    ),
    (
        "api.apps.v1.DeploymentStatus",
        "conditions",
        "type",
        &["type"],
    ),
    (
        "api.apps.v1.ReplicaSetStatus",
        "conditions",
        "type",
        &["type"],
    ),
    (
        "api.apps.v1.StatefulSetStatus",
        "conditions",
        "type",
        &["type"],
    ),
    (
        "api.autoscaling.v2.HorizontalPodAutoscalerStatus",
        "conditions",
        "type",
        &["type"],
    ),
    (
        "api.certificates.v1.CertificateSigningRequestStatus",
        "conditions",
        "",
        &["type"],
    ),
    ("api.core.v1.Container", "env", "name", &["name"]),
    (
        "api.core.v1.Container",
        "ports",
        "containerPort",
        &["containerPort", "protocol"],
    ),
    (
        "api.core.v1.Container",
        "volumeDevices",
        "devicePath",
        &["devicePath"],
    ),
    (
        "api.core.v1.Container",
        "volumeMounts",
        "mountPath",
        &["mountPath"],
    ),
    (
        "api.core.v1.ContainerStatus",
        "allocatedResourcesStatus",
        "name",
        &["name"],
    ),
    (
        "api.core.v1.ContainerStatus",
        "volumeMounts",
        "mountPath",
        &["mountPath"],
    ),
    ("api.core.v1.EphemeralContainer", "env", "name", &["name"]),
    (
        "api.core.v1.EphemeralContainer",
        "ports",
        "containerPort",
        &["containerPort", "protocol"],
    ),
    (
        "api.core.v1.EphemeralContainer",
        "volumeDevices",
        "devicePath",
        &["devicePath"],
    ),
    (
        "api.core.v1.EphemeralContainer",
        "volumeMounts",
        "mountPath",
        &["mountPath"],
    ),
    (
        "api.core.v1.NamespaceStatus",
        "conditions",
        "type",
        &["type"],
    ),
    ("api.core.v1.NodeStatus", "addresses", "type", &["type"]),
    ("api.core.v1.NodeStatus", "conditions", "type", &["type"]),
    (
        "api.core.v1.PersistentVolumeClaimStatus",
        "conditions",
        "type",
        &["type"],
    ),
    ("api.core.v1.PodSpec", "containers", "name", &["name"]),
    (
        "api.core.v1.PodSpec",
        "ephemeralContainers",
        "name",
        &["name"],
    ),
    ("api.core.v1.PodSpec", "hostAliases", "ip", &["ip"]),
    ("api.core.v1.PodSpec", "imagePullSecrets", "name", &["name"]),
    ("api.core.v1.PodSpec", "initContainers", "name", &["name"]),
    ("api.core.v1.PodSpec", "resourceClaims", "name", &["name"]),
    ("api.core.v1.PodSpec", "schedulingGates", "name", &["name"]),
    (
        "api.core.v1.PodSpec",
        "topologySpreadConstraints",
        "topologyKey",
        &["topologyKey", "whenUnsatisfiable"],
    ),
    ("api.core.v1.PodSpec", "volumes", "name", &["name"]),
    ("api.core.v1.PodStatus", "conditions", "type", &["type"]),
    ("api.core.v1.PodStatus", "hostIPs", "ip", &[]),
    ("api.core.v1.PodStatus", "podIPs", "ip", &["ip"]),
    (
        "api.core.v1.PodStatus",
        "resourceClaimStatuses",
        "name",
        &["name"],
    ),
    (
        "api.core.v1.ReplicationControllerStatus",
        "conditions",
        "type",
        &["type"],
    ),
    ("api.core.v1.ResourceRequirements", "claims", "", &["name"]),
    (
        "api.core.v1.ResourceStatus",
        "resources",
        "",
        &["resourceID"],
    ),
    ("api.core.v1.ServiceAccount", "secrets", "name", &["name"]),
    (
        "api.core.v1.ServiceSpec",
        "ports",
        "port",
        &["port", "protocol"],
    ),
    ("api.core.v1.ServiceStatus", "conditions", "type", &["type"]),
    (
        "api.flowcontrol.v1.FlowSchemaStatus",
        "conditions",
        "type",
        &["type"],
    ),
    (
        "api.flowcontrol.v1.PriorityLevelConfigurationStatus",
        "conditions",
        "type",
        &["type"],
    ),
    (
        "api.policy.v1.PodDisruptionBudgetStatus",
        "conditions",
        "type",
        &["type"],
    ),
    ("api.storage.v1.CSINodeSpec", "drivers", "name", &["name"]),
    ("api.batch.v1.JobStatus", "conditions", "type", &[]),
    (
        "apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinitionStatus",
        "conditions",
        "",
        &["type"],
    ),
    (
        "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps",
        "x-kubernetes-validations",
        "rule",
        &["rule"],
    ),
    (
        "apimachinery.pkg.apis.meta.v1.ObjectMeta",
        "ownerReferences",
        "uid",
        &["uid"],
    ),
    (
        "kube-aggregator.pkg.apis.apiregistration.v1.APIServiceStatus",
        "conditions",
        "type",
        &["type"],
    ),
    (
        "api.core.v1.PersistentVolumeClaimSpec",
        "accessModes",
        "",
        &[],
    ),
    ("api.core.v1.PersistentVolumeSpec", "accessModes", "", &[]),
    ("api.core.v1.PodSpec", "tolerations", "", &[]),
];

/// Lists of scalars each of which has its own owners; the flag says that strategic merge patches add.
const SETS: [(&str, &str, bool); 11] = [
    (
        "api.admissionregistration.v1.ValidatingAdmissionPolicyBindingSpec",
        "validationActions",
        false,
    ),
    (
        "api.batch.v1.PodFailurePolicyOnExitCodesRequirement",
        "values",
        false,
    ),
    ("api.batch.v1.UncountedTerminatedPods", "failed", false),
    ("api.batch.v1.UncountedTerminatedPods", "succeeded", false),
    ("api.core.v1.NodeSpec", "podCIDRs", true),
    ("api.discovery.v1.Endpoint", "addresses", false),
    (
        "api.flowcontrol.v1.NonResourcePolicyRule",
        "nonResourceURLs",
        false,
    ),
    ("api.flowcontrol.v1.NonResourcePolicyRule", "verbs", false),
    ("api.flowcontrol.v1.ResourcePolicyRule", "apiGroups", false),
    (
        "api.storage.v1.CSIDriverSpec",
        "volumeLifecycleModes",
        false,
    ),
    (
        "apimachinery.pkg.apis.meta.v1.ObjectMeta",
        "finalizers",
        true,
    ),
];

/// Fields of which a strategic merge patch keeps only the keys that it names.
const RETAINING: [(&str, &str, &str); 4] = [
    ("api.apps.v1.DeploymentSpec", "strategy", "retainKeys"),
    ("api.core.v1.PodSpec", "resourceClaims", "merge,retainKeys"),
    ("api.core.v1.PodSpec", "volumes", "merge,retainKeys"),
    (
        "api.core.v1.PodStatus",
        "resourceClaimStatuses",
        "merge,retainKeys",
    ),
];

/// Maps that are one value with one owner.
const ATOMIC_FIELDS: [(&str, &str); 4] = [
    ("api.core.v1.PodSpec", "nodeSelector"),
    ("api.core.v1.ReplicationControllerSpec", "selector"),
    ("api.core.v1.ServiceSpec", "selector"),
    ("api.node.v1.Scheduling", "nodeSelector"),
];

/// Structs that are one value with one owner.
const ATOMIC_TYPES: [&str; 25] = [
    "api.admissionregistration.v1.NamedRuleWithOperations",
    "api.admissionregistration.v1.ParamKind",
    "api.admissionregistration.v1.ParamRef",
    "api.autoscaling.v1.CrossVersionObjectReference",
    "api.core.v1.ConfigMapKeySelector",
    "api.core.v1.EndpointAddress",
    "api.core.v1.EndpointPort",
    "api.core.v1.LocalObjectReference",
    "api.core.v1.NodeSelector",
    "api.core.v1.NodeSelectorTerm",
    "api.core.v1.ObjectFieldSelector",
    "api.core.v1.ObjectReference",
    "api.core.v1.ResourceFieldSelector",
    "api.core.v1.ScopeSelector",
    "api.core.v1.ScopedResourceSelectorRequirement",
    "api.core.v1.SecretKeySelector",
    "api.core.v1.SecretReference",
    "api.core.v1.TopologySelectorTerm",
    "api.core.v1.TypedLocalObjectReference",
    "api.discovery.v1.EndpointPort",
    "api.networking.v1.ServiceBackendPort",
    "api.rbac.v1.RoleRef",
    "api.rbac.v1.Subject",
    "apimachinery.pkg.apis.meta.v1.LabelSelector",
    "apimachinery.pkg.apis.meta.v1.OwnerReference",
];

/// Writes the tables into the definitions, as the extensions that say the same.
pub(super) fn annotate(definitions: &mut Text) {
    for (definition, field, merge, keys) in MAPS {
        let Some(property) = property(definitions, definition, field) else {
            continue;
        };
        if keys.is_empty() {
            property["x-kubernetes-list-type"] = json!("atomic");
        } else {
            property["x-kubernetes-list-type"] = json!("map");
            property["x-kubernetes-list-map-keys"] = json!(keys);
        }
        if !merge.is_empty() {
            property["x-kubernetes-patch-merge-key"] = json!(merge);
            property["x-kubernetes-patch-strategy"] = json!("merge");
        }
    }
    for (definition, field, merge) in SETS {
        let Some(property) = property(definitions, definition, field) else {
            continue;
        };
        property["x-kubernetes-list-type"] = json!("set");
        if merge {
            property["x-kubernetes-patch-strategy"] = json!("merge");
        }
    }
    for (definition, field, strategy) in RETAINING {
        if let Some(property) = property(definitions, definition, field) {
            property["x-kubernetes-patch-strategy"] = json!(strategy);
        }
    }
    for (definition, field) in ATOMIC_FIELDS {
        if let Some(property) = property(definitions, definition, field) {
            property["x-kubernetes-map-type"] = json!("atomic");
        }
    }
    for definition in ATOMIC_TYPES {
        if let Some(definition) = definitions.get_mut(&format!("io.k8s.{definition}")) {
            definition["x-kubernetes-map-type"] = json!("atomic");
        }
    }
}

/// A field of a definition.
pub(super) fn property<'a>(
    definitions: &'a mut Text,
    definition: &str,
    field: &str,
) -> Option<&'a mut Value> {
    let definition = definitions.get_mut(&format!("io.k8s.{definition}"))?;
    definition.get_mut("properties")?.get_mut(field)
}

/// Rows that name no field.
#[cfg(test)]
pub(super) fn unmatched(definitions: &Text) -> Vec<String> {
    let fields = MAPS
        .iter()
        .map(|(definition, field, ..)| (*definition, *field));
    let fields = fields.chain(
        SETS.iter()
            .map(|(definition, field, _)| (*definition, *field)),
    );
    let fields = fields.chain(
        RETAINING
            .iter()
            .map(|(definition, field, _)| (*definition, *field)),
    );
    let missing = |(definition, field): &(&str, &str)| {
        let definition = definitions.get(&format!("io.k8s.{definition}"));
        definition
            .and_then(|text| text["properties"].get(field))
            .is_none()
    };
    let fields = fields.chain(ATOMIC_FIELDS).filter(missing);
    let fields = fields.map(|(definition, field)| format!("{definition} {field}"));
    let types = ATOMIC_TYPES
        .into_iter()
        .filter(|name| !definitions.contains_key(&format!("io.k8s.{name}")));
    fields.chain(types.map(str::to_owned)).collect()
}

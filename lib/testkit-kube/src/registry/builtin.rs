//! The built-in resources, as a table.

use kube::core::GroupVersionKind;

use super::{ALL, CREATE, READ_WRITE, Resource, Source, Subresource};
use crate::store::GroupResource;

/// A row of the table.
#[derive(Debug, Clone, Copy)]
struct Row {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    namespaced: bool,
    short: &'static [&'static str],
    categories: &'static [&'static str],
    verbs: &'static [&'static str],
    subresources: &'static [&'static str],
    selectable: &'static [&'static str],
    generations: bool,
    versioned_updates: bool,
}

const fn row(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
) -> Row {
    Row {
        group,
        version,
        kind,
        plural,
        namespaced: true,
        short: &[],
        categories: &[],
        verbs: ALL,
        subresources: &[],
        selectable: &[],
        generations: false,
        versioned_updates: false,
    }
}

impl Row {
    const fn cluster(mut self) -> Self {
        self.namespaced = false;
        self
    }

    const fn short(mut self, names: &'static [&'static str]) -> Self {
        self.short = names;
        self
    }

    const fn all(mut self) -> Self {
        self.categories = &["all"];
        self
    }

    const fn extensions(mut self) -> Self {
        self.categories = &["api-extensions"];
        self
    }

    const fn with(mut self, subresources: &'static [&'static str]) -> Self {
        self.subresources = subresources;
        self
    }

    const fn select(mut self, fields: &'static [&'static str]) -> Self {
        self.selectable = fields;
        self
    }

    const fn counted(mut self) -> Self {
        self.generations = true;
        self
    }

    const fn versioned(mut self) -> Self {
        self.versioned_updates = true;
        self
    }

    const fn review(mut self) -> Self {
        self.verbs = CREATE;
        self
    }
}

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";
const ADMISSION: &str = "admissionregistration.k8s.io";

const CORE_EVENT_FIELDS: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];
const EVENT_FIELDS: &[&str] = &[
    "regarding.kind",
    "regarding.namespace",
    "regarding.name",
    "regarding.uid",
    "regarding.apiVersion",
    "regarding.resourceVersion",
    "regarding.fieldPath",
    "reason",
    "reportingController",
    "type",
];
const POD_FIELDS: &[&str] = &[
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.nominatedNodeName",
];

const STATUS: &[&str] = &["status"];
const SCALED: &[&str] = &["status", "scale"];

/// In the order of discovery.
const ROWS: &[Row] = &[
    row("", "v1", "ConfigMap", "configmaps").short(&["cm"]),
    row("", "v1", "Endpoints", "endpoints").short(&["ep"]),
    row("", "v1", "Event", "events")
        .short(&["ev"])
        .select(CORE_EVENT_FIELDS),
    row("", "v1", "Namespace", "namespaces")
        .cluster()
        .short(&["ns"])
        .with(&["status", "finalize"])
        .select(&["status.phase"]),
    row("", "v1", "Node", "nodes")
        .cluster()
        .short(&["no"])
        .with(STATUS)
        .select(&["spec.unschedulable"]),
    row("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims")
        .short(&["pvc"])
        .with(STATUS),
    row("", "v1", "Pod", "pods")
        .short(&["po"])
        .all()
        .with(&["status", "log"])
        .select(POD_FIELDS)
        .counted(),
    row("", "v1", "ResourceQuota", "resourcequotas")
        .short(&["quota"])
        .with(STATUS),
    row("", "v1", "Secret", "secrets").select(&["type"]),
    row("", "v1", "ServiceAccount", "serviceaccounts")
        .short(&["sa"])
        .with(&["token"]),
    row("", "v1", "Service", "services")
        .short(&["svc"])
        .all()
        .with(STATUS)
        .select(&["spec.clusterIP", "spec.type"]),
    row("apps", "v1", "ControllerRevision", "controllerrevisions"),
    row("apps", "v1", "DaemonSet", "daemonsets")
        .short(&["ds"])
        .all()
        .with(STATUS)
        .counted(),
    row("apps", "v1", "Deployment", "deployments")
        .short(&["deploy"])
        .all()
        .with(SCALED)
        .counted(),
    row("apps", "v1", "ReplicaSet", "replicasets")
        .short(&["rs"])
        .all()
        .with(SCALED)
        .counted(),
    row("apps", "v1", "StatefulSet", "statefulsets")
        .short(&["sts"])
        .all()
        .with(SCALED)
        .counted(),
    row("events.k8s.io", "v1", "Event", "events")
        .short(&["ev"])
        .select(EVENT_FIELDS),
    row(
        AUTHENTICATION,
        "v1",
        "SelfSubjectReview",
        "selfsubjectreviews",
    )
    .cluster()
    .review(),
    row(AUTHENTICATION, "v1", "TokenReview", "tokenreviews")
        .cluster()
        .review(),
    row(
        AUTHORIZATION,
        "v1",
        "LocalSubjectAccessReview",
        "localsubjectaccessreviews",
    )
    .review(),
    row(
        AUTHORIZATION,
        "v1",
        "SelfSubjectAccessReview",
        "selfsubjectaccessreviews",
    )
    .cluster()
    .review(),
    row(
        AUTHORIZATION,
        "v1",
        "SelfSubjectRulesReview",
        "selfsubjectrulesreviews",
    )
    .cluster()
    .review(),
    row(
        AUTHORIZATION,
        "v1",
        "SubjectAccessReview",
        "subjectaccessreviews",
    )
    .cluster()
    .review(),
    row(
        "autoscaling",
        "v2",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
    )
    .short(&["hpa"])
    .all()
    .with(STATUS),
    row("batch", "v1", "CronJob", "cronjobs")
        .short(&["cj"])
        .all()
        .with(STATUS)
        .counted(),
    row("batch", "v1", "Job", "jobs")
        .all()
        .with(STATUS)
        .select(&["status.successful"])
        .counted(),
    row("networking.k8s.io", "v1", "Ingress", "ingresses")
        .short(&["ing"])
        .with(STATUS)
        .counted(),
    row(
        "networking.k8s.io",
        "v1",
        "NetworkPolicy",
        "networkpolicies",
    )
    .short(&["netpol"])
    .counted(),
    row(
        "policy",
        "v1",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
    )
    .short(&["pdb"])
    .with(STATUS)
    .counted(),
    row(RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings").cluster(),
    row(RBAC, "v1", "ClusterRole", "clusterroles").cluster(),
    row(RBAC, "v1", "RoleBinding", "rolebindings"),
    row(RBAC, "v1", "Role", "roles"),
    row(
        ADMISSION,
        "v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
    )
    .cluster()
    .extensions()
    .counted(),
    row(
        ADMISSION,
        "v1",
        "ValidatingAdmissionPolicy",
        "validatingadmissionpolicies",
    )
    .cluster()
    .extensions()
    .with(STATUS)
    .counted(),
    row(
        ADMISSION,
        "v1",
        "ValidatingAdmissionPolicyBinding",
        "validatingadmissionpolicybindings",
    )
    .cluster()
    .extensions()
    .counted(),
    row(
        ADMISSION,
        "v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
    )
    .cluster()
    .extensions()
    .counted(),
    row(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
    )
    .cluster()
    .short(&["crd", "crds"])
    .extensions()
    .with(STATUS)
    .counted()
    .versioned(),
    row(
        "scheduling.k8s.io",
        "v1",
        "PriorityClass",
        "priorityclasses",
    )
    .cluster()
    .short(&["pc"])
    .counted(),
    row("coordination.k8s.io", "v1", "Lease", "leases").versioned(),
    row("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices").counted(),
];

/// All of them.
pub(super) fn resources() -> impl Iterator<Item = Resource> {
    ROWS.iter().map(resource)
}

/// The place of a group in discovery; groups of CRDs come last.
pub(super) fn rank(group: &str) -> usize {
    let rank = ROWS.iter().position(|row| row.group == group);
    rank.unwrap_or(ROWS.len())
}

fn resource(row: &Row) -> Resource {
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    let kind = GroupVersionKind::gvk(row.group, row.version, row.kind);
    Resource {
        storage: storage(row),
        plural: row.plural.to_owned(),
        singular: row.kind.to_lowercase(),
        list_kind: format!("{}List", row.kind),
        short_names: owned(row.short),
        categories: owned(row.categories),
        namespaced: row.namespaced,
        verbs: row.verbs,
        subresources: row
            .subresources
            .iter()
            .map(|name| subresource(name, &kind))
            .collect(),
        source: Source::Builtin,
        columns: Vec::new(),
        selectable: owned(row.selectable),
        generations: row.generations,
        versioned_updates: row.versioned_updates,
        kind,
    }
}

/// Events have two APIs and are kept in the terms of the older one.
fn storage(row: &Row) -> GroupResource {
    match row.group {
        "events.k8s.io" => GroupResource::new("", "events"),
        group => GroupResource::new(group, row.plural),
    }
}

fn subresource(name: &'static str, parent: &GroupVersionKind) -> Subresource {
    let (kind, verbs): (_, &[&str]) = match name {
        "scale" => (
            GroupVersionKind::gvk("autoscaling", "v1", "Scale"),
            READ_WRITE,
        ),
        "token" => (
            GroupVersionKind::gvk(AUTHENTICATION, "v1", "TokenRequest"),
            CREATE,
        ),
        "finalize" => (parent.clone(), &["update"]),
        "log" => (parent.clone(), &["get"]),
        _ => (parent.clone(), READ_WRITE),
    };
    Subresource { name, kind, verbs }
}

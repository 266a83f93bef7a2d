//! Schemas of the built-in kinds.
//!
//! Their shape comes from k8s-openapi; what it lacks (how lists merge, defaults) from tables of ours. All
//! definitions are generated at first use, and a kind is read when its first object arrives.

mod defaults;
mod merge;

use std::sync::{Arc, LazyLock, OnceLock};

use k8s_openapi::{
    Resource,
    api::{
        admissionregistration::v1 as admission, apps::v1 as apps, authentication::v1 as authn,
        authorization::v1 as authz, autoscaling::v1 as autoscaling_v1,
        autoscaling::v2 as autoscaling, batch::v1 as batch, certificates::v1 as certificates,
        coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery,
        events::v1 as events, flowcontrol::v1 as flowcontrol, networking::v1 as networking,
        node::v1 as node, policy::v1 as policy, rbac::v1 as rbac, scheduling::v1 as scheduling,
        storage::v1 as storage,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions,
    apimachinery::pkg::apis::meta::v1::{APIResourceList, ObjectMeta, Status},
    kube_aggregator::pkg::apis::apiregistration::v1 as apiregistration,
};
use kube::core::GroupVersionKind;
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Value, json};

use super::{
    Origin, Schema,
    node::{Kind, Node},
    parse::{Flavour, Parser, Text},
};

/// One built-in kind.
#[derive(Debug)]
pub(crate) struct Entry {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    /// The name of its definition: `io.k8s.api.core.v1.Pod`.
    pub(crate) definition: String,
    generate: fn(&mut SchemaGenerator),
    schema: OnceLock<Schema>,
}

/// Types of which only their own server fills the fields in: what is missing there is nobody's fault.
const REPORTS: [&str; 8] = [
    "NodeSystemInfo",
    "DaemonEndpoint",
    "AttachedVolume",
    "ContainerStateTerminated",
    "ContainerImage",
    "NodeAddress",
    "PodIP",
    "EventSeries",
];

/// Required fields that the API server takes as empty when they are missing.
const LENIENT: [(&str, &str); 4] = [
    (".NetworkPolicySpec", "podSelector"),
    (".IngressClassParametersReference", "kind"),
    (".HTTPHeader", "value"),
    (".Event", "metadata"),
];

/// Types that are encoded as any of several JSON types.
const ANYTHING: [&str; 4] = [
    ".apiextensions.v1.JSON",
    ".JSONSchemaPropsOrArray",
    ".JSONSchemaPropsOrBool",
    ".JSONSchemaPropsOrStringArray",
];

macro_rules! kinds {
    ($($kind:ty),* $(,)?) => { vec![$(Entry::of::<$kind>()),*] };
}

static KINDS: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    kinds![
        core::Binding,
        core::ConfigMap,
        core::Endpoints,
        core::Event,
        core::LimitRange,
        core::Namespace,
        core::Node,
        core::PersistentVolume,
        core::PersistentVolumeClaim,
        core::Pod,
        core::PodTemplate,
        core::ReplicationController,
        core::ResourceQuota,
        core::Secret,
        core::Service,
        core::ServiceAccount,
        apps::ControllerRevision,
        apps::DaemonSet,
        apps::Deployment,
        apps::ReplicaSet,
        apps::StatefulSet,
        batch::CronJob,
        batch::Job,
        autoscaling::HorizontalPodAutoscaler,
        autoscaling_v1::HorizontalPodAutoscaler,
        autoscaling_v1::Scale,
        policy::Eviction,
        policy::PodDisruptionBudget,
        rbac::ClusterRole,
        rbac::ClusterRoleBinding,
        rbac::Role,
        rbac::RoleBinding,
        networking::Ingress,
        networking::IngressClass,
        networking::NetworkPolicy,
        coordination::Lease,
        discovery::EndpointSlice,
        events::Event,
        authn::SelfSubjectReview,
        authn::TokenRequest,
        authn::TokenReview,
        authz::LocalSubjectAccessReview,
        authz::SelfSubjectAccessReview,
        authz::SelfSubjectRulesReview,
        authz::SubjectAccessReview,
        admission::MutatingWebhookConfiguration,
        admission::ValidatingWebhookConfiguration,
        admission::ValidatingAdmissionPolicy,
        admission::ValidatingAdmissionPolicyBinding,
        apiextensions::CustomResourceDefinition,
        apiregistration::APIService,
        certificates::CertificateSigningRequest,
        flowcontrol::FlowSchema,
        flowcontrol::PriorityLevelConfiguration,
        node::RuntimeClass,
        scheduling::PriorityClass,
        storage::CSIDriver,
        storage::CSINode,
        storage::StorageClass,
        storage::VolumeAttachment,
        Status,
        APIResourceList,
    ]
});

// === impl Entry ===

impl Entry {
    fn of<K: Resource + JsonSchema>() -> Self {
        Self {
            group: K::GROUP,
            version: K::VERSION,
            kind: K::KIND,
            definition: K::schema_name().into_owned(),
            generate: |generator| {
                generator.subschema_for::<K>();
            },
            schema: OnceLock::new(),
        }
    }

    pub(super) fn gvk(&self) -> GroupVersionKind {
        GroupVersionKind::gvk(self.group, self.version, self.kind)
    }
}

/// The schema of a kind.
pub(super) fn schema(kind: &GroupVersionKind) -> Option<&'static Schema> {
    let entry = KINDS.iter().find(|entry| {
        (entry.group, entry.version, entry.kind) == (&kind.group, &kind.version, &kind.kind)
    })?;
    Some(entry.schema.get_or_init(|| Schema {
        origin: Origin::Builtin(entry),
        root: OnceLock::new(),
    }))
}

/// All definitions by name, as the documents below `/openapi` show them but for the form of references.
pub(crate) fn definitions() -> &'static Text {
    static DEFINITIONS: LazyLock<Text> = LazyLock::new(|| {
        let mut generator = SchemaSettings::draft2020_12().into_generator();
        for entry in KINDS.iter() {
            (entry.generate)(&mut generator);
        }
        generator.subschema_for::<ObjectMeta>();
        let mut definitions = generator.take_definitions(false);
        for (name, definition) in &mut definitions {
            relax_metadata(definition);
            if ANYTHING.iter().any(|suffix| name.ends_with(suffix)) {
                *definition = json!({"description": definition.get("description")});
            }
        }
        merge::annotate(&mut definitions);
        defaults::annotate(&mut definitions);
        for entry in KINDS.iter() {
            if let Some(definition) = definitions.get_mut(&entry.definition) {
                definition["x-kubernetes-group-version-kind"] =
                    json!([{"group": entry.group, "version": entry.version, "kind": entry.kind}]);
            }
        }
        definitions
    });
    &DEFINITIONS
}

/// An object without metadata is one with empty metadata: k8s-openapi asks for it, the API server does not.
fn relax_metadata(definition: &mut Value) {
    let Some(required) = definition.get_mut("required").and_then(Value::as_array_mut) else {
        return;
    };
    required.retain(|field| field != "metadata");
    if required.is_empty()
        && let Some(definition) = definition.as_object_mut()
    {
        definition.remove("required");
    }
}

/// Reads the tree of a kind.
pub(super) fn tree(entry: &Entry) -> Arc<Node> {
    read(&entry.definition)
}

fn read(definition: &str) -> Arc<Node> {
    let definitions = definitions();
    let text = definitions.get(definition).unwrap_or(&Value::Null);
    let read = Parser::new(Flavour::Builtin(definitions)).root(text, definition);
    read.unwrap_or_else(|error| {
        // The definitions are part of this program; a test reads them all.
        tracing::error!(%error, definition, "reading a built-in schema");
        Arc::new(Node::open())
    })
}

/// The name in a reference: `#/$defs/io.k8s.api.core.v1.Pod`.
pub(crate) fn definition_name(reference: &str) -> &str {
    reference
        .rsplit_once('/')
        .map_or(reference, |(_, name)| name)
}

/// Whether a definition is that of `resource.Quantity`, which takes numbers too.
pub(super) fn is_quantity(definition: &str) -> bool {
    definition.ends_with(".resource.Quantity")
}

/// Requires no more than the API server does: it decodes into structs, in which a missing list is an empty
/// one, and does not judge what is reported in a status.
pub(super) fn relax(definition: &str, node: &mut Node) {
    let name = definition.rsplit('.').next().unwrap_or_default();
    if name.ends_with("Status") || name.ends_with("Condition") || REPORTS.contains(&name) {
        node.required.clear();
    }
    let lenient = |field: &str| {
        LENIENT
            .iter()
            .any(|(suffix, name)| definition.ends_with(suffix) && *name == field)
    };
    let Node {
        properties,
        required,
        ..
    } = node;
    required.retain(|field| {
        let kind = properties.get(field).map(|child| child.kind);
        kind != Some(Kind::Array) && !lenient(field)
    });
}

/// Completes a whole object: its version, its kind and its metadata.
pub(super) fn embed(node: &mut Node) {
    static WORD: LazyLock<Arc<Node>> = LazyLock::new(|| {
        Arc::new(Node {
            kind: Kind::String,
            ..Node::default()
        })
    });
    static META: LazyLock<Arc<Node>> =
        LazyLock::new(|| read("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"));
    for name in ["apiVersion", "kind"] {
        node.properties
            .entry(name.into())
            .or_insert_with(|| WORD.clone());
    }
    let meta = match node.properties.get("metadata") {
        // A CRD may say more of the name, and of nothing else.
        Some(own) if !own.properties.is_empty() => {
            let mut properties = META.properties.clone();
            properties.extend(
                own.properties
                    .iter()
                    .map(|(name, node)| (name.clone(), node.clone())),
            );
            Arc::new(Node {
                kind: Kind::Object,
                properties,
                ..Node::default()
            })
        }
        _ => META.clone(),
    };
    node.properties.insert("metadata".into(), meta);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_reads_and_every_row_of_the_tables_finds_its_field() {
        let definitions = definitions();
        for entry in KINDS.iter() {
            let text = definitions.get(&entry.definition).unwrap();
            Parser::new(Flavour::Builtin(definitions))
                .root(text, &entry.definition)
                .unwrap();
        }
        assert_eq!(merge::unmatched(definitions), Vec::<String>::new());
        assert_eq!(defaults::unmatched(definitions), Vec::<String>::new());
    }
}

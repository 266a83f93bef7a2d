//! What the control plane may do to the cluster, as objects: no more than what it does.
//!
//! Nothing here reads Secrets outside its own namespace, and there only the one that it keeps.

use std::collections::BTreeMap;

use k8s_openapi::{
    Metadata,
    api::{
        core::v1::ServiceAccount,
        rbac::v1::{
            ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
        },
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::Serialize;

/// The ConfigMap in every namespace that holds the mesh's roots.
pub const ROOT_CONFIG_MAP: &str = "istio-ca-root-cert";
/// The Secret of a self-signed root.
pub const ROOT_SECRET: &str = "istio-ca-secret";
/// The lock of who distributes roots and advances their rotation.
pub const NAMESPACE_LOCK: &str = "istio-namespace-controller-election";
/// The lock of who writes conditions.
pub const STATUS_LOCK: &str = "istio-status-leader";

/// The objects that give a control plane of this revision its rights. The revision is empty for the
/// default one.
#[derive(Clone, Debug)]
pub struct Rights {
    /// Who it runs as.
    pub account: ServiceAccount,
    /// Rights to the cluster.
    pub cluster_role: ClusterRole,
    /// Their binding.
    pub cluster_binding: ClusterRoleBinding,
    /// Rights to its own namespace.
    pub role: Role,
    /// Their binding.
    pub binding: RoleBinding,
}

const READ: &[&str] = &["get", "list", "watch"];

// === impl Rights ===

impl Rights {
    /// The rights of the control plane in `namespace`.
    pub fn of(namespace: &str, revision: &str) -> Self {
        let name = suffixed("istiod", revision);
        let global = format!("{name}-{namespace}");
        let subject = Subject {
            kind: "ServiceAccount".to_owned(),
            name: name.clone(),
            namespace: Some(namespace.to_owned()),
            ..Subject::default()
        };
        Self {
            account: with_meta(&name, Some(namespace)),
            cluster_role: ClusterRole {
                rules: Some(cluster_rules()),
                ..with_meta(&global, None)
            },
            cluster_binding: ClusterRoleBinding {
                role_ref: reference("ClusterRole", &global),
                subjects: Some(vec![subject.clone()]),
                ..with_meta(&global, None)
            },
            role: Role {
                rules: Some(namespace_rules(revision)),
                ..with_meta(&name, Some(namespace))
            },
            binding: RoleBinding {
                role_ref: reference("Role", &name),
                subjects: Some(vec![subject]),
                ..with_meta(&name, Some(namespace))
            },
        }
    }

    /// All objects as a stream of YAML documents.
    pub fn to_yaml(&self) -> Result<String, serde_yaml_ng::Error> {
        let mut text =
            String::from("# Written by `cargo xtask gen`, which runs `istiod rights`.\n");
        let mut document = |object: Result<String, serde_yaml_ng::Error>| {
            text.push_str("---\n");
            text.push_str(&object?);
            Ok::<_, serde_yaml_ng::Error>(())
        };
        document(yaml(&self.account))?;
        document(yaml(&self.cluster_role))?;
        document(yaml(&self.cluster_binding))?;
        document(yaml(&self.role))?;
        document(yaml(&self.binding))?;
        Ok(text)
    }
}

fn yaml(object: &impl Serialize) -> Result<String, serde_yaml_ng::Error> {
    serde_yaml_ng::to_string(object)
}

/// The name of what belongs to a revision; the default revision has no suffix.
pub fn suffixed(name: &str, revision: &str) -> String {
    if revision.is_empty() {
        name.to_owned()
    } else {
        format!("{name}-{revision}")
    }
}

fn cluster_rules() -> Vec<PolicyRule> {
    vec![
        rule("", &["pods", "nodes", "services", "namespaces"], READ),
        rule("discovery.k8s.io", &["endpointslices"], READ),
        rule(
            "networking.istio.io",
            &["serviceentries", "workloadentries"],
            READ,
        ),
        rule(
            "security.istio.io",
            &["authorizationpolicies", "peerauthentications"],
            READ,
        ),
        rule(
            "gateway.networking.k8s.io",
            &["gateways", "gatewayclasses"],
            READ,
        ),
        // Conditions, and the addresses of ServiceEntries.
        rule("", &["services/status"], &["patch"]),
        rule(
            "networking.istio.io",
            &["serviceentries/status", "workloadentries/status"],
            &["patch"],
        ),
        rule(
            "security.istio.io",
            &["authorizationpolicies/status", "peerauthentications/status"],
            &["patch"],
        ),
        rule("authentication.k8s.io", &["tokenreviews"], &["create"]),
        // The roots, in every namespace. A right to create cannot be bound to a name.
        rule("", &["configmaps"], &["create"]),
        named(
            "",
            "configmaps",
            &[ROOT_CONFIG_MAP],
            &["get", "list", "watch", "update"],
        ),
    ]
}

fn namespace_rules(revision: &str) -> Vec<PolicyRule> {
    let config = suffixed("istio", revision);
    vec![
        named("", "configmaps", &[&config], READ),
        rule("", &["secrets"], &["create"]),
        named(
            "",
            "secrets",
            &[ROOT_SECRET],
            &["get", "list", "watch", "update"],
        ),
        rule("coordination.k8s.io", &["leases"], &["create"]),
        named(
            "coordination.k8s.io",
            "leases",
            &[NAMESPACE_LOCK, STATUS_LOCK],
            &["get", "update"],
        ),
    ]
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> PolicyRule {
    PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(owned(resources)),
        verbs: owned(verbs),
        ..PolicyRule::default()
    }
}

fn named(group: &str, resource: &str, names: &[&str], verbs: &[&str]) -> PolicyRule {
    PolicyRule {
        resource_names: Some(owned(names)),
        ..rule(group, &[resource], verbs)
    }
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

fn reference(kind: &str, name: &str) -> RoleRef {
    RoleRef {
        api_group: "rbac.authorization.k8s.io".to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
    }
}

fn with_meta<K: Metadata<Ty = ObjectMeta> + Default>(name: &str, namespace: Option<&str>) -> K {
    let mut object = K::default();
    let labels = [
        ("app.kubernetes.io/name", "istiod"),
        ("app.kubernetes.io/part-of", "istio"),
    ];
    let labels: BTreeMap<_, _> = labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    *object.metadata_mut() = ObjectMeta {
        name: Some(name.to_owned()),
        namespace: namespace.map(str::to_owned),
        labels: Some(labels),
        ..ObjectMeta::default()
    };
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_rule_is_wider_than_its_use() {
        let rights = Rights::of("istio-system", "");
        let rules = rights
            .cluster_role
            .rules
            .iter()
            .chain(&rights.role.rules)
            .flatten();
        for rule in rules {
            let resources = rule.resources.clone().unwrap_or_default();
            let all = resources
                .iter()
                .chain(&rule.verbs)
                .chain(rule.api_groups.iter().flatten());
            assert!(all.clone().all(|word| word != "*"), "{rule:?}");
            assert!(!rule.verbs.contains(&"delete".to_owned()), "{rule:?}");
            if resources.contains(&"secrets".to_owned()) && rule.verbs != ["create"] {
                assert_eq!(rule.resource_names, Some(vec![ROOT_SECRET.to_owned()]));
            }
        }
        let cluster = rights.cluster_role.rules.unwrap();
        let mut resources = cluster
            .iter()
            .flat_map(|rule| rule.resources.iter().flatten());
        assert!(!resources.any(|resource| resource.starts_with("secrets")));
    }

    #[test]
    fn the_checked_in_rights_are_these() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../manifests/istiod/rbac.yaml"
        );
        let checked_in = std::fs::read_to_string(path).unwrap();
        let rights = Rights::of("istio-system", "").to_yaml().unwrap();
        assert_eq!(checked_in, rights, "run `cargo xtask gen`");
    }

    #[test]
    fn revisions_do_not_share_names() {
        let canary = Rights::of("istio-system", "canary");
        assert_eq!(
            canary.account.metadata.name.as_deref(),
            Some("istiod-canary")
        );
        let config = canary.role.rules.unwrap()[0].resource_names.clone();
        assert_eq!(config, Some(vec!["istio-canary".to_owned()]));
    }
}

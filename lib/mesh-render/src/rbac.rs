//! Rights: rules, and roles together with their bindings.

use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};

use crate::{
    meta::Installation,
    object::{self, Object},
};

/// To look at and to be told of changes.
pub const READ: &[&str] = &["get", "list", "watch"];

/// A rule for all objects of some kinds of one group.
pub fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> PolicyRule {
    PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(owned(resources)),
        verbs: owned(verbs),
        ..PolicyRule::default()
    }
}

/// A rule for objects of these names. A right to create cannot be bound to a name, since the API server does
/// not know the name when it decides.
pub fn named(group: &str, resource: &str, names: &[&str], verbs: &[&str]) -> PolicyRule {
    PolicyRule {
        resource_names: Some(owned(names)),
        ..rule(group, &[resource], verbs)
    }
}

/// Rights to the cluster for a service account in the installation's namespace: ClusterRole and binding, both
/// called `name`.
pub fn cluster_role(
    installation: &Installation,
    name: &str,
    rules: Vec<PolicyRule>,
    account: &str,
) -> [Object; 2] {
    let role = ClusterRole {
        metadata: installation.cluster_meta(name),
        rules: Some(rules),
        ..ClusterRole::default()
    };
    [
        Object::new(object::CLUSTER_ROLE, &role),
        cluster_binding(installation, name, name, account),
    ]
}

/// The binding of a ClusterRole that is there already, or is made beside it.
pub fn cluster_binding(
    installation: &Installation,
    name: &str,
    role: &str,
    account: &str,
) -> Object {
    let binding = ClusterRoleBinding {
        metadata: installation.cluster_meta(name),
        role_ref: reference("ClusterRole", role),
        subjects: Some(vec![subject(installation, account)]),
    };
    Object::new(object::CLUSTER_ROLE_BINDING, &binding)
}

/// Rights within the installation's namespace: Role and binding, both called `name`.
pub fn role(
    installation: &Installation,
    name: &str,
    rules: Vec<PolicyRule>,
    account: &str,
) -> [Object; 2] {
    let role = Role {
        metadata: installation.meta(name),
        rules: Some(rules),
    };
    let binding = RoleBinding {
        metadata: installation.meta(name),
        role_ref: reference("Role", name),
        subjects: Some(vec![subject(installation, account)]),
    };
    [
        Object::new(object::ROLE, &role),
        Object::new(object::ROLE_BINDING, &binding),
    ]
}

fn reference(kind: &str, name: &str) -> RoleRef {
    RoleRef {
        api_group: object::ROLE.group.to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
    }
}

fn subject(installation: &Installation, account: &str) -> Subject {
    Subject {
        kind: "ServiceAccount".to_owned(),
        name: account.to_owned(),
        namespace: Some(installation.namespace.clone()),
        ..Subject::default()
    }
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

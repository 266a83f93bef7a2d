//! Nobody gives away what they do not have.

use std::collections::BTreeMap;

use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef};
use serde::Deserialize;
use serde_json::Value;

use super::{Attributes, GROUP, Index, Target, rule};
use crate::{
    auth::{User, refusal},
    schema::{Cause, Reason},
    status::Status,
};

/// What is read of a role or a binding.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Grantable {
    kind: String,
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    rules: Option<Vec<PolicyRule>>,
    #[serde(default)]
    aggregation_rule: Option<Value>,
    #[serde(default)]
    role_ref: Option<RoleRef>,
    #[serde(default)]
    subjects: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
    namespace: String,
}

/// Whether `user` may write `new` over `old`: they must hold all that it grants, or may `escalate` the
/// role or `bind` it. What a binding refers to never changes. Objects of other kinds may be written.
pub fn check(index: &Index, user: &User, old: Option<&Value>, new: &Value) -> Result<(), Status> {
    let Ok(written) = Grantable::deserialize(new) else {
        return Ok(());
    };
    let old = old.and_then(|old| Grantable::deserialize(old).ok());
    if old
        .as_ref()
        .is_some_and(|old| old.grants_the_same(&written))
    {
        return Ok(());
    }
    match (written.kind.as_str(), &written.role_ref) {
        ("Role" | "ClusterRole", _) => check_role(index, user, &written),
        ("RoleBinding" | "ClusterRoleBinding", Some(role)) => {
            if let Some(before) = old.and_then(|old| old.role_ref)
                && before != *role
            {
                return Err(changed_role(&written, role));
            }
            check_binding(index, user, &written, role)
        }
        _ => Ok(()),
    }
}

// === impl Grantable ===

impl Grantable {
    fn grants_the_same(&self, other: &Self) -> bool {
        self.rules == other.rules
            && self.aggregation_rule == other.aggregation_rule
            && self.role_ref == other.role_ref
            && self.subjects == other.subjects
    }

    fn resource(&self) -> &'static str {
        match self.kind.as_str() {
            "Role" => "roles",
            "ClusterRole" => "clusterroles",
            "RoleBinding" => "rolebindings",
            _ => "clusterrolebindings",
        }
    }

    fn forbidden(&self, why: &str) -> Status {
        refusal::forbidden_object(GROUP, self.resource(), &self.metadata.name, why)
    }
}

fn check_role(index: &Index, user: &User, role: &Grantable) -> Result<(), Status> {
    let may = Attributes {
        user,
        verb: "escalate",
        target: Target::Resource {
            group: GROUP,
            resource: role.resource(),
            subresource: "",
            namespace: &role.metadata.namespace,
            name: &role.metadata.name,
        },
    };
    if index.authorize(&may).allowed {
        return Ok(());
    }
    let held = index.rules(user, &role.metadata.namespace);
    if role.aggregation_rule.is_some() && !rule::uncovered(&held, &everything()).is_empty() {
        let why = "must have cluster-admin privileges to use the aggregationRule";
        return Err(role.forbidden(why));
    }
    let rules = role.rules.as_deref().unwrap_or_default();
    require_held(user, &held, rules).map_err(|why| role.forbidden(&why))
}

fn check_binding(
    index: &Index,
    user: &User,
    binding: &Grantable,
    role: &RoleRef,
) -> Result<(), Status> {
    let namespace = &binding.metadata.namespace;
    let resource = match role.kind.as_str() {
        "Role" => "roles",
        _ => "clusterroles",
    };
    let may = Attributes {
        user,
        verb: "bind",
        target: Target::Resource {
            group: GROUP,
            resource,
            subresource: "",
            namespace,
            name: &role.name,
        },
    };
    if index.authorize(&may).allowed {
        return Ok(());
    }
    let rules = index.referenced(role, namespace);
    let rules =
        rules.map_err(|_missing| refusal::not_found(GROUP, binding.resource(), &role.name))?;
    let held = index.rules(user, namespace);
    require_held(user, &held, &rules).map_err(|why| binding.forbidden(&why))
}

/// The text names what is missing, as few rules as possible.
fn require_held(user: &User, held: &[PolicyRule], wanted: &[PolicyRule]) -> Result<(), String> {
    let missing = rule::uncovered(held, wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let mut lines: Vec<_> = merged(missing).iter().map(rule::describe).collect();
    lines.sort();
    Err(format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        refusal::quoted(&user.groups),
        lines.join("\n"),
    ))
}

/// Rules for the same things become one with all the verbs.
fn merged(pieces: Vec<PolicyRule>) -> Vec<PolicyRule> {
    let mut merged: BTreeMap<String, PolicyRule> = BTreeMap::new();
    for mut piece in pieces {
        let verbs = std::mem::take(&mut piece.verbs);
        let whole = merged.entry(rule::describe(&piece)).or_insert(piece);
        for verb in verbs {
            if !whole.verbs.contains(&verb) {
                whole.verbs.push(verb);
            }
        }
    }
    merged.into_values().collect()
}

fn everything() -> [PolicyRule; 2] {
    let all = || vec!["*".to_owned()];
    [
        PolicyRule {
            api_groups: Some(all()),
            resources: Some(all()),
            verbs: all(),
            ..PolicyRule::default()
        },
        PolicyRule {
            non_resource_urls: Some(all()),
            verbs: all(),
            ..PolicyRule::default()
        },
    ]
}

fn changed_role(binding: &Grantable, role: &RoleRef) -> Status {
    let value = serde_json::to_string(role).unwrap_or_default();
    let cause = Cause {
        field: "roleRef".to_owned(),
        reason: Reason::Invalid,
        message: format!("Invalid value: {value}: cannot change roleRef"),
    };
    Status::invalid(GROUP, &binding.kind, &binding.metadata.name, &[cause])
}

//! Roles and their bindings.

use serde_json::{Value, json};

use super::{Judged, default, items, items_mut, text};
use crate::schema::Cause;

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn check_role(judged: &Judged<'_>, causes: &mut Vec<Cause>) {
    for (index, rule) in items(judged.object, "rules").iter().enumerate() {
        let at = format!("rules[{index}]");
        let empty = |field: &str| items(rule, field).is_empty();
        if empty("verbs") {
            let detail = "verbs must contain at least one value";
            causes.push(Cause::required(format!("{at}.verbs"), detail));
        }
        if !empty("nonResourceURLs") {
            let field = format!("{at}.nonResourceURLs");
            let urls = rule.get("nonResourceURLs").unwrap_or(&Value::Null);
            if judged.kind == "Role" {
                let detail = "namespaced rules cannot apply to non-resource URLs";
                causes.push(Cause::invalid(&field, urls, detail));
            }
            if !empty("apiGroups") || !empty("resources") || !empty("resourceNames") {
                let detail = "rules cannot apply to both regular resources and non-resource URLs";
                causes.push(Cause::invalid(field, urls, detail));
            }
            continue;
        }
        if empty("apiGroups") {
            let detail = "resource rules must supply at least one api group";
            causes.push(Cause::required(format!("{at}.apiGroups"), detail));
        }
        if empty("resources") {
            let detail = "resource rules must supply at least one resource";
            causes.push(Cause::required(format!("{at}.resources"), detail));
        }
    }
}

pub(super) fn complete_binding(object: &mut Value) {
    for subject in items_mut(object, "subjects") {
        default(subject, "apiGroup", |subject| {
            ["User", "Group"]
                .contains(&text(subject, "kind"))
                .then(|| json!(GROUP))
        });
    }
}

pub(super) fn check_binding(judged: &Judged<'_>, causes: &mut Vec<Cause>) {
    let object = judged.object;
    if let Some(role) = object.get("roleRef") {
        let kinds: &[&str] = match judged.kind {
            "RoleBinding" => &["ClusterRole", "Role"],
            _ => &["ClusterRole"],
        };
        super::one_of(role, "kind", "roleRef.kind", kinds, causes);
        super::one_of(role, "apiGroup", "roleRef.apiGroup", &[GROUP], causes);
        if text(role, "name").is_empty() && role.get("name").is_some() {
            causes.push(Cause::required("roleRef.name", ""));
        }
        if judged
            .old
            .is_some_and(|old| old.get("roleRef") != Some(role))
        {
            causes.push(Cause::invalid("roleRef", role, "cannot change roleRef"));
        }
    }
    for (index, subject) in items(object, "subjects").iter().enumerate() {
        let at = format!("subjects[{index}]");
        let kinds = ["Group", "ServiceAccount", "User"];
        super::one_of(subject, "kind", &format!("{at}.kind"), &kinds, causes);
        if text(subject, "kind") == "ServiceAccount" && text(subject, "namespace").is_empty() {
            let needed = judged.kind == "ClusterRoleBinding" || subject.get("namespace").is_none();
            if needed {
                causes.push(Cause::required(format!("{at}.namespace"), ""));
            }
        }
    }
}

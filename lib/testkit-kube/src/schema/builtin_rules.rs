//! What the API server computes for and demands of built-in kinds beyond their schemas: the part that users
//! and tests rely on. Names and labels are judged where objects are stored.

mod access;
mod config;
mod pod;
mod service;
mod workload;

use kube::core::GroupVersionKind;
use serde_json::Value;

use super::Cause;

/// What is done for one kind.
struct Rules {
    group: &'static str,
    kind: &'static str,
    complete: fn(&mut Value),
    check: fn(&Judged<'_>, &mut Vec<Cause>),
}

/// An object under judgement.
struct Judged<'a> {
    kind: &'a str,
    object: &'a Value,
    /// What it replaces.
    old: Option<&'a Value>,
}

const RULES: [Rules; 18] = [
    rules("", "Service", service::complete, service::check),
    rules("", "Pod", pod::complete, pod::check),
    rules("", "ConfigMap", nothing, config::check_config_map),
    rules("", "Secret", config::complete_secret, config::check_secret),
    rules("apps", "Deployment", workload::complete, workload::check),
    rules("apps", "DaemonSet", workload::complete, workload::check),
    rules("apps", "ReplicaSet", workload::complete, workload::check),
    rules("apps", "StatefulSet", workload::complete, workload::check),
    rules("batch", "Job", workload::complete, workload::check_job),
    rules(
        "batch",
        "CronJob",
        workload::complete_cron,
        workload::check_cron,
    ),
    rules(
        "rbac.authorization.k8s.io",
        "Role",
        nothing,
        access::check_role,
    ),
    rules(
        "rbac.authorization.k8s.io",
        "ClusterRole",
        nothing,
        access::check_role,
    ),
    rules(
        "rbac.authorization.k8s.io",
        "RoleBinding",
        access::complete_binding,
        access::check_binding,
    ),
    rules(
        "rbac.authorization.k8s.io",
        "ClusterRoleBinding",
        access::complete_binding,
        access::check_binding,
    ),
    rules(
        "coordination.k8s.io",
        "Lease",
        nothing,
        service::check_lease,
    ),
    rules(
        "discovery.k8s.io",
        "EndpointSlice",
        nothing,
        service::check_slice,
    ),
    rules(
        "networking.k8s.io",
        "NetworkPolicy",
        service::complete_policy,
        accept,
    ),
    rules(
        "policy",
        "PodDisruptionBudget",
        nothing,
        workload::check_budget,
    ),
];

const fn rules(
    group: &'static str,
    kind: &'static str,
    complete: fn(&mut Value),
    check: fn(&Judged<'_>, &mut Vec<Cause>),
) -> Rules {
    Rules {
        group,
        kind,
        complete,
        check,
    }
}

fn nothing(_: &mut Value) {}

fn accept(_: &Judged<'_>, _: &mut Vec<Cause>) {}

fn of(kind: &GroupVersionKind) -> Option<&'static Rules> {
    RULES
        .iter()
        .find(|rules| (rules.group, rules.kind) == (&kind.group, &kind.kind))
}

/// Fills in what is computed from other fields.
pub(super) fn complete(kind: &GroupVersionKind, object: &mut Value) {
    if let Some(rules) = of(kind) {
        (rules.complete)(object);
    }
}

/// What is wrong beyond the schema.
pub(super) fn check(kind: &GroupVersionKind, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    if let Some(rules) = of(kind) {
        let judged = Judged {
            kind: &kind.kind,
            object,
            old,
        };
        (rules.check)(&judged, &mut causes);
    }
    causes
}

/// The items of a list, or none.
fn items<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value
        .get(field)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn items_mut<'a>(
    value: &'a mut Value,
    field: &str,
) -> impl Iterator<Item = &'a mut Value> + use<'a> {
    value
        .get_mut(field)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// Sets a field that is missing.
fn default(value: &mut Value, field: &str, default: impl FnOnce(&Value) -> Option<Value>) {
    if value.get(field).is_some() || !value.is_object() {
        return;
    }
    if let Some(default) = default(value) {
        value[field] = default;
    }
}

/// Refuses a text that is none of these.
fn one_of(value: &Value, name: &str, field: &str, options: &[&str], causes: &mut Vec<Cause>) {
    if let Some(found) = value.get(name)
        && !found.as_str().is_some_and(|found| options.contains(&found))
    {
        causes.push(Cause::not_supported(field, found, options));
    }
}

/// Refuses a change of a field that has to stay.
fn immutable(judged: &Judged<'_>, pointer: &str, field: &str, causes: &mut Vec<Cause>) {
    let Some(old) = judged.old else { return };
    let new = judged.object.pointer(pointer).unwrap_or(&Value::Null);
    if old.pointer(pointer).unwrap_or(&Value::Null) != new {
        causes.push(Cause::invalid(field, new, "field is immutable"));
    }
}

/// Refuses a number that is no port.
fn port(value: Option<&Value>, field: &str, causes: &mut Vec<Cause>) {
    let Some(value) = value else { return };
    if value.is_number()
        && !value
            .as_i64()
            .is_some_and(|port| (1..=65_535).contains(&port))
    {
        causes.push(Cause::invalid(
            field,
            value,
            "must be between 1 and 65535, inclusive",
        ));
    }
}

/// Refuses the second of two items of the same name.
fn unique(list: &[Value], name: &str, field: &str, causes: &mut Vec<Cause>) {
    for (index, item) in list.iter().enumerate() {
        let Some(value) = item.get(name).filter(|value| *value != "") else {
            continue;
        };
        if list
            .iter()
            .take(index)
            .any(|earlier| earlier.get(name) == Some(value))
        {
            causes.push(Cause::duplicate(format!("{field}[{index}].{name}"), value));
        }
    }
}

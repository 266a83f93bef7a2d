//! What makes pods from a template.

use serde_json::{Map, Value, json};

use super::{Judged, immutable, items, pod, text};
use crate::schema::Cause;

const JOB_POLICIES: [&str; 2] = ["Never", "OnFailure"];

const FIXED_SET: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', \
                         'template', 'updateStrategy', 'revisionHistoryLimit', \
                         'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";

pub(super) fn complete(object: &mut Value) {
    if let Some(spec) = object.pointer_mut("/spec/template/spec") {
        pod::complete_spec(spec);
    }
}

pub(super) fn complete_cron(object: &mut Value) {
    if let Some(spec) = object.pointer_mut("/spec/jobTemplate/spec/template/spec") {
        pod::complete_spec(spec);
    }
}

pub(super) fn check(judged: &Judged<'_>, causes: &mut Vec<Cause>) {
    let Some(spec) = judged.object.get("spec") else {
        causes.push(Cause::required("spec.selector", ""));
        return;
    };
    if let Some(replicas) = spec
        .get("replicas")
        .filter(|count| count.as_i64().is_some_and(|count| count < 0))
    {
        causes.push(Cause::invalid(
            "spec.replicas",
            replicas,
            "must be greater than or equal to 0",
        ));
    }
    if let Some(selector) = spec.get("selector") {
        check_selector(judged.kind, selector, spec, causes);
    }
    if let Some(pods) = spec.pointer("/template/spec") {
        pod::check_spec(pods, "spec.template.spec", &["Always"], causes);
    } else if spec.get("template").is_some() {
        causes.push(Cause::required("spec.template.spec.containers", ""));
    }
    if judged.kind == "StatefulSet" {
        check_fixed(judged, causes);
    } else {
        immutable(judged, "/spec/selector", "spec.selector", causes);
    }
}

fn check_selector(kind: &str, selector: &Value, spec: &Value, causes: &mut Vec<Cause>) {
    let empty = |field: &str| {
        selector
            .get(field)
            .is_none_or(|part| *part == json!({}) || *part == json!([]))
    };
    if empty("matchLabels") && empty("matchExpressions") {
        let detail = format!("empty selector is invalid for {}", kind.to_lowercase());
        causes.push(Cause::invalid("spec.selector", selector, detail));
        return;
    }
    let none = json!({});
    let labels = spec.pointer("/template/metadata/labels").unwrap_or(&none);
    if spec.get("template").is_some() && !selects(selector, labels) {
        let detail = "`selector` does not match template `labels`";
        causes.push(Cause::invalid(
            "spec.template.metadata.labels",
            labels,
            detail,
        ));
    }
}

/// Whether a label selector selects an object with these labels.
fn selects(selector: &Value, labels: &Value) -> bool {
    let matches = selector.get("matchLabels").and_then(Value::as_object);
    let all = |wanted: &Map<String, Value>| {
        wanted
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
    };
    let expression = |expression: &Value| {
        let actual = labels.get(text(expression, "key"));
        let listed = actual.is_some_and(|actual| items(expression, "values").contains(actual));
        match text(expression, "operator") {
            "In" => listed,
            "NotIn" => !listed,
            "Exists" => actual.is_some(),
            "DoesNotExist" => actual.is_none(),
            _ => false,
        }
    };
    matches.is_none_or(all) && items(selector, "matchExpressions").iter().all(expression)
}

fn check_fixed(judged: &Judged<'_>, causes: &mut Vec<Cause>) {
    let fixed = |object: &Value| {
        let mut spec = object.get("spec").cloned().unwrap_or_default();
        if let Some(fields) = spec.as_object_mut() {
            for free in [
                "replicas",
                "ordinals",
                "template",
                "updateStrategy",
                "revisionHistoryLimit",
                "persistentVolumeClaimRetentionPolicy",
                "minReadySeconds",
            ] {
                fields.remove(free);
            }
        }
        spec
    };
    if judged
        .old
        .is_some_and(|old| fixed(old) != fixed(judged.object))
    {
        causes.push(Cause::forbidden("spec", FIXED_SET));
    }
}

pub(super) fn check_job(judged: &Judged<'_>, causes: &mut Vec<Cause>) {
    if let Some(pods) = judged.object.pointer("/spec/template/spec") {
        check_job_pods(pods, "spec.template.spec", causes);
    }
    immutable(
        judged,
        "/spec/template/spec/containers",
        "spec.template",
        causes,
    );
}

pub(super) fn check_cron(judged: &Judged<'_>, causes: &mut Vec<Cause>) {
    if let Some(pods) = judged
        .object
        .pointer("/spec/jobTemplate/spec/template/spec")
    {
        check_job_pods(pods, "spec.jobTemplate.spec.template.spec", causes);
    }
    if text(
        judged.object.get("spec").unwrap_or(&Value::Null),
        "schedule",
    )
    .is_empty()
    {
        causes.push(Cause::required("spec.schedule", ""));
    }
}

fn check_job_pods(pods: &Value, at: &str, causes: &mut Vec<Cause>) {
    if text(pods, "restartPolicy") == "Always" {
        let detail = "valid values: \"OnFailure\", \"Never\"";
        causes.push(Cause::required(format!("{at}.restartPolicy"), detail));
        return pod::check_spec(pods, at, &["Always"], causes);
    }
    pod::check_spec(pods, at, &JOB_POLICIES, causes);
}

pub(super) fn check_budget(judged: &Judged<'_>, causes: &mut Vec<Cause>) {
    let Some(spec) = judged.object.get("spec") else {
        return;
    };
    if spec.get("minAvailable").is_some() && spec.get("maxUnavailable").is_some() {
        let detail = "minAvailable and maxUnavailable cannot be both set";
        causes.push(Cause::invalid("spec", spec, detail));
    }
}

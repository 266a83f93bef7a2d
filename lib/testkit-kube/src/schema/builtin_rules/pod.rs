//! Pods and templates of pods.

use serde_json::{Value, json};

use super::{Judged, default, items, items_mut, one_of, port, text, unique};
use crate::schema::{Cause, Reason};

const RESTART_POLICIES: [&str; 3] = ["Always", "Never", "OnFailure"];
const DNS_POLICIES: [&str; 4] = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

const FIXED: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
                     `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only \
                     additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to \
                     be set to 1 if it was previously negative)";

pub(super) fn complete(object: &mut Value) {
    if let Some(spec) = object.get_mut("spec") {
        complete_spec(spec);
    }
}

/// Fills in what a pod's own fields imply.
pub(super) fn complete_spec(spec: &mut Value) {
    let host_network = spec.get("hostNetwork") == Some(&json!(true));
    for list in ["initContainers", "containers"] {
        for container in items_mut(spec, list) {
            default(container, "imagePullPolicy", |container| {
                let image = text(container, "image");
                let name = image.rsplit('/').next().unwrap_or_default();
                let latest = !image.contains('@')
                    && name.split_once(':').is_none_or(|(_, tag)| tag == "latest");
                Some(json!(if latest { "Always" } else { "IfNotPresent" }))
            });
            for port in items_mut(container, "ports") {
                default(port, "hostPort", |port| {
                    host_network.then(|| port.get("containerPort").cloned())?
                });
            }
        }
    }
    default(spec, "serviceAccount", |spec| {
        spec.get("serviceAccountName").cloned()
    });
    default(spec, "serviceAccountName", |spec| {
        spec.get("serviceAccount").cloned()
    });
}

pub(super) fn check(judged: &Judged<'_>, causes: &mut Vec<Cause>) {
    let Some(spec) = judged.object.get("spec") else {
        causes.push(Cause::required("spec.containers", ""));
        return;
    };
    check_spec(spec, "spec", &RESTART_POLICIES, causes);
    let old = judged.old.and_then(|old| old.get("spec"));
    let changed = |old: &Value| {
        let gated = !items(old, "schedulingGates").is_empty();
        frozen(old, gated) != frozen(spec, gated)
    };
    if old.is_some_and(changed) {
        causes.push(Cause::forbidden("spec", FIXED));
    }
}

/// The part of a pod that stays as it was created. What decides where it runs can change while it waits at
/// a gate; the node itself is set by a binding, never by an update.
fn frozen(spec: &Value, gated: bool) -> Value {
    const FREE: [&str; 4] = [
        "activeDeadlineSeconds",
        "terminationGracePeriodSeconds",
        "tolerations",
        "ephemeralContainers",
    ];
    const FREE_AT_GATE: [&str; 3] = ["schedulingGates", "nodeSelector", "affinity"];
    let mut spec = spec.clone();
    let Some(fields) = spec.as_object_mut() else {
        return spec;
    };
    let at_gate: &[&str] = if gated { &FREE_AT_GATE } else { &[] };
    for free in FREE.iter().chain(at_gate) {
        fields.remove(*free);
    }
    for list in ["initContainers", "containers"] {
        for container in items_mut(&mut spec, list) {
            if let Some(fields) = container.as_object_mut() {
                fields.remove("image");
            }
        }
    }
    spec
}

/// Judges the specification of a pod, wherever it stands.
pub(super) fn check_spec(spec: &Value, at: &str, restart: &[&str], causes: &mut Vec<Cause>) {
    if items(spec, "containers").is_empty() {
        causes.push(Cause::required(format!("{at}.containers"), ""));
    }
    one_of(
        spec,
        "restartPolicy",
        &format!("{at}.restartPolicy"),
        restart,
        causes,
    );
    one_of(
        spec,
        "dnsPolicy",
        &format!("{at}.dnsPolicy"),
        &DNS_POLICIES,
        causes,
    );
    unique(
        items(spec, "volumes"),
        "name",
        &format!("{at}.volumes"),
        causes,
    );
    let lists = ["initContainers", "containers"];
    let all: Vec<Value> = lists
        .iter()
        .flat_map(|list| items(spec, list))
        .cloned()
        .collect();
    for list in lists {
        let field = format!("{at}.{list}");
        for (index, container) in items(spec, list).iter().enumerate() {
            check_container(container, spec, &format!("{field}[{index}]"), causes);
        }
        unique(items(spec, list), "name", &field, causes);
    }
    if causes.is_empty() {
        // A name that stands in both lists.
        unique(&all, "name", &format!("{at}.containers"), causes);
    }
}

fn check_container(container: &Value, spec: &Value, at: &str, causes: &mut Vec<Cause>) {
    let name = text(container, "name");
    let label = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() && container.get("name").is_some() {
        causes.push(Cause::required(format!("{at}.name"), ""));
    } else if name.len() > 63
        || name.starts_with('-')
        || name.ends_with('-')
        || !name.bytes().all(label)
    {
        let detail = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or \
                      '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or \
                      '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
        causes.push(Cause::invalid(format!("{at}.name"), &json!(name), detail));
    }
    if text(container, "image").is_empty() {
        causes.push(Cause::required(format!("{at}.image"), ""));
    }
    let pull = format!("{at}.imagePullPolicy");
    one_of(container, "imagePullPolicy", &pull, &PULL_POLICIES, causes);
    for (index, item) in items(container, "ports").iter().enumerate() {
        let at = format!("{at}.ports[{index}]");
        port(
            item.get("containerPort"),
            &format!("{at}.containerPort"),
            causes,
        );
        one_of(
            item,
            "protocol",
            &format!("{at}.protocol"),
            &PROTOCOLS,
            causes,
        );
    }
    let volumes = items(spec, "volumes");
    let mounts = items(container, "volumeMounts");
    for (index, mount) in mounts.iter().enumerate() {
        let volume = text(mount, "name");
        if !volumes.iter().any(|known| text(known, "name") == volume) {
            let field = format!("{at}.volumeMounts[{index}].name");
            causes.push(Cause::new(
                field,
                Reason::NotFound,
                format!("Not found: {volume:?}"),
            ));
        }
    }
    unique(mounts, "mountPath", &format!("{at}.volumeMounts"), causes);
}

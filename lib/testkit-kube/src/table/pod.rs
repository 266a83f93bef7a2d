//! The row of a pod, whose status is made of all that its containers say.

use jiff::Timestamp;
use serde_json::Value;

use super::builtin::{age, items, name, or, text};

pub(super) const COLUMNS: &[(&str, &str, i64)] = &[
    ("Ready", "string", 0),
    ("Status", "string", 0),
    ("Restarts", "string", 0),
    ("Age", "string", 0),
    ("IP", "string", 1),
    ("Node", "string", 1),
    ("Nominated Node", "string", 1),
    ("Readiness Gates", "string", 1),
];

pub(super) fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let status = &pod["status"];
    let containers = items(&status["containerStatuses"]);
    let ready = containers
        .iter()
        .filter(|container| container["ready"] == true)
        .count();
    let total = items(&pod["spec"]["containers"]).len();
    let restarts: u64 = containers
        .iter()
        .filter_map(|it| it["restartCount"].as_u64())
        .sum();
    let gates = items(&pod["spec"]["readinessGates"]);
    let gates_met = gates.iter().filter(|gate| {
        let mut conditions = items(&status["conditions"]).iter();
        conditions.any(|it| it["type"] == gate["conditionType"] && it["status"] == "True")
    });
    let gates = match gates.len() {
        0 => "<none>".to_owned(),
        all => format!("{}/{all}", gates_met.count()),
    };
    vec![
        name(pod),
        format!("{ready}/{total}").into(),
        reason(pod).into(),
        restarts.to_string().into(),
        age(pod, now),
        or(text(&status["podIP"]), "<none>").into(),
        or(text(&pod["spec"]["nodeName"]), "<none>").into(),
        or(text(&status["nominatedNodeName"]), "<none>").into(),
        gates.into(),
    ]
}

/// The one word of a pod's state.
fn reason(pod: &Value) -> String {
    let status = &pod["status"];
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        let lost = status["reason"] == "NodeLost";
        return if lost { "Unknown" } else { "Terminating" }.to_owned();
    }
    if let Some(reason) = initialising(pod) {
        return reason;
    }
    let phase = or(text(&status["reason"]), text(&status["phase"])).to_owned();
    let containers = items(&status["containerStatuses"]);
    let told = containers.iter().find_map(|container| {
        let (waiting, ended) = (
            &container["state"]["waiting"],
            &container["state"]["terminated"],
        );
        let waits = text(&waiting["reason"]);
        if waits.is_empty() {
            ended_reason(ended)
        } else {
            Some(waits.to_owned())
        }
    });
    let runs = containers
        .iter()
        .any(|it| it["ready"] == true && it["state"]["running"].is_object());
    match told {
        Some(reason) if reason == "Completed" && runs => "Running".to_owned(),
        Some(reason) => reason,
        None => phase,
    }
}

/// What an init container that has not ended well says.
fn initialising(pod: &Value) -> Option<String> {
    let containers = items(&pod["status"]["initContainerStatuses"]);
    let total = items(&pod["spec"]["initContainers"]).len();
    for (index, container) in containers.iter().enumerate() {
        let state = &container["state"];
        let sidecar = container["started"] == true && state["running"].is_object();
        if sidecar || state["terminated"]["exitCode"] == 0 {
            continue;
        }
        if let Some(reason) = ended_reason(&state["terminated"]) {
            return Some(format!("Init:{reason}"));
        }
        let waits = text(&state["waiting"]["reason"]);
        if !waits.is_empty() && waits != "PodInitializing" {
            return Some(format!("Init:{waits}"));
        }
        return Some(format!("Init:{index}/{total}"));
    }
    None
}

fn ended_reason(ended: &Value) -> Option<String> {
    if !ended.is_object() {
        return None;
    }
    let reason = text(&ended["reason"]);
    Some(match (reason, ended["signal"].as_i64()) {
        ("", Some(signal)) if signal != 0 => format!("Signal:{signal}"),
        ("", _) => format!("ExitCode:{}", ended["exitCode"]),
        (reason, _) => reason.to_owned(),
    })
}

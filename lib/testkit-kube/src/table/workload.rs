//! The rows of what runs pods.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    builtin::{age, items, join, name, pairs, text},
    time,
};

type Columns = &'static [(&'static str, &'static str, i64)];

pub(super) const DEPLOYMENT: Columns = &[
    ("Ready", "string", 0),
    ("Up-to-date", "integer", 0),
    ("Available", "integer", 0),
    ("Age", "string", 0),
    ("Containers", "string", 1),
    ("Images", "string", 1),
    ("Selector", "string", 1),
];
pub(super) const DAEMON_SET: Columns = &[
    ("Desired", "integer", 0),
    ("Current", "integer", 0),
    ("Ready", "integer", 0),
    ("Up-to-date", "integer", 0),
    ("Available", "integer", 0),
    ("Node Selector", "string", 0),
    ("Age", "string", 0),
    ("Containers", "string", 1),
    ("Images", "string", 1),
    ("Selector", "string", 1),
];
pub(super) const REPLICA_SET: Columns = &[
    ("Desired", "integer", 0),
    ("Current", "integer", 0),
    ("Ready", "integer", 0),
    ("Age", "string", 0),
    ("Containers", "string", 1),
    ("Images", "string", 1),
    ("Selector", "string", 1),
];
pub(super) const STATEFUL_SET: Columns = &[
    ("Ready", "string", 0),
    ("Age", "string", 0),
    ("Containers", "string", 1),
    ("Images", "string", 1),
];
pub(super) const JOB: Columns = &[
    ("Status", "string", 0),
    ("Completions", "string", 0),
    ("Duration", "string", 0),
    ("Age", "string", 0),
];

pub(super) fn deployment(object: &Value, now: Timestamp) -> Vec<Value> {
    let status = &object["status"];
    let head = vec![
        name(object),
        ratio(status, object),
        number(&status["updatedReplicas"]),
        number(&status["availableReplicas"]),
        age(object, now),
    ];
    [head, template(object)].concat()
}

pub(super) fn daemon_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let status = &object["status"];
    let head = vec![
        name(object),
        number(&status["desiredNumberScheduled"]),
        number(&status["currentNumberScheduled"]),
        number(&status["numberReady"]),
        number(&status["updatedNumberScheduled"]),
        number(&status["numberAvailable"]),
        pairs(&object["spec"]["template"]["spec"]["nodeSelector"]).into(),
        age(object, now),
    ];
    [head, template(object)].concat()
}

pub(super) fn replica_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let status = &object["status"];
    let head = vec![
        name(object),
        number(&object["spec"]["replicas"]),
        number(&status["replicas"]),
        number(&status["readyReplicas"]),
        age(object, now),
    ];
    [head, template(object)].concat()
}

pub(super) fn stateful_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let head = vec![
        name(object),
        ratio(&object["status"], object),
        age(object, now),
    ];
    let mut template = template(object);
    template.truncate(2);
    [head, template].concat()
}

pub(super) fn job(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let is = |kind: &str| {
        let mut conditions = items(&status["conditions"]).iter();
        conditions.any(|it| it["type"] == kind && it["status"] == "True")
    };
    let state = match () {
        () if is("Complete") => "Complete",
        () if is("Failed") => "Failed",
        () if is("Suspended") => "Suspended",
        () => "Running",
    };
    let completions = spec["completions"].as_u64().unwrap_or(1);
    let succeeded = status["succeeded"].as_u64().unwrap_or_default();
    let started = text(&status["startTime"]).parse::<Timestamp>();
    let ended = text(&status["completionTime"])
        .parse::<Timestamp>()
        .unwrap_or(now);
    let duration = started.map(|started| time::short(ended.as_second() - started.as_second()));
    vec![
        name(object),
        state.into(),
        format!("{succeeded}/{completions}").into(),
        duration.unwrap_or_default().into(),
        age(object, now),
    ]
}

fn number(value: &Value) -> Value {
    json!(value.as_i64().unwrap_or_default())
}

fn ratio(status: &Value, object: &Value) -> Value {
    let ready = number(&status["readyReplicas"]);
    format!("{ready}/{}", number(&object["spec"]["replicas"])).into()
}

/// Containers, images and selector, for wide output.
fn template(object: &Value) -> Vec<Value> {
    let containers = items(&object["spec"]["template"]["spec"]["containers"]);
    let all = |field: &str| join(containers.iter().map(|it| text(&it[field]).to_owned()));
    vec![
        all("name").into(),
        all("image").into(),
        pairs(&object["spec"]["selector"]["matchLabels"]).into(),
    ]
}

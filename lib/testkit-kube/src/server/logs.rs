//! Logs of pods, which whoever runs the pods has.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{
    Shared,
    handler::Asked,
    request::Location,
    respond::{self, Body},
};
use crate::{status::Status, store::GroupResource};

/// Whoever runs pods: the server asks it as it would ask kubelets.
pub trait NodeAgent: fmt::Debug + Send + Sync + 'static {
    /// What a container has written. The stream ends with the log, or goes on while it is followed.
    fn logs(&self, request: LogRequest) -> BoxFuture<'static, Result<LogStream, Status>>;
}

/// A log as it comes.
pub type LogStream = BoxStream<'static, Bytes>;

/// Which log, and how much of it.
#[derive(Debug, Clone)]
pub struct LogRequest {
    /// The pod, as it is stored.
    pub pod: Arc<Value>,
    /// The container, which is one of the pod's.
    pub container: String,
    /// Whether to go on while the container writes.
    pub follow: bool,
    /// Whether the container that ran before is meant.
    pub previous: bool,
    /// Whether lines start with their time.
    pub timestamps: bool,
    /// How many lines from the end, all unless given.
    pub tail_lines: Option<u64>,
    /// How many bytes at most.
    pub limit_bytes: Option<u64>,
    /// Only what is younger, in seconds.
    pub since_seconds: Option<u64>,
}

const PODS: GroupResource = GroupResource::new("", "pods");

/// `GET pods/NAME/log`.
pub(super) async fn get(
    shared: &Shared,
    at: &Location,
    asked: &Asked,
) -> Result<Response<Body>, Status> {
    let pod = shared
        .cluster
        .store
        .get(&PODS, &at.namespace, &at.name)
        .ok_or_else(|| {
            let message = format!("pods {:?} not found", at.name);
            let status = Status::new(StatusCode::NOT_FOUND, "NotFound", message);
            Status {
                details: json!({"name": at.name, "kind": "pods"}),
                ..status
            }
        })?;
    let container = container(&pod, asked.query.text("container"))?;
    let agent = shared.agent.read().clone();
    let agent = agent.ok_or_else(|| {
        Status::not_implemented("pods/log unless a node agent is registered, which runs the pods")
    })?;
    let request = LogRequest {
        container,
        follow: asked.query.flag("follow"),
        previous: asked.query.flag("previous"),
        timestamps: asked.query.flag("timestamps"),
        tail_lines: asked.query.number("tailLines")?,
        limit_bytes: asked.query.number("limitBytes")?,
        since_seconds: asked.query.number("sinceSeconds")?,
        pod,
    };
    Ok(respond::stream("text/plain", agent.logs(request).await?))
}

/// The container that is meant; without a name there must be one only.
fn container(pod: &Value, wanted: &str) -> Result<String, Status> {
    let of = |list: &str| pod["spec"][list].as_array().into_iter().flatten();
    let names = of("containers").chain(of("initContainers"));
    let names: Vec<&str> = names
        .filter_map(|container| container["name"].as_str())
        .collect();
    let name = crate::meta::text(pod, "name");
    if wanted.is_empty() {
        let containers = of("containers").count();
        return match names.first() {
            Some(only) if containers == 1 => Ok((*only).to_owned()),
            _ => Err(Status::bad_request(format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                names.join(" ")
            ))),
        };
    }
    if names.contains(&wanted) {
        return Ok(wanted.to_owned());
    }
    Err(Status::bad_request(format!(
        "container {wanted} is not valid for pod {name}"
    )))
}

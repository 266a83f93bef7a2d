//! The plugin's calls: decodes and checks each, and hands it to whoever decides.

use std::{sync::Arc, time::Instant};

use http::StatusCode;
use mesh_cni::protocol::{Added, Attachment, IstioAdd, Refusal, Valid, Verb};
use mesh_runtime::http::{Request, Response, Router, router::response, text};
use serde::{Serialize, de::DeserializeOwned};

use super::check::{self, Invalid};
use crate::{metrics::Metrics, parts::Attach};

const JSON: &str = "application/json";

/// The routes of the plugin's socket. Every answer is counted by its status.
pub fn routes<A: Attach>(attach: &Arc<A>, metrics: &Metrics) -> Router {
    Verb::ALL.into_iter().fold(Router::new(), |router, verb| {
        let (attach, metrics) = (Arc::clone(attach), metrics.clone());
        router.post(verb.path(), purpose(verb), move |request| {
            let (attach, metrics) = (Arc::clone(&attach), metrics.clone());
            async move {
                let answer = answer(&*attach, verb, &request, &metrics).await;
                metrics.requested(answer.status().as_u16());
                answer
            }
        })
    })
}

fn purpose(verb: Verb) -> &'static str {
    match verb {
        Verb::IstioAdd => {
            "a pod that belongs in the mesh gets its network, as Istio's plugin says it"
        }
        Verb::Add => "a pod gets its network",
        Verb::Check => "whether a pod's network is as it should be",
        Verb::Delete => "a pod's network goes",
        Verb::Collect => "which attachments are left",
        Verb::Status => "whether pods can be added",
    }
}

async fn answer<A: Attach>(
    attach: &A,
    verb: Verb,
    request: &Request,
    metrics: &Metrics,
) -> Response {
    let body = request.body();
    match verb {
        Verb::IstioAdd => istio_add(attach, body, metrics).await,
        Verb::Add => {
            let pod = match read::<Attachment>(body, check::attachment) {
                Ok(pod) => pod,
                Err(invalid) => return malformed(&invalid),
            };
            let start = Instant::now();
            let outcome = attach.add(pod).await;
            let result = match &outcome {
                Ok(Added { enrolled: true }) => "enrolled",
                Ok(Added { enrolled: false }) => "passed",
                Err(_refusal) => "refused",
            };
            metrics.added(result, start.elapsed());
            outcome.map_or_else(
                |refusal| refused(&refusal),
                |added| json(StatusCode::OK, &added),
            )
        }
        Verb::Check => match read::<Attachment>(body, check::attachment) {
            Ok(pod) => done(attach.check(pod).await),
            Err(invalid) => malformed(&invalid),
        },
        Verb::Delete => match read::<Attachment>(body, check::deleted) {
            Ok(pod) => done(attach.delete(pod).await),
            Err(invalid) => malformed(&invalid),
        },
        Verb::Collect => match read::<Valid>(body, check::valid) {
            Ok(valid) => done(attach.collect(valid).await),
            Err(invalid) => malformed(&invalid),
        },
        Verb::Status => done(attach.status()),
    }
}

/// Istio's plugin knows a status and shows the text of any but 200.
async fn istio_add<A: Attach>(attach: &A, body: &[u8], metrics: &Metrics) -> Response {
    let pod = match read::<IstioAdd>(body, check::istio_add) {
        Ok(pod) => pod,
        Err(invalid) => return text(StatusCode::BAD_REQUEST, format!("{}\n", chain(&invalid))),
    };
    let start = Instant::now();
    let outcome = attach.istio_add(pod).await;
    let result = if outcome.is_ok() {
        "enrolled"
    } else {
        "refused"
    };
    metrics.added(result, start.elapsed());
    match outcome {
        Ok(()) => empty(),
        Err(refusal) => text(StatusCode::INTERNAL_SERVER_ERROR, refusal.message),
    }
}

fn read<T: DeserializeOwned>(
    body: &[u8],
    check: impl FnOnce(&T) -> Result<(), Invalid>,
) -> Result<T, Invalid> {
    let value = serde_json::from_slice(body).map_err(Invalid::Json)?;
    check(&value)?;
    Ok(value)
}

fn chain(invalid: &Invalid) -> String {
    mesh_runtime::error::chain(invalid).to_string()
}

fn done(outcome: Result<(), Refusal>) -> Response {
    outcome.map_or_else(|refusal| refused(&refusal), |()| empty())
}

fn empty() -> Response {
    response(StatusCode::OK, JSON, "")
}

/// What is malformed stays so: there is no use in trying again.
fn malformed(invalid: &Invalid) -> Response {
    let message = format!("the plugin's request cannot be used: {}", chain(invalid));
    let again = false;
    json(StatusCode::BAD_REQUEST, &Refusal { message, again })
}

fn refused(refusal: &Refusal) -> Response {
    let status = if refusal.again {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::INTERNAL_SERVER_ERROR
    };
    json(status, refusal)
}

fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => response(status, JSON, body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

//! Metrics: the port that Prometheus scrapes, and what every process says about itself.
//!
//! A name, type or label of a metric family whose HELP text holds the word "unstable" may change with
//! any release; the others are a promise.

use std::sync::Arc;

use http::{
    StatusCode,
    header::{ACCEPT, HeaderMap},
};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::{
    http::{Response, Router, router::response, text},
    log,
};

mod exposition;
mod process;

/// What a build of a program calls itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Build {
    /// The program, such as `ztunnel`.
    pub component: String,
    /// Its version.
    pub tag: String,
}

/// The routes of the metrics port: `GET /metrics` and `GET /stats/prometheus`, the same in OpenMetrics
/// or in Prometheus' older text form, as the client asks.
pub fn routes(registry: Arc<Registry>) -> Router {
    let other = Arc::clone(&registry);
    Router::new()
        .get("/metrics", "metrics for Prometheus", move |request| {
            scrape(Arc::clone(&registry), request.into_parts().0.headers)
        })
        .get("/stats/prometheus", "the same", move |request| {
            scrape(Arc::clone(&other), request.into_parts().0.headers)
        })
}

/// Registers what every program reports: its build, its file descriptors and its dropped log lines.
pub fn register(registry: &mut Registry, build: &Build, log: &log::Handle) {
    let family = Family::<Build, Gauge>::default();
    family.get_or_create(build).set(1);
    registry.register("istio_build", "Version of this component", family);
    registry.register(
        "log_dropped",
        "Log lines dropped because the output was too slow or failed (unstable)",
        log.dropped(),
    );
    registry.register_collector(Box::new(process::FileDescriptors));
}

/// Registers how busy the runtime behind `handle` is. One runtime per registry: the one that carries
/// the load.
pub fn register_runtime(registry: &mut Registry, handle: &tokio::runtime::Handle) {
    registry.register_collector(Box::new(process::Runtime::new(handle.metrics())));
}

/// The answer to one scrape whose request has these headers: for programs that ask who scrapes first.
pub async fn scrape(registry: Arc<Registry>, headers: HeaderMap) -> Response {
    let open_metrics = accepts_open_metrics(&headers);
    // A node with many peers has many series: encode them aside of the runtime's other tasks.
    let encoded = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        encode(&mut text, &registry).ok()?;
        Some(if open_metrics {
            text
        } else {
            exposition::to_text(&text)
        })
    });
    let content_type = if open_metrics {
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    } else {
        "text/plain; version=0.0.4; charset=utf-8"
    };
    if let Ok(Some(body)) = encoded.await {
        response(StatusCode::OK, content_type, body)
    } else {
        tracing::error!("cannot encode the metrics");
        let failure = "cannot encode the metrics\n";
        text(StatusCode::INTERNAL_SERVER_ERROR, failure)
    }
}

/// Whether the client lists OpenMetrics without ruling it out by `q=0`.
fn accepts_open_metrics(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|media| {
            let mut parts = media.split(';').map(str::trim);
            let named = parts
                .next()
                .is_some_and(|kind| kind.eq_ignore_ascii_case("application/openmetrics-text"));
            named && !parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_for_those_who_ask() {
        let asks = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            accepts_open_metrics(&headers)
        };
        assert!(asks("application/openmetrics-text"));
        assert!(asks(
            "text/plain;q=0.5, Application/OpenMetrics-Text; version=1.0.0;q=0.75"
        ));
        assert!(!asks("text/plain;version=0.0.4, */*;q=0.1"));
        assert!(!asks("application/openmetrics-text; q=0, text/plain"));
        assert!(!accepts_open_metrics(&HeaderMap::new()));
    }
}

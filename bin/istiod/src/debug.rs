//! Port 8080: readiness for the kubelet, and views of the state for people.
//!
//! The views show names and addresses of the whole mesh and there is no authentication on this port, so
//! they are for callers on the loopback interface only, which `kubectl port-forward` is.

use std::{future::ready, sync::Arc};

use http::StatusCode;
use mesh_runtime::{
    http::{Peer, Request, Response, Router, router::response, text},
    readiness::Readiness,
};
use serde::Serialize;

/// A view: what it shows is collected at each request.
type View = Arc<dyn Fn() -> serde_json::Result<Vec<u8>> + Send + Sync>;

/// Builds the routes.
pub(crate) struct Routes(Router);

// === impl Routes ===

impl Routes {
    pub(crate) fn new(readiness: Readiness) -> Self {
        let router = Router::new().dashboard("istiod").get(
            "/ready",
            "whether this replica can serve proxies",
            move |_| ready(readiness_of(&readiness)),
        );
        Self(router)
    }

    /// Adds a view.
    pub(crate) fn view<F, D>(self, path: &'static str, purpose: &'static str, collect: F) -> Self
    where
        F: Fn() -> D + Send + Sync + 'static,
        D: Serialize,
    {
        let view: View = Arc::new(move || serde_json::to_vec_pretty(&collect()));
        let router = self
            .0
            .get(path, purpose, move |request| show(request, view.clone()));
        Self(router)
    }

    pub(crate) fn into_router(self) -> Router {
        self.0
    }
}

fn readiness_of(readiness: &Readiness) -> Response {
    let waiting = readiness.waiting_for();
    if waiting.is_empty() {
        return text(StatusCode::OK, "ready\n");
    }
    let names = waiting.join(", ");
    let status = StatusCode::SERVICE_UNAVAILABLE;
    text(status, format!("not ready, pending: {names}\n"))
}

async fn show(request: Request, view: View) -> Response {
    let peer = request.extensions().get::<Peer>();
    if !peer.is_some_and(|Peer(address)| address.ip().to_canonical().is_loopback()) {
        let remedy = "this is shown to local callers only; use kubectl port-forward\n";
        return text(StatusCode::FORBIDDEN, remedy);
    }
    // A large mesh takes a while to write down.
    match tokio::task::spawn_blocking(move || view()).await {
        Ok(Ok(json)) => response(StatusCode::OK, "application/json", json),
        _ => text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the view cannot be written\n",
        ),
    }
}

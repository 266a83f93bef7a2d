//! What the kubelet asks: does the process answer, and may new pods rely on it.

use std::future::ready;

use http::StatusCode;
use mesh_runtime::{
    http::{Router, text},
    readiness::Readiness,
};

/// What is waited for before the agent is ready, in the words of `/readyz`.
pub mod tasks {
    /// The plugin is not called for every new pod yet.
    pub const INSTALLATION: &str = "installation of the plugin";
    /// Pods and namespaces have not been seen yet.
    pub const VIEW: &str = "view of the node's pods";
    /// Not every pod has been looked at yet, so that no ztunnel is let in.
    pub const SNAPSHOT: &str = "first look at every pod";
    /// The plugin has nobody to talk to yet.
    pub const SOCKET: &str = "the plugin's socket";
}

/// `/healthz` says that the process answers; `/readyz` that the plugin is called for new pods, gets an answer,
/// and that the answer rests on what the API server and the kernel hold. A ztunnel is not waited for: it has a
/// readiness of its own, and an upgrade of one of the two must not stop the other.
pub fn routes(readiness: &Readiness) -> Router {
    let readiness = readiness.clone();
    Router::new()
        .get("/healthz", "whether the process answers", |_| {
            ready(text(StatusCode::OK, "ok\n"))
        })
        .get("/readyz", "whether new pods are taken care of", move |_| {
            let waiting = readiness.waiting_for();
            ready(if waiting.is_empty() {
                text(StatusCode::OK, "ok\n")
            } else {
                let waiting = waiting.join(", ");
                let status = StatusCode::SERVICE_UNAVAILABLE;
                text(status, format!("not ready, pending: {waiting}\n"))
            })
        })
}

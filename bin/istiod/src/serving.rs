//! The port that proxies talk to: discovery and certificates over TLS.

use std::sync::Arc;

use mesh_identity::control::{grpc_server, incoming};
use mesh_runtime::drain;
use mesh_xds::server::{Limits, Metrics, Resources, Service as Discovery, Streams};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use crate::{
    authn::discovery::DiscoveryCallers,
    authority::{Callers, Signing},
    config::Config,
};

/// What a stream may send before it is read. Streams that wait for their turn hold no more than this.
const STREAM_WINDOW: u32 = 65_535;

/// Discovery, ready to be served.
pub(crate) struct Serving {
    discovery: Discovery<DiscoveryCallers>,
}

// === impl Serving ===

impl Serving {
    pub(crate) fn new(
        config: &Config,
        resources: Resources,
        callers: Callers,
        registry: &mut Registry,
    ) -> Self {
        let metrics = Metrics::default();
        metrics.register(registry);
        let limits = Limits {
            age: config.streams.max_age,
            ..Limits::default()
        };
        let Callers {
            authenticator,
            nodes,
            metrics: denials,
        } = callers;
        let callers = DiscoveryCallers::new(authenticator, nodes, denials);
        let discovery = Discovery::with_limits(resources, callers, limits, metrics);
        Self { discovery }
    }

    /// The open streams, to look at.
    pub(crate) fn streams(&self) -> Streams {
        self.discovery.streams()
    }

    /// Serves until a drain begins, then ends the streams in order.
    pub(crate) async fn run(self, listener: TcpListener, signing: Signing, drain: drain::Watch) {
        let streams = self.discovery.streams();
        let ending = {
            let drain = drain.clone();
            async move {
                drain.signaled().await;
                streams.shutdown();
            }
        };
        let server = grpc_server()
            .initial_stream_window_size(STREAM_WINDOW)
            .add_service(self.discovery.into_server())
            .add_service(signing.certificates.into_server())
            .serve_with_incoming_shutdown(incoming(listener, signing.tls), ending);
        if let Err(error) = server.await {
            let error: Arc<dyn std::error::Error> = Arc::new(error);
            tracing::error!(error = &*error, "the server of discovery ended");
        }
    }
}

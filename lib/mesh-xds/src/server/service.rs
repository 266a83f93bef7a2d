//! The gRPC service: who may open a stream, and when.

use std::pin::Pin;

use futures::{Stream, future::BoxFuture, stream};
use mesh_proto::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse,
    aggregated_discovery_service_server::{
        AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
    },
};
use tonic::{Extensions, Request, Response, Status, Streaming, metadata::MetadataMap};

use super::{Client, Limits, Metrics, Resources, Streams, session::Session, turns::Turns};

/// Delta discovery for tonic. Streams are polled by the server, nothing is spawned, and a stream makes
/// its next response only when the transport has taken the one before.
///
/// Requests of streams that have not had their turn yet wait in the transport's window: a server for
/// many proxies should set its `initial_stream_window_size` to the 64 KiB that are HTTP/2's default.
#[derive(Clone, Debug)]
pub struct Service<A> {
    authenticate: A,
    shared: Shared,
}

/// What all streams of a service share.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) resources: Resources,
    pub(super) limits: Limits,
    pub(super) metrics: Metrics,
    pub(super) streams: Streams,
    pub(super) turns: Turns,
}

/// Decides who may open a stream.
pub trait Authenticate: Send + Sync + 'static {
    /// Says who the client is, or refuses with `Unauthenticated` or `PermissionDenied`. The extensions
    /// hold what the transport knows of the peer.
    fn authenticate<'a>(
        &'a self,
        metadata: &'a MetadataMap,
        extensions: &'a Extensions,
    ) -> BoxFuture<'a, Result<Client, Status>>;
}

// === impl Service ===

impl<A: Authenticate> Service<A> {
    /// A service that tells of `resources` whom `authenticate` admits, with the usual limits.
    pub fn new(resources: Resources, authenticate: A) -> Self {
        Self::with_limits(
            resources,
            authenticate,
            Limits::default(),
            Metrics::default(),
        )
    }

    /// The same with other limits, and with metrics that are registered elsewhere.
    pub fn with_limits(
        resources: Resources,
        authenticate: A,
        limits: Limits,
        metrics: Metrics,
    ) -> Self {
        let shared = Shared {
            resources,
            limits,
            streams: Streams::new(metrics.clone()),
            metrics,
            turns: Turns::new(limits.turns, limits.turn),
        };
        Self {
            authenticate,
            shared,
        }
    }

    /// The streams of this service, to look at and to end.
    pub fn streams(&self) -> Streams {
        self.shared.streams.clone()
    }

    /// The service with its path and its limits, to be added to a server.
    pub fn into_server(self) -> AggregatedDiscoveryServiceServer<Self> {
        let request = self.shared.limits.request;
        AggregatedDiscoveryServiceServer::new(self)
            .max_decoding_message_size(request)
            .max_encoding_message_size(usize::MAX)
    }

    async fn open(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Session, Refused> {
        let address = request.remote_addr();
        let (metadata, extensions, requests) = request.into_parts();
        if self.shared.streams.is_closing() {
            return Err(Refused::Closing);
        }
        if !self.shared.resources.is_ready() {
            return Err(Refused::NotReady);
        }
        let authenticate = self.authenticate.authenticate(&metadata, &extensions);
        let mut client = authenticate.await.map_err(Refused::Client)?;
        client.address = client.address.or(address);
        let most = self.shared.limits.streams;
        let registration = self.shared.streams.enter(client.clone(), most);
        let registration = registration.ok_or(Refused::Full(most))?;
        Ok(Session::new(
            self.shared.clone(),
            client,
            registration,
            requests,
        ))
    }
}

#[tonic::async_trait]
impl<A: Authenticate> AggregatedDiscoveryService for Service<A> {
    type DeltaAggregatedResourcesStream =
        Pin<Box<dyn Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send>>;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let session = match self.open(request).await {
            Ok(session) => session,
            Err(refused) => {
                self.shared.metrics.refused_stream(refused.reason());
                return Err(refused.into());
            }
        };
        let responses = stream::unfold(session, |mut session| async move {
            let response = session.next().await?;
            Some((response, session))
        });
        Ok(Response::new(Box::pin(responses)))
    }
}

// === impl Authenticate ===

impl<F> Authenticate for F
where
    F: Fn(&MetadataMap, &Extensions) -> Result<Client, Status> + Send + Sync + 'static,
{
    fn authenticate<'a>(
        &'a self,
        metadata: &'a MetadataMap,
        extensions: &'a Extensions,
    ) -> BoxFuture<'a, Result<Client, Status>> {
        Box::pin(std::future::ready(self(metadata, extensions)))
    }
}

/// Why a stream is not opened. All but `Client` pass by themselves, or are not so in other replicas.
#[derive(Debug, thiserror::Error)]
enum Refused {
    /// We are about to end.
    #[error("this replica of the control plane is shutting down")]
    Closing,
    /// The catalog is not complete, and what is missing would be taken for gone.
    #[error("this replica of the control plane has not read the whole mesh yet")]
    NotReady,
    /// The limit is reached.
    #[error("this replica of the control plane serves {0} streams already")]
    Full(usize),
    /// The authenticator says no.
    #[error("the client is not admitted")]
    Client(#[source] Status),
}

// === impl Refused ===

impl Refused {
    fn reason(&self) -> &'static str {
        match self {
            Self::Closing => "closing",
            Self::NotReady => "not_ready",
            Self::Full(_) => "full",
            Self::Client(_) => "not_admitted",
        }
    }
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Client(status) => status,
            other => Self::unavailable(other.to_string()),
        }
    }
}

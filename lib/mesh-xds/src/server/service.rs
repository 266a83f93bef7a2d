//! The machine on a gRPC stream.

use std::pin::Pin;

use futures::{Stream, future::BoxFuture, stream};
use mesh_proto::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse,
    aggregated_discovery_service_server::{
        AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
    },
};
use tokio::sync::watch;
use tonic::{Extensions, Request, Response, Status, Streaming, metadata::MetadataMap};

use super::{Error, Machine, Resources};

/// Delta discovery for tonic. Streams are polled by the server, nothing is spawned, and a stream makes
/// its next response only when the transport has taken the one before.
#[derive(Clone, Debug)]
pub struct Service<A> {
    resources: Resources,
    authenticate: A,
}

/// Decides who may open a stream.
pub trait Authenticate: Send + Sync + 'static {
    /// Refuses with `Unauthenticated` or `PermissionDenied`. The extensions hold what the transport
    /// knows of the peer.
    fn authenticate<'a>(
        &'a self,
        metadata: &'a MetadataMap,
        extensions: &'a Extensions,
    ) -> BoxFuture<'a, Result<(), Status>>;
}

/// One client.
struct Session {
    machine: Machine,
    resources: Resources,
    changed: watch::Receiver<()>,
    requests: Streaming<DeltaDiscoveryRequest>,
    /// The client's name for itself, once it has said it.
    node: String,
    over: bool,
}

/// Largest request: the versions of some 600,000 held names.
const MAX_REQUEST: usize = 64 * 1024 * 1024;

// === impl Service ===

impl<A: Authenticate> Service<A> {
    /// A service that tells of `resources` whom `authenticate` admits.
    pub fn new(resources: Resources, authenticate: A) -> Self {
        Self {
            resources,
            authenticate,
        }
    }

    /// The service with its path and its limits, to be added to a server.
    pub fn into_server(self) -> AggregatedDiscoveryServiceServer<Self> {
        AggregatedDiscoveryServiceServer::new(self)
            .max_decoding_message_size(MAX_REQUEST)
            .max_encoding_message_size(usize::MAX)
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
        let (metadata, extensions, requests) = request.into_parts();
        (self.authenticate)
            .authenticate(&metadata, &extensions)
            .await?;
        let session = Session {
            machine: Machine::default(),
            changed: self.resources.changed(),
            resources: self.resources.clone(),
            requests,
            node: String::new(),
            over: false,
        };
        let responses = stream::unfold(session, |mut session| async move {
            let response = session.next().await?;
            session.over = response.is_err();
            Some((response, session))
        });
        Ok(Response::new(Box::pin(responses)))
    }
}

// === impl Authenticate ===

impl<F> Authenticate for F
where
    F: Fn(&MetadataMap, &Extensions) -> Result<(), Status> + Send + Sync + 'static,
{
    fn authenticate<'a>(
        &'a self,
        metadata: &'a MetadataMap,
        extensions: &'a Extensions,
    ) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(std::future::ready(self(metadata, extensions)))
    }
}

// === impl Session ===

impl Session {
    async fn next(&mut self) -> Option<Result<DeltaDiscoveryResponse, Status>> {
        while !self.over {
            match self.machine.respond(&self.resources.read()) {
                Ok(None) => {}
                Ok(Some(response)) => return Some(Ok(response)),
                Err(error) => return Some(Err(error.into())),
            }
            tokio::select! {
                request = self.requests.message() => match request {
                    Ok(Some(request)) => {
                        if let Err(error) = self.request(request) {
                            return Some(Err(error.into()));
                        }
                    }
                    Ok(None) => return None,
                    Err(status) => return Some(Err(status)),
                },
                // Cannot fail: the sender lives in `resources`.
                _ = self.changed.changed() => {}
            }
        }
        None
    }

    fn request(&mut self, request: DeltaDiscoveryRequest) -> Result<(), Error> {
        if let Some(node) = &request.node {
            self.node = node.id.chars().take(256).collect();
            tracing::debug!(node = self.node, url = request.type_url, "client asks");
        }
        if let Some(refusal) = self.machine.request(request)? {
            tracing::warn!(
                node = self.node,
                url = refusal.type_url,
                reason = refusal.message,
                "client refused resources"
            );
        }
        Ok(())
    }
}

// === impl Error ===

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match error {
            Error::TooManyTypes | Error::TooManyNames(_) => {
                Self::resource_exhausted(error.to_string())
            }
            Error::Behind(_) => Self::aborted(error.to_string()),
        }
    }
}

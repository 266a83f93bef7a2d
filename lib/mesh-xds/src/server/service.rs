//! The gRPC service: who may open a stream, and when.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::{future::BoxFuture, stream};
use http::{HeaderMap, HeaderValue, header};
use http_body::Frame;
use http_body_util::StreamBody;
use mesh_proto::discovery::aggregated_discovery_service_server::SERVICE_NAME;
use tonic::{
    Extensions, Request, Status,
    body::Body,
    metadata::{MetadataMap, MetadataValue},
    server::NamedService,
};

use super::{
    Chunks, Client, Limits, Metrics, Resources, Response, Streams, TooLarge, requests::Requests,
    session::Session, turns::Turns,
};

/// Delta discovery. Streams are polled by the server, nothing is spawned, and a stream makes its next
/// response only when the transport has taken the one before.
///
/// The messages of gRPC are read and written here, since tonic's codecs hold each message as a whole, and
/// keep the memory of the largest one for as long as the stream lives.
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

/// The service on its path, as tonic's servers take it. Clones share everything.
#[derive(Debug)]
pub struct Server<A> {
    service: Arc<Service<A>>,
}

/// What goes to one client: the responses of its session as bytes.
struct Outgoing {
    session: Session,
    /// What is left of the response that is being sent.
    chunks: Option<Chunks>,
    over: bool,
}

/// The one method of the service that is spoken.
const PATH: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// That of gRPC with protobuf, which is its default.
const CONTENT_TYPE: &str = "application/grpc";

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
    pub fn into_server(self) -> Server<A> {
        Server {
            service: Arc::new(self),
        }
    }

    async fn serve(&self, request: http::Request<Body>) -> http::Response<Body> {
        if request.uri().path() != PATH {
            return Status::unimplemented("delta discovery is spoken here").into_http();
        }
        if let Err(status) = uncompressed(request.headers()) {
            return status.into_http();
        }
        match self.open(Request::from_http(request)).await {
            Ok(session) => accepted(Outgoing::new(session)),
            Err(refused) => {
                self.shared.metrics.refused_stream(refused.reason());
                Status::from(refused).into_http()
            }
        }
    }

    async fn open(&self, request: Request<Body>) -> Result<Session, Refused> {
        let address = request.remote_addr();
        let (metadata, extensions, body) = request.into_parts();
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
        let requests = Requests::new(body, self.shared.limits.request);
        Ok(Session::new(
            self.shared.clone(),
            client,
            registration,
            requests,
        ))
    }
}

// === impl Server ===

impl<A> Clone for Server<A> {
    fn clone(&self) -> Self {
        Self {
            service: Arc::clone(&self.service),
        }
    }
}

impl<A> NamedService for Server<A> {
    const NAME: &'static str = SERVICE_NAME;
}

impl<A: Authenticate> tower::Service<http::Request<Body>> for Server<A> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = Arc::clone(&self.service);
        Box::pin(async move { Ok(service.serve(request).await) })
    }
}

// === impl Outgoing ===

impl Outgoing {
    fn new(session: Session) -> Self {
        Self {
            session,
            chunks: None,
            over: false,
        }
    }

    /// The next bytes, or how the stream ends.
    async fn next(&mut self) -> Option<Frame<Bytes>> {
        if self.over {
            return None;
        }
        loop {
            if let Some(chunk) = self.chunks.as_mut().and_then(Iterator::next) {
                return Some(Frame::data(chunk));
            }
            // Nothing is kept of a response while the session waits for the next one.
            self.chunks = None;
            match self.session.next().await.map(encode) {
                Some(Ok(chunks)) => self.chunks = Some(chunks),
                Some(Err(status)) => return Some(self.end(&status)),
                None => return Some(self.end(&Status::ok(""))),
            }
        }
    }

    fn end(&mut self, status: &Status) -> Frame<Bytes> {
        self.over = true;
        Frame::trailers(trailers(status))
    }
}

fn encode(response: Result<Response, Status>) -> Result<Chunks, Status> {
    Ok(response?.encode()?)
}

fn accepted(outgoing: Outgoing) -> http::Response<Body> {
    let frames = stream::unfold(Box::new(outgoing), |mut outgoing| async move {
        let frame = outgoing.next().await?;
        Some((Ok::<_, Status>(frame), outgoing))
    });
    let mut response = http::Response::new(Body::new(StreamBody::new(frames)));
    let grpc = HeaderValue::from_static(CONTENT_TYPE);
    response.headers_mut().insert(header::CONTENT_TYPE, grpc);
    response
}

/// A message that cannot be a header's value does not keep the code from the client.
fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        trailers.clear();
        trailers.insert(Status::GRPC_STATUS, HeaderValue::from(status.code() as i32));
    }
    trailers
}

/// Requests are taken as they are, like responses: their sender is told so.
fn uncompressed(headers: &HeaderMap) -> Result<(), Status> {
    const IDENTITY: &str = "identity";
    match headers.get("grpc-encoding") {
        Some(encoding) if encoding != IDENTITY => {
            let mut status = Status::unimplemented("compressed requests are not taken");
            let metadata = status.metadata_mut();
            metadata.insert("grpc-accept-encoding", MetadataValue::from_static(IDENTITY));
            Err(status)
        }
        _ => Ok(()),
    }
}

// === impl TooLarge ===

impl From<TooLarge> for Status {
    fn from(error: TooLarge) -> Self {
        tracing::error!(%error, "a client cannot be told of the mesh");
        Self::resource_exhausted(error.to_string())
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

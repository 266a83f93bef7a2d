//! The server's end of one HBONE connection: CONNECT requests in, tunnels out.
//!
//! The connection runs in the task of its caller; each request runs as a task of its own. So one
//! tunnel with much traffic holds up neither the others nor the connection, and the tunnels of one
//! peer use as many threads as there are.
//!
//! A peer can open a stream and reset it at once, over and over, without ever exceeding the number of
//! streams it may have open. Here a request counts until its handler has ended, reset or not; past
//! the limit no more are taken up, and `h2` ends a connection on which reset streams queue up.

use std::{
    future::poll_fn,
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use h2::{
    Reason, RecvStream,
    server::{Builder, Connection, SendResponse},
};
use http::{HeaderMap, Method, Response, StatusCode};
use mesh_core::route::Authority;
use mesh_runtime::{
    drain::{Mode, Watch},
    task::Tracker,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};

use super::{authority, keepalive, payload::Payload, settings::Settings, stream::Stream};

/// A request for a tunnel.
#[derive(Debug)]
pub struct Request {
    /// Where the tunnel shall lead.
    pub authority: Authority,
    /// The request's headers, not validated.
    pub headers: HeaderMap,
    /// What answers it.
    pub responder: Responder,
}

/// The right to answer one request. Dropping it resets the stream.
#[derive(Debug)]
pub struct Responder {
    respond: SendResponse<Payload>,
    receive: RecvStream,
}

/// Why a connection ended other than in order. Its requests see their streams break.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client did not begin with HTTP/2's preface. The client is at fault.
    #[error("read the preface of HTTP/2")]
    Handshake(#[source] h2::Error),
    /// The client did not begin in time.
    #[error("read the preface of HTTP/2 within {} s", .0.as_secs_f32())]
    HandshakeTimeout(Duration),
    /// The connection broke, or the client broke the rules of HTTP/2.
    #[error("serve HTTP/2")]
    Connection(#[source] h2::Error),
    /// The client stopped answering PINGs.
    #[error("get an answer to a PING within {} s", .0.as_secs_f32())]
    Unanswered(Duration),
}

/// Why a tunnel could not be answered: the client has reset the stream or is gone. Nobody needs to
/// be told.
#[derive(Debug, thiserror::Error)]
#[error("answer a CONNECT that its client has given up")]
pub struct Gone(#[source] h2::Error);

/// Why a request gets 400. The client is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It is no CONNECT: a client that takes the proxy for a web server.
    #[error("method {0} instead of CONNECT")]
    Method(Method),
    /// It does not say where to.
    #[error("CONNECT without an authority")]
    NoAuthority,
    /// It is an extended CONNECT, or no CONNECT at all.
    #[error("CONNECT with a scheme or a path")]
    NotPlain,
    /// What it says is neither an address nor a host name with a port.
    #[error(transparent)]
    Authority(#[from] authority::Error),
}

/// What becomes of requests.
pub trait Handler {
    /// Answers a well-formed request; runs as a task of its own.
    fn handle(&self, request: Request) -> impl Future<Output = ()> + Send + 'static;

    /// Is told of a request that was answered with 400.
    fn refused(&self, reason: &Malformed) {
        tracing::debug!(%reason, "request answered with 400");
    }
}

/// The state of a connection between two requests.
struct Server<IO> {
    connection: Connection<IO, Payload>,
    /// As many permits as requests may be under way.
    permits: Arc<Semaphore>,
}

/// How long a graceful drain waits for those who are still shaking hands: some round trips over any
/// distance, and little beside what an owner waits for open tunnels.
const HANDSHAKE_GRACE: Duration = Duration::from_secs(1);

/// Serves the connection `io` until it ends: in order by the client or by `drain`, or with an error.
///
/// Each well-formed request is a task of `tasks` that runs `handler`; others are answered with 400
/// here. A graceful drain tells the client to open no more streams and
/// waits for those there are; an immediate one breaks them.
pub async fn serve<IO>(
    io: IO,
    settings: &Settings,
    drain: Watch,
    tasks: &Tracker,
    handler: impl Handler,
) -> Result<(), Error>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let mut server = tokio::select! {
        biased;
        () = too_late_to_begin(&drain) => return Ok(()),
        server = Server::accept(io, settings) => server?,
    };
    let mut unanswered = pin!(server.unanswered(settings));
    let mut signaled = pin!(drain.signaled());
    let mut immediate = pin!(drain.immediate());
    let mut draining = false;
    loop {
        tokio::select! {
            biased;
            () = &mut immediate => return server.abort().await,
            mode = &mut signaled, if !draining => {
                draining = true;
                if mode == Mode::Graceful {
                    server.connection.graceful_shutdown();
                }
            }
            request = server.next() => match request {
                None => return Ok(()),
                Some(Err(error)) => return Err(Error::Connection(error)),
                Some(Ok((request, responder, permit))) => {
                    match check(request, responder) {
                        Ok(request) => {
                            let handling = handler.handle(request);
                            drop(tasks.spawn("hbone-request", async move {
                                handling.await;
                                drop(permit);
                            }));
                        }
                        Err(malformed) => handler.refused(&malformed),
                    }
                }
            },
            () = &mut unanswered => return Err(Error::Unanswered(settings.ping_timeout)),
        }
    }
}

/// Resolves when a client that is still shaking hands is not waited for any longer.
///
/// A graceful drain gives it the time that a peer needs: it gets a connection and is told in order to
/// open its tunnel elsewhere, whereas a broken handshake fails what its application began.
pub(crate) async fn too_late_to_begin(drain: &Watch) {
    if drain.signaled().await == Mode::Graceful {
        tokio::select! {
            () = drain.immediate() => {}
            () = sleep(HANDSHAKE_GRACE) => {}
        }
    }
}

// === impl Server ===

type Incoming = (http::Request<()>, Responder, OwnedSemaphorePermit);

impl<IO> Server<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    async fn accept(io: IO, settings: &Settings) -> Result<Self, Error> {
        let mut builder = Builder::new();
        builder
            .initial_window_size(settings.stream_window)
            .initial_connection_window_size(settings.connection_window)
            .max_frame_size(settings.frame_size)
            .max_header_list_size(settings.server_header_list)
            .max_send_buffer_size(settings.send_buffer)
            .max_concurrent_streams(settings.max_concurrent_streams)
            .data_frame_budget(settings.small_frame_budget);
        let connection = timeout(settings.connect_timeout, builder.handshake(io))
            .await
            .map_err(|_elapsed| Error::HandshakeTimeout(settings.connect_timeout))?
            .map_err(Error::Handshake)?;
        let permits = Semaphore::new(settings.max_concurrent_streams as usize);
        Ok(Self {
            connection,
            permits: Arc::new(permits),
        })
    }

    fn unanswered(&mut self, settings: &Settings) -> impl Future<Output = ()> + use<IO> {
        let pings = self.connection.ping_pong();
        let settings = settings.clone();
        async move {
            match pings {
                Some(pings) => keepalive::unanswered(pings, &settings).await,
                None => std::future::pending().await,
            }
        }
    }

    /// The next request, when there may be one more under way; moves the connection along meanwhile.
    async fn next(&mut self) -> Option<Result<Incoming, h2::Error>> {
        let connection = &mut self.connection;
        let permit = tokio::select! {
            biased;
            permit = Arc::clone(&self.permits).acquire_owned() => permit.ok()?,
            closed = poll_fn(|cx| connection.poll_closed(cx)) => return closed.err().map(Err),
        };
        let accepted = connection.accept().await?;
        Some(accepted.map(|(request, respond)| {
            let (parts, receive) = request.into_parts();
            let request = http::Request::from_parts(parts, ());
            (request, Responder { respond, receive }, permit)
        }))
    }

    /// Breaks the connection and its streams, and tells the client as far as it listens.
    async fn abort(mut self) -> Result<(), Error> {
        self.connection.abrupt_shutdown(Reason::NO_ERROR);
        // Once: what cannot be written now is not worth waiting for.
        poll_fn(|cx| {
            drop(self.connection.poll_closed(cx));
            Poll::Ready(())
        })
        .await;
        Ok(())
    }
}

/// Answers what is no request for a tunnel, and passes on what is.
fn check(request: http::Request<()>, responder: Responder) -> Result<Request, Malformed> {
    match target(&request) {
        Ok(authority) => Ok(Request {
            authority,
            headers: request.into_parts().0.headers,
            responder,
        }),
        Err(malformed) => {
            responder.reject(StatusCode::BAD_REQUEST);
            Err(malformed)
        }
    }
}

fn target(request: &http::Request<()>) -> Result<Authority, Malformed> {
    if request.method() != Method::CONNECT {
        return Err(Malformed::Method(request.method().clone()));
    }
    let uri = request.uri();
    let authority = uri.authority().ok_or(Malformed::NoAuthority)?;
    if uri.scheme().is_some() || uri.path_and_query().is_some() {
        return Err(Malformed::NotPlain);
    }
    Ok(authority::parse(authority.as_str())?)
}

// === impl Handler ===

impl<H, F> Handler for H
where
    H: Fn(Request) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    fn handle(&self, request: Request) -> impl Future<Output = ()> + Send + 'static {
        self(request)
    }
}

// === impl Responder ===

impl Responder {
    /// Answers 200: the tunnel is up.
    pub fn accept(mut self, headers: HeaderMap) -> Result<Stream, Gone> {
        let mut response = Response::new(());
        *response.headers_mut() = headers;
        let send = self.respond.send_response(response, false).map_err(Gone)?;
        Ok(Stream::new(send, self.receive, None))
    }

    /// Refuses the tunnel. Whether the client still hears it does not matter.
    pub fn reject(mut self, status: StatusCode) {
        let mut response = Response::new(());
        *response.status_mut() = status;
        drop(self.respond.send_response(response, true));
    }

    /// Resolves when the client has given the request up or is gone: there is no more need to reach
    /// the application. Cancel safe.
    pub async fn given_up(&mut self) {
        poll_fn(|cx: &mut Context<'_>| self.respond.poll_reset(cx).map(drop)).await;
    }
}

#[cfg(test)]
mod tests;

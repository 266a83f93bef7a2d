//! The client's end of one HBONE connection.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use h2::{
    RecvStream, SendStream,
    client::{Builder, Connection, SendRequest},
};
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{keepalive, payload::Payload, settings::Settings};

/// What `h2` says the peer allows before the peer has said anything; no SETTINGS frame can say it.
const UNSETTLED: usize = usize::MAX - 1;

/// Sends requests on a connection. Cheap to clone; the connection closes when the last clone is gone
/// and no stream is left.
#[derive(Clone, Debug)]
pub struct Handle {
    requests: SendRequest<Payload>,
}

/// The connection itself, which moves bytes only while [`Driver::progress`] is polled.
pub struct Driver<IO> {
    connection: Connection<IO, Payload>,
    settled: bool,
    /// The end of the connection, when it came together with the peer's SETTINGS.
    closed: Option<Result<(), h2::Error>>,
}

/// What has happened to a connection.
#[derive(Debug)]
pub enum Progress {
    /// The peer's SETTINGS have arrived: it does speak HTTP/2, and allows this many streams at once.
    Settled(usize),
    /// The connection is over; the reason, if it was not in order.
    Closed(Result<(), h2::Error>),
}

/// Begins an HTTP/2 connection over `io`.
///
/// Returns before the peer has answered: a first request may be sent at once. How many more it takes
/// is known after [`Progress::Settled`].
pub async fn handshake<IO>(io: IO, settings: &Settings) -> Result<(Handle, Driver<IO>), h2::Error>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let (requests, connection) = Builder::new()
        .initial_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_frame_size(settings.frame_size)
        .max_header_list_size(settings.client_header_list)
        .max_send_buffer_size(settings.send_buffer)
        .data_frame_budget(settings.small_frame_budget)
        .initial_max_send_streams(UNSETTLED)
        .enable_push(false)
        .handshake(io)
        .await?;
    let driver = Driver {
        connection,
        settled: false,
        closed: None,
    };
    Ok((Handle { requests }, driver))
}

// === impl Handle ===

impl Handle {
    /// Sends a request without END_STREAM and waits for its answer. Dropping the future resets the
    /// stream.
    pub(super) async fn send(
        &self,
        request: Request<()>,
    ) -> Result<(Response<RecvStream>, SendStream<Payload>), h2::Error> {
        // A clone of its own: each holds one request that could not be sent yet.
        let mut requests = self.requests.clone().ready().await?;
        let (response, send) = requests.send_request(request, false)?;
        drop(requests);
        Ok((response.await?, send))
    }

    /// Streams that the peer allows at once, by its latest SETTINGS.
    pub fn limit(&self) -> usize {
        self.requests.current_max_send_streams()
    }

    /// Whether the connection takes no new streams: it is broken, or the peer has sent GOAWAY.
    pub fn is_closed(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        matches!(
            self.requests.clone().poll_ready(&mut cx),
            Poll::Ready(Err(_))
        )
    }
}

// === impl Driver ===

impl<IO> fmt::Debug for Driver<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("settled", &self.settled)
            .finish_non_exhaustive()
    }
}

impl<IO> Driver<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    /// Moves the connection along until something has happened to it. Cancel safe.
    pub async fn progress(&mut self) -> Progress {
        poll_fn(|cx| self.poll_progress(cx)).await
    }

    /// Resolves when the peer does not answer a PING in time. Meant to be polled beside the driver,
    /// and taken once: any further call never resolves.
    pub fn unanswered(&mut self, settings: &Settings) -> impl Future<Output = ()> + Send + use<IO> {
        let pings = self.connection.ping_pong();
        let settings = settings.clone();
        async move {
            match pings {
                Some(pings) => keepalive::unanswered(pings, &settings).await,
                None => std::future::pending().await,
            }
        }
    }

    fn poll_progress(&mut self, cx: &mut Context<'_>) -> Poll<Progress> {
        if let Some(closed) = self.closed.take() {
            return Poll::Ready(Progress::Closed(closed));
        }
        let closed = Pin::new(&mut self.connection).poll(cx);
        if self.settled {
            return closed.map(Progress::Closed);
        }
        let limit = self.connection.max_concurrent_send_streams();
        if limit == UNSETTLED {
            return closed.map(Progress::Closed);
        }
        self.settled = true;
        if let Poll::Ready(closed) = closed {
            self.closed = Some(closed);
        }
        Poll::Ready(Progress::Settled(limit))
    }
}

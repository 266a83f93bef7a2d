//! A small HTTP/1.1 server for the ports that people, probes and Prometheus talk to.
//!
//! It is built to be left alone: everything a client may send or hold is bounded in size, number and
//! time. One connection carries one request, so that a slow or silent client is gone after a few
//! seconds and cannot keep others out for long.

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use ::http::StatusCode;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time,
};

use crate::{drain, error, task};

pub mod router;

pub use router::{Request, Response, Router};

/// What one client, and all of them together, may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From the accept until the whole request head is there.
    pub head_time: Duration,
    /// Bytes of a request head, at least 8192. More is answered with 431.
    pub head_size: usize,
    /// From the request head until the whole body is there, where a body is read at all.
    pub body_time: Duration,
    /// Bytes of a request body. More is answered with 413.
    pub body_size: usize,
    /// From the accept until the last byte of the response is taken.
    pub total_time: Duration,
    /// Connections at a time per listener. Further ones wait in the kernel's queue.
    pub connections: usize,
}

/// Where connections come from.
pub trait Listener: Send + Sync + 'static {
    /// A connection.
    type Stream: Send + 'static;
    /// The next one, and the address of its peer if peers have addresses. Dropping the future loses none.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Option<Peer>)>> + Send;
}

/// What makes a connection ready to carry a request.
pub trait Transport<S = TcpStream>: Clone + Send + Sync + 'static {
    /// What then carries it.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// Makes a connection ready. A failure is the peer's.
    fn open(&self, stream: S) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// No more than the connection itself.
#[derive(Clone, Copy, Debug)]
pub struct Plain;

/// Who sent a request; found in its extensions, unless it came over a socket whose peers have no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// Pause after an accept failed, usually for want of file descriptors: trying at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Name of the tasks that serve a connection.
const TASK: &str = "http-connection";

/// A plain text response. The text should end with a line feed.
pub fn text(status: StatusCode, text: impl Into<String>) -> Response {
    router::response(status, "text/plain; charset=utf-8", text.into())
}

/// Serves `router` on `listener` until a drain begins; requests under way are then still answered,
/// unless the drain is or becomes immediate. Each connection is a task on `tasks` and holds up the
/// drain.
pub async fn serve(
    listener: TcpListener,
    router: Arc<Router>,
    limits: Limits,
    tasks: task::Tracker,
    drain: drain::Watch,
) {
    serve_over((listener, Plain), router, limits, tasks, drain).await;
}

/// Like [`serve`], with what makes a connection ready first, such as a TLS handshake. It has as long as
/// the request head.
pub async fn serve_over<L: Listener, T: Transport<L::Stream>>(
    (listener, transport): (L, T),
    router: Arc<Router>,
    limits: Limits,
    tasks: task::Tracker,
    drain: drain::Watch,
) {
    let room = Arc::new(Semaphore::new(limits.connections));
    let mut failing = false;
    loop {
        let next = tokio::select! {
            biased;
            _ = drain.signaled() => return,
            next = accept(&listener, &room) => next,
        };
        match next {
            Ok((stream, peer, permit)) => {
                failing = false;
                let router = Arc::clone(&router);
                let (transport, drain) = (transport.clone(), drain.clone());
                tasks.spawn(TASK, async move {
                    match time::timeout(limits.head_time, transport.open(stream)).await {
                        Ok(Ok(stream)) => {
                            connection(stream, peer, router, limits, drain).await;
                        }
                        Ok(Err(error)) => tracing::debug!(%error, "connection not opened"),
                        Err(_elapsed) => tracing::debug!("connection not opened in time"),
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                if !failing {
                    tracing::warn!(%error, "cannot accept connections, trying on");
                }
                failing = true;
                time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn accept<L: Listener>(
    listener: &L,
    room: &Arc<Semaphore>,
) -> io::Result<(L::Stream, Option<Peer>, OwnedSemaphorePermit)> {
    let permit = Arc::clone(room)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, permit))
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    peer: Option<Peer>,
    router: Arc<Router>,
    limits: Limits,
    drain: drain::Watch,
) {
    let answer = service_fn(|mut request: ::http::Request<Incoming>| {
        let router = Arc::clone(&router);
        if let Some(peer) = peer {
            request.extensions_mut().insert(peer);
        }
        async move { Ok::<_, Infallible>(router.answer(request, &limits).await) }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .keep_alive(false)
            .header_read_timeout(limits.head_time)
            .max_buf_size(limits.head_size)
            .serve_connection(TokioIo::new(stream), answer)
    );
    let served = async {
        tokio::select! {
            served = connection.as_mut() => return served,
            _ = drain.signaled() => connection.as_mut().graceful_shutdown(),
        }
        tokio::select! {
            served = connection.as_mut() => served,
            () = drain.immediate() => Ok(()),
        }
    };
    match time::timeout(limits.total_time, served).await {
        Ok(Ok(())) => {}
        // The peer's fault in all cases, and ordinary on a port that anybody can reach.
        Ok(Err(failed)) => tracing::debug!(error = %error::chain(&failed), "request not served"),
        Err(_elapsed) => tracing::debug!("request not served: it took too long"),
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, Option<Peer>)> {
        let (stream, peer) = self.accept().await?;
        Ok((stream, Some(Peer(peer))))
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<(UnixStream, Option<Peer>)> {
        let (stream, _unnamed) = self.accept().await?;
        Ok((stream, None))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Transport<S> for Plain {
    type Stream = S;

    async fn open(&self, stream: S) -> io::Result<S> {
        Ok(stream)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_time: Duration::from_secs(2),
            head_size: 8 * 1024,
            body_time: Duration::from_secs(2),
            body_size: 8 * 1024,
            total_time: Duration::from_mins(1),
            connections: 256,
        }
    }
}

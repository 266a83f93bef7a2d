//! Connections: TCP, TLS, and HTTP in both versions.

use std::{fmt, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use http::Request;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use openssl::ssl::{Ssl, SslAcceptor};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_openssl::SslStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Error, Shared, handler};

/// A handshake takes longer than this only with somebody who does not mean it.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// So do the headers of a request.
const HEADERS: Duration = Duration::from_secs(30);
/// Requests at a time on one connection, watches included.
const STREAMS: u32 = 1000;

/// Listeners at work. Dropping this ends them without waiting.
#[derive(Debug)]
pub(super) struct Running {
    end: CancellationToken,
    tasks: TaskTracker,
    serve: Serve,
}

/// What a connection needs.
#[derive(Clone)]
struct Serve {
    shared: Arc<Shared>,
    acceptor: SslAcceptor,
    places: Arc<Semaphore>,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

// === impl Running ===

impl Running {
    /// Accepts the connections of a listener, beside those it has.
    pub(super) fn accept(&self, listener: TcpListener) {
        let (end, tasks) = (self.end.clone(), self.tasks.clone());
        let accepting = self.serve.clone().accept(listener, end, tasks);
        self.tasks.spawn(accepting);
    }

    /// Ends all listeners and connections, and waits until the ports are free.
    pub(super) async fn stop(self) {
        self.end.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

/// Listens, and says where.
pub(super) async fn start(
    shared: &Arc<Shared>,
    wanted: SocketAddr,
) -> Result<(Running, SocketAddr), Error> {
    let hosts: Vec<&str> = shared.options.hosts.iter().map(String::as_str).collect();
    let acceptor = shared.cluster.authority.acceptor(&hosts)?.build();
    let failed = |source| Error::Listen {
        address: wanted,
        source,
    };
    let listener = TcpListener::bind(wanted).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let running = Running {
        end: CancellationToken::new(),
        tasks: TaskTracker::new(),
        serve: Serve {
            shared: shared.clone(),
            acceptor,
            places: Arc::new(Semaphore::new(shared.options.max_connections)),
        },
    };
    running.accept(listener);
    Ok((running, address))
}

// === impl Serve ===

impl fmt::Debug for Serve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = self.places.available_permits();
        f.debug_struct("Serve")
            .field("places", &places)
            .finish_non_exhaustive()
    }
}

impl Serve {
    async fn accept(self, listener: TcpListener, end: CancellationToken, tasks: TaskTracker) {
        let all = async {
            loop {
                let Ok(place) = self.places.clone().acquire_owned().await else {
                    return;
                };
                // A connection that is gone before it is accepted is nobody's loss.
                let Ok((socket, _)) = listener.accept().await else {
                    continue;
                };
                let serve = self.clone();
                let end = end.clone();
                tasks.spawn(async move {
                    let connection = end.run_until_cancelled(serve.connection(socket));
                    if let Some(Err(error)) = connection.await {
                        tracing::debug!(error = %error, "a connection has failed");
                    }
                    drop(place);
                });
            }
        };
        end.run_until_cancelled(all).await;
    }

    async fn connection(self, socket: TcpStream) -> Result<(), BoxError> {
        socket.set_nodelay(true)?;
        let mut stream = SslStream::new(Ssl::new(self.acceptor.context())?, socket)?;
        timeout(HANDSHAKE, Pin::new(&mut stream).accept()).await??;
        let certificate = stream.ssl().peer_certificate();
        let peer = self
            .shared
            .cluster
            .authority
            .identify(certificate.as_deref());
        let is_http2 = stream.ssl().selected_alpn_protocol() == Some(b"h2");
        let shared = self.shared;
        let service = service_fn(move |request: Request<Incoming>| {
            handler::answer(shared.clone(), peer.clone(), request)
        });
        let io = TokioIo::new(stream);
        if is_http2 {
            http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(STREAMS)
                .serve_connection(io, service)
                .await?;
        } else {
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADERS)
                .serve_connection(io, service)
                .await?;
        }
        Ok(())
    }
}

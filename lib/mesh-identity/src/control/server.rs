//! The server's side of control-plane TLS.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use arc_swap::ArcSwap;
use futures::{
    Stream, StreamExt as _,
    stream::{self, BoxStream},
};
use mesh_core::identity::Identity;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::{Server, server::Connected};

use super::{Error, PING_INTERVAL, PING_TIMEOUT, TCP_KEEPALIVE};
use crate::{
    answer::parse_pem,
    chain::chain,
    key::PrivateKey,
    provider::Versions,
    svid,
    tls::{ALPN, HANDSHAKE_TIMEOUT},
};

/// A connection whose handshake is done, as tonic's server takes it.
#[derive(Debug)]
pub struct Accepted {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    _place: OwnedSemaphorePermit,
}

/// Who is at the other end; found in the extensions of each request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// The workload that its certificate names, if it has presented one: verified against the roots
    /// given to [`mutual_server_config`], at the time of the handshake. Of any trust domain.
    pub identity: Option<Identity>,
}

/// A certificate with its key, for a server of the control plane.
#[derive(Clone, Debug)]
pub struct ServerCertificate {
    /// The chain in PEM, leaf first.
    pub chain: String,
    /// The private key.
    pub key: PrivateKey,
}

/// The TLS settings of a server, which may be replaced while it serves. Clones share them.
#[derive(Clone, Debug)]
pub struct ServerTls(Arc<ArcSwap<ServerConfig>>);

/// Most connections of a listener at a time, unless said otherwise: two of each of 5,000 nodes, twice,
/// since all of them come back at once when another replica ends.
pub const MAX_CONNECTIONS: usize = 20_000;

/// Most handshakes at a time; further clients wait in the listener's queue. Enough for every node of a
/// large cluster to come back at once within a few seconds.
const MAX_HANDSHAKES: usize = 256;

/// Pause after a failure to accept, which as a rule means that there is no free file descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Most calls of a client at a time: a node's proxy asks for the certificates of all its pods together.
const MAX_STREAMS: u32 = 1000;

/// Largest head of a request: a token of 8 KiB and some.
const MAX_HEADERS: u32 = 16 * 1024;

/// A server's TLS settings: its certificate, HTTP/2, and no demand for a client certificate, since
/// callers prove themselves by token.
pub fn server_config(
    certificate: &ServerCertificate,
    versions: Versions,
) -> Result<Arc<ServerConfig>, Error> {
    configure(
        certificate,
        versions,
        WebPkiClientVerifier::no_client_auth(),
    )
}

/// The same for a server whose callers may also prove themselves by a certificate that leads to
/// `client_roots` (PEM). Who presents none is let in without an identity; who presents a bad one is not.
pub fn mutual_server_config(
    certificate: &ServerCertificate,
    versions: Versions,
    client_roots: &str,
) -> Result<Arc<ServerConfig>, Error> {
    let clients = optional_client(client_roots, versions.provider())?;
    configure(certificate, versions, clients)
}

/// A gRPC server with the limits that suit many long-lived clients: it asks silent ones for a sign of
/// life, and ends those that give none.
pub fn grpc_server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_header_list_size(MAX_HEADERS)
}

/// The connections of a listener, each after its handshake, at most [`MAX_CONNECTIONS`] at a time. See
/// [`incoming_at_most`].
pub fn incoming(
    listener: TcpListener,
    tls: impl Into<ServerTls>,
) -> BoxStream<'static, io::Result<Accepted>> {
    incoming_at_most(MAX_CONNECTIONS, listener, tls)
}

/// The connections of a listener, each after its handshake. Handshakes run side by side, so that a
/// client that stalls delays nobody; one that fails is logged and dropped. With `limit` connections
/// open, further clients wait in the listener's queue until one ends. The stream never ends.
pub fn incoming_at_most(
    limit: usize,
    listener: TcpListener,
    tls: impl Into<ServerTls>,
) -> BoxStream<'static, io::Result<Accepted>> {
    let tls = tls.into();
    connections(listener, Arc::new(Semaphore::new(limit)))
        .map(move |connection| handshake(tls.acceptor(), connection))
        .buffer_unordered(MAX_HANDSHAKES)
        .filter_map(|accepted| async { accepted.map(Ok) })
        .boxed()
}

/// A client before its handshake.
struct Connection {
    tcp: TcpStream,
    address: SocketAddr,
    place: OwnedSemaphorePermit,
}

fn connections(listener: TcpListener, places: Arc<Semaphore>) -> impl Stream<Item = Connection> {
    stream::unfold((listener, places), |(listener, places)| async {
        let place = Arc::clone(&places).acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((tcp, address)) => {
                    let connection = Connection {
                        tcp,
                        address,
                        place,
                    };
                    return Some((connection, (listener, places)));
                }
                Err(error) => {
                    tracing::warn!(%error, "no connection can be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}

async fn handshake(acceptor: TlsAcceptor, connection: Connection) -> Option<Accepted> {
    let Connection {
        tcp,
        address,
        place,
    } = connection;
    // Without these messages may be late and dead clients stay longer; nothing goes wrong.
    tcp.set_nodelay(true).ok();
    SockRef::from(&tcp).set_tcp_keepalive(&TCP_KEEPALIVE).ok();
    let failure = match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(tcp)).await {
        Ok(Ok(stream)) => {
            let identity = identity(&stream);
            return Some(Accepted {
                stream,
                peer: Peer { address, identity },
                _place: place,
            });
        }
        Ok(Err(error)) => chain(&error),
        Err(_elapsed) => format!("not finished within {HANDSHAKE_TIMEOUT:?}"),
    };
    tracing::debug!(%address, error = failure, "TLS handshake failed");
    None
}

/// Whom the verified certificate names. A server of the control plane has one too, without a workload's
/// name in it.
fn identity(stream: &TlsStream<TcpStream>) -> Option<Identity> {
    let (_, session) = stream.get_ref();
    let leaf = session.peer_certificates()?.first()?;
    svid::identity(leaf).ok()
}

fn configure(
    certificate: &ServerCertificate,
    versions: Versions,
    clients: Arc<dyn ClientCertVerifier>,
) -> Result<Arc<ServerConfig>, Error> {
    let provider = versions.provider();
    let configuration = |e: String| Error::Configuration(rustls::Error::General(e));
    let chain = parse_pem(&certificate.chain).map_err(|e| configuration(e.to_string()))?;
    let key = certificate.key.to_rustls();
    let key = key.map_err(|e| configuration(e.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions.protocol())
        .map_err(Error::Configuration)?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)
        .map_err(Error::Configuration)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.require_ems = provider.fips();
    // A resumed session would bring an identity that was verified against former roots.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn optional_client(
    roots: &str,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let configuration = |e: String| Error::Configuration(rustls::Error::General(e));
    let mut store = RootCertStore::empty();
    let roots = parse_pem(roots).map_err(|e| configuration(e.to_string()))?;
    store.add_parsable_certificates(roots);
    // Without hints: the roots' names tell a client nothing it could choose by.
    WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider)
        .clear_root_hint_subjects()
        .allow_unauthenticated()
        .build()
        .map_err(|e| configuration(e.to_string()))
}

// === impl ServerTls ===

impl ServerTls {
    /// Begins with `config`.
    pub fn new(config: Arc<ServerConfig>) -> Self {
        Self(Arc::new(ArcSwap::new(config)))
    }

    /// Serves connections with `config` from now on. Those that exist stay as they are.
    pub fn replace(&self, config: Arc<ServerConfig>) {
        self.0.store(config);
    }

    fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.0.load_full())
    }
}

impl From<Arc<ServerConfig>> for ServerTls {
    fn from(config: Arc<ServerConfig>) -> Self {
        Self::new(config)
    }
}

// === impl Accepted ===

impl Connected for Accepted {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;

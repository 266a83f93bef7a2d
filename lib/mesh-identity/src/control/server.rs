//! The server's side of control-plane TLS.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    Stream, StreamExt as _,
    stream::{self, BoxStream},
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::Connected;

use super::Error;
use crate::{
    answer::parse_pem,
    chain::chain,
    key::PrivateKey,
    provider::Versions,
    tls::{ALPN, HANDSHAKE_TIMEOUT},
};

/// A connection whose handshake is done, as tonic's server takes it.
#[derive(Debug)]
pub struct Accepted {
    stream: TlsStream<TcpStream>,
    peer: Peer,
}

/// Who is at the other end; found in the extensions of each request.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
}

/// A certificate with its key, for a server of the control plane.
#[derive(Clone, Debug)]
pub struct ServerCertificate {
    /// The chain in PEM, leaf first.
    pub chain: String,
    /// The private key.
    pub key: PrivateKey,
}

/// Most handshakes at a time; further clients wait in the listener's queue. Enough for every node of a
/// large cluster to come back at once within a few seconds.
const MAX_HANDSHAKES: usize = 256;

/// Pause after a failure to accept, which as a rule means that there is no free file descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A server's TLS settings: its certificate, HTTP/2, and no demand for a client certificate, since
/// callers prove themselves by token.
pub fn server_config(
    certificate: &ServerCertificate,
    versions: Versions,
) -> Result<Arc<ServerConfig>, Error> {
    let provider = versions.provider();
    let configuration = |e: String| Error::Configuration(rustls::Error::General(e));
    let chain = parse_pem(&certificate.chain).map_err(|e| configuration(e.to_string()))?;
    let key = certificate.key.to_rustls();
    let key = key.map_err(|e| configuration(e.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions.protocol())
        .map_err(Error::Configuration)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(Error::Configuration)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.require_ems = provider.fips();
    Ok(Arc::new(config))
}

/// The connections of a listener, each after its handshake. Handshakes run side by side, so that a
/// client that stalls delays nobody; one that fails is logged and dropped. The stream never ends.
pub fn incoming(
    listener: TcpListener,
    config: Arc<ServerConfig>,
) -> BoxStream<'static, io::Result<Accepted>> {
    let acceptor = TlsAcceptor::from(config);
    connections(listener)
        .map(move |(tcp, address)| handshake(acceptor.clone(), tcp, address))
        .buffer_unordered(MAX_HANDSHAKES)
        .filter_map(|accepted| async { accepted.map(Ok) })
        .boxed()
}

fn connections(listener: TcpListener) -> impl Stream<Item = (TcpStream, SocketAddr)> {
    stream::unfold(listener, |listener| async {
        loop {
            match listener.accept().await {
                Ok(connection) => return Some((connection, listener)),
                Err(error) => {
                    tracing::warn!(%error, "no connection can be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}

async fn handshake(acceptor: TlsAcceptor, tcp: TcpStream, address: SocketAddr) -> Option<Accepted> {
    // Without it messages may be late, not wrong.
    tcp.set_nodelay(true).ok();
    let failure = match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(tcp)).await {
        Ok(Ok(stream)) => {
            let peer = Peer { address };
            return Some(Accepted { stream, peer });
        }
        Ok(Err(error)) => chain(&error),
        Err(_elapsed) => format!("not finished within {HANDSHAKE_TIMEOUT:?}"),
    };
    tracing::debug!(%address, error = failure, "TLS handshake failed");
    None
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

//! TLS between a component and its control plane: gRPC to a named server, authenticated by DNS name
//! as on the web and by nothing else.
//!
//! [`Target`] is the client's side, [`incoming`] the server's.

pub mod roots;
mod server;
mod verify;

use std::{io, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use socket2::{SockRef, TcpKeepalive};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

pub use self::server::{
    Accepted, MAX_CONNECTIONS, Peer, ServerCertificate, ServerTls, grpc_server, incoming,
    incoming_at_most, mutual_server_config, server_config,
};
use self::{
    roots::{RootSource, Roots},
    verify::NameVerifier,
};
use crate::provider::Versions;

/// A server of the control plane, and what makes us believe that it is the right one.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its address: `https://host:port`.
    pub address: String,
    /// What its certificate must lead to.
    pub roots: RootSource,
    /// Names of which its certificate may hold one instead of the host in the address; for a server
    /// that is reached by another name than it was certified for.
    pub alternative_names: Vec<String>,
    /// The TLS versions to offer.
    pub versions: Versions,
}

/// Why the control plane cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is not `https://host:port`. The configuration is at fault.
    #[error("`{address}` is not an address of the form https://host:port: {reason}")]
    Address {
        /// The address.
        address: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An alternative name is not a DNS name. The configuration is at fault.
    #[error("`{0}` is not a DNS name that a server could have")]
    Name(String),
    /// There is nothing to verify the server by. A retry helps once the file is there.
    #[error("the server {0} cannot be verified")]
    Roots(String, #[source] roots::Error),
    /// Our TLS settings are refused by the library. That is our defect.
    #[error("no TLS configuration can be built")]
    Configuration(#[source] rustls::Error),
    /// There is no connection, or not the right server at its end. Retry.
    #[error("the server {address} cannot be reached")]
    Connect {
        /// Where to.
        address: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Nobody answers in time. Retry.
    #[error("the server {0} does not answer within {CONNECT_TIMEOUT:?}")]
    Timeout(String),
}

/// Longest time to connect, handshake included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest part of it until there is a TCP connection; upstream's value, like those below.
const TCP_TIMEOUT: Duration = Duration::from_secs(5);
/// When and how often TCP asks whether the server is there. It keeps a connection without calls known
/// to the firewalls on the way, and ends it where the server is gone.
const TCP_KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(300))
    .with_interval(Duration::from_secs(75))
    .with_retries(9);
/// While a call is open the server must show life this often. Istiod hangs up on a client that asks
/// more often than every 15 s.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long it may take to show life.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// What a connection attempt needs, resolved from a [`Target`].
#[derive(Debug)]
struct Dialer {
    host: String,
    port: u16,
    server_name: ServerName<'static>,
    alternatives: Vec<ServerName<'static>>,
    roots: RootSource,
    versions: Versions,
}

// === impl Target ===

impl Target {
    /// A target with the default settings.
    pub fn new(address: impl Into<String>, roots: RootSource) -> Self {
        Self {
            address: address.into(),
            roots,
            alternative_names: Vec::new(),
            versions: Versions::default(),
        }
    }

    /// A channel that connects at the first call, and again whenever the connection is lost. The roots
    /// are read for each connection, so it survives their rotation.
    ///
    /// # Errors
    /// Only if the target makes no sense. Whether anybody answers is seen by the calls.
    pub fn channel(&self) -> Result<Channel, Error> {
        let dialer = Arc::new(self.dialer()?);
        let connector = service_fn(move |_uri: http::Uri| {
            let dialer = Arc::clone(&dialer);
            async move { dialer.connect().await.map(TokioIo::new) }
        });
        Ok(self.endpoint()?.connect_with_connector_lazy(connector))
    }

    /// Whether the target makes sense; nothing is sent.
    pub fn check(&self) -> Result<(), Error> {
        self.dialer().map(drop)
    }

    fn endpoint(&self) -> Result<Endpoint, Error> {
        let endpoint = Endpoint::from_shared(self.address.clone());
        let endpoint = endpoint.map_err(|_invalid| self.malformed("not a URL"))?;
        Ok(endpoint
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT))
    }

    fn dialer(&self) -> Result<Dialer, Error> {
        let endpoint = self.endpoint()?;
        let uri = endpoint.uri();
        if uri.scheme_str() != Some("https") {
            return Err(self.malformed("the scheme is not https"));
        }
        let host = uri.host().ok_or_else(|| self.malformed("no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let server_name = ServerName::try_from(host.to_owned());
        Ok(Dialer {
            host: host.to_owned(),
            port: uri.port_u16().ok_or_else(|| self.malformed("no port"))?,
            server_name: server_name.map_err(|_invalid| self.malformed("not a host name"))?,
            alternatives: self
                .alternative_names
                .iter()
                .map(|name| {
                    ServerName::try_from(name.clone()).map_err(|_invalid| Error::Name(name.clone()))
                })
                .collect::<Result<_, _>>()?,
            roots: self.roots.clone(),
            versions: self.versions,
        })
    }

    fn malformed(&self, reason: &'static str) -> Error {
        Error::Address {
            address: self.address.clone(),
            reason,
        }
    }
}

// === impl Dialer ===

impl Dialer {
    async fn connect(&self) -> Result<TlsStream<TcpStream>, Error> {
        let roots = self.roots.load().await;
        let roots = roots.map_err(|e| Error::Roots(self.address(), e))?;
        let config = self.client_config(&roots)?;
        match timeout(CONNECT_TIMEOUT, self.handshake(config)).await {
            Ok(outcome) => outcome.map_err(|source| Error::Connect {
                address: self.address(),
                source,
            }),
            Err(_elapsed) => Err(Error::Timeout(self.address())),
        }
    }

    async fn handshake(&self, config: ClientConfig) -> io::Result<TlsStream<TcpStream>> {
        let tcp = self.tcp().await?;
        TlsConnector::from(Arc::new(config))
            .connect(self.server_name.clone(), tcp)
            .await
    }

    async fn tcp(&self) -> io::Result<TcpStream> {
        let connecting = TcpStream::connect((self.host.as_str(), self.port));
        let tcp = timeout(TCP_TIMEOUT, connecting).await??;
        tcp.set_nodelay(true)?;
        SockRef::from(&tcp).set_tcp_keepalive(&TCP_KEEPALIVE)?;
        Ok(tcp)
    }

    /// Built per connection: those are few, and the roots may have changed.
    fn client_config(&self, roots: &Roots) -> Result<ClientConfig, Error> {
        let provider = self.versions.provider();
        let verifier = NameVerifier::new(roots.store(), &provider, self.alternatives.clone());
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(self.versions.protocol())
            .map_err(Error::Configuration)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols = vec![crate::tls::ALPN.to_vec()];
        config.require_ems = provider.fips();
        Ok(config)
    }

    fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_without_calls_is_probed_as_upstream_probes_it() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = Target::new(format!("https://127.0.0.1:{port}"), RootSource::System);
        let tcp = target.dialer().unwrap().tcp().await.unwrap();
        let socket = SockRef::from(&tcp);
        assert!(socket.keepalive().unwrap() && tcp.nodelay().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap().as_secs(), 300);
        assert_eq!(socket.tcp_keepalive_interval().unwrap().as_secs(), 75);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 9);
    }
}

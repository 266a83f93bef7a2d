//! Why a connection failed, and what is said about it: the text of the log, the response flag of the
//! counters and, to a peer that asked by CONNECT, the HTTP status.

use std::{error, fmt, io, net::SocketAddr, time::Duration};

use http::StatusCode;
use mesh_core::{
    identity,
    rbac::Denial,
    route::{InboundError, RouteError},
    workload::PodInfo,
};
use mesh_identity::tls;
use mesh_net::copy;

use crate::{
    discover::CertificateError,
    hbone::{
        pool::{self, ConnectError},
        server,
    },
    telemetry::labels::ResponseFlag,
};

/// Why a connection failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel does not say where the client wanted to go. The client has gone already, or the
    /// redirection rules of the pod are not ours.
    #[error("the original destination of the connection is not known")]
    OriginalDestination(#[source] io::Error),
    /// The client called one of the proxy's own ports. The client is at fault.
    #[error("{0} is a port of the proxy itself")]
    SelfCall(SocketAddr),
    /// A neighbour sent the pod what is meant for another address: it takes the pod for a router, or
    /// tries to reach through it what it cannot reach itself. The neighbour is at fault.
    #[error("{0} is not an address of the pod")]
    NotOwn(SocketAddr),
    /// Discovery has not named the pod in time. A young pod's first connections may meet this; it
    /// passes by itself unless the control plane is away.
    #[error("no workload is known for pod {}/{} with service account {}", .0.namespace, .0.name, .0.service_account)]
    UnknownWorkload(PodInfo),
    /// There is no route.
    #[error("no route to {0}")]
    Route(SocketAddr, #[source] RouteError),
    /// What discovery says of the pod makes no identity. The control plane is at fault.
    #[error("the pod has no valid identity")]
    Identity(#[source] identity::Error),
    /// There is no certificate to accept a tunnel with. Usually the certificate authority is away or
    /// refuses; it is asked again by itself.
    #[error("no certificate to accept a tunnel with")]
    Certificate(#[source] CertificateError),
    /// A client did not get through the TLS handshake: it is no mesh client, has no certificate of
    /// ours, or comes from another trust domain.
    #[error("accept a tunnel")]
    Handshake(#[source] tls::Error),
    /// The handshake was given up because newer ones needed its place. Strangers open connections and
    /// stall, or the node is overloaded.
    #[error("accept a tunnel: too many handshakes are under way")]
    Crowded,
    /// A client that got through TLS does not speak HTTP/2. The client is at fault.
    #[error("accept a tunnel")]
    Server(#[source] server::Error),
    /// No tunnel could be opened.
    #[error("open a tunnel")]
    Tunnel(#[source] pool::Error),
    /// The destination does not accept a connection. The destination or the network is at fault.
    #[error("connect to {0}")]
    Connect(SocketAddr, #[source] io::Error),
    /// The destination does not answer at all. It is gone, or a firewall or NetworkPolicy is between.
    #[error("connect to {0}: no answer within {1:?}")]
    ConnectTimeout(SocketAddr, Duration),
    /// The far end of the tunnel answered CONNECT with something else than 200; its log says why.
    #[error("http status: {0}")]
    Refused(StatusCode),
    /// A policy denies the connection.
    #[error("connection closed due to policy rejection")]
    Denied(#[source] Denial),
    /// A policy that came later denies the connection.
    #[error("connection closed due to policy change")]
    DeniedLate(#[source] Denial),
    /// The client reset its CONNECT, or its connection, before the far end was reached.
    #[error("the client gave the connection up")]
    GivenUp,
    /// A client that proved its identity asks for something else than a tunnel. The client is at fault.
    #[error("the request is refused")]
    Malformed(#[source] server::Malformed),
    /// The CONNECT cannot be delivered here.
    #[error("the CONNECT cannot be delivered")]
    Target(#[source] InboundError),
    /// An open connection broke in an unusual way.
    #[error("the connection broke")]
    Copy(#[source] copy::Error),
    /// The proxy let go of the connection: it is stopping, or the pod left the mesh.
    #[error("closed from drain")]
    Drained,
}

/// An error with its causes, as one line.
pub fn chain(error: &dyn error::Error) -> Chain<'_> {
    Chain(error)
}

/// See [`chain`].
#[derive(Debug)]
pub struct Chain<'a>(&'a dyn error::Error);

// === impl Error ===

impl Error {
    /// What the counters say.
    pub fn response_flag(&self) -> ResponseFlag {
        match self {
            Self::Denied(_) | Self::DeniedLate(_) => ResponseFlag::Deny,
            Self::Identity(_) | Self::Certificate(_) => ResponseFlag::IdentityError,
            Self::Handshake(_) => ResponseFlag::TlsFailure,
            Self::Server(_) => ResponseFlag::H2HandshakeFailure,
            Self::Tunnel(pool::Error::Connect { source, .. }) => connect_flag(source),
            Self::Drained => ResponseFlag::None,
            _ => ResponseFlag::Connect,
        }
    }

    /// What a peer that asked by CONNECT is told.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Denied(_) | Self::DeniedLate(_) => StatusCode::UNAUTHORIZED,
            Self::Malformed(_)
            | Self::Target(InboundError::IpMismatch { .. } | InboundError::UnknownHost { .. }) => {
                StatusCode::BAD_REQUEST
            }
            _ => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// What the counters say of a tunnel's connection that could not be made.
fn connect_flag(error: &ConnectError) -> ResponseFlag {
    match error {
        ConnectError::Tls(_) => ResponseFlag::TlsFailure,
        ConnectError::Certificate(_) => ResponseFlag::IdentityError,
        ConnectError::Http2(_) => ResponseFlag::H2HandshakeFailure,
        ConnectError::Timeout(_) => ResponseFlag::NetworkPolicy,
        ConnectError::Tcp(_) | ConnectError::Unanswered(_) | ConnectError::Closed => {
            ResponseFlag::Connect
        }
    }
}

impl From<pool::Error> for Error {
    fn from(error: pool::Error) -> Self {
        match error {
            pool::Error::Status(status) => Self::Refused(status),
            pool::Error::Draining => Self::Drained,
            error => Self::Tunnel(error),
        }
    }
}

// === impl Chain ===

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

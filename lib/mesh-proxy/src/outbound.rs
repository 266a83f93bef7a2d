//! Outbound, port 15001: connections that leave the pod. Each goes into a tunnel, or as it is to where
//! the mesh does not reach.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures::{FutureExt as _, future::BoxFuture};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use mesh_core::{
    identity::Identity,
    route::{Authority, Route, ServiceRef},
    workload::Workload,
};
use mesh_identity::tls;
use mesh_net::{copy, socket::SocketFactory};
use mesh_runtime::drain;
use tokio::{
    io::Interest,
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_rustls::client::TlsStream;

use crate::{
    baggage,
    config::OWN_PORTS,
    connections::{Protocol, View},
    discover::{CertificateError, Certs},
    error::Error,
    forwarded,
    hbone::pool::{Connect, ConnectError, PoolKey},
    pod::{Pod, unless},
    telemetry::{
        Account, Ends, access_log,
        labels::{Labels, Peer, Reporter, ResponseFlag, SecurityPolicy},
    },
    traceparent::{self, TraceParent},
};

/// A connection whose way is known.
struct Departure {
    client: SocketAddr,
    destination: SocketAddr,
    source: Arc<Workload>,
    way: Way,
}

/// How a connection leaves the pod.
enum Way {
    /// As it is.
    Plain(SocketAddr),
    /// In a tunnel.
    Tunnel(Box<Tunnel>),
}

struct Tunnel {
    key: PoolKey,
    authority: SocketAddr,
    service: Option<Arc<ServiceRef>>,
}

/// Opens the connections that tunnels run over, from within the pod.
pub(crate) struct Dialer {
    pub(crate) sockets: Arc<dyn SocketFactory>,
    pub(crate) certs: Arc<dyn Certs>,
    /// Longest time for each step. Less than the pool gives for all, so that the step that takes too
    /// long is the one that is named.
    pub(crate) patience: Duration,
}

/// Takes one accepted connection to where it wants to go and tells what became of it.
pub(crate) async fn serve(
    pod: Arc<Pod>,
    stream: TcpStream,
    client: SocketAddr,
    work: drain::Watch,
) {
    let started = Instant::now();
    let _socket = pod.shared.metrics.socket(Reporter::Source);
    let destination = match pod.sockets.original_destination(&stream) {
        Ok(destination) => destination,
        Err(error) => {
            let error = Error::OriginalDestination(error);
            return access_log::refused(client, "unknown", Reporter::Source, &error);
        }
    };
    match unless(work.immediate(), find_way(&pod, client, destination)).await {
        Err(error) => access_log::refused(client, destination, Reporter::Source, &error),
        Ok((departure, ends)) => {
            let account = Account::new(&pod.shared.metrics, ends, started);
            let result = carry(&pod, stream, departure, &account).await;
            account.finish(result.as_ref().copied());
        }
    }
}

async fn find_way(
    pod: &Pod,
    client: SocketAddr,
    destination: SocketAddr,
) -> Result<(Departure, Ends), Error> {
    // The pod's own addresses serve as well as loopback to run in circles.
    let (own_port, address) = (OWN_PORTS.contains(&destination.port()), destination.ip());
    if own_port && (address.is_loopback() || address == client.ip()) {
        return Err(Error::SelfCall(destination));
    }
    let source = pod.workload().await?;
    if own_port && source.addresses.contains(&address) {
        return Err(Error::SelfCall(destination));
    }
    let route = pod
        .shared
        .discover
        .route(&source, destination)
        .map_err(|error| Error::Route(destination, error))?;
    let identity = source.identity().map_err(Error::Identity)?;
    let ends = ends(&source, &identity, client, &route);
    let way = Way::new(route, identity, client);
    Ok((
        Departure {
            client,
            destination,
            source,
            way,
        },
        ends,
    ))
}

async fn carry(
    pod: &Pod,
    stream: TcpStream,
    departure: Departure,
    account: &Account,
) -> Result<(), Error> {
    let mut tracked = pod.connections.track_outbound(departure.view());
    match &departure.way {
        Way::Plain(target) => {
            let upstream = tracked.unless_ended(pod.connect(*target)).await?;
            tracked
                .carry(account, copy::split(stream), copy::split(upstream))
                .await
        }
        Way::Tunnel(tunnel) => {
            let request = departure.request(tunnel);
            let opening = async { Ok(pod.pool.open(&tunnel.key, request).await?) };
            let opening = unless_gone(&stream, opening).boxed();
            let (_, upstream) = tracked.unless_ended(opening).await?;
            drop(departure);
            tracked
                .carry(account, copy::split(stream), upstream.into_split())
                .await
        }
    }
}

/// Does `work`, unless the client breaks its connection meanwhile. One that only closes its sending
/// direction may still wait for what comes back.
async fn unless_gone<T>(
    client: &TcpStream,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::select! {
        biased;
        done = work => done,
        _ = client.ready(Interest::ERROR) => Err(Error::GivenUp),
    }
}

/// What telemetry says of a connection that goes along `route`.
fn ends(source: &Workload, identity: &Identity, client: SocketAddr, route: &Route) -> Ends {
    let (workload, service, destination, hbone_target) = match route {
        Route::Passthrough { target, service } => (None, service, *target, None),
        Route::Direct {
            workload,
            target,
            service,
        } => (Some(workload), service, *target, None),
        Route::Hbone {
            workload,
            gateway,
            authority,
            service,
            ..
        } => (
            Some(workload),
            service,
            *gateway,
            Some(Authority::Address(*authority)),
        ),
    };
    // What the pod proves, and so only in a tunnel.
    let proven = hbone_target.is_some().then(|| identity.clone());
    let security = match proven {
        Some(_) => SecurityPolicy::MutualTls,
        None => SecurityPolicy::Unknown,
    };
    let peer = |workload: &Arc<Workload>| Peer::of_workload(workload, workload.identity().ok());
    Ends {
        labels: Labels {
            reporter: Reporter::Source,
            source: Peer::of_workload(source, proven),
            destination: workload.map(peer).unwrap_or_default(),
            service: service.clone(),
            flag: ResponseFlag::None,
            security,
        },
        source: client,
        destination,
        hbone_target,
        source_name: Some(source.name.clone()),
        destination_name: workload.map(|workload| workload.name.clone()),
    }
}

// === impl Way ===

impl Way {
    fn new(route: Route, identity: Identity, client: SocketAddr) -> Self {
        match route {
            Route::Passthrough { target, .. } | Route::Direct { target, .. } => Self::Plain(target),
            Route::Hbone {
                gateway,
                authority,
                expected,
                service,
                ..
            } => {
                let key = PoolKey {
                    source: identity,
                    expected,
                    gateway,
                    source_ip: client.ip(),
                };
                Self::Tunnel(Box::new(Tunnel {
                    key,
                    authority,
                    service,
                }))
            }
        }
    }
}

// === impl Departure ===

impl Departure {
    fn view(&self) -> View {
        let (actual_dst, protocol) = match &self.way {
            Way::Plain(target) => (*target, Protocol::Tcp),
            Way::Tunnel(tunnel) => (tunnel.key.gateway, Protocol::Hbone),
        };
        View {
            src: self.client,
            original_dst: self.destination,
            actual_dst,
            protocol,
        }
    }

    /// The CONNECT, with what the far end's telemetry wants to know.
    fn request(&self, tunnel: &Tunnel) -> Request<()> {
        let host = tunnel.service.as_deref().map(|service| &*service.hostname);
        let trace = TraceParent::generate(&mut fastrand::Rng::new());
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = authority_uri(tunnel.authority);
        let headers = request.headers_mut();
        insert(headers, baggage::HEADER, baggage::build(&self.source));
        insert(
            headers,
            forwarded::HEADER,
            forwarded::build(self.client, host),
        );
        insert(headers, traceparent::HEADER, trace.to_header());
        request
    }
}

/// The target of a CONNECT: an authority and nothing else.
fn authority_uri(target: SocketAddr) -> Uri {
    // Without the scope that a link-local address may have: it means something on this host alone.
    let text = SocketAddr::new(target.ip(), target.port()).to_string();
    Uri::try_from(text).expect("an address with a port is a valid authority")
}

fn insert(headers: &mut HeaderMap, name: &'static str, value: Option<HeaderValue>) {
    if let Some(value) = value {
        headers.insert(HeaderName::from_static(name), value);
    }
}

// === impl Dialer ===

impl Connect for Dialer {
    type Io = TlsStream<TcpStream>;

    fn connect<'a>(&'a self, key: &'a PoolKey) -> BoxFuture<'a, Result<Self::Io, ConnectError>> {
        async {
            // The certificate first: without one there is no use in knocking.
            let certificate = timeout(self.patience, self.certs.certificate(&key.source)).await;
            let certificate = certificate
                .map_err(|_elapsed| self.late_certificate(&key.source))?
                .map_err(|error| ConnectError::Certificate(error.into()))?;
            let socket = self.sockets.connect_socket(key.gateway.is_ipv6(), None);
            let stream = socket
                .map_err(ConnectError::Tcp)?
                .connect(key.gateway)
                .await;
            let stream = stream.map_err(ConnectError::Tcp)?;
            let connecting = certificate.connect(stream, &key.expected);
            let connected = timeout(self.patience, connecting)
                .await
                .unwrap_or(Err(tls::Error::Timeout(self.patience)));
            let (stream, _peer) = connected.map_err(|error| ConnectError::Tls(error.into()))?;
            Ok(stream)
        }
        .boxed()
    }
}

impl Dialer {
    fn late_certificate(&self, identity: &Identity) -> ConnectError {
        let error = CertificateError {
            identity: identity.clone(),
            source: format!("no answer within {:?}", self.patience).into(),
        };
        ConnectError::Certificate(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_address_makes_a_bare_authority(target: SocketAddr) {
            let uri = authority_uri(target);
            let plain = SocketAddr::new(target.ip(), target.port());
            prop_assert_eq!(uri.to_string(), plain.to_string());
            prop_assert!(uri.scheme().is_none() && uri.path_and_query().is_none());
        }
    }
}

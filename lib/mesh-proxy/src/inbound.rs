//! Inbound HBONE, port 15008: tunnels that reach the pod. A client proves its identity by TLS once, and
//! each CONNECT that follows is judged on its own.

use std::{net::SocketAddr, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue};
use mesh_core::{
    identity::Identity,
    rbac,
    route::{Authority, InboundTarget, ServiceRef},
    workload::{ApplicationProtocol, Workload},
};
use mesh_net::{copy, socket::canonical};
use mesh_runtime::drain;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::Instant};
use tokio_rustls::server::TlsStream;

use crate::{
    baggage,
    connections::{Protocol, Subject, Tracked, View},
    error::Error,
    forwarded,
    hbone::{
        server::{self, Handler, Malformed, Request},
        stream::Stream,
    },
    pod::{Pod, unless},
    proxy_protocol,
    telemetry::{
        Account, Ends, access_log,
        labels::{Labels, Peer, Reporter, ResponseFlag, SecurityPolicy},
    },
    traceparent::TraceParent,
};

/// The header by which a gateway says from which network a connection comes.
const FORWARDED_NETWORK: &str = "x-forwarded-network";

/// A client that has proved its identity.
struct Tunnel {
    pod: Arc<Pod>,
    client: SocketAddr,
    accepted: SocketAddr,
    peer: Identity,
}

/// The requests of a client.
struct Requests {
    tunnel: Arc<Tunnel>,
    work: drain::Watch,
}

/// A CONNECT that can be delivered, if policies allow it.
struct Arrival {
    target: InboundTarget,
    subject: Arc<Subject>,
    view: View,
}

/// A connection that stands from end to end.
struct Open {
    account: Account,
    tracked: Tracked,
    tunnel: Stream,
    upstream: TcpStream,
}

/// Serves the tunnels of one accepted connection and tells what became of each.
pub(crate) async fn serve(
    pod: Arc<Pod>,
    stream: TcpStream,
    client: SocketAddr,
    drain: drain::Watch,
) {
    let _socket = pod.shared.metrics.socket(Reporter::Destination);
    let accepted = match stream.local_addr() {
        Ok(accepted) => canonical(accepted),
        Err(error) => {
            let error = Error::OriginalDestination(error);
            return access_log::refused(client, "unknown", Reporter::Destination, &error);
        }
    };
    let refused =
        |error: &Error| access_log::refused(client, accepted, Reporter::Destination, error);
    let shaking = unless(server::too_late_to_begin(&drain), handshake(&pod, stream));
    let (stream, peer) = match Box::pin(shaking).await {
        Ok(done) => done,
        Err(error) => return refused(&error),
    };
    let shared = pod.shared.clone();
    let tunnel = Arc::new(Tunnel {
        pod,
        client,
        accepted,
        peer,
    });
    // A drain of its own: polled whenever bytes move, it must not be shared with other connections.
    let (_trigger, watch) = drain.child();
    let handler = Requests {
        tunnel,
        work: drain,
    };
    let serving = server::serve(
        stream,
        &shared.settings.hbone,
        watch,
        &shared.tasks,
        handler,
    );
    match Box::pin(serving).await {
        Ok(()) => {}
        Err(server::Error::Connection(error)) => {
            tracing::debug!(%client, %error, "tunnels of a client broke");
        }
        Err(error) => refused(&Error::Server(error)),
    }
}

/// Finds out who the client is. Bounded in time and, over all clients of the pod, in number.
async fn handshake(
    pod: &Pod,
    stream: TcpStream,
) -> Result<(TlsStream<TcpStream>, Identity), Error> {
    let work = async {
        let identity = pod.workload().await?.identity().map_err(Error::Identity)?;
        let certificate = pod.certificate(&identity).await?;
        certificate.accept(stream).await.map_err(Error::Handshake)
    };
    let done = pod.handshakes.enter().hold(work).await;
    done.unwrap_or(Err(Error::Crowded))
}

// === impl Requests ===

impl Handler for Requests {
    fn handle(&self, request: Request) -> impl Future<Output = ()> + Send + 'static {
        let (tunnel, work) = (self.tunnel.clone(), self.work.clone());
        async move { tunnel.answer(request, work).await }
    }

    fn refused(&self, reason: &Malformed) {
        let Tunnel {
            client, accepted, ..
        } = &*self.tunnel;
        let error = Error::Malformed(reason.clone());
        access_log::refused(*client, accepted, Reporter::Destination, &error);
    }
}

// === impl Tunnel ===

impl Tunnel {
    async fn answer(&self, request: Request, work: drain::Watch) {
        // Boxed, because what it takes to open a connection should not be kept while it is open.
        if let Some(open) = Box::pin(self.open(request, work)).await {
            let Open {
                account,
                mut tracked,
                tunnel,
                upstream,
            } = open;
            let halves = (tunnel.into_split(), copy::split(upstream));
            let result = tracked.carry(&account, halves.0, halves.1).await;
            account.finish(result.as_ref().copied());
        }
    }

    /// Opens what a CONNECT asks for and answers it; if that fails, it has been logged and counted.
    async fn open(&self, request: Request, work: drain::Watch) -> Option<Open> {
        let started = Instant::now();
        let Request {
            authority,
            headers,
            mut responder,
        } = request;
        let inspected = unless(work.immediate(), self.inspect(authority, &headers)).await;
        let (arrival, ends) = match inspected {
            Ok(inspected) => inspected,
            Err(error) => {
                responder.reject(error.status());
                access_log::refused(self.client, self.accepted, Reporter::Destination, &error);
                return None;
            }
        };
        let account = Account::new(&self.pod.shared.metrics, ends, started);
        let (view, subject) = (arrival.view.clone(), arrival.subject.clone());
        let mut tracked = self.pod.connections.track_inbound(view, subject);
        let reaching = async {
            tokio::select! {
                biased;
                reached = self.reach(&arrival) => reached,
                () = responder.given_up() => Err(Error::GivenUp),
            }
        };
        let upstream = match tracked.unless_ended(reaching).await {
            Ok(upstream) => upstream,
            Err(error) => {
                responder.reject(error.status());
                account.finish(Err(&error));
                return None;
            }
        };
        let Ok(tunnel) = responder.accept(self.answer_headers(&arrival.subject.local)) else {
            account.finish(Err(&Error::GivenUp));
            return None;
        };
        Some(Open {
            account,
            tracked,
            tunnel,
            upstream,
        })
    }

    /// Finds out what a CONNECT asks for.
    async fn inspect(
        &self,
        authority: Authority,
        headers: &HeaderMap,
    ) -> Result<(Arrival, Ends), Error> {
        let local = self.pod.workload().await?;
        let discover = &self.pod.shared.discover;
        let target = discover
            .inbound_target(&local, &authority, self.accepted)
            .map_err(Error::Target)?;
        let connection = rbac::Connection {
            source_identity: Some(self.peer.clone()),
            source_ip: self.client.ip(),
            destination: target.policy_destination,
        };
        let view = View {
            src: self.client,
            original_dst: target.policy_destination,
            actual_dst: target.upstream,
            protocol: Protocol::Hbone,
        };
        let ends = self.ends(&local, &target, authority, headers);
        let subject = Arc::new(Subject { local, connection });
        Ok((
            Arrival {
                target,
                subject,
                view,
            },
            ends,
        ))
    }

    /// Asks the policies, and connects to the application if they allow it.
    async fn reach(&self, arrival: &Arrival) -> Result<TcpStream, Error> {
        let InboundTarget {
            upstream,
            policy_destination,
            tunnel,
            ..
        } = &arrival.target;
        self.pod.authorize(&arrival.subject).await?;
        match tunnel.map(|tunnel| tunnel.protocol) {
            Some(ApplicationProtocol::Proxy) => {
                let mut stream = self.pod.connect(*upstream).await?;
                let peer = Some(&self.peer);
                let header = proxy_protocol::header(self.client, *policy_destination, peer);
                let written = stream.write_all(&header).await;
                written.map_err(|error| Error::Connect(*upstream, error))?;
                Ok(stream)
            }
            Some(ApplicationProtocol::None) | None => {
                self.pod.connect_as(self.client.ip(), *upstream).await
            }
        }
    }

    fn answer_headers(&self, local: &Workload) -> HeaderMap {
        let said = self
            .pod
            .shared
            .settings
            .baggage
            .then(|| baggage::build(local))
            .flatten();
        let header = |value| (HeaderName::from_static(baggage::HEADER), value);
        said.map(header).into_iter().collect()
    }

    fn ends(
        &self,
        local: &Workload,
        target: &InboundTarget,
        authority: Authority,
        headers: &HeaderMap,
    ) -> Ends {
        let source = self.source(local, headers);
        let labels = Labels {
            reporter: Reporter::Destination,
            source: self.source_peer(source.as_deref(), headers),
            destination: Peer::of_workload(local, local.identity().ok()),
            service: self
                .service(local, headers)
                .or_else(|| target.service.clone()),
            flag: ResponseFlag::None,
            security: SecurityPolicy::MutualTls,
        };
        if let Some(trace) = TraceParent::from_headers(headers) {
            tracing::debug!(client = %self.client, target = %authority, %trace, "CONNECT");
        }
        Ends {
            labels,
            source: self.client,
            destination: self.accepted,
            hbone_target: Some(authority),
            source_name: source.map(|workload| workload.name.clone()),
            destination_name: Some(local.name.clone()),
        }
    }

    /// The client by its address, unless the connection comes through a gateway: then the address is
    /// the gateway's.
    fn source(&self, local: &Workload, headers: &HeaderMap) -> Option<Arc<Workload>> {
        let network = headers.get(FORWARDED_NETWORK).map(HeaderValue::as_bytes);
        let foreign = network.is_some_and(|n| !n.eq_ignore_ascii_case(local.network.as_bytes()));
        if foreign && self.pod.shared.settings.baggage {
            return None;
        }
        self.pod
            .shared
            .discover
            .workload_at(&local.network, self.client.ip())
    }

    /// What discovery says of the client; where it says nothing, what the client says itself.
    fn source_peer(&self, source: Option<&Workload>, headers: &HeaderMap) -> Peer {
        let proven = Some(self.peer.clone());
        match source {
            Some(workload) => Peer::of_workload(workload, proven),
            None if self.pod.shared.settings.baggage => {
                Peer::of_baggage(baggage::parse(headers), proven)
            }
            None => Peer {
                principal: proven,
                ..Peer::default()
            },
        }
    }

    /// The service that the client says it addressed, if the pod is behind it.
    fn service(&self, local: &Workload, headers: &HeaderMap) -> Option<Arc<ServiceRef>> {
        let host = forwarded::host(headers)?;
        let key = local.services.keys().find(|key| *key.hostname == *host)?;
        self.pod.shared.discover.service(key)
    }
}

/// The size of one request's future, for the test that bounds it.
#[cfg(test)]
pub(crate) fn request_size() -> usize {
    fn size<F>(_handle: impl Fn(&'static Requests, Request) -> F) -> usize {
        size_of::<F>()
    }
    size(Requests::handle)
}

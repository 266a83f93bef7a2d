//! Inbound plain text, port 15006: connections that reach the pod without a tunnel, from clients
//! outside of the mesh.
//!
//! The client proves no identity, so only policies that do not ask for one can allow it.

use std::{net::SocketAddr, sync::Arc};

use mesh_core::{
    rbac,
    route::{Authority, InboundError},
    workload::Workload,
};
use mesh_net::copy;
use mesh_runtime::drain;
use tokio::{net::TcpStream, time::Instant};

use crate::{
    config::OWN_PORTS,
    connections::{Protocol, Subject, View},
    error::Error,
    pod::{Pod, unless},
    telemetry::{
        Account, Ends, access_log,
        labels::{Labels, Peer, Reporter, ResponseFlag, SecurityPolicy},
    },
};

/// A connection that may be looked at closer: it is to the pod and not to the proxy itself.
struct Arrival {
    client: SocketAddr,
    target: SocketAddr,
    local: Arc<Workload>,
}

/// Delivers one accepted connection and tells what became of it.
pub(crate) async fn serve(
    pod: Arc<Pod>,
    stream: TcpStream,
    client: SocketAddr,
    work: drain::Watch,
) {
    let started = Instant::now();
    let _socket = pod.shared.metrics.socket(Reporter::Destination);
    let target = match pod.sockets.original_destination(&stream) {
        Ok(target) => target,
        Err(error) => {
            let error = Error::OriginalDestination(error);
            return access_log::refused(client, "unknown", Reporter::Destination, &error);
        }
    };
    match unless(work.immediate(), inspect(&pod, client, target)).await {
        Err(error) => access_log::refused(client, target, Reporter::Destination, &error),
        Ok((arrival, ends)) => {
            let account = Account::new(&pod.shared.metrics, ends, started);
            let result = deliver(&pod, stream, arrival, &account).await;
            account.finish(result.as_ref().copied());
        }
    }
}

async fn inspect(
    pod: &Pod,
    client: SocketAddr,
    target: SocketAddr,
) -> Result<(Arrival, Ends), Error> {
    if OWN_PORTS.contains(&target.port()) {
        return Err(Error::SelfCall(target));
    }
    let local = pod.workload().await?;
    pod.check_own(&local, target)?;
    let discover = &pod.shared.discover;
    let asked = discover
        .inbound_target(&local, &Authority::Address(target), target)
        .map_err(|error| match error {
            InboundError::SelfCall { .. } => Error::SelfCall(target),
            error => Error::Target(error),
        })?;
    let source = discover.workload_at(&local.network, client.ip());
    let peer = |workload: &Workload| Peer::of_workload(workload, None);
    let labels = Labels {
        reporter: Reporter::Destination,
        source: source.as_deref().map(peer).unwrap_or_default(),
        destination: Peer::of_workload(&local, local.identity().ok()),
        service: asked.service,
        flag: ResponseFlag::None,
        security: SecurityPolicy::Unknown,
    };
    let ends = Ends {
        labels,
        source: client,
        destination: target,
        hbone_target: None,
        source_name: source.map(|workload| workload.name.clone()),
        destination_name: Some(local.name.clone()),
    };
    let arrival = Arrival {
        client,
        target,
        local,
    };
    Ok((arrival, ends))
}

async fn deliver(
    pod: &Pod,
    stream: TcpStream,
    arrival: Arrival,
    account: &Account,
) -> Result<(), Error> {
    let Arrival {
        client,
        target,
        local,
    } = arrival;
    let connection = rbac::Connection {
        source_identity: None,
        source_ip: client.ip(),
        destination: target,
    };
    let subject = Arc::new(Subject { local, connection });
    let view = View {
        src: client,
        original_dst: target,
        actual_dst: target,
        protocol: Protocol::Tcp,
    };
    let mut tracked = pod.connections.track_inbound(view, subject.clone());
    tracked.unless_ended(pod.authorize(&subject)).await?;
    let upstream = tracked
        .unless_ended(pod.connect_as(client.ip(), target))
        .await?;
    drop(subject);
    tracked
        .carry(account, copy::split(stream), copy::split(upstream))
        .await
}

//! The proxy of one pod: three listeners in the pod's network namespace and what they accept.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use mesh_core::{route::HBONE_PORT, workload::PodInfo};
use mesh_net::socket::SocketFactory;
use mesh_runtime::{drain, task::Tracker};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::{
    accept,
    admission::Admission,
    config::{INBOUND_PORT, OUTBOUND_PORT, Settings},
    connections::{Connections, Subject},
    discover::{Certs, Discover},
    hbone::pool::Pool,
    inbound,
    outbound::{self, Dialer},
    passthrough,
    pod::Pod,
    telemetry::metrics::Metrics,
};

/// What the proxies of all pods of a process share.
#[derive(Clone)]
pub struct Shared {
    /// Workloads, services and policies.
    pub discover: Arc<dyn Discover>,
    /// Certificates.
    pub certs: Arc<dyn Certs>,
    /// Where the traffic is counted.
    pub metrics: Metrics,
    /// How the proxies behave.
    pub settings: Arc<Settings>,
    /// Where their tasks run.
    pub tasks: Tracker,
}

/// The proxy of one pod, listening. Connections wait in the kernel until [`Proxy::run`].
#[derive(Debug)]
pub struct Proxy {
    pod: Arc<Pod>,
    outbound: TcpListener,
    inbound: TcpListener,
    hbone: TcpListener,
    policies: watch::Receiver<u64>,
}

/// The proxy cannot listen in the pod. Usually another proxy already does, or the pod is gone; binding
/// again may help.
#[derive(Debug, thiserror::Error)]
#[error("listen on {address} in pod {}/{}", .pod.namespace, .pod.name)]
pub struct Error {
    /// The address.
    pub address: SocketAddr,
    /// The pod.
    pub pod: PodInfo,
    /// The reason.
    pub source: io::Error,
}

/// Where a proxy listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// For connections that leave the pod.
    pub outbound: SocketAddr,
    /// For connections that reach the pod without a tunnel.
    pub inbound: SocketAddr,
    /// For tunnels that reach the pod.
    pub hbone: SocketAddr,
}

/// Tells all connections to end, at the latest when the proxy's future is dropped.
struct EndAll(Connections);

// === impl Proxy ===

impl Proxy {
    /// Listens in the pod whose sockets `sockets` makes. Neither discovery nor a certificate has to be
    /// there yet. Must be called within the runtime that will run the proxy.
    pub fn bind(
        info: PodInfo,
        sockets: Arc<dyn SocketFactory>,
        shared: Shared,
    ) -> Result<Self, Error> {
        let wildcard: IpAddr = if shared.settings.ipv6 {
            Ipv6Addr::UNSPECIFIED.into()
        } else {
            Ipv4Addr::UNSPECIFIED.into()
        };
        let listen = |port| {
            let address = SocketAddr::new(wildcard, port);
            let listener = sockets.listen_tcp(address);
            listener.map_err(|source| Error {
                address,
                pod: info.clone(),
                source,
            })
        };
        let (outbound, inbound, hbone) = (
            listen(OUTBOUND_PORT)?,
            listen(INBOUND_PORT)?,
            listen(HBONE_PORT)?,
        );
        let dialer = Dialer {
            sockets: sockets.clone(),
            certs: shared.certs.clone(),
            patience: shared.settings.hbone.connect_timeout * 9 / 10,
        };
        let pool = Pool::new(
            shared.settings.hbone.clone(),
            Arc::new(dialer),
            shared.tasks.clone(),
        );
        let pod = Pod {
            connections: Connections::default(),
            handshakes: Admission::new(shared.settings.max_handshakes),
            pool,
            info,
            sockets,
            shared,
        };
        let policies = pod.shared.discover.policy_changes();
        Ok(Self {
            pod: Arc::new(pod),
            outbound,
            inbound,
            hbone,
            policies,
        })
    }

    /// Where the proxy listens.
    pub fn addresses(&self) -> io::Result<Addresses> {
        Ok(Addresses {
            outbound: self.outbound.local_addr()?,
            inbound: self.inbound.local_addr()?,
            hbone: self.hbone.local_addr()?,
        })
    }

    /// The open connections, for the configuration dump.
    pub fn connections(&self) -> Connections {
        self.pod.connections.clone()
    }

    /// Serves until `drain` begins, and returns when no connection is left.
    ///
    /// A graceful drain stops listening, tells tunnels to go away and waits for the connections to end
    /// by themselves, for as long as the owner of the drain has patience; an immediate one, or dropping
    /// the future, ends them.
    pub async fn run(self, drain: drain::Watch) {
        let Self {
            pod,
            outbound,
            inbound,
            hbone,
            policies,
        } = self;
        let end_all = EndAll(pod.connections.clone());
        let (trigger, work) = drain.child();
        let serving = async {
            let mode = listen(&pod, [outbound, inbound, hbone], work).await;
            trigger.drain(mode).await;
            tokio::select! {
                biased;
                () = pod.pool.drain() => {}
                () = drain.immediate() => {}
            }
        };
        let ending = async {
            drain.immediate().await;
            drop(end_all);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = serving => {}
            () = ending => {}
            () = watch_policies(&pod, policies) => {}
        }
    }
}

/// Accepts connections until a drain begins, and says in which mode.
async fn listen(pod: &Arc<Pod>, listeners: [TcpListener; 3], work: drain::Watch) -> drain::Mode {
    let [outbound, inbound, hbone] = listeners;
    // A task each, so that a burst on one does not hold up the others.
    spawn_listener(
        pod,
        &work,
        ["outbound-listener", "outbound"],
        outbound,
        outbound::serve,
    );
    spawn_listener(
        pod,
        &work,
        ["inbound-listener", "inbound"],
        inbound,
        passthrough::serve,
    );
    spawn_listener(
        pod,
        &work,
        ["hbone-listener", "hbone-server"],
        hbone,
        inbound::serve,
    );
    work.signaled().await
}

/// Spawns a listener, and with `serve` a task for each connection it accepts; `names` are those of the
/// tasks. All of them keep a clone of `work` until they are done.
fn spawn_listener<S, F>(
    pod: &Arc<Pod>,
    work: &drain::Watch,
    names: [&'static str; 2],
    listener: TcpListener,
    serve: S,
) where
    S: Fn(Arc<Pod>, TcpStream, SocketAddr, drain::Watch) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let (pod, work) = (pod.clone(), work.clone());
    let tasks = pod.shared.tasks.clone();
    let [listening, connection] = names;
    let spawner = tasks.clone();
    drop(tasks.spawn(listening, async move {
        let accepted = |stream, client| {
            drop(spawner.spawn(connection, serve(pod.clone(), stream, client, work.clone())));
        };
        accept::serve(listening, listener, &work, accepted).await;
    }));
}

/// Judges the open connections again whenever policies change. Never resolves.
async fn watch_policies(pod: &Pod, mut policies: watch::Receiver<u64>) {
    while policies.changed().await.is_ok() {
        let decide = |subject: &Subject| {
            let discover = &pod.shared.discover;
            discover
                .authorize(&subject.local, &subject.connection)
                .verdict
        };
        pod.connections.judge(decide).await;
    }
    // Discovery is gone, and the process with it.
    std::future::pending::<()>().await;
}

// === impl Shared ===

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

// === impl EndAll ===

impl Drop for EndAll {
    fn drop(&mut self) {
        self.0.end_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of what `serve` returns.
    fn size<S, F>(_serve: S) -> usize
    where
        S: Fn(Arc<Pod>, TcpStream, SocketAddr, drain::Watch) -> F,
    {
        size_of::<F>()
    }

    /// A node holds tens of thousands of these; what is large and short-lived in them is boxed. The
    /// bounds are what they were when this was written, in bytes, and a little more.
    #[test]
    fn a_connection_costs_little_memory() {
        let sizes = [
            size(outbound::serve),
            size(passthrough::serve),
            size(inbound::serve),
        ];
        let within = sizes
            .iter()
            .zip([2600, 2400, 400])
            .all(|(size, bound)| *size <= bound);
        assert!(within, "{sizes:?}");
        let request = inbound::request_size();
        assert!(request <= 2200, "{request}");
    }
}

//! Discovery joined to the state, and the state shown to the proxies.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures::future::BoxFuture;
use mesh_core::{
    address::NamespacedHostname,
    rbac::{self, Decision},
    route::{Authority, InboundError, InboundTarget, Route, RouteError, ServiceRef},
    workload::{PodInfo, Workload},
};
use mesh_identity::{CertManager, control::Target, token};
use mesh_proxy::{config::OWN_PORTS, discover::Discover};
use mesh_state::store::Store;
use mesh_xds::{
    Change,
    client::{BoxError, Connect, Connection, Sink, credentials},
};
use tokio::sync::watch;

/// How long a connection of a pod that discovery does not know yet waits for it. The contract's bound.
const POD_PATIENCE: Duration = Duration::from_secs(5);

/// Way to the control plane for discovery.
#[derive(Debug)]
pub(crate) struct ToControlPlane {
    pub(crate) target: Target,
    pub(crate) token: token::Source,
    pub(crate) cluster_id: Arc<str>,
    pub(crate) headers: Vec<(String, String)>,
}

/// Puts what discovery says into the state, and has certificates ready for this node's workloads.
#[derive(Debug)]
pub(crate) struct IntoState {
    pub(crate) store: Store,
    pub(crate) certificates: CertManager,
    pub(crate) synced: watch::Sender<bool>,
}

/// The state as the proxies ask for it.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) store: Store,
    /// Whether an application tunnel is entered through the loopback address.
    pub(crate) localhost_app_tunnel: bool,
}

// === impl ToControlPlane ===

impl Connect for ToControlPlane {
    fn connect(&self) -> BoxFuture<'_, Result<Connection, BoxError>> {
        Box::pin(async {
            let token = self.token.token().await?;
            let metadata = credentials(token.as_deref(), &self.cluster_id, &self.headers)?;
            let channel = self.target.channel()?;
            Ok(Connection { channel, metadata })
        })
    }
}

// === impl IntoState ===

impl Sink for IntoState {
    fn apply(&mut self, changes: Vec<Change>) {
        let applied = self.store.apply(changes);
        for identity in &applied.identities_removed {
            self.certificates.forget(identity);
        }
        for identity in &applied.identities_added {
            self.certificates.warm(identity);
        }
    }

    fn synced(&mut self) {
        tracing::info!("discovery is complete");
        self.synced.send_replace(true);
    }
}

// === impl View ===

impl Discover for View {
    fn workload_for<'a>(&'a self, pod: &'a PodInfo) -> BoxFuture<'a, Option<Arc<Workload>>> {
        Box::pin(self.store.wait_for_pod(pod, POD_PATIENCE))
    }

    fn route(&self, source: &Workload, destination: SocketAddr) -> Result<Route, RouteError> {
        self.store.load().route(source, destination)
    }

    fn workload_at(&self, network: &str, address: IpAddr) -> Option<Arc<Workload>> {
        self.store.load().workload_at(network, address).cloned()
    }

    fn service(&self, key: &NamespacedHostname) -> Option<Arc<ServiceRef>> {
        self.store.load().service_ref(key).cloned()
    }

    fn inbound_target(
        &self,
        local: &Workload,
        authority: &Authority,
        accepted: SocketAddr,
    ) -> Result<InboundTarget, InboundError> {
        let found = self
            .store
            .load()
            .inbound_target(local, authority, accepted, &OWN_PORTS);
        found.map(|mut target| {
            if self.localhost_app_tunnel && target.tunnel.is_some() {
                target.upstream.set_ip(loopback(target.upstream.ip()));
            }
            target
        })
    }

    fn authorize(&self, local: &Workload, connection: &rbac::Connection) -> Decision {
        self.store.load().authorize(local, connection)
    }

    fn policy_changes(&self) -> watch::Receiver<u64> {
        self.store.policy_changes()
    }
}

fn loopback(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}

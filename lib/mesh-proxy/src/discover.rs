//! What the proxy asks of the rest of the program: who is who, where a connection goes, and the
//! certificate to go there with.
//!
//! Everything but waiting for the pod's own workload and for a certificate answers at once, from a
//! snapshot: these calls stand on the path of every connection.

use std::{
    error::Error,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use futures::future::BoxFuture;
use mesh_core::{
    address::NamespacedHostname,
    identity::Identity,
    rbac::{self, Decision},
    route::{Authority, InboundError, InboundTarget, Route, RouteError, ServiceRef},
    workload::{PodInfo, Workload},
};
use mesh_identity::WorkloadCertificate;
use tokio::sync::watch;

/// Workloads, services and policies, as far as one node knows them.
pub trait Discover: Send + Sync + 'static {
    /// The pod's own workload. Waits for discovery to name it, for at most 5 s (the reference's
    /// bound); `None` after that. Called once per accepted connection, so an answer that is known
    /// must not wait.
    fn workload_for<'a>(&'a self, pod: &'a PodInfo) -> BoxFuture<'a, Option<Arc<Workload>>>;

    /// Where a connection from `source` to `destination` goes.
    fn route(&self, source: &Workload, destination: SocketAddr) -> Result<Route, RouteError>;

    /// The workload that owns `address` in `network`.
    fn workload_at(&self, network: &str, address: IpAddr) -> Option<Arc<Workload>>;

    /// How telemetry names the service `namespace/hostname`.
    fn service(&self, key: &NamespacedHostname) -> Option<Arc<ServiceRef>>;

    /// Where a CONNECT for `authority` that arrived at the address `accepted` is delivered.
    fn inbound_target(
        &self,
        local: &Workload,
        authority: &Authority,
        accepted: SocketAddr,
    ) -> Result<InboundTarget, InboundError>;

    /// Whether `connection` may reach the workload `local`, by the newest version of that workload
    /// and of its policies: the caller's may be as old as the connection that it asks about.
    fn authorize(&self, local: &Workload, connection: &rbac::Connection) -> Decision;

    /// A number that changes when any policy, or any workload's list of policies, changes. The proxy
    /// then asks again for each connection it holds.
    fn policy_changes(&self) -> watch::Receiver<u64>;
}

/// Certificates of the workloads on this node.
pub trait Certs: Send + Sync + 'static {
    /// The certificate of `identity`, waiting for the authority if there is none yet. A proxy asks for
    /// its own pod's identity alone.
    fn certificate<'a>(
        &'a self,
        identity: &'a Identity,
    ) -> BoxFuture<'a, Result<Arc<WorkloadCertificate>, CertificateError>>;
}

/// There is no certificate for an identity. The authority is away or refuses, or the network is at
/// fault; whoever keeps certificates asks again by itself, so a later connection may succeed.
#[derive(Debug, thiserror::Error)]
#[error("obtain a certificate for {identity}")]
pub struct CertificateError {
    /// Whose certificate.
    pub identity: Identity,
    /// What is wrong.
    pub source: Box<dyn Error + Send + Sync>,
}

//! What tells the proxies of the cluster and signs their certificates: [istiod](Cluster) in front of an
//! API server, or the [lab itself](Played) where a test needs a state that no cluster would come to.

pub mod api;
mod cluster;
mod istiod;
mod played;

use std::net::IpAddr;

use mesh_core::workload::Workload;

use self::api::Api;
pub use self::{cluster::Cluster, istiod::Istiod, played::Played};

/// The namespace of the mesh's own parts.
pub const NAMESPACE: &str = "istio-system";

/// The name the proxies know the control plane by.
pub(crate) const NAME: &str = "istiod.istio-system.svc";

/// What to capture where the control plane is, to see the traffic of pods: all TCP but discovery,
/// certificates and the API server's.
pub const POD_TRAFFIC: &str = "tcp and not port 15012 and not port 6443";

/// The service account of the proxies.
pub(crate) const ZTUNNEL: &str = "ztunnel";

/// The port of discovery and certificates, Istio's.
const PORT: u16 = 15012;

/// A control plane of either kind. It ends when dropped.
pub trait ControlPlane {
    /// Where proxies find it, as `https://address:port`.
    fn url(&self) -> String;

    /// The cluster that it controls, as far as pods and agents go.
    fn api(&self) -> &Api;

    /// Takes in the proxy of a node; its pod is in the API server with this uid.
    fn admit(
        &self,
        proxy: &ProxyPod<'_>,
        uid: &str,
    ) -> impl Future<Output = anyhow::Result<Credentials>>;

    /// Takes in a pod, which is in the API server.
    fn place(&self, pod: &Workload) -> impl Future<Output = anyhow::Result<()>>;

    /// Takes note of whether a pod is in the mesh, which its protocol says.
    fn announce(&self, pod: &Workload) -> impl Future<Output = anyhow::Result<()>>;

    /// What it has logged, for a failure's report.
    fn log(&self) -> String;

    /// Ends it in order; what did not is returned.
    fn end(self) -> impl Future<Output = Vec<anyhow::Error>>;
}

/// The pod that a proxy runs in.
#[derive(Clone, Copy, Debug)]
pub struct ProxyPod<'a> {
    /// Its node.
    pub node: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its address.
    pub address: IpAddr,
}

/// What a proxy is given to be believed, and to believe.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Its service account's token.
    pub token: String,
    /// The certificates of the authorities, PEM.
    pub roots: String,
}

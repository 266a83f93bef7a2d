//! What the parts of the agent know of each other.

use std::{collections::BTreeMap, error::Error, net::IpAddr, sync::Arc};

use mesh_cni::protocol::{Added, Attachment, IstioAdd, Refusal, Valid};
use mesh_net::netns::NetNs;
use mesh_redirect::{Options, Verdict};

/// A pod's Kubernetes UID.
pub type PodUid = Arc<str>;

/// The rules and the policy route in a pod's network namespace.
///
/// All three may be called at any time and any number of times; what is as it should be is not touched.
pub trait Rules: Send + Sync + 'static {
    /// Why not.
    type Error: Error + Send + Sync + 'static;

    /// What a namespace holds of ours, compared with what it should hold.
    fn verify(
        &self,
        netns: &Arc<NetNs>,
        wanted: &Options,
    ) -> impl Future<Output = Result<Verdict, Self::Error>> + Send;

    /// Makes a namespace hold exactly this of ours, in one transaction where the kernel has one. What the
    /// other backend left goes in the same call.
    fn apply(
        &self,
        netns: &Arc<NetNs>,
        wanted: &Options,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Removes all that is ours, of either backend.
    fn remove(&self, netns: &Arc<NetNs>) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// The node's set of pod addresses to which probes may go: what the host's own processes send there passes the
/// pods' proxies.
pub trait Probes: Send + Sync + 'static {
    /// Why not.
    type Error: Error + Send + Sync + 'static;

    /// Makes the set and the rule that uses it, if they are not there; what is in the set stays.
    fn ensure(&self) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// What is in the set: address and the pod it is of. An entry without a pod has an empty one.
    fn list(&self) -> impl Future<Output = Result<BTreeMap<IpAddr, PodUid>, Self::Error>> + Send;

    /// Makes an address this pod's, whosever it was.
    fn insert(
        &self,
        address: IpAddr,
        pod: &PodUid,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Removes an address, if it still is this pod's.
    fn remove(
        &self,
        address: IpAddr,
        pod: &PodUid,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Removes the set and the rule: the mesh leaves the node.
    fn clear(&self) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// Where the plugin's calls go.
pub trait Attach: Send + Sync + 'static {
    /// A pod gets its network. Returns when it is in the mesh, or does not belong there.
    fn add(&self, pod: Attachment) -> impl Future<Output = Result<Added, Refusal>> + Send;

    /// The same, asked by Istio's plugin: a pod that does not belong in the mesh is refused.
    fn istio_add(&self, pod: IstioAdd) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Whether a pod that should be in the mesh is, by what the kernel holds.
    fn check(&self, pod: Attachment) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// A pod's network goes. Never refused for a pod that is not known.
    fn delete(&self, pod: Attachment) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Only these are left.
    fn collect(&self, valid: Valid) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Whether a pod could be added now.
    fn status(&self) -> Result<(), Refusal>;
}

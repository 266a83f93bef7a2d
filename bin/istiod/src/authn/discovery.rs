//! Who may read what of the mesh over xDS.
//!
//! Workloads and policies are for the proxies of nodes alone, and each gets the node on which the API
//! server has put its pod, whatever it says of itself. Every other caller with an identity may open a
//! stream and reads nothing of either.

use futures::future::BoxFuture;
use mesh_identity::control::Peer;
use mesh_xds::server::{Authenticate, Client, Readable};
use tonic::{Extensions, Status, metadata::MetadataMap};

use super::{Authenticator, Error, metrics::Metrics, node::Nodes};

/// Decides for the discovery service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct DiscoveryCallers {
    authenticator: Authenticator,
    nodes: Nodes,
    metrics: Metrics,
}

/// Why there is no stream. The caller learns only the kind.
#[derive(Debug, thiserror::Error)]
enum Denial {
    #[error(transparent)]
    Caller(#[from] Error),
    #[error(transparent)]
    Node(#[from] super::node::Refusal),
}

// === impl DiscoveryCallers ===

impl DiscoveryCallers {
    /// Admits whom `authenticator` knows, with the node that `nodes` sees for it.
    pub fn new(authenticator: Authenticator, nodes: Nodes, metrics: Metrics) -> Self {
        Self {
            authenticator,
            nodes,
            metrics,
        }
    }

    async fn identify(
        &self,
        metadata: &MetadataMap,
        peer: Option<&Peer>,
    ) -> Result<Client, Denial> {
        let certificate = peer.and_then(|peer| peer.identity.as_ref());
        let caller = self
            .authenticator
            .authenticate(metadata, certificate)
            .await?;
        let (node, may_read) = if self.nodes.is_proxy(&caller) {
            let node = self.nodes.node(&caller).await?;
            (Some(node.into()), Readable::Everything)
        } else {
            (None, Readable::Only(&[]))
        };
        Ok(Client {
            identity: caller.identity.to_string().into(),
            namespace: Some(caller.namespace().into()),
            service_account: Some(caller.service_account().into()),
            node,
            may_read,
            address: peer.map(|peer| peer.address),
        })
    }
}

impl Authenticate for DiscoveryCallers {
    fn authenticate<'a>(
        &'a self,
        metadata: &'a MetadataMap,
        extensions: &'a Extensions,
    ) -> BoxFuture<'a, Result<Client, Status>> {
        Box::pin(async move {
            let peer = extensions.get::<Peer>();
            self.identify(metadata, peer).await.map_err(|denial| {
                let address = peer.map(|peer| peer.address);
                tracing::warn!(?address, reason = %denial, "discovery stream denied");
                let (status, kind) = denial.status();
                self.metrics.denied(kind);
                status
            })
        })
    }
}

// === impl Denial ===

impl Denial {
    /// What the caller is told, and what is counted.
    fn status(&self) -> (Status, &'static str) {
        match self {
            Self::Caller(Error::Unauthenticated(_)) => (
                Status::unauthenticated("authentication failure"),
                "unauthenticated",
            ),
            Self::Caller(Error::Unavailable(_)) => (
                Status::unavailable("the caller cannot be checked now"),
                "unavailable",
            ),
            Self::Node(_) => (
                Status::permission_denied("the node of the caller is not known"),
                "forbidden",
            ),
        }
    }
}

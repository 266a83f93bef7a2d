//! The node's ztunnels, as the agent speaks to them.

use std::{convert::Infallible, path::PathBuf, sync::Arc, time::Duration};

use mesh_net::{netns::NetNs, seqpacket};
use mesh_runtime::error::chain;
use mesh_zds::agent::{Agent, Error, Pod, Server};
use tokio::{sync::watch, time::sleep};

use crate::parts::PodUid;

/// The node's ztunnels.
pub trait Proxies: Send + Sync + 'static {
    /// Takes down pods that are told to every ztunnel that connects: to be served in this namespace, or
    /// without one to be kept by a ztunnel that serves them already.
    fn restore(&self, pods: Vec<(Pod, Option<Arc<NetNs>>)>);

    /// Has a pod served, and waits until it is.
    fn add(&self, pod: Pod, netns: Arc<NetNs>) -> impl Future<Output = Result<(), Error>> + Send;

    /// Has a pod served no more, and waits until none does.
    fn delete(&self, pod: &PodUid) -> impl Future<Output = Result<(), Error>> + Send;

    /// How many ztunnels know all pods, as it changes.
    fn synced(&self) -> watch::Receiver<usize>;

    /// Lets ztunnels connect, for ever. They stop serving what they are not told of then.
    fn serve(&self) -> impl Future<Output = Infallible> + Send;
}

/// The ztunnels that connect to a socket.
#[derive(Clone, Debug)]
pub struct Ztunnels {
    agent: Agent,
    path: PathBuf,
}

/// How long to wait before the socket is tried again.
const RETRY: Duration = Duration::from_secs(1);

// === impl Ztunnels ===

impl Ztunnels {
    /// Those that connect to `path`, once they are let.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            agent: Agent::new(),
            path: path.into(),
        }
    }

    fn complain(&self, error: &seqpacket::Error) {
        let (path, error) = (self.path.display(), chain(error));
        tracing::error!(%path, %error, "cannot listen for ztunnel; will try again");
    }
}

impl Proxies for Ztunnels {
    fn restore(&self, pods: Vec<(Pod, Option<Arc<NetNs>>)>) {
        self.agent.restore(pods);
    }

    async fn add(&self, pod: Pod, netns: Arc<NetNs>) -> Result<(), Error> {
        self.agent.add(pod, netns).await
    }

    async fn delete(&self, pod: &PodUid) -> Result<(), Error> {
        let failures = self.agent.delete(pod).await;
        failures.into_iter().next().map_or(Ok(()), Err)
    }

    fn synced(&self) -> watch::Receiver<usize> {
        self.agent.synced()
    }

    async fn serve(&self) -> Infallible {
        loop {
            match Server::bind(&self.path, self.agent.clone()) {
                Ok(server) => match server.run().await {},
                Err(error) => self.complain(&error),
            }
            sleep(RETRY).await;
        }
    }
}

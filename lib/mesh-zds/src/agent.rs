//! The agent's end: keeps the list of pods in the mesh, and tells every proxy that connects.
//!
//! During an upgrade two proxies are connected. A new pod goes to the newest; the end of a pod is told
//! to all.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use mesh_core::workload::PodInfo;
use mesh_net::{
    netns::NetNs,
    seqpacket::{self, Credentials, Listener, Socket},
};
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};

use crate::{
    codec::{self, Request},
    error::chain,
};

mod connection;
mod session;

/// Time between two accepted connections: five per second, as Istio's agent has it. A proxy that fails
/// over and over does not keep the agent busy.
const ACCEPT_INTERVAL: Duration = Duration::from_millis(200);

/// Time after which an accept is tried again that failed, usually for want of descriptors.
const ACCEPT_RETRY: Duration = Duration::from_secs(1);

/// Proxies that may be connected at the same time; an upgrade has two.
const MOST_CONNECTIONS: usize = 16;

/// Requests that may wait for one proxy. Callers of [`Agent::add`] and [`Agent::delete`] wait when there
/// are more.
const QUEUE: usize = 128;

/// Accepts proxies and talks to them, for as long as it is run.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    agent: Agent,
}

/// The pods in the mesh on this node; cheap to clone. Changes are told to the proxies by the
/// [`Server`], which must be running.
#[derive(Clone, Debug)]
pub struct Agent {
    shared: Arc<Shared>,
}

/// A pod in the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// The pod's Kubernetes UID.
    pub uid: Arc<str>,
    /// Who the pod is.
    pub info: PodInfo,
}

/// Why a proxy did not confirm a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No proxy is connected. It learns of the pod when it connects.
    #[error("no ztunnel is connected")]
    NoProxy,
    /// The proxy cannot do it now; it tries again by itself.
    #[error("ztunnel refused: {0}")]
    Refused(String),
    /// The proxy did not answer within 5 s. It may still do what it was asked.
    #[error("ztunnel did not answer in time")]
    TimedOut,
    /// The proxy went away. Another, or the same restarted, learns of the pod when it connects.
    #[error("ztunnel disconnected before it answered")]
    Disconnected,
    /// The pod was deleted before the proxy could be told of it.
    #[error("the pod was deleted meanwhile")]
    Deleted,
    /// The pod cannot be named in a message; Kubernetes makes no such names.
    #[error("the pod cannot be described to ztunnel")]
    Invalid(#[source] codec::Error),
}

/// Takes the proxy's answer to one request.
type Reply = oneshot::Sender<Result<(), Error>>;

/// The pods that a proxy that connects is told of.
type Pods = BTreeMap<Arc<str>, Entry<Arc<NetNs>>>;

/// What is known of a pod.
#[derive(Clone, Debug)]
struct Entry<N> {
    info: PodInfo,
    /// None: the pod is to be kept by a proxy that serves it already.
    netns: Option<N>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    synced: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    pods: Pods,
    /// Oldest first.
    proxies: Vec<Proxy>,
    next_id: u64,
}

/// A connected proxy that has said hello.
struct Proxy {
    id: u64,
    requests: mpsc::Sender<(Change, Reply)>,
    synced: bool,
}

/// A request that waits in the queue of a proxy; the pod is looked up when it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    Add(Arc<str>),
    Delete(Arc<str>),
}

/// A proxy's place in the list, given up when dropped.
struct Registration {
    shared: Arc<Shared>,
    id: u64,
}

// === impl Server ===

impl Server {
    /// Listens at `path`, where only root may connect; see [`Listener::bind`]. Needs the context of a
    /// tokio runtime.
    pub fn bind(path: impl Into<PathBuf>, agent: Agent) -> Result<Self, seqpacket::Error> {
        let listener = Listener::bind(path)?;
        Ok(Self { listener, agent })
    }

    /// Where proxies connect.
    pub fn path(&self) -> &Path {
        self.listener.path()
    }

    /// Serves proxies until the future is dropped; their connections break then.
    pub async fn run(self) -> Infallible {
        let mut connections = FuturesUnordered::new();
        let mut accept_at = Instant::now();
        loop {
            tokio::select! {
                accepted = self.accept(accept_at) => match accepted {
                    Ok((socket, peer)) => {
                        accept_at = Instant::now() + ACCEPT_INTERVAL;
                        if may_connect(peer, connections.len()) {
                            connections.push(connection::serve(socket, peer, &self.agent.shared));
                        }
                    }
                    Err(error) => {
                        accept_at = Instant::now() + ACCEPT_RETRY;
                        let error = chain(&error);
                        tracing::warn!(error, "cannot accept a ztunnel; will try again");
                    }
                },
                Some(()) = connections.next() => {}
            }
        }
    }

    async fn accept(&self, not_before: Instant) -> Result<(Socket, Credentials), seqpacket::Error> {
        sleep_until(not_before).await;
        self.listener.accept().await
    }
}

// === impl Agent ===

impl Agent {
    /// No pods yet.
    pub fn new() -> Self {
        Self {
            shared: Arc::default(),
        }
    }

    /// Takes down pods that were in the mesh before this process started, without telling anyone. Those
    /// whose namespace is not known are kept by a proxy that serves them already, and by no other.
    ///
    /// To be called before the server runs, so that the first snapshot is complete: a proxy stops
    /// serving the pods that are not in it.
    pub fn restore(&self, pods: impl IntoIterator<Item = (Pod, Option<Arc<NetNs>>)>) {
        let mut state = self.shared.state.lock();
        for (pod, netns) in pods {
            let info = pod.info;
            state.pods.insert(pod.uid, Entry { info, netns });
        }
    }

    /// Puts a pod into the mesh and waits until the newest proxy serves it.
    ///
    /// The pod is in the list from now on, also if this fails: proxies that connect later are told of
    /// it. A caller that gives up calls [`delete`](Self::delete).
    pub async fn add(&self, pod: Pod, netns: Arc<NetNs>) -> Result<(), Error> {
        let Pod { uid, info } = pod;
        let request = Request::Add {
            uid: uid.clone(),
            pod: info.clone(),
        };
        request.encode().map_err(Error::Invalid)?;
        let netns = Some(netns);
        let entry = Entry { info, netns };
        self.shared.state.lock().pods.insert(uid.clone(), entry);
        let mut result = Err(Error::NoProxy);
        // One that disconnects has left the list; the one before it takes over.
        while let Some(newest) = self.newest() {
            result = ask(&newest, Change::Add(uid.clone())).await;
            if result != Err(Error::Disconnected) {
                break;
            }
        }
        result
    }

    /// Takes a pod out of the mesh and waits until all proxies have stopped serving it. Returns why
    /// some did not confirm it; a proxy that disconnected does not count.
    pub async fn delete(&self, uid: &Arc<str>) -> Vec<Error> {
        let proxies: Vec<_> = {
            let mut state = self.shared.state.lock();
            state.pods.remove(uid);
            let proxies = state.proxies.iter();
            proxies.map(|proxy| proxy.requests.clone()).collect()
        };
        let asked = proxies
            .iter()
            .map(|proxy| ask(proxy, Change::Delete(uid.clone())));
        let failures = join_all(asked).await.into_iter().filter_map(Result::err);
        failures.filter(|e| *e != Error::Disconnected).collect()
    }

    fn newest(&self) -> Option<mpsc::Sender<(Change, Reply)>> {
        let state = self.shared.state.lock();
        state.proxies.last().map(|proxy| proxy.requests.clone())
    }

    /// How many connected proxies know all pods, as it changes.
    pub fn synced(&self) -> watch::Receiver<usize> {
        self.shared.synced.subscribe()
    }
}

impl Default for Agent {
    fn default() -> Self {
        Self::new()
    }
}

// === impl Shared ===

impl Shared {
    /// Enters a proxy into the list. In the same moment, so that no change is missed or told twice
    /// over, takes the names of the pods it must be told of.
    fn register(
        self: &Arc<Self>,
    ) -> (Registration, mpsc::Receiver<(Change, Reply)>, Vec<Arc<str>>) {
        let (requests, queue) = mpsc::channel(QUEUE);
        let mut state = self.state.lock();
        let id = state.next_id;
        state.next_id += 1;
        state.proxies.push(Proxy {
            id,
            requests,
            synced: false,
        });
        let registration = Registration {
            shared: self.clone(),
            id,
        };
        (registration, queue, state.pods.keys().cloned().collect())
    }

    fn publish(&self, state: &State) {
        let synced = state.proxies.iter().filter(|proxy| proxy.synced).count();
        self.synced.send_replace(synced);
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("Shared")
            .field("pods", &state.pods)
            .field("proxies", &state.proxies.len())
            .finish_non_exhaustive()
    }
}

// === impl Registration ===

impl Registration {
    /// The proxy knows all pods.
    fn synced(&self) {
        let mut state = self.shared.state.lock();
        let mut proxies = state.proxies.iter_mut();
        if let Some(proxy) = proxies.find(|proxy| proxy.id == self.id) {
            proxy.synced = true;
        }
        self.shared.publish(&state);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.proxies.retain(|proxy| proxy.id != self.id);
        self.shared.publish(&state);
    }
}

/// Puts a change into a proxy's queue and waits for the answer.
async fn ask(proxy: &mpsc::Sender<(Change, Reply)>, change: Change) -> Result<(), Error> {
    let (reply, answer) = oneshot::channel();
    let queued = proxy.send((change, reply)).await;
    queued.map_err(|_gone| Error::Disconnected)?;
    answer.await.unwrap_or(Err(Error::Disconnected))
}

/// Only root may be told of namespaces. The mode of the socket says so too; it does not hold against a
/// process that had root's file handles and gave up the rest.
fn may_connect(peer: Credentials, connected: usize) -> bool {
    if peer.uid != 0 {
        tracing::warn!(?peer, "refusing a connection to the agent: not from root");
        return false;
    }
    if connected >= MOST_CONNECTIONS {
        tracing::warn!(?peer, "refusing a connection to the agent: too many");
        return false;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_may_connect_and_not_without_limit() {
        let root = Credentials {
            pid: 1,
            uid: 0,
            gid: 0,
        };
        let user = Credentials { uid: 1000, ..root };
        assert!(may_connect(root, 0));
        assert!(!may_connect(user, 0));
        assert!(may_connect(root, MOST_CONNECTIONS - 1));
        assert!(!may_connect(root, MOST_CONNECTIONS));
    }
}

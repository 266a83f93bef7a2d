//! The proxy's end: connects, is told which pods to serve, and has them served.

use std::{
    convert::Infallible,
    error::Error as StdError,
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use mesh_core::workload::PodInfo;
use mesh_net::{
    netns::NetNs,
    seqpacket::{self, Passed, Received, Socket},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    backoff::{Backoff, LONGEST},
    codec::{self, Ack, MAX_MESSAGE, Request},
    error::chain,
};

mod machine;

pub use self::machine::{Identified, Machine, Namespace, Plan, Refusal, Start, Violation};

/// Where agent and proxy meet, unless configured otherwise. Contract with Istio's components.
pub const DEFAULT_PATH: &str = "/var/run/ztunnel/ztunnel.sock";

/// Time between attempts to start what could not be started.
const RETRY: Duration = Duration::from_secs(5);

/// Serves pods.
pub trait WorkloadManager: Send {
    /// Why a pod is not served; the agent is told this error and its sources.
    type Error: StdError + Send;

    /// Serves a pod: returns when its listeners are bound, without waiting for certificates or
    /// discovery. The agent waits 5 s for the answer, and the pod does not start until then.
    fn add(
        &mut self,
        uid: &Arc<str>,
        pod: &PodInfo,
        netns: Arc<NetNs>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Stops serving a pod, at once: it is gone, or it leaves the mesh. Only called for a pod that was
    /// added; connections under way may be brought to an end after this returns.
    fn delete(&mut self, uid: &Arc<str>) -> impl Future<Output = ()> + Send;
}

/// What is known of the pods on this node; readiness depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether the agent has named all pods on the connection that exists now.
    pub synced: bool,
    /// Pods that are served.
    pub running: usize,
    /// Pods that should be served and are not yet.
    pub pending: usize,
}

/// A connection to the agent that is made anew whenever it breaks, and the pods that are served
/// meanwhile.
#[derive(Debug)]
pub struct Client<M> {
    path: PathBuf,
    manager: M,
    machine: Machine<Arc<NetNs>>,
    status: watch::Sender<Status>,
}

/// Why a conversation with the agent came to an end. None of these ends the process or stops a pod
/// from being served: connections keep working, and the next conversation brings everything up to date.
/// (Upstream's proxy exits on what is [`End::Protocol`] here; all pods of the node would suffer for a
/// mistake of the agent.)
#[derive(Debug, thiserror::Error)]
enum End {
    /// The agent is not there, or no longer.
    #[error("the connection to the CNI agent failed")]
    Connection(#[source] seqpacket::Error),
    /// The agent closed the connection; usually it restarts.
    #[error("the CNI agent closed the connection")]
    Closed,
    /// The agent broke the rules. Its version may not fit ours.
    #[error("the CNI agent broke the protocol")]
    Protocol(#[source] Box<dyn StdError + Send + Sync>),
    /// A pod could not be served because its namespace was lost on receipt; the agent names it again to
    /// a new connection.
    #[error("asking the CNI agent for the pods again, whose namespaces were lost")]
    Again,
}

// === impl Status ===

impl Status {
    /// Whether all pods that should be served are.
    pub fn is_ready(self) -> bool {
        self.synced && self.pending == 0
    }
}

// === impl Client ===

impl<M: WorkloadManager> Client<M> {
    /// A client that connects to `path`, usually [`DEFAULT_PATH`], when it is run.
    pub fn new(path: impl Into<PathBuf>, manager: M) -> Self {
        Self {
            path: path.into(),
            manager,
            machine: Machine::default(),
            status: watch::Sender::default(),
        }
    }

    /// What is known of the pods on this node, kept up to date while the client runs.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// What serves the pods.
    pub fn manager(&self) -> &M {
        &self.manager
    }

    /// Talks to the agent until the future is dropped; pods are served until then and beyond.
    pub async fn run(&mut self) -> Infallible {
        let mut backoff = Backoff::default();
        // The reason that was last told; a reason is told once until the agent has named all pods again.
        let mut told = None;
        loop {
            let began = Instant::now();
            let end = self.converse().await;
            if self.status.borrow().synced {
                told = None;
                if began.elapsed() >= LONGEST {
                    backoff.reset();
                }
            }
            self.machine.disconnected();
            self.publish();
            let wait = backoff.next();
            let (path, error) = (self.path.display(), chain(&end));
            if told.as_ref() == Some(&error) {
                tracing::debug!(%path, error, ?wait, "still without the CNI agent");
            } else {
                tracing::warn!(%path, error, ?wait, "will connect to the CNI agent again");
                told = Some(error);
            }
            sleep(wait).await;
        }
    }

    async fn converse(&mut self) -> End {
        match self.try_converse().await {
            Ok(end) | Err(end) => end,
        }
    }

    async fn try_converse(&mut self) -> Result<End, End> {
        let socket = Socket::connect(self.path.as_path()).map_err(End::Connection)?;
        let hello = codec::encode_hello();
        let sent = socket.send(&hello, None).await;
        sent.map_err(End::Connection)?;
        self.machine.connected();
        tracing::debug!(path = %self.path.display(), "connected to the CNI agent");
        let mut retry_at = Instant::now() + RETRY;
        let mut buffer = [0; MAX_MESSAGE];
        loop {
            tokio::select! {
                // Requests first: somebody waits for the answer.
                biased;
                received = socket.recv(&mut buffer) => match received {
                    Ok(Some(received)) => self.answer(&socket, &buffer, received).await?,
                    Ok(None) => return Ok(End::Closed),
                    Err(seqpacket::Error::Receive(e)) => {
                        return Ok(End::Connection(seqpacket::Error::Receive(e)));
                    }
                    Err(error) => return Err(refuse(&socket, error).await),
                },
                () = sleep_until(retry_at), if self.machine.has_unserved() => {
                    if self.machine.must_ask_again() {
                        return Ok(End::Again);
                    }
                    self.retry().await;
                    retry_at = Instant::now() + RETRY;
                }
            }
            self.publish();
        }
    }

    /// Does what one message asks for and acknowledges it.
    async fn answer(
        &mut self,
        socket: &Socket,
        buffer: &[u8],
        received: Received,
    ) -> Result<(), End> {
        let bytes = buffer.get(..received.len).unwrap_or(buffer);
        let request = match Request::decode(bytes) {
            Ok(request) => request,
            Err(error) => return Err(refuse(socket, error).await),
        };
        tracing::debug!(request = request.name(), uid = ?request.uid(), "asked by the CNI agent");
        let plan = match self.machine.received(request, namespace(received.passed)) {
            Ok(plan) => plan,
            Err(violation) => return Err(refuse(socket, violation).await),
        };
        let ack = Ack(self.carry_out(plan).await);
        let sent = socket.send(&ack.encode(), None).await;
        sent.map_err(End::Connection)
    }

    async fn carry_out(&mut self, plan: Plan<Arc<NetNs>>) -> Result<(), String> {
        for uid in &plan.stop {
            tracing::info!(%uid, "stopping to serve a pod");
            self.manager.delete(uid).await;
        }
        if let Some(start) = plan.start {
            self.start(start).await?;
        }
        match plan.refusal {
            None => Ok(()),
            Some(refusal) => {
                tracing::warn!(error = %refusal, "a pod cannot be served");
                Err(refusal.to_string())
            }
        }
    }

    async fn start(&mut self, start: Start<Arc<NetNs>>) -> Result<(), String> {
        let Start { uid, pod, netns } = start;
        let id = netns.id();
        let result = self.manager.add(&uid, &pod, netns).await;
        self.machine.settled(&uid, id, result.is_ok());
        let (name, namespace) = (&*pod.name, &*pod.namespace);
        match result {
            Ok(()) => {
                tracing::info!(%uid, name, namespace, "serving a pod");
                Ok(())
            }
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(%uid, name, namespace, error, "a pod cannot be served yet");
                Err(error)
            }
        }
    }

    async fn retry(&mut self) {
        for start in self.machine.retries() {
            // The failure is in the log; the agent was told of the first one.
            drop(self.start(start).await);
        }
    }

    fn publish(&self) {
        let status = self.machine.status();
        let before = *self.status.borrow();
        if status.synced && !before.synced {
            let Status {
                running, pending, ..
            } = status;
            tracing::info!(running, pending, "the CNI agent has named all pods");
        }
        if status != before {
            self.status.send_replace(status);
        }
    }
}

impl<M> Client<M> {
    /// Where the agent is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Tells the agent what it did wrong, if it still listens.
async fn refuse(socket: &Socket, error: impl StdError + Send + Sync + 'static) -> End {
    let ack = Ack(Err(chain(&error)));
    // The connection ends here; whether the reason arrives changes nothing.
    drop(socket.send(&ack.encode(), None).await);
    End::Protocol(Box::new(error))
}

fn namespace(passed: Passed) -> Namespace<Arc<NetNs>> {
    match passed {
        Passed::Nothing => Namespace::Missing,
        Passed::Lost => Namespace::Lost,
        Passed::Descriptor(fd) => match NetNs::from_fd(fd) {
            Ok(netns) => Namespace::Usable(Arc::new(netns)),
            Err(error) => Namespace::Unusable(chain(&error)),
        },
    }
}

//! Connections that are shared by the tunnels between the same two identities and addresses.
//!
//! `state` decides; this file makes the connections, keeps them alive and wakes those who wait. One
//! short lock guards the decisions: it is taken when a tunnel is opened and when it ends, never while
//! bytes move, and never across a handshake.

use std::{
    error, fmt,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures::future::BoxFuture;
use h2::Reason;
use http::{Request, StatusCode, response::Parts};
use mesh_core::identity::Identity;
use mesh_runtime::task::Tracker;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use self::state::{Action, Actions, ConnectionId, Place, Refusal, State, WaiterId};
use super::{
    client::{self, Driver, Handle, Progress},
    settings::Settings,
    stream::Stream,
};

mod state;

/// How often a tunnel is tried that the peer says it has not acted on, or whose connection turns out to
/// be dead.
const MAX_TRIES: usize = 3;

/// What must be the same for two tunnels to share a connection.
///
/// The source's address is part of it, because a peer takes it from the connection; so is what the
/// far end has to prove, because it was checked once for the connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PoolKey {
    /// Whose certificate is shown.
    pub source: Identity,
    /// The identities of which the far end must prove one.
    pub expected: Arc<[Identity]>,
    /// Where the far end listens.
    pub gateway: SocketAddr,
    /// The pod's address.
    pub source_ip: IpAddr,
}

/// Makes the connections that HTTP/2 runs over.
pub trait Connect: Send + Sync + 'static {
    /// A connection, with TLS done and the far end's identity checked.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Connects to `key.gateway`. The pool bounds the time.
    fn connect<'a>(&'a self, key: &'a PoolKey) -> BoxFuture<'a, Result<Self::Io, ConnectError>>;
}

/// Why a connection could not be made, or was lost before it was of use.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No TCP connection: the peer is gone, or a network policy is in the way. Worth a retry later.
    #[error("open a TCP connection")]
    Tcp(#[source] std::io::Error),
    /// The TLS handshake failed, or the far end is not who it should be. Retrying helps only when a
    /// certificate or discovery changes.
    #[error("authenticate the connection")]
    Tls(#[source] Box<dyn error::Error + Send + Sync>),
    /// There is no certificate for the source. The control plane is at fault; retried in background.
    #[error("get a certificate for the source")]
    Certificate(#[source] Box<dyn error::Error + Send + Sync>),
    /// The peer does not speak HTTP/2, or broke its rules.
    #[error("speak HTTP/2 on the connection")]
    Http2(#[source] h2::Error),
    /// It took too long, from the first packet to the peer's SETTINGS. A network policy that blocks
    /// the HBONE port looks like this.
    #[error("connect within {} s; a NetworkPolicy may block the HBONE port", .0.as_secs_f32())]
    Timeout(Duration),
    /// The peer stopped answering PINGs.
    #[error("get an answer to a PING within {} s", .0.as_secs_f32())]
    Unanswered(Duration),
    /// The peer closed the connection without a reason.
    #[error("keep the connection open")]
    Closed,
}

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection to the far end. All who waited for the same attempt get the same reason.
    #[error("connect to {gateway}")]
    Connect {
        /// Where the far end should listen.
        gateway: SocketAddr,
        /// Why.
        source: Arc<ConnectError>,
    },
    /// The pool is being drained: the pod or the proxy is going away.
    #[error("open a tunnel while the pool is draining")]
    Draining,
    /// As many streams as one peer gets are open or waited for.
    #[error("open a further tunnel to {gateway}, which has as many as it gets")]
    Crowded {
        /// The far end.
        gateway: SocketAddr,
    },
    /// The far end answered, but not with success: 400 for a request it does not understand, 401 if
    /// its policy denies, 503 if it cannot reach the application.
    #[error("the far end answered {0}")]
    Status(StatusCode),
    /// The far end is alive but did not answer in time. It hangs, or waits for something that hangs.
    #[error("get an answer to CONNECT within {} s", .0.as_secs_f32())]
    NoAnswer(Duration),
    /// The stream or its connection broke before the far end answered.
    #[error("get an answer to CONNECT")]
    Stream(#[source] h2::Error),
}

/// The connections of one proxy. Dropping it drains it.
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    settings: Settings,
    maker: Box<dyn Maker>,
    tasks: Tracker,
    state: Mutex<Decisions>,
    /// One token for each connection there is, also for those that the state has let go of.
    connections: TaskTracker,
    draining: CancellationToken,
}

/// One who waits for a place.
type Waiting = oneshot::Sender<Result<Lease, Failure>>;

type Decisions = State<PoolKey, Channel, Waiting>;

type Todo = Actions<PoolKey, Channel, Waiting>;

/// A connection as the tunnels on it see it.
#[derive(Clone)]
struct Channel {
    handle: Handle,
    /// Why the connection is over, from just before its streams find out.
    end: Arc<OnceLock<Arc<ConnectError>>>,
}

/// Why those fail whom an event fails.
#[derive(Clone)]
enum Failure {
    Draining,
    Connect(Arc<ConnectError>),
}

/// A place for one stream, given back when dropped.
struct Lease {
    place: Place<PoolKey, Channel>,
    shared: Arc<Shared>,
}

/// A place in the queue, given up when dropped.
struct Queued<'a> {
    shared: &'a Arc<Shared>,
    key: &'a PoolKey,
    id: WaiterId,
    turn: oneshot::Receiver<Result<Lease, Failure>>,
}

/// A connection as its own task sees it. Reports its end when dropped, so that nobody waits for a
/// connection whose task is gone.
struct Member {
    shared: Arc<Shared>,
    key: Arc<PoolKey>,
    id: ConnectionId,
    end: Arc<OnceLock<Arc<ConnectError>>>,
    _token: TaskTrackerToken,
}

/// [`Connect`] with the type of its connections hidden.
trait Maker: Send + Sync {
    /// Makes a connection and runs it to its end.
    fn run(&self, member: Member) -> BoxFuture<'static, ()>;
}

struct ConnectMaker<C: ?Sized>(Arc<C>);

// === impl Pool ===

impl Pool {
    /// A pool that connects with `connector` and runs its connections as tasks of `tasks`.
    pub fn new<C: Connect + ?Sized>(settings: Settings, connector: Arc<C>, tasks: Tracker) -> Self {
        let shared = Shared {
            state: Mutex::new(State::new(settings.pool.clone())),
            settings,
            maker: Box::new(ConnectMaker(connector)),
            tasks,
            connections: TaskTracker::new(),
            draining: CancellationToken::new(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Opens a tunnel: sends `request`, a CONNECT, to the far end and waits for its answer.
    ///
    /// Both making a connection and the answer are bounded by the settings, the answer generously: a
    /// far end that is alive may take its time to reach the application. Dropping the future gives the
    /// place up.
    pub async fn open(
        &self,
        key: &PoolKey,
        request: Request<()>,
    ) -> Result<(Parts, Stream), Error> {
        let mut tries = 1;
        loop {
            let lease = self.lease(key).await?;
            let patience = self.shared.settings.answer_timeout;
            let Ok(answer) = timeout(patience, lease.handle().send(request.clone())).await else {
                return Err(Error::NoAnswer(patience));
            };
            match answer {
                Ok((response, send)) if response.status().is_success() => {
                    lease.observe_limit();
                    let (parts, receive) = response.into_parts();
                    let stream = Stream::new(send, receive, Some(Arc::new(lease)));
                    return Ok((parts, stream));
                }
                Ok((response, _)) => return Err(Error::Status(response.status())),
                Err(error) if tries < MAX_TRIES && lease.is_untouched_by(&error) => tries += 1,
                Err(error) => return Err(lease.failed_by(error)),
            }
        }
    }

    /// Opens no more tunnels, closes the connections without any and resolves when the others have
    /// ended theirs. Can be called again.
    pub async fn drain(&self) {
        self.begin_drain();
        self.shared.connections.wait().await;
    }

    fn begin_drain(&self) {
        self.shared.draining.cancel();
        self.shared.connections.close();
        self.shared.event(&Failure::Draining, State::drain);
    }

    /// A place on a connection that takes new streams, as far as is known here.
    async fn lease(&self, key: &PoolKey) -> Result<Lease, Error> {
        loop {
            let lease = self.acquire(key).await?;
            // Each turn takes one connection out of the pool, so this comes to an end.
            if !lease.handle().is_closed() {
                return Ok(lease);
            }
            lease.discard();
        }
    }

    async fn acquire(&self, key: &PoolKey) -> Result<Lease, Error> {
        let shared = &self.shared;
        let gateway = key.gateway;
        let found = shared.event(&Failure::Draining, |state, todo| {
            if let Some(place) = state.acquire(key, Instant::now(), todo) {
                return Ok(Err(place));
            }
            let (sender, turn) = oneshot::channel();
            state.enqueue(key, sender, todo).map(|id| Ok((id, turn)))
        });
        let mut queued = match found {
            Ok(Err(place)) => return Ok(Lease::new(place, shared)),
            Ok(Ok((id, turn))) => Queued {
                shared,
                key,
                id,
                turn,
            },
            Err(Refusal::Draining) => return Err(Error::Draining),
            Err(Refusal::Crowded) => return Err(Error::Crowded { gateway }),
        };
        // A connection that is being made reports in half of this. The rest is for those who wait for
        // the end of some other stream, which may never come.
        let patience = 2 * shared.settings.connect_timeout;
        match timeout(patience, &mut queued.turn).await {
            Ok(Ok(Ok(lease))) => Ok(lease),
            Ok(Ok(Err(Failure::Connect(source)))) => Err(Error::Connect { gateway, source }),
            Ok(Ok(Err(Failure::Draining)) | Err(_)) => Err(Error::Draining),
            Err(_elapsed) => Err(Error::Crowded { gateway }),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.begin_drain();
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("connections", &self.shared.connections.len())
            .finish_non_exhaustive()
    }
}

// === impl Shared ===

impl Shared {
    /// Tells the state of an event and does what it asks for, outside of the lock.
    fn event<R>(
        self: &Arc<Self>,
        failure: &Failure,
        event: impl FnOnce(&mut Decisions, &mut Todo) -> R,
    ) -> R {
        let mut todo = Todo::new();
        let result = event(&mut self.state.lock(), &mut todo);
        for action in todo {
            self.perform(action, failure);
        }
        result
    }

    fn perform(self: &Arc<Self>, action: Action<PoolKey, Channel, Waiting>, failure: &Failure) {
        match action {
            Action::Connect(key, id) => {
                let member = Member {
                    shared: Arc::clone(self),
                    key,
                    id,
                    end: Arc::default(),
                    _token: self.connections.token(),
                };
                let task = self.maker.run(member);
                drop(self.tasks.spawn("hbone-client", task));
            }
            // Whoever does not wait any more drops the lease, and so gives it back.
            Action::Grant(waiting, place) => drop(waiting.send(Ok(Lease::new(place, self)))),
            Action::Fail(waiting) => drop(waiting.send(Err(failure.clone()))),
            Action::Close(channel) => drop(channel),
        }
    }
}

// === impl Lease ===

impl Lease {
    fn new(place: Place<PoolKey, Channel>, shared: &Arc<Shared>) -> Self {
        Self {
            place,
            shared: Arc::clone(shared),
        }
    }

    /// Takes the connection out of the pool: it takes no new streams.
    fn discard(&self) {
        self.shared.event(&Failure::Draining, |state, todo| {
            state.closed(&self.place.key, self.place.connection, Instant::now(), todo);
        });
    }

    /// Follows a peer that changes its mind about how many streams it takes.
    fn observe_limit(&self) {
        let limit = self.handle().limit();
        let Some(known) = self.place.capacity else {
            return; // Its own task will say.
        };
        self.shared.event(&Failure::Draining, |state, todo| {
            if state.capacity(limit) != known {
                let (key, id) = (&self.place.key, self.place.connection);
                state.settled(key, id, limit, Instant::now(), todo);
            }
        });
    }

    /// Whether it makes sense to send the same request again: the peer says that it has not acted on
    /// it, or the connection, good once, was lost before an answer. Opening a tunnel twice does no harm.
    /// A connection that takes no more is discarded.
    fn is_untouched_by(&self, error: &h2::Error) -> bool {
        if error.is_go_away() || error.is_io() {
            self.discard();
            let was_good = self.place.capacity.is_some();
            return was_good || error.is_remote();
        }
        self.observe_limit();
        error.reason() == Some(Reason::REFUSED_STREAM)
    }

    /// A broken connection says more than the stream that broke with it.
    fn failed_by(&self, error: h2::Error) -> Error {
        match self.place.handle.end.get() {
            Some(source) if error.is_io() => Error::Connect {
                gateway: self.place.key.gateway,
                source: Arc::clone(source),
            },
            _ => Error::Stream(error),
        }
    }

    fn handle(&self) -> &Handle {
        &self.place.handle.handle
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shared.event(&Failure::Draining, |state, todo| {
            state.release(&self.place.key, self.place.connection, Instant::now(), todo);
        });
    }
}

// === impl Queued ===

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        // A lease that is already on its way is dropped with the channel.
        let waiting = self.shared.event(&Failure::Draining, |state, _| {
            state.cancel(self.key, self.id)
        });
        drop(waiting);
    }
}

// === impl ConnectMaker ===

impl<C: Connect + ?Sized> Maker for ConnectMaker<C> {
    fn run(&self, member: Member) -> BoxFuture<'static, ()> {
        let connector = Arc::clone(&self.0);
        Box::pin(member.run(connector))
    }
}

// === impl Member ===

impl Member {
    async fn run<C: Connect + ?Sized>(self, connector: Arc<C>) {
        let deadline = Instant::now() + self.shared.settings.connect_timeout;
        match self.make(&*connector, deadline).await {
            Ok((handle, mut driver)) => {
                let end = self.keep(handle, &mut driver, deadline).await;
                self.ended(end);
                // Now the streams may see it.
                drop(driver);
            }
            Err(error) => self.ended(error),
        }
    }

    fn ended(&self, end: ConnectError) {
        tracing::debug!(gateway = %self.key.gateway, reason = %end, "HBONE connection ended");
        self.end.get_or_init(|| Arc::new(end));
    }

    async fn make<C: Connect + ?Sized>(
        &self,
        connector: &C,
        deadline: Instant,
    ) -> Result<(Handle, Driver<C::Io>), ConnectError> {
        let settings = &self.shared.settings;
        let connection = async {
            let io = connector.connect(&self.key).await?;
            client::handshake(io, settings)
                .await
                .map_err(ConnectError::Http2)
        };
        tokio::select! {
            () = self.shared.draining.cancelled() => Err(ConnectError::Closed),
            made = timeout_at(deadline, connection) => {
                made.unwrap_or(Err(ConnectError::Timeout(settings.connect_timeout)))
            }
        }
    }

    /// Runs a connection to its end and returns the reason for it.
    async fn keep<IO>(
        &self,
        handle: Handle,
        driver: &mut Driver<IO>,
        deadline: Instant,
    ) -> ConnectError
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let settings = &self.shared.settings;
        let mut unanswered = pin!(driver.unanswered(settings));
        let mut settled = false;
        // Until the peer has said its SETTINGS, when to give up; then, when to look if it is idle.
        let mut alarm = pin!(sleep_until(deadline));
        let mut watched = self.connected(handle);
        loop {
            tokio::select! {
                biased;
                progress = driver.progress() => match progress {
                    Progress::Settled(limit) => {
                        settled = true;
                        alarm.as_mut().reset(Instant::now() + settings.pool.idle_timeout);
                        self.settled(limit);
                    }
                    Progress::Closed(Ok(())) => return ConnectError::Closed,
                    Progress::Closed(Err(error)) => return ConnectError::Http2(error),
                },
                () = &mut unanswered => return ConnectError::Unanswered(settings.ping_timeout),
                () = &mut alarm, if !settled || watched => {
                    if !settled {
                        return ConnectError::Timeout(settings.connect_timeout);
                    }
                    match self.expire() {
                        Some(next) => alarm.as_mut().reset(next),
                        None => watched = false,
                    }
                }
            }
        }
    }

    fn connected(&self, handle: Handle) -> bool {
        let channel = Channel {
            handle,
            end: Arc::clone(&self.end),
        };
        self.event(|state, todo| state.connected(&self.key, self.id, channel, todo))
    }

    fn settled(&self, limit: usize) {
        self.event(|state, todo| state.settled(&self.key, self.id, limit, Instant::now(), todo));
    }

    fn expire(&self) -> Option<Instant> {
        self.event(|state, todo| state.expire(&self.key, self.id, Instant::now(), todo))
    }

    fn event<R>(&self, event: impl FnOnce(&mut Decisions, &mut Todo) -> R) -> R {
        // Only the end of the connection fails anybody. A task that was dropped has left no reason.
        let end = match self.end.get() {
            Some(end) => Arc::clone(end),
            None => Arc::new(ConnectError::Closed),
        };
        self.shared.event(&Failure::Connect(end), event)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.event(|state, todo| state.closed(&self.key, self.id, Instant::now(), todo));
    }
}

#[cfg(test)]
mod tests;

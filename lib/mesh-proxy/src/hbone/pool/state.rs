//! The pool's decisions, without its connections: events go in, actions come out.
//!
//! A connection to a peer goes through three phases. While it is *connecting* it carries nothing.
//! When the handshake is done it is *opening*: the peer has not said yet how many streams it allows,
//! so it carries one, which saves a first caller a round trip. With the peer's SETTINGS it is *ready*.
//!
//! Callers that find no room wait, first come first served. Each waiter is planned on a connection
//! that is being made, as many as that one is expected to carry; when there are more, a further
//! connection is made. So a crowd of callers makes few connections, and when one cannot be made
//! exactly those who were planned on it fail with it. A waiter that is planned on none (the peer has
//! all the connections it may have) waits for a stream to end.
//!
//! What always holds, see the tests: no connection carries more streams than it may; nobody waits
//! while there is room; everybody who waits is planned on a connection that is being made, or the
//! peer has all the connections it may have; a peer with nothing is forgotten.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use crate::hbone::settings::PoolLimits;

/// Names a connection for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ConnectionId(u64);

/// Names a waiter for good; later waiters are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct WaiterId(u64);

/// All peers of one pool. `K` says who a peer is, `H` is what streams are opened with, `W` is what a
/// waiter is woken with.
#[derive(Debug)]
pub(super) struct State<K, H, W> {
    limits: PoolLimits,
    peers: HashMap<Arc<K>, Peer<K, H, W>>,
    /// Connections that are ready and carry nothing.
    idle: usize,
    draining: bool,
    /// The next id of either kind.
    next: u64,
}

/// A place on a connection for one stream; given back by [`State::release`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place<K, H> {
    pub(super) key: Arc<K>,
    pub(super) connection: ConnectionId,
    pub(super) handle: H,
    /// Streams the connection carries at most, if its peer has said so yet.
    pub(super) capacity: Option<usize>,
}

/// What there is to do after an event, in this order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action<K, H, W> {
    /// Make a connection, and report it.
    Connect(Arc<K>, ConnectionId),
    /// This waiter's turn has come.
    Grant(W, Place<K, H>),
    /// The connection this waiter was planned on could not be made, or the pool is draining.
    Fail(W),
    /// Let go of a connection: it closes when its streams are done.
    Close(H),
}

/// What there is to do after an event.
pub(super) type Actions<K, H, W> = Vec<Action<K, H, W>>;

/// Why nobody may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The pool is draining.
    Draining,
    /// More already wait than the peer's connections could ever carry at once.
    Crowded,
}

#[derive(Debug)]
struct Peer<K, H, W> {
    key: Arc<K>,
    /// Oldest first.
    connections: Vec<Connection<H>>,
    waiters: BTreeMap<WaiterId, Waiter<W>>,
    /// Waiters that are planned on no connection.
    unplanned: usize,
    /// Streams that the peer's latest connection took.
    expected: usize,
    /// When a further connection may be made only because the peer is busy; later after a failure.
    spread_after: Option<Instant>,
}

#[derive(Debug)]
struct Connection<H> {
    id: ConnectionId,
    /// None while connecting.
    handle: Option<H>,
    phase: Phase,
    /// Streams it carries.
    active: usize,
    /// Waiters that count on it while it is being made.
    planned: usize,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Connecting,
    Opening,
    Ready {
        capacity: usize,
        idle_since: Option<Instant>,
    },
}

#[derive(Debug)]
struct Waiter<W> {
    planned_on: Option<ConnectionId>,
    wake: W,
}

/// How long a peer gets no further connection just for being busy after one could not be made.
const SPREAD_BACKOFF: Duration = Duration::from_secs(10);

// === impl State ===

impl<K, H, W> State<K, H, W>
where
    K: Hash + Eq + Clone,
    H: Clone,
{
    pub(super) fn new(limits: PoolLimits) -> Self {
        Self {
            limits,
            peers: HashMap::new(),
            idle: 0,
            draining: false,
            next: 0,
        }
    }

    /// A place for one stream on a connection there is. Also makes a further connection if the peer
    /// is busy.
    pub(super) fn acquire(
        &mut self,
        key: &K,
        now: Instant,
        actions: &mut Actions<K, H, W>,
    ) -> Option<Place<K, H>> {
        let peer = self.peers.get_mut(key)?;
        if !peer.waiters.is_empty() {
            return None;
        }
        let place = peer.take(&mut self.idle)?;
        if peer.is_busy(&self.limits, now) {
            peer.connect(&mut self.next, actions);
        }
        Some(place)
    }

    /// Waits for a place. To be called when [`State::acquire`] has found none.
    pub(super) fn enqueue(
        &mut self,
        key: &K,
        wake: W,
        actions: &mut Actions<K, H, W>,
    ) -> Result<WaiterId, Refusal> {
        if self.draining {
            return Err(Refusal::Draining);
        }
        let expected = self.limits.streams_per_connection;
        let entry = self.peers.entry(Arc::new(key.clone()));
        let key = Arc::clone(entry.key());
        let peer = entry.or_insert_with(|| Peer::new(key, expected));
        if peer.waiters.len() >= expected * self.limits.connections_per_peer {
            return Err(Refusal::Crowded);
        }
        let id = WaiterId(bump(&mut self.next));
        let waiter = Waiter {
            planned_on: None,
            wake,
        };
        peer.waiters.insert(id, waiter);
        peer.unplanned += 1;
        peer.plan(&self.limits, &mut self.next, actions);
        Ok(id)
    }

    /// A waiter waits no more. One whose turn has come already is not known here: whoever holds the
    /// place gives it back.
    pub(super) fn cancel(&mut self, key: &K, waiter: WaiterId) -> Option<W> {
        let peer = self.peers.get_mut(key)?;
        let waiter = peer.waiters.remove(&waiter)?;
        peer.forget_plan(waiter.planned_on);
        self.prune(key);
        Some(waiter.wake)
    }

    /// A handshake is done. Whether the connection is still wanted; if not, it is not the pool's.
    #[must_use]
    pub(super) fn connected(
        &mut self,
        key: &K,
        id: ConnectionId,
        handle: H,
        actions: &mut Actions<K, H, W>,
    ) -> bool {
        let Some(peer) = self.peers.get_mut(key) else {
            return false;
        };
        let Some(connection) = peer.connection(id) else {
            return false;
        };
        connection.handle = Some(handle);
        connection.phase = Phase::Opening;
        peer.serve(&self.limits, &mut self.idle, &mut self.next, actions);
        true
    }

    /// Streams that the pool puts on a connection whose peer allows `limit`.
    pub(super) fn capacity(&self, limit: usize) -> usize {
        // A peer that allows none for now gets one stream, which waits there for its turn.
        limit.clamp(1, self.limits.streams_per_connection)
    }

    /// The peer says how many streams a connection may carry; it may say so again.
    pub(super) fn settled(
        &mut self,
        key: &K,
        id: ConnectionId,
        limit: usize,
        now: Instant,
        actions: &mut Actions<K, H, W>,
    ) {
        let capacity = self.capacity(limit);
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        let Some(connection) = peer.connection(id) else {
            return;
        };
        let idle_since = match connection.phase {
            Phase::Connecting => return,
            Phase::Opening => None,
            Phase::Ready { idle_since, .. } => idle_since,
        };
        connection.phase = Phase::Ready {
            capacity,
            idle_since,
        };
        peer.expected = capacity;
        peer.unplan(id);
        peer.serve(&self.limits, &mut self.idle, &mut self.next, actions);
        self.rest(key, id, now, actions);
    }

    /// A connection takes no new streams: it could not be made, is broken, or its peer said so.
    pub(super) fn closed(
        &mut self,
        key: &K,
        id: ConnectionId,
        now: Instant,
        actions: &mut Actions<K, H, W>,
    ) {
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        let Some(connection) = peer.remove(id, &mut self.idle) else {
            return;
        };
        if connection.is_being_made() {
            peer.spread_after = Some(now + SPREAD_BACKOFF);
            peer.fail(id, actions);
        }
        peer.plan(&self.limits, &mut self.next, actions);
        actions.extend(connection.handle.map(Action::Close));
        self.prune(key);
    }

    /// A stream has ended.
    pub(super) fn release(
        &mut self,
        key: &K,
        id: ConnectionId,
        now: Instant,
        actions: &mut Actions<K, H, W>,
    ) {
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        let Some(connection) = peer.connection(id) else {
            return;
        };
        connection.active = connection.active.saturating_sub(1);
        peer.serve(&self.limits, &mut self.idle, &mut self.next, actions);
        self.rest(key, id, now, actions);
    }

    /// Closes a connection that has carried nothing for long enough; otherwise says when to look
    /// again. Nothing if the connection is not the pool's any more.
    pub(super) fn expire(
        &mut self,
        key: &K,
        id: ConnectionId,
        now: Instant,
        actions: &mut Actions<K, H, W>,
    ) -> Option<Instant> {
        let connection = self.peers.get_mut(key)?.connection(id)?;
        let idle_since = match connection.phase {
            Phase::Ready { idle_since, .. } => idle_since,
            Phase::Connecting | Phase::Opening => None,
        };
        let until = idle_since.unwrap_or(now) + self.limits.idle_timeout;
        if now < until {
            return Some(until);
        }
        self.close(key, id, actions);
        None
    }

    /// Gives up all connections and all waiters, and takes no more.
    pub(super) fn drain(&mut self, actions: &mut Actions<K, H, W>) {
        self.draining = true;
        self.idle = 0;
        for (_, peer) in self.peers.drain() {
            let waiters = peer.waiters.into_values();
            actions.extend(waiters.map(|waiter| Action::Fail(waiter.wake)));
            let handles = peer.connections.into_iter().filter_map(|c| c.handle);
            actions.extend(handles.map(Action::Close));
        }
    }

    /// Puts a connection that carries nothing among the idle ones, if there is room for it.
    fn rest(&mut self, key: &K, id: ConnectionId, now: Instant, actions: &mut Actions<K, H, W>) {
        let Some(connection) = self.peers.get_mut(key).and_then(|p| p.connection(id)) else {
            return;
        };
        let Phase::Ready { idle_since, .. } = &mut connection.phase else {
            return;
        };
        if connection.active > 0 || idle_since.is_some() {
            return;
        }
        *idle_since = Some(now);
        self.idle += 1;
        if self.idle > self.limits.max_idle {
            self.close(key, id, actions);
        }
    }

    /// Lets go of a connection that is ready.
    fn close(&mut self, key: &K, id: ConnectionId, actions: &mut Actions<K, H, W>) {
        let removed = match self.peers.get_mut(key) {
            Some(peer) => peer.remove(id, &mut self.idle),
            None => None,
        };
        actions.extend(removed.and_then(|c| c.handle).map(Action::Close));
        self.prune(key);
    }

    /// Streams that are open, over all connections that take more.
    #[cfg(test)]
    pub(super) fn active(&self) -> usize {
        let connections = self.peers.values().flat_map(|peer| &peer.connections);
        connections.map(|connection| connection.active).sum()
    }

    /// How many wait, over all peers.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.peers.values().map(|peer| peer.waiters.len()).sum()
    }

    fn prune(&mut self, key: &K) {
        let empty = |peer: &Peer<K, H, W>| peer.connections.is_empty() && peer.waiters.is_empty();
        if self.peers.get(key).is_some_and(empty) {
            self.peers.remove(key);
        }
    }
}

// === impl Peer ===

impl<K, H: Clone, W> Peer<K, H, W> {
    fn new(key: Arc<K>, expected: usize) -> Self {
        Self {
            key,
            connections: Vec::new(),
            waiters: BTreeMap::new(),
            unplanned: 0,
            expected,
            spread_after: None,
        }
    }

    fn connection(&mut self, id: ConnectionId) -> Option<&mut Connection<H>> {
        self.connections.iter_mut().find(|c| c.id == id)
    }

    /// A place on the connection that carries least; on the oldest of several, so that the others
    /// come to rest when the peer is no longer busy.
    fn take(&mut self, idle: &mut usize) -> Option<Place<K, H>> {
        let open = self.connections.iter_mut().filter(|c| c.has_room());
        let connection = open.min_by_key(|c| c.active)?;
        let handle = connection.handle.clone()?;
        connection.active += 1;
        let capacity = match &mut connection.phase {
            Phase::Connecting | Phase::Opening => None,
            Phase::Ready {
                capacity,
                idle_since,
            } => {
                *idle -= usize::from(idle_since.take().is_some());
                Some(*capacity)
            }
        };
        Some(Place {
            key: Arc::clone(&self.key),
            connection: connection.id,
            handle,
            capacity,
        })
    }

    /// Gives what room there is to those who wait, and makes connections for the rest.
    fn serve(
        &mut self,
        limits: &PoolLimits,
        idle: &mut usize,
        next: &mut u64,
        actions: &mut Actions<K, H, W>,
    ) {
        while !self.waiters.is_empty()
            && let Some(place) = self.take(idle)
            && let Some((_, waiter)) = self.waiters.pop_first()
        {
            self.forget_plan(waiter.planned_on);
            actions.push(Action::Grant(waiter.wake, place));
        }
        self.plan(limits, next, actions);
    }

    /// Plans every waiter on a connection that is being made, and makes as many as that takes.
    fn plan(&mut self, limits: &PoolLimits, next: &mut u64, actions: &mut Actions<K, H, W>) {
        while self.unplanned > 0 {
            let expected = self.expected;
            let Some(connection) = self.connections.iter_mut().find(|c| c.may_plan(expected))
            else {
                if self.connections.len() >= limits.connections_per_peer {
                    return;
                }
                self.connect(next, actions);
                continue;
            };
            // From the newest: when a single one has come, this finds it at once.
            let unplanned = |waiter: &&mut Waiter<W>| waiter.planned_on.is_none();
            for waiter in self.waiters.values_mut().rev().filter(unplanned) {
                if !connection.may_plan(expected) {
                    break;
                }
                waiter.planned_on = Some(connection.id);
                connection.planned += 1;
                self.unplanned -= 1;
                if self.unplanned == 0 {
                    break;
                }
            }
        }
    }

    fn connect(&mut self, next: &mut u64, actions: &mut Actions<K, H, W>) {
        let id = ConnectionId(bump(next));
        self.connections.push(Connection {
            id,
            handle: None,
            phase: Phase::Connecting,
            active: 0,
            planned: 0,
        });
        actions.push(Action::Connect(Arc::clone(&self.key), id));
    }

    /// Whether a further connection is worth it although there is room.
    fn is_busy(&self, limits: &PoolLimits, now: Instant) -> bool {
        let active: usize = self.connections.iter().map(|c| c.active).sum();
        self.connections.len() < limits.busy_connections
            && active >= limits.busy_streams * self.connections.len()
            && !self.connections.iter().any(Connection::is_being_made)
            && self.spread_after.is_none_or(|after| now >= after)
    }

    fn remove(&mut self, id: ConnectionId, idle: &mut usize) -> Option<Connection<H>> {
        let index = self.connections.iter().position(|c| c.id == id)?;
        // The order is kept: it says which is the oldest.
        let connection = self.connections.remove(index);
        if connection.is_idle() {
            *idle -= 1;
        }
        Some(connection)
    }

    /// A waiter that was planned on `connection` has left the queue.
    fn forget_plan(&mut self, connection: Option<ConnectionId>) {
        match connection {
            None => self.unplanned -= 1,
            Some(id) => {
                if let Some(connection) = self.connection(id) {
                    connection.planned -= 1;
                }
            }
        }
    }

    /// A connection is no longer being made: those planned on it have to be planned again.
    fn unplan(&mut self, id: ConnectionId) {
        let planned = match self.connection(id) {
            Some(connection) => std::mem::take(&mut connection.planned),
            None => 0,
        };
        if planned == 0 {
            return;
        }
        self.unplanned += planned;
        for waiter in self.waiters.values_mut() {
            waiter.planned_on = waiter.planned_on.filter(|on| *on != id);
        }
    }

    /// Fails those who were planned on a connection that has been removed.
    fn fail(&mut self, id: ConnectionId, actions: &mut Actions<K, H, W>) {
        let failed = self
            .waiters
            .extract_if(.., |_, waiter| waiter.planned_on == Some(id));
        actions.extend(failed.map(|(_, waiter)| Action::Fail(waiter.wake)));
    }
}

// === impl Connection ===

impl<H> Connection<H> {
    fn has_room(&self) -> bool {
        match self.phase {
            Phase::Connecting => false,
            Phase::Opening => self.active < 1,
            Phase::Ready { capacity, .. } => self.active < capacity,
        }
    }

    fn is_being_made(&self) -> bool {
        matches!(self.phase, Phase::Connecting | Phase::Opening)
    }

    fn is_idle(&self) -> bool {
        matches!(
            self.phase,
            Phase::Ready {
                idle_since: Some(_),
                ..
            }
        )
    }

    fn may_plan(&self, expected: usize) -> bool {
        self.is_being_made() && self.active + self.planned < expected
    }
}

fn bump(next: &mut u64) -> u64 {
    *next += 1;
    *next
}

#[cfg(test)]
mod tests;

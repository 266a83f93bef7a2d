use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;

type Pool = State<u8, u64, u32>;

const KEY: u8 = 7;

fn limits() -> PoolLimits {
    PoolLimits {
        streams_per_connection: 3,
        connections_per_peer: 4,
        busy_streams: 100,
        busy_connections: 1,
        idle_timeout: Duration::from_secs(300),
        max_idle: 500,
    }
}

/// A pool and what it has asked for, with little to type.
struct Bench {
    pool: Pool,
    todo: Actions<u8, u64, u32>,
    now: Instant,
}

impl Bench {
    fn new(limits: PoolLimits) -> Self {
        Self {
            pool: Pool::new(limits),
            todo: Vec::new(),
            now: Instant::now(),
        }
    }

    /// The connections that have to be made.
    fn connects(&mut self) -> Vec<ConnectionId> {
        let connect = |action: Action<u8, u64, u32>| match action {
            Action::Connect(key, id) if *key == KEY => id,
            other => panic!("{other:?} is not a connect"),
        };
        self.todo.drain(..).map(connect).collect()
    }

    /// What has to be done, connections aside, in short: `+waiter@connection`, `-waiter`, `x handle`.
    fn done(&mut self) -> Vec<String> {
        let short = |action| match action {
            Action::Connect(_, id) => format!("connect {}", id.0),
            Action::Grant(waiter, place) => format!("+{waiter}@{}", place.connection.0),
            Action::Fail(waiter) => format!("-{waiter}"),
            Action::Close(handle) => format!("x{handle}"),
        };
        self.todo.drain(..).map(short).collect()
    }

    fn acquire(&mut self) -> Option<u64> {
        let place = self.pool.acquire(&KEY, self.now, &mut self.todo)?;
        assert_eq!(place.handle, place.connection.0);
        Some(place.connection.0)
    }

    fn enqueue(&mut self, waiter: u32) -> WaiterId {
        let queued = self.pool.enqueue(&KEY, waiter, &mut self.todo);
        queued.expect("there is room in the queue")
    }

    fn connected(&mut self, id: ConnectionId) -> bool {
        self.pool.connected(&KEY, id, id.0, &mut self.todo)
    }

    fn settled(&mut self, id: ConnectionId, limit: usize) {
        let (pool, todo) = (&mut self.pool, &mut self.todo);
        pool.settled(&KEY, id, limit, self.now, todo);
    }

    fn closed(&mut self, id: ConnectionId) {
        self.pool.closed(&KEY, id, self.now, &mut self.todo);
    }

    fn release(&mut self, id: ConnectionId) {
        self.pool.release(&KEY, id, self.now, &mut self.todo);
    }

    fn expire(&mut self, id: ConnectionId) -> Option<Instant> {
        self.pool.expire(&KEY, id, self.now, &mut self.todo)
    }

    /// A connection with room for `limit` streams and none on it.
    fn idle_connection(&mut self, limit: usize) -> ConnectionId {
        let waiter = self.enqueue(0);
        let id = self.connects()[0];
        self.pool.cancel(&KEY, waiter);
        assert!(self.connected(id));
        self.settled(id, limit);
        self.todo.clear();
        id
    }
}

#[test]
fn a_crowd_makes_one_connection_until_it_is_known_to_be_too_few() {
    let mut bench = Bench::new(limits());
    for waiter in 0..3 {
        bench.enqueue(waiter);
    }
    let [first] = bench.connects()[..] else {
        panic!("one connection is expected to carry three");
    };
    bench.enqueue(3);
    let [second] = bench.connects()[..] else {
        panic!("the fourth needs another connection");
    };
    assert!(bench.connected(first));
    assert_eq!(bench.done(), [format!("+0@{}", first.0)]);
    bench.settled(first, 2);
    assert_eq!(bench.done()[0], format!("+1@{}", first.0));
    assert!(bench.connected(second));
    assert_eq!(bench.done(), [format!("+2@{}", second.0)]);
}

#[test]
fn what_a_peer_allows_is_expected_of_its_next_connection() {
    let mut bench = Bench::new(limits());
    let id = bench.idle_connection(1);
    assert_eq!(bench.acquire(), Some(id.0));
    bench.enqueue(1);
    bench.enqueue(2);
    assert_eq!(bench.connects().len(), 2);
}

#[test]
fn a_failed_connection_fails_those_who_were_planned_on_it_and_no_others() {
    let mut bench = Bench::new(limits());
    for waiter in 0..5 {
        bench.enqueue(waiter);
    }
    let [first, second] = bench.connects()[..] else {
        panic!("two connections");
    };
    bench.closed(first);
    assert_eq!(bench.done(), ["-0", "-1", "-2"]);
    bench.connected(second);
    bench.settled(second, 10);
    let granted = [format!("+3@{}", second.0), format!("+4@{}", second.0)];
    assert_eq!(bench.done(), granted);
    bench.closed(second);
    assert_eq!(bench.done(), [format!("x{}", second.0)]);
    assert!(bench.pool.peers.is_empty());
}

#[test]
fn a_connection_that_dies_before_its_settings_counts_as_failed() {
    let mut bench = Bench::new(limits());
    bench.enqueue(0);
    bench.enqueue(1);
    let id = bench.connects()[0];
    bench.connected(id);
    bench.done();
    bench.closed(id);
    assert_eq!(bench.done(), ["-1".to_owned(), format!("x{}", id.0)]);
}

#[test]
fn those_who_wait_are_served_in_order_as_streams_end() {
    let mut bench = Bench::new(PoolLimits {
        connections_per_peer: 1,
        ..limits()
    });
    let id = bench.idle_connection(1);
    assert_eq!(bench.acquire(), Some(id.0));
    bench.enqueue(1);
    bench.enqueue(2);
    assert_eq!(bench.acquire(), None, "nobody overtakes");
    bench.release(id);
    assert_eq!(bench.done(), [format!("+1@{}", id.0)]);
    bench.release(id);
    assert_eq!(bench.done(), [format!("+2@{}", id.0)]);
}

#[test]
fn those_left_by_a_lost_connection_get_another() {
    let mut bench = Bench::new(PoolLimits {
        connections_per_peer: 1,
        ..limits()
    });
    let id = bench.idle_connection(1);
    bench.acquire();
    bench.enqueue(1);
    assert_eq!(bench.connects(), [], "the peer has what it gets");
    bench.closed(id);
    assert_eq!(bench.done().len(), 2, "a connect, and the handle to close");
    bench.release(id);
    assert_eq!(bench.done(), Vec::<String>::new(), "it is known no more");
}

#[test]
fn the_queue_is_bounded_by_what_the_connections_could_carry() {
    let mut bench = Bench::new(limits());
    for waiter in 0..12 {
        bench.enqueue(waiter);
    }
    let refused = bench.pool.enqueue(&KEY, 12, &mut bench.todo);
    assert_eq!(refused, Err(Refusal::Crowded));
    assert_eq!(bench.connects().len(), 4);
}

#[test]
fn a_busy_peer_gets_a_further_connection_in_the_background() {
    let mut bench = Bench::new(PoolLimits {
        streams_per_connection: 100,
        busy_streams: 2,
        busy_connections: 2,
        ..limits()
    });
    let first = bench.idle_connection(100);
    bench.acquire();
    assert_eq!(bench.connects(), []);
    assert_eq!(bench.acquire(), Some(first.0), "nobody waits for it");
    let [second] = bench.connects()[..] else {
        panic!("one more connection");
    };
    bench.acquire();
    assert_eq!(bench.connects(), [], "one at a time");
    bench.connected(second);
    bench.settled(second, 100);
    assert_eq!(
        bench.acquire(),
        Some(second.0),
        "the one that carries least"
    );
    for _ in 0..10 {
        bench.acquire();
    }
    assert_eq!(bench.connects(), [], "no more than it gets");
}

#[test]
fn a_peer_that_takes_no_second_connection_is_not_asked_again_at_once() {
    let mut bench = Bench::new(PoolLimits {
        streams_per_connection: 100,
        busy_streams: 1,
        busy_connections: 2,
        ..limits()
    });
    bench.idle_connection(100);
    bench.acquire();
    let second = bench.connects()[0];
    bench.closed(second);
    bench.acquire();
    assert_eq!(bench.connects(), []);
    bench.now += SPREAD_BACKOFF;
    bench.acquire();
    assert_eq!(bench.connects().len(), 1);
}

#[test]
fn an_idle_connection_is_kept_for_its_time_and_then_closed() {
    let mut bench = Bench::new(limits());
    let id = bench.idle_connection(3);
    let timeout = bench.pool.limits.idle_timeout;
    bench.acquire();
    bench.now += timeout;
    assert_eq!(bench.expire(id), Some(bench.now + timeout), "it is in use");
    bench.release(id);
    let idle_since = bench.now;
    bench.now += timeout / 2;
    assert_eq!(bench.expire(id), Some(idle_since + timeout));
    bench.now = idle_since + timeout;
    assert_eq!(bench.expire(id), None);
    assert_eq!(bench.done(), [format!("x{}", id.0)]);
    assert!(bench.pool.peers.is_empty());
}

#[test]
fn idle_connections_are_bounded() {
    let mut bench = Bench::new(PoolLimits {
        max_idle: 0,
        ..limits()
    });
    bench.enqueue(0);
    let id = bench.connects()[0];
    bench.connected(id);
    bench.settled(id, 3);
    bench.done();
    bench.release(id);
    assert_eq!(bench.done(), [format!("x{}", id.0)]);
    assert_eq!(bench.pool.idle, 0);
}

#[test]
fn a_lowered_limit_is_followed() {
    let mut bench = Bench::new(limits());
    let id = bench.idle_connection(3);
    bench.acquire();
    bench.acquire();
    bench.settled(id, 1);
    assert_eq!(bench.acquire(), None);
    bench.release(id);
    assert_eq!(bench.acquire(), None);
    bench.release(id);
    assert_eq!(bench.acquire(), Some(id.0));
}

#[test]
fn a_drained_pool_fails_who_waits_and_takes_nobody() {
    let mut bench = Bench::new(limits());
    bench.enqueue(0);
    bench.enqueue(1);
    let id = bench.connects()[0];
    bench.connected(id);
    bench.done();
    bench.pool.drain(&mut bench.todo);
    assert_eq!(bench.done(), ["-1".to_owned(), format!("x{}", id.0)]);
    let refused = bench.pool.enqueue(&KEY, 2, &mut bench.todo);
    assert_eq!(refused, Err(Refusal::Draining));
    assert!(!bench.connected(id), "a late handshake is not wanted");
}

#[derive(Clone, Debug)]
enum Event {
    Open(u8),
    Cancel(usize),
    Connected(usize),
    Settled(usize, usize),
    Closed(usize),
    Release(usize),
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (0u8..2).prop_map(Event::Open),
        1 => any::<usize>().prop_map(Event::Cancel),
        3 => any::<usize>().prop_map(Event::Connected),
        3 => (any::<usize>(), 0usize..5).prop_map(|(i, n)| Event::Settled(i, n)),
        1 => any::<usize>().prop_map(Event::Closed),
        5 => any::<usize>().prop_map(Event::Release),
        1 => (0u64..400).prop_map(Event::Wait),
    ]
}

/// What the world outside of the pool knows.
#[derive(Default)]
struct World {
    /// Whether a handshake is done, per connection the pool was asked to make and that is not closed.
    connections: Vec<(u8, ConnectionId, bool)>,
    streams: Vec<(u8, ConnectionId)>,
    waiting: HashMap<u32, (u8, WaiterId)>,
    served: HashSet<u32>,
    closed: HashSet<u64>,
    next: u32,
}

impl World {
    fn apply(&mut self, pool: &mut Pool, now: Instant, event: &Event) {
        let mut todo = Vec::new();
        let pick = |index: usize, length: usize| (length > 0).then(|| index % length);
        match *event {
            Event::Open(key) => {
                if let Some(place) = pool.acquire(&key, now, &mut todo) {
                    self.streams.push((key, place.connection));
                } else {
                    self.next += 1;
                    if let Ok(id) = pool.enqueue(&key, self.next, &mut todo) {
                        self.waiting.insert(self.next, (key, id));
                    }
                }
            }
            Event::Cancel(index) => {
                let mut waiters: Vec<u32> = self.waiting.keys().copied().collect();
                waiters.sort_unstable();
                if let Some(index) = pick(index, waiters.len()) {
                    let (key, id) = self.waiting.remove(&waiters[index]).unwrap();
                    assert_eq!(pool.cancel(&key, id), Some(waiters[index]));
                }
            }
            Event::Connected(index) => {
                if let Some(index) = pick(index, self.connections.len()) {
                    let (key, id, connected) = &mut self.connections[index];
                    if !std::mem::replace(connected, true) {
                        assert!(pool.connected(key, *id, id.0, &mut todo));
                    }
                }
            }
            Event::Settled(index, limit) => {
                if let Some(index) = pick(index, self.connections.len())
                    && let (key, id, true) = self.connections[index]
                {
                    pool.settled(&key, id, limit, now, &mut todo);
                }
            }
            Event::Closed(index) => {
                if let Some(index) = pick(index, self.connections.len()) {
                    let (key, id, _) = self.connections.swap_remove(index);
                    pool.closed(&key, id, now, &mut todo);
                }
            }
            Event::Release(index) => {
                if let Some(index) = pick(index, self.streams.len()) {
                    let (key, id) = self.streams.swap_remove(index);
                    pool.release(&key, id, now, &mut todo);
                }
            }
            Event::Wait(_) => {
                for (key, id, _) in self.connections.clone() {
                    pool.expire(&key, id, now, &mut todo);
                }
            }
        }
        self.perform(todo);
    }

    fn perform(&mut self, todo: Actions<u8, u64, u32>) {
        for action in todo {
            match action {
                Action::Connect(key, id) => self.connections.push((*key, id, false)),
                Action::Grant(waiter, place) => {
                    let (key, _) = self.waiting.remove(&waiter).expect("granted once");
                    assert_eq!(key, *place.key);
                    assert!(self.served.insert(waiter));
                    self.streams.push((key, place.connection));
                }
                Action::Fail(waiter) => {
                    self.waiting.remove(&waiter).expect("failed once");
                    assert!(self.served.insert(waiter));
                }
                Action::Close(handle) => {
                    assert!(self.closed.insert(handle), "closed once");
                    self.connections.retain(|(_, id, _)| id.0 != handle);
                }
            }
        }
    }

    fn check(&self, pool: &Pool) {
        let limits = &pool.limits;
        let mut idle = 0;
        for (key, peer) in &pool.peers {
            assert!(peer.connections.len() <= limits.connections_per_peer);
            assert!(!peer.connections.is_empty() || !peer.waiters.is_empty());
            for c in &peer.connections {
                let carried = self.streams.iter().filter(|s| **s == (**key, c.id)).count();
                assert_eq!(c.active, carried, "what it carries is what was given out");
                let planned = |w: &&Waiter<u32>| w.planned_on == Some(c.id);
                assert_eq!(c.planned, peer.waiters.values().filter(planned).count());
                assert!(c.planned == 0 || c.is_being_made());
                assert!(
                    peer.waiters.is_empty() || !c.has_room(),
                    "room, yet one waits"
                );
                idle += usize::from(c.is_idle());
                assert!(!c.is_idle() || c.active == 0);
            }
            let unplanned = peer.waiters.values().filter(|w| w.planned_on.is_none());
            assert_eq!(peer.unplanned, unplanned.count());
            let full = peer.connections.len() == limits.connections_per_peer;
            assert!(peer.unplanned == 0 || full, "waits for nothing");
        }
        assert_eq!(pool.idle, idle);
        assert!(pool.idle <= limits.max_idle);
        let queued: usize = pool.peers.values().map(|p| p.waiters.len()).sum();
        assert_eq!(queued, self.waiting.len(), "nobody is lost");
        let known: usize = pool.peers.values().map(|p| p.connections.len()).sum();
        assert_eq!(known, self.connections.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn whatever_happens_nobody_is_lost_and_nothing_overflows(
        events in proptest::collection::vec(event(), 0..120),
        busy_connections in 0usize..4,
        max_idle in 0usize..3,
    ) {
        let mut now = Instant::now();
        let mut pool = Pool::new(PoolLimits { busy_streams: 1, busy_connections, max_idle, ..limits() });
        let mut world = World::default();
        // The capacity a connection had when a stream was put on it may be lowered later.
        for event in &events {
            if let Event::Wait(seconds) = event {
                now += Duration::from_secs(*seconds);
            }
            let before: HashMap<u64, usize> = loads(&pool);
            world.apply(&mut pool, now, event);
            world.check(&pool);
            for connection in pool.peers.values().flat_map(|p| &p.connections) {
                let grew = connection.active > before.get(&connection.id.0).copied().unwrap_or(0);
                prop_assert!(!grew || connection.active <= most(connection), "overloaded");
            }
        }
        // When every stream ends and every connection closes, nothing is left.
        while let Some((key, id)) = world.streams.pop() {
            let mut todo = Vec::new();
            pool.release(&key, id, now, &mut todo);
            world.perform(todo);
        }
        pool.drain(&mut Vec::new());
        prop_assert!(pool.peers.is_empty());
        prop_assert_eq!(pool.idle, 0);
    }
}

fn loads(pool: &Pool) -> HashMap<u64, usize> {
    let connections = pool.peers.values().flat_map(|p| &p.connections);
    connections.map(|c| (c.id.0, c.active)).collect()
}

fn most(connection: &Connection<u64>) -> usize {
    match connection.phase {
        Phase::Connecting => 0,
        Phase::Opening => 1,
        Phase::Ready { capacity, .. } => capacity,
    }
}

use std::{
    collections::HashSet,
    io,
    sync::atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use http::HeaderMap;
use mesh_net::copy::{ByteSink as _, ByteSource as _};
use mesh_runtime::drain;
use tokio::{
    io::{AsyncWriteExt as _, DuplexStream},
    sync::{Semaphore, watch},
};

use super::*;
use crate::hbone::{
    server,
    settings::PoolLimits,
    testing::{PIPE, connect_to, soon},
};

/// The other nodes: answers every connection with a server that echoes.
struct Net {
    server: Settings,
    /// Connections asked for so far, and by whom.
    attempts: AtomicUsize,
    keys: Mutex<HashSet<PoolKey>>,
    /// One permit lets one connection through.
    gate: Semaphore,
    manner: Mutex<Manner>,
    /// Streams open on each connection, and the most there were on any.
    most: Arc<AtomicUsize>,
    drains: Mutex<Vec<drain::Trigger>>,
    /// How many of the next requests are answered with 503.
    unavailable: Arc<AtomicUsize>,
    tasks: Tracker,
}

/// What becomes of a connection.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Echo,
    Refuse,
    /// Accepted, and not a word said on it.
    Silent,
    /// A word about the settings, and nothing after.
    SettingsOnly,
}

impl Net {
    fn new(server: Settings) -> Arc<Self> {
        Arc::new(Self {
            server,
            attempts: AtomicUsize::new(0),
            keys: Mutex::default(),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            manner: Mutex::new(Manner::Echo),
            most: Arc::default(),
            drains: Mutex::default(),
            unavailable: Arc::default(),
            tasks: Tracker::new(),
        })
    }

    fn attempts(&self) -> usize {
        self.attempts.load(Ordering::SeqCst)
    }

    fn serve(&self, io: DuplexStream) {
        let (trigger, watch) = drain::channel();
        self.drains.lock().push(trigger);
        let (settings, tasks) = (self.server.clone(), self.tasks.clone());
        let (most, unavailable) = (Arc::clone(&self.most), Arc::clone(&self.unavailable));
        let open = Arc::new(AtomicUsize::new(0));
        let serve = async move {
            let handler = |request: server::Request| {
                let (open, most) = (Arc::clone(&open), Arc::clone(&most));
                let unavailable = Arc::clone(&unavailable);
                async move {
                    let less = |left: usize| left.checked_sub(1);
                    let refused =
                        unavailable.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
                    if refused.is_ok() {
                        return request.responder.reject(StatusCode::SERVICE_UNAVAILABLE);
                    }
                    let now = open.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(now, Ordering::SeqCst);
                    echo(request).await;
                    open.fetch_sub(1, Ordering::SeqCst);
                }
            };
            drop(server::serve(io, &settings, watch, &tasks, handler).await);
        };
        drop(self.tasks.spawn("far end", serve));
    }

    /// All connections so far take no new streams.
    fn send_goaway(&self) {
        for trigger in self.drains.lock().drain(..) {
            drop(
                self.tasks
                    .spawn("drain", trigger.drain(drain::Mode::Graceful)),
            );
        }
    }

    /// All connections so far break.
    fn cut(&self) {
        self.drains.lock().clear();
    }
}

impl Connect for Net {
    type Io = DuplexStream;

    fn connect<'a>(
        &'a self,
        key: &'a PoolKey,
    ) -> BoxFuture<'a, Result<DuplexStream, ConnectError>> {
        Box::pin(async move {
            self.attempts.fetch_add(1, Ordering::SeqCst);
            self.keys.lock().insert(key.clone());
            self.gate.acquire().await.unwrap().forget();
            let manner = *self.manner.lock();
            let (near, mut far) = tokio::io::duplex(PIPE);
            match manner {
                Manner::Echo => self.serve(far),
                Manner::Refuse => {
                    return Err(ConnectError::Tcp(io::ErrorKind::ConnectionRefused.into()));
                }
                Manner::Silent | Manner::SettingsOnly => {
                    if manner == Manner::SettingsOnly {
                        far.write_all(b"\0\0\0\x04\0\0\0\0\0").await.unwrap();
                    }
                    let silence = async move {
                        let () = std::future::pending().await;
                        drop(far);
                    };
                    drop(self.tasks.spawn("silent", silence));
                }
            }
            Ok(near)
        })
    }
}

async fn echo(request: server::Request) {
    let Ok(stream) = request.responder.accept(HeaderMap::new()) else {
        return;
    };
    let (mut source, mut sink) = stream.into_split();
    while let Ok(Some(chunk)) = source.next().await {
        if sink.write(chunk).await.is_err() {
            return;
        }
    }
    drop(sink.finish().await);
}

fn key(source_ip: [u8; 4]) -> PoolKey {
    let identity = |name| Identity::try_new("cluster.local", "bookinfo", name).unwrap();
    PoolKey {
        source: identity("productpage"),
        expected: [identity("details")].into(),
        gateway: SocketAddr::from(([10, 0, 0, 2], 15008)),
        source_ip: source_ip.into(),
    }
}

fn one() -> PoolKey {
    key([10, 0, 0, 1])
}

/// No further connections for being busy, so that they can be counted.
fn settings() -> Settings {
    Settings {
        pool: PoolLimits {
            busy_connections: 1,
            ..PoolLimits::default()
        },
        ..Settings::default()
    }
}

fn with_streams(max_concurrent_streams: u32) -> Settings {
    Settings {
        max_concurrent_streams,
        ..Settings::default()
    }
}

fn pool(settings: Settings, net: &Arc<Net>) -> Pool {
    Pool::new(settings, Arc::clone(net), net.tasks.clone())
}

async fn open(pool: &Pool) -> Result<Stream, Error> {
    let opened = soon(pool.open(&one(), connect_to("10.0.0.2:80"))).await;
    opened.map(|(_, stream)| stream)
}

/// Sends a few bytes through and ends the tunnel in order.
async fn use_up(stream: Stream) {
    let (mut source, mut sink) = stream.into_split();
    sink.write(Bytes::from_static(b"hello")).await.unwrap();
    assert_eq!(soon(source.next()).await.unwrap().unwrap(), "hello");
    sink.finish().await.unwrap();
    assert_eq!(soon(source.next()).await.unwrap(), None);
}

/// Lets other tasks run until something holds.
async fn until(condition: impl Fn() -> bool) {
    soon(async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn tunnels_to_the_same_peer_share_a_connection() {
    let net = Net::new(Settings::default());
    let pool = pool(settings(), &net);
    let mut streams = Vec::new();
    for _ in 0..10 {
        streams.push(open(&pool).await.unwrap());
    }
    for stream in streams {
        use_up(stream).await;
    }
    use_up(open(&pool).await.unwrap()).await;
    assert_eq!(net.attempts(), 1);
}

#[tokio::test]
async fn whatever_differs_in_the_key_gets_its_own_connection() {
    let net = Net::new(Settings::default());
    let pool = pool(settings(), &net);
    let other = Identity::try_new("cluster.local", "bookinfo", "other").unwrap();
    let keys = [
        one(),
        key([10, 0, 0, 9]),
        PoolKey {
            source: other.clone(),
            ..one()
        },
        PoolKey {
            expected: [other].into(),
            ..one()
        },
        PoolKey {
            gateway: SocketAddr::from(([10, 0, 0, 3], 15008)),
            ..one()
        },
    ];
    for key in &keys {
        for _ in 0..2 {
            soon(pool.open(key, connect_to("h:1"))).await.unwrap();
        }
    }
    assert_eq!(net.attempts(), keys.len());
    assert_eq!(*net.keys.lock(), HashSet::from(keys));
}

#[tokio::test]
async fn a_peer_is_never_given_more_streams_than_it_allows() {
    let net = Net::new(with_streams(3));
    let pool = pool(settings(), &net);
    // All at once: the limit is not known when they come.
    let mut opening: FuturesUnordered<_> = (0..20).map(|_| open(&pool)).collect();
    let mut streams = Vec::new();
    while let Some(stream) = opening.next().await {
        streams.push(stream.unwrap());
    }
    assert_eq!(net.most.load(Ordering::SeqCst), 3);
    assert_eq!(net.attempts(), 7);
    for stream in streams {
        use_up(stream).await;
    }
    // The room is there again.
    use_up(open(&pool).await.unwrap()).await;
    assert_eq!(net.attempts(), 7);
}

#[tokio::test]
async fn a_crowd_shares_one_handshake_and_other_peers_do_not_wait_for_it() {
    let net = Net::new(Settings::default());
    net.gate.forget_permits(Semaphore::MAX_PERMITS);
    let pool = pool(settings(), &net);
    let mut opening: FuturesUnordered<_> = (0..50).map(|_| open(&pool)).collect();
    assert!(opening.next().now_or_never().is_none());
    until(|| net.attempts() == 1).await;

    let elsewhere = key([10, 0, 0, 9]);
    let mut other = pin!(pool.open(&elsewhere, connect_to("h:1")));
    assert!(other.as_mut().now_or_never().is_none());
    until(|| net.attempts() == 2).await;
    assert_eq!(
        net.keys.lock().len(),
        2,
        "the second handshake is the other peer's"
    );

    net.gate.add_permits(2);
    soon(other).await.unwrap();
    let opened: Vec<_> = soon(opening.collect::<Vec<_>>()).await;
    assert!(opened.iter().all(Result::is_ok));
    assert_eq!(net.attempts(), 2);
}

#[tokio::test]
async fn a_failed_handshake_fails_its_waiters_with_one_reason_and_no_retry() {
    let net = Net::new(Settings::default());
    *net.manner.lock() = Manner::Refuse;
    let pool = pool(settings(), &net);
    let opening: FuturesUnordered<_> = (0..50).map(|_| open(&pool)).collect();
    let reasons: Vec<Arc<ConnectError>> = opening
        .map(|opened| match opened {
            Err(Error::Connect { source, .. }) => source,
            other => panic!("{other:?}"),
        })
        .collect()
        .await;
    assert!(
        reasons
            .iter()
            .all(|reason| Arc::ptr_eq(reason, &reasons[0]))
    );
    assert!(matches!(*reasons[0], ConnectError::Tcp(_)));
    assert_eq!(net.attempts(), 1);

    *net.manner.lock() = Manner::Echo;
    use_up(open(&pool).await.unwrap()).await;
    assert_eq!(net.attempts(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_hangs_is_given_up() {
    let net = Net::new(Settings::default());
    net.gate.forget_permits(Semaphore::MAX_PERMITS);
    let pool = pool(settings(), &net);
    let start = Instant::now();
    let error = open(&pool).await.unwrap_err();
    assert_eq!(start.elapsed(), Duration::from_secs(10));
    assert!(
        matches!(&error, Error::Connect { source, .. } if matches!(**source, ConnectError::Timeout(_))),
        "{error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_says_its_settings_is_given_up() {
    let net = Net::new(Settings::default());
    *net.manner.lock() = Manner::Silent;
    let pool = pool(settings(), &net);
    let start = Instant::now();
    // The first has sent its request in hope, the second waits for the SETTINGS.
    let (first, second) = tokio::join!(open(&pool), open(&pool));
    for opened in [first, second] {
        assert!(
            matches!(&opened, Err(Error::Connect { source, .. }) if matches!(**source, ConnectError::Timeout(_))),
            "{opened:?}"
        );
    }
    assert_eq!(start.elapsed(), Duration::from_secs(10));
    assert_eq!(net.attempts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stops_answering_is_given_up_with_its_streams() {
    let net = Net::new(Settings::default());
    *net.manner.lock() = Manner::SettingsOnly;
    let pool = pool(settings(), &net);
    let start = Instant::now();
    let opened = open(&pool).await;
    assert!(
        matches!(&opened, Err(Error::Connect { source, .. }) if matches!(**source, ConnectError::Unanswered(_))),
        "{opened:?}"
    );
    assert_eq!(start.elapsed(), Duration::from_secs(30));
}

#[tokio::test]
async fn a_peer_that_says_goaway_finishes_what_it_has_and_gets_no_more() {
    let net = Net::new(Settings::default());
    let pool = pool(settings(), &net);
    let before = open(&pool).await.unwrap();
    net.send_goaway();
    let is_known = || {
        let mut todo = Todo::new();
        let mut state = pool.shared.state.lock();
        let place = state.acquire(&one(), Instant::now(), &mut todo).unwrap();
        state.release(&one(), place.connection, Instant::now(), &mut todo);
        place.handle.handle.is_closed()
    };
    until(is_known).await;
    let after = open(&pool).await.unwrap();
    assert_eq!(net.attempts(), 2);
    use_up(before).await;
    use_up(after).await;
}

#[tokio::test]
async fn goaway_and_lost_connections_in_the_middle_of_it_all_fail_no_open() {
    let net = Net::new(Settings::default());
    let pool = pool(settings(), &net);
    for round in 0..20 {
        let mut opening: FuturesUnordered<_> = (0..20).map(|_| open(&pool)).collect();
        for _ in 0..round {
            if opening.next().now_or_never().flatten().is_none() {
                tokio::task::yield_now().await;
            }
        }
        net.send_goaway();
        while let Some(stream) = opening.next().await {
            use_up(stream.unwrap()).await;
        }
    }
}

#[tokio::test]
async fn a_stream_sees_that_its_connection_was_lost() {
    let net = Net::new(Settings::default());
    let pool = pool(settings(), &net);
    let (mut source, _sink) = open(&pool).await.unwrap().into_split();
    net.cut();
    assert!(soon(source.next()).await.is_err());
    use_up(open(&pool).await.unwrap()).await;
    assert_eq!(net.attempts(), 2);
}

#[tokio::test]
async fn an_answer_other_than_success_is_an_error_and_gives_its_place_back() {
    let net = Net::new(Settings::default());
    let pool = pool(settings(), &net);
    net.unavailable.store(3, Ordering::SeqCst);
    for _ in 0..3 {
        let error = open(&pool).await.unwrap_err();
        assert!(
            matches!(error, Error::Status(StatusCode::SERVICE_UNAVAILABLE)),
            "{error:?}"
        );
    }
    use_up(open(&pool).await.unwrap()).await;
    assert_eq!(net.attempts(), 1);
    assert_eq!(open_places(&pool), 0);
}

/// Places given out and not given back.
fn open_places(pool: &Pool) -> usize {
    pool.shared.state.lock().active()
}

#[tokio::test]
async fn who_gives_up_leaves_no_trace() {
    let net = Net::new(with_streams(1));
    net.gate.forget_permits(Semaphore::MAX_PERMITS);
    let pool = pool(settings(), &net);
    {
        let mut opening = pin!(open(&pool));
        assert!(opening.as_mut().now_or_never().is_none());
        assert_eq!(pool.shared.state.lock().waiting(), 1);
    }
    assert_eq!(pool.shared.state.lock().waiting(), 0);
    net.gate.add_permits(10);
    let stream = open(&pool).await.unwrap();
    assert_eq!(open_places(&pool), 1);
    drop(stream);
    assert_eq!(open_places(&pool), 0);
    assert_eq!(
        net.attempts(),
        1,
        "what the first has begun serves the second"
    );
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_full_peer_does_not_wait_for_ever() {
    let net = Net::new(with_streams(1));
    let limits = PoolLimits {
        connections_per_peer: 1,
        ..settings().pool
    };
    let pool = pool(
        Settings {
            pool: limits,
            ..settings()
        },
        &net,
    );
    let stream = open(&pool).await.unwrap();
    let error = open(&pool).await.unwrap_err();
    assert!(matches!(error, Error::Crowded { .. }), "{error:?}");
    let (waited, ()) = tokio::join!(open(&pool), use_up(stream));
    use_up(waited.unwrap()).await;
    assert_eq!(net.attempts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_streams_is_closed_after_its_time() {
    let net = Net::new(Settings::default());
    let pool = pool(settings(), &net);
    let held = open(&pool).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(pool.shared.connections.len(), 1, "it has a stream");
    use_up(held).await;
    let idle_since = Instant::now();
    tokio::time::sleep(Duration::from_secs(299)).await;
    assert_eq!(pool.shared.connections.len(), 1);
    while !pool.shared.connections.is_empty() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let kept = idle_since.elapsed();
    assert!(kept < Duration::from_secs(301), "{kept:?}");
    use_up(open(&pool).await.unwrap()).await;
    assert_eq!(net.attempts(), 2);
}

#[tokio::test]
async fn a_drained_pool_waits_for_its_streams_and_takes_no_more() {
    let net = Net::new(Settings::default());
    let pool = pool(settings(), &net);
    let stream = open(&pool).await.unwrap();
    let mut drained = pin!(pool.drain());
    assert!(drained.as_mut().now_or_never().is_none());
    let error = open(&pool).await.unwrap_err();
    assert!(matches!(error, Error::Draining), "{error:?}");
    use_up(stream).await;
    soon(drained).await;
    assert_eq!(pool.shared.connections.len(), 0);
}

#[tokio::test]
async fn a_drain_fails_who_waits_and_gives_up_handshakes() {
    let net = Net::new(Settings::default());
    net.gate.forget_permits(Semaphore::MAX_PERMITS);
    let pool = pool(settings(), &net);
    let (opened, ()) = tokio::join!(open(&pool), async {
        until(|| net.attempts() == 1).await;
        soon(pool.drain()).await;
    });
    assert!(matches!(opened, Err(Error::Draining)), "{opened:?}");
}

#[tokio::test]
async fn a_dropped_pool_ends_its_connections_when_their_streams_end() {
    let net = Net::new(Settings::default());
    let pool = pool(settings(), &net);
    let stream = open(&pool).await.unwrap();
    drop(pool);
    use_up(stream).await;
    until(|| !net.tasks.running().contains_key("hbone-client")).await;
}

#[tokio::test]
async fn a_busy_peer_gets_further_connections() {
    let net = Net::new(Settings::default());
    let limits = PoolLimits {
        busy_streams: 4,
        busy_connections: 3,
        ..PoolLimits::default()
    };
    let pool = pool(
        Settings {
            pool: limits,
            ..Settings::default()
        },
        &net,
    );
    let mut streams = Vec::new();
    for _ in 0..30 {
        streams.push(open(&pool).await.unwrap());
    }
    assert_eq!(net.attempts(), 3);
    assert!(net.most.load(Ordering::SeqCst) <= 14, "not spread");
}

/// Many callers from several threads, tunnels of random lives, peers that change their mind.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn five_hundred_at_once_over_and_over_lose_nothing() {
    const CALLERS: u64 = 500;
    let net = Net::new(with_streams(7));
    let pool = Arc::new(pool(Settings::default(), &net));
    let (disturb, mut over) = watch::channel(());
    let disturbance = tokio::spawn({
        let net = Arc::clone(&net);
        async move {
            let mut seen = 0;
            while over.has_changed().is_ok() {
                if net.attempts() > seen + 40 {
                    seen = net.attempts();
                    net.send_goaway();
                }
                tokio::task::yield_now().await;
            }
            drop(over.changed().await);
        }
    });
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let pool = Arc::clone(&pool);
            tokio::spawn(async move {
                let mut random = fastrand::Rng::with_seed(caller);
                let key = key([10, 0, 0, random.u8(0..4)]);
                for _ in 0..random.usize(1..8) {
                    live_once(&pool, &key, &mut random).await;
                }
            })
        })
        .collect();
    for caller in callers {
        soon(caller).await.unwrap();
    }
    drop(disturb);
    soon(disturbance).await.unwrap();
    assert!(net.most.load(Ordering::SeqCst) <= 7);
    assert_eq!(open_places(&pool), 0);
    soon(pool.drain()).await;
    until(|| !net.tasks.running().contains_key("hbone-client")).await;
}

async fn live_once(pool: &Pool, key: &PoolKey, random: &mut fastrand::Rng) {
    let opening = pool.open(key, connect_to("h:1"));
    if random.u8(0..10) == 0 {
        // Gives up early, mostly.
        drop(opening.now_or_never());
        return;
    }
    let stream = match soon(opening).await {
        Ok((_, stream)) => stream,
        // The far end began to drain before it had said its SETTINGS.
        Err(Error::Connect { .. }) => return,
        // It did so on each connection that was tried: the tries are bounded.
        Err(Error::Stream(error)) if error.is_go_away() => return,
        Err(other) => panic!("{other:?}"),
    };
    for _ in 0..random.usize(0..20) {
        tokio::task::yield_now().await;
    }
    match random.u8(0..3) {
        0 => drop(stream),
        _ => use_up(stream).await,
    }
}

#[tokio::test]
async fn a_far_end_that_never_answers_is_not_waited_for_for_ever() {
    let net = Net::new(Settings::default());
    *net.manner.lock() = Manner::SettingsOnly;
    let patience = Duration::from_millis(10);
    let settings = Settings {
        answer_timeout: patience,
        ..settings()
    };
    let pool = pool(settings, &net);
    let error = open(&pool).await.unwrap_err();
    assert!(
        matches!(error, Error::NoAnswer(after) if after == patience),
        "{error:?}"
    );
    assert_eq!(open_places(&pool), 0);
}

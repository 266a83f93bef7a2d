use std::{
    future::{pending, ready},
    pin::pin,
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, Interest},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::*;

/// Longer than any of these takes, shorter than a reader's patience.
const DEADLINE: Duration = Duration::from_secs(20);

/// Gives what the test sends it; ends or breaks when the test says so.
struct FakeSource {
    events: mpsc::UnboundedReceiver<io::Result<Bytes>>,
    /// Whether `next_ready` gives what is there.
    batches: bool,
}

/// Keeps what it is given; refuses everything when told.
#[derive(Clone, Default)]
struct FakeSink {
    state: Arc<parking_lot::Mutex<SinkState>>,
}

#[derive(Default)]
struct SinkState {
    bytes: Vec<u8>,
    batches: usize,
    finished: bool,
    refuse: Option<io::ErrorKind>,
}

impl ByteSource for FakeSource {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        self.events.recv().await.transpose()
    }

    fn next_ready(&mut self) -> Option<Bytes> {
        self.batches
            .then(|| self.events.try_recv().ok()?.ok())
            .flatten()
    }
}

impl ByteSink for FakeSink {
    async fn write(&mut self, chunk: Bytes) -> io::Result<()> {
        let mut state = self.state.lock();
        if let Some(kind) = state.refuse {
            return Err(kind.into());
        }
        state.bytes.extend_from_slice(&chunk);
        Ok(())
    }

    async fn write_batch(&mut self, mut batch: Batch) -> io::Result<()> {
        self.state.lock().batches += 1;
        while let Some(chunk) = batch.pop() {
            self.write(chunk).await?;
        }
        Ok(())
    }

    async fn finish(&mut self) -> io::Result<()> {
        self.state.lock().finished = true;
        Ok(())
    }

    async fn closed(&mut self) {
        pending::<()>().await;
    }
}

type Feed = mpsc::UnboundedSender<io::Result<Bytes>>;

fn mk_fake() -> (Feed, FakeSource, FakeSink) {
    let (feed, events) = mpsc::unbounded_channel();
    let source = FakeSource {
        events,
        batches: false,
    };
    (feed, source, FakeSink::default())
}

fn send(feed: &Feed, text: &'static str) {
    feed.send(Ok(Bytes::from_static(text.as_bytes()))).unwrap();
}

/// Two connections: the ends that the copy has, and the ends of the peers.
async fn mk_tcp() -> ((TcpStream, TcpStream), (TcpStream, TcpStream)) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut ends = Vec::new();
    for _ in 0..2 {
        let peer = TcpStream::connect(address).await.unwrap();
        ends.push((listener.accept().await.unwrap().0, peer));
    }
    let (b, b_peer) = ends.pop().unwrap();
    let (a, a_peer) = ends.pop().unwrap();
    ((a, b), (a_peer, b_peer))
}

async fn copy_tcp(a: TcpStream, b: TcpStream, counters: &Counters) -> Result<End<()>, Error> {
    timeout(
        DEADLINE,
        bidirectional(split(a), split(b), counters, pending()),
    )
    .await
    .unwrap()
}

#[tokio::test]
async fn a_peer_that_goes_away_after_half_closing_is_not_waited_for() {
    let ((a, b), (mut a_peer, mut b_peer)) = mk_tcp().await;
    let counters = Counters::default();
    let conversation = async {
        a_peer.write_all(b"question").await.unwrap();
        a_peer.shutdown().await.unwrap();
        let mut question = String::new();
        b_peer.read_to_string(&mut question).await.unwrap();
        a_peer.set_zero_linger().unwrap();
        drop(a_peer);
        // The other peer says nothing; that its connection is closed is all it can notice.
        timeout(DEADLINE, b_peer.ready(Interest::ERROR | Interest::READABLE))
            .await
            .unwrap()
            .unwrap();
    };
    let (end, ()) = tokio::join!(copy_tcp(a, b, &counters), conversation);
    assert_eq!(end.unwrap(), End::Closed);
}

#[tokio::test]
async fn one_end_may_close_its_sending_direction_and_still_receive() {
    let ((a, b), (mut a_peer, mut b_peer)) = mk_tcp().await;
    let counters = Counters::default();
    let conversation = async {
        a_peer.write_all(b"question").await.unwrap();
        a_peer.shutdown().await.unwrap();
        let mut question = String::new();
        b_peer.read_to_string(&mut question).await.unwrap();
        assert_eq!(question, "question");
        b_peer.write_all(b"the answer").await.unwrap();
        b_peer.shutdown().await.unwrap();
        let mut answer = String::new();
        a_peer.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "the answer");
    };
    let (end, ()) = tokio::join!(copy_tcp(a, b, &counters), conversation);
    assert_eq!(end.unwrap(), End::Closed);
    let expected = Totals {
        forward: 8,
        backward: 10,
    };
    assert_eq!(counters.totals(), expected);
}

#[tokio::test]
async fn a_reset_is_an_ordinary_end_and_what_came_before_is_delivered() {
    let ((a, b), (mut a_peer, mut b_peer)) = mk_tcp().await;
    let counters = Counters::default();
    let conversation = async {
        a_peer.write_all(b"last words").await.unwrap();
        let mut words = [0; 10];
        b_peer.read_exact(&mut words).await.unwrap();
        assert_eq!(&words, b"last words");
        a_peer.set_zero_linger().unwrap();
        drop(a_peer);
        assert_eq!(b_peer.read(&mut words).await.unwrap(), 0);
    };
    let (end, ()) = tokio::join!(copy_tcp(a, b, &counters), conversation);
    assert_eq!(end.unwrap(), End::Closed);
    assert_eq!(counters.totals().forward, 10);
}

#[tokio::test]
async fn cancelling_breaks_both_connections_and_keeps_the_counts() {
    let ((a, b), (mut a_peer, mut b_peer)) = mk_tcp().await;
    let counters = Counters::default();
    let (revoke, revoked) = oneshot::channel();
    let conversation = async {
        a_peer.write_all(b"allowed").await.unwrap();
        b_peer.read_exact(&mut [0; 7]).await.unwrap();
        revoke.send("policy").unwrap();
        assert_eq!(a_peer.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(b_peer.read(&mut [0]).await.unwrap(), 0);
    };
    let copy = bidirectional(split(a), split(b), &counters, async {
        revoked.await.unwrap()
    });
    let both = async { tokio::join!(copy, conversation) };
    let (end, ()) = timeout(DEADLINE, both).await.unwrap();
    assert_eq!(end.unwrap(), End::Cancelled("policy"));
    assert_eq!(counters.totals().forward, 7);
}

#[tokio::test]
async fn a_copy_that_is_cancelled_before_it_starts_sends_nothing() {
    let (a_feed, a, a_sink) = mk_fake();
    let (_b_feed, b, b_sink) = mk_fake();
    send(&a_feed, "too late");
    let counters = Counters::default();
    let end = bidirectional((a, a_sink), (b, b_sink.clone()), &counters, ready(())).await;
    assert_eq!(end.unwrap(), End::Cancelled(()));
    assert!(b_sink.state.lock().bytes.is_empty());
}

#[tokio::test]
async fn counters_are_up_to_date_while_the_connection_lives() {
    let (a_feed, a, a_sink) = mk_fake();
    let (_b_feed, b, b_sink) = mk_fake();
    let counters = Counters::default();
    let mut copy = pin!(bidirectional::<_, _, _, _, ()>(
        (a, a_sink),
        (b, b_sink),
        &counters,
        pending()
    ));
    let mut cx = Context::from_waker(Waker::noop());
    for chunks in 1..=3 {
        send(&a_feed, "12345");
        assert!(copy.as_mut().poll(&mut cx).is_pending());
        assert_eq!(counters.totals().forward, 5 * chunks);
    }
}

#[tokio::test]
async fn a_sink_that_takes_no_more_ends_only_its_own_direction() {
    let (a_feed, a, a_sink) = mk_fake();
    let (b_feed, b, b_sink) = mk_fake();
    b_sink.state.lock().refuse = Some(io::ErrorKind::BrokenPipe);
    send(&a_feed, "nobody reads this");
    send(&b_feed, "still coming");
    drop(b_feed);
    let counters = Counters::default();
    let copy =
        bidirectional::<_, _, _, _, ()>((a, a_sink.clone()), (b, b_sink), &counters, pending());
    assert_eq!(copy.await.unwrap(), End::Closed);
    assert_eq!(a_sink.state.lock().bytes, b"still coming");
    assert!(a_sink.state.lock().finished);
    assert_eq!(
        counters.totals().forward,
        0,
        "what was not sent is not counted"
    );
}

#[tokio::test]
async fn another_failure_is_an_error_that_names_the_connection() {
    let cases = [
        (true, "receive from the first connection"),
        (false, "send to the second connection"),
    ];
    for (receiving, text) in cases {
        let (a_feed, a, a_sink) = mk_fake();
        let (_b_feed, b, b_sink) = mk_fake();
        if receiving {
            a_feed.send(Err(io::ErrorKind::TimedOut.into())).unwrap();
        } else {
            b_sink.state.lock().refuse = Some(io::ErrorKind::TimedOut);
            send(&a_feed, "x");
        }
        let counters = Counters::default();
        let copy = bidirectional::<_, _, _, _, ()>((a, a_sink), (b, b_sink), &counters, pending());
        assert_eq!(copy.await.unwrap_err().to_string(), text);
    }
}

/// Never waits, never ends.
struct Endless;

impl ByteSource for Endless {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        Ok(Some(Bytes::from_static(b"endless")))
    }
}

/// Takes everything.
struct Nowhere;

impl ByteSink for Nowhere {
    async fn write(&mut self, _chunk: Bytes) -> io::Result<()> {
        Ok(())
    }

    async fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }

    async fn closed(&mut self) {
        pending::<()>().await;
    }
}

#[tokio::test]
async fn a_direction_that_never_waits_does_not_starve_the_other() {
    let (_feed, _unused, sink) = mk_fake();
    let (b_feed, b, _b_sink) = mk_fake();
    send(&b_feed, "through");
    let arrived = {
        let sink = sink.clone();
        // Asked at every poll of the copy, which is never left in peace by its other direction.
        poll_fn(move |cx| {
            if sink.state.lock().bytes == b"through" {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    };
    let counters = Counters::default();
    let copy = bidirectional((Endless, sink), (b, Nowhere), &counters, arrived);
    let end = timeout(DEADLINE, copy).await.unwrap();
    assert_eq!(end.unwrap(), End::Cancelled(()));
}

#[tokio::test]
async fn what_is_ready_is_sent_in_one_batch() {
    let (a_feed, mut a, a_sink) = mk_fake();
    let (b_feed, b, b_sink) = mk_fake();
    a.batches = true;
    for _ in 0..5 {
        send(&a_feed, "frame ");
    }
    drop((a_feed, b_feed));
    let counters = Counters::default();
    let copy =
        bidirectional::<_, _, _, _, ()>((a, a_sink), (b, b_sink.clone()), &counters, pending());
    copy.await.unwrap();
    let state = b_sink.state.lock();
    assert_eq!(state.bytes, b"frame frame frame frame frame ");
    assert_eq!(state.batches, 1);
    assert_eq!(counters.totals().forward, 30);
}

#[test]
fn the_state_of_a_copy_is_small() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let ((a, b), _peers) = runtime.block_on(mk_tcp());
    let counters = Counters::default();
    let copy = bidirectional::<_, _, _, _, ()>(split(a), split(b), &counters, pending());
    let size = size_of_val(&copy);
    assert!(size <= 1024, "{size} bytes per connection");
}

fn mk_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn tcp_bytes_are_identical_whatever_the_chunking(
        writes in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..70_000), 0..8),
        replies in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..3000), 0..8),
    ) {
        mk_runtime().block_on(async {
            let ((a, b), (a_peer, b_peer)) = mk_tcp().await;
            let counters = Counters::default();
            let (mut a_read, mut a_write) = a_peer.into_split();
            let (mut b_read, mut b_write) = b_peer.into_split();
            let (mut sent, mut got) = (Vec::new(), Vec::new());
            let ask = async {
                for write in &writes {
                    a_write.write_all(write).await.unwrap();
                }
                a_write.shutdown().await.unwrap();
            };
            let reply = async {
                for write in &replies {
                    b_write.write_all(write).await.unwrap();
                }
                b_write.shutdown().await.unwrap();
            };
            let read = async {
                b_read.read_to_end(&mut sent).await.unwrap();
                a_read.read_to_end(&mut got).await.unwrap();
            };
            let (end, ..) = tokio::join!(copy_tcp(a, b, &counters), ask, reply, read);
            assert_eq!(end.unwrap(), End::Closed);
            assert_eq!(sent, writes.concat());
            assert_eq!(got, replies.concat());
            let totals = counters.totals();
            assert_eq!(totals.forward, sent.len() as u64);
            assert_eq!(totals.backward, got.len() as u64);
        });
    }

    #[test]
    fn chunked_sources_are_identical_with_and_without_batches(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20_000), 0..40),
        batches: bool,
    ) {
        mk_runtime().block_on(async {
            let ((a, b), (a_peer, mut b_peer)) = mk_tcp().await;
            drop((a, a_peer));
            let (feed, mut source, sink) = mk_fake();
            source.batches = batches;
            for chunk in &chunks {
                feed.send(Ok(chunk.clone().into())).unwrap();
            }
            drop(feed);
            let counters = Counters::default();
            let copy = bidirectional::<_, _, _, _, ()>((source, sink), split(b), &counters, pending());
            let mut sent = Vec::new();
            let read = async {
                b_peer.read_to_end(&mut sent).await.unwrap();
                drop(b_peer);
            };
            let (end, ()) = tokio::join!(copy, read);
            assert_eq!(end.unwrap(), End::Closed);
            assert_eq!(sent, chunks.concat());
        });
    }

    #[test]
    fn a_batch_reads_like_its_chunks_joined(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..10),
        steps in prop::collection::vec(0..30_usize, 0..20),
    ) {
        let mut batch = Batch::default();
        for chunk in &chunks {
            batch.push(chunk.clone().into());
        }
        let all = chunks.concat();
        let mut rest = all.as_slice();
        for step in steps {
            let step = step.min(rest.len());
            batch.advance(step);
            rest = &rest[step..];
            prop_assert_eq!(batch.remaining(), rest.len());
            prop_assert!(rest.starts_with(batch.chunk()));
            prop_assert_eq!(batch.has_remaining(), !batch.chunk().is_empty());
            let mut slices = [io::IoSlice::new(&[]); 64];
            let count = batch.chunks_vectored(&mut slices);
            let joined: Vec<u8> = slices[..count].iter().flat_map(|s| s.iter().copied()).collect();
            prop_assert_eq!(&joined, rest);
        }
        let popped: Vec<u8> = std::iter::from_fn(|| batch.pop()).flatten().collect();
        prop_assert_eq!(&popped, rest);
    }
}

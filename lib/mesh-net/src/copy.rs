//! Copying bytes between two connections, each a pair of a [`ByteSource`] and a [`ByteSink`].
//!
//! Bytes travel as [`Bytes`] from the read that produced them to the write that sends them, without
//! a copy between. A connection on which nothing happens holds no buffer: a source waits until there
//! is something to read, and only then allocates for it. One end that closes its sending direction
//! leaves the other direction open (half-close); a connection that breaks ends both.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    task::Poll,
};

use bytes::{Buf, Bytes};

mod read_size;
mod tcp;

pub use self::tcp::{TcpSink, TcpSource, split};

/// The receiving half of a connection.
pub trait ByteSource: Send {
    /// Waits for bytes; none when the peer has closed its sending direction. Never empty.
    ///
    /// While it waits it must not hold a buffer.
    fn next(&mut self) -> impl Future<Output = io::Result<Option<Bytes>>> + Send;

    /// More bytes, if they are here already, so that they can be sent with one system call.
    ///
    /// None says nothing about the end of the stream; an error waits for [`next`](Self::next).
    fn next_ready(&mut self) -> Option<Bytes> {
        None
    }
}

/// The sending half of a connection.
pub trait ByteSink: Send {
    /// Sends all of `chunk`, waiting for the peer where it is slow.
    fn write(&mut self, chunk: Bytes) -> impl Future<Output = io::Result<()>> + Send;

    /// Sends all of `batch`, with fewer system calls than one per chunk if the sink can do that.
    fn write_batch(&mut self, mut batch: Batch) -> impl Future<Output = io::Result<()>> + Send {
        async move {
            while let Some(chunk) = batch.pop() {
                self.write(chunk).await?;
            }
            Ok(())
        }
    }

    /// Closes the sending direction: the peer reads what was sent and then the end. Receiving goes on.
    fn finish(&mut self) -> impl Future<Output = io::Result<()>> + Send;

    /// Resolves when the peer has broken the connection, so that it takes nothing any more. Cancel safe.
    ///
    /// Waited for once the peer has closed its own sending direction: from then on nothing is read
    /// from it that would tell.
    fn closed(&mut self) -> impl Future<Output = ()> + Send;
}

/// Chunks to be sent in order; its size is bounded.
#[derive(Debug, Default)]
pub struct Batch {
    chunks: VecDeque<Bytes>,
    length: usize,
}

/// Bytes copied so far in each direction; read them at any time, also from another thread.
#[derive(Debug, Default)]
pub struct Counters {
    forward: AtomicU64,
    backward: AtomicU64,
}

/// Bytes copied in each direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// From the first connection to the second.
    pub forward: u64,
    /// From the second connection to the first.
    pub backward: u64,
}

/// How copying came to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End<C> {
    /// The peers closed their connections, orderly or by a reset.
    Closed,
    /// The future that cancels the copy gave this value. Nothing is sent after that; the connections
    /// break when their halves are dropped, which has happened.
    Cancelled(C),
}

/// One of the two directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the first connection to the second.
    Forward,
    /// From the second connection to the first.
    Backward,
}

/// A connection that failed in another way than by closing. The network or a peer is at fault; what
/// was copied until then is in the [`Counters`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Receiving failed.
    #[error("receive from the {} connection", direction.source())]
    Receive {
        /// The direction that failed.
        direction: Direction,
        /// The reason.
        source: io::Error,
    },
    /// Sending failed.
    #[error("send to the {} connection", direction.sink())]
    Send {
        /// The direction that failed.
        direction: Direction,
        /// The reason.
        source: io::Error,
    },
}

/// Why one direction is over.
enum Over {
    /// The source ended, and the sink has been told so.
    Finished,
    /// The source's connection broke. The sink has been told that no more comes.
    SourceBroke,
    /// The sink's connection takes nothing any more.
    SinkClosed,
}

/// Copies in both directions between `a` and `b` until both are over or `cancelled` is.
///
/// A peer that resets its connection, or goes away without saying so to TLS or HTTP/2, is an ordinary
/// end and no error. Counting is done per chunk, after it was sent.
pub async fn bidirectional<A, AS, B, BS, C>(
    a: (A, AS),
    b: (B, BS),
    counters: &Counters,
    cancelled: impl Future<Output = C> + Send,
) -> Result<End<C>, Error>
where
    A: ByteSource,
    AS: ByteSink,
    B: ByteSource,
    BS: ByteSink,
{
    let (mut a_source, mut a_sink) = a;
    let (mut b_source, mut b_sink) = b;
    let mut cancelled = pin!(cancelled);
    let alone = AtomicBool::new(false);
    let mut forward = pin!(pump(
        Direction::Forward,
        &mut a_source,
        &mut b_sink,
        &counters.forward,
        &alone
    ));
    let mut backward = pin!(pump(
        Direction::Backward,
        &mut b_source,
        &mut a_sink,
        &counters.backward,
        &alone
    ));
    let alone = &alone;
    let mut open = [true, true];
    let mut turn = Direction::Forward;
    poll_fn(move |cx| {
        if let Poll::Ready(value) = cancelled.as_mut().poll(cx) {
            return Poll::Ready(Ok(End::Cancelled(value)));
        }
        // The two take turns in going first: a direction that never has to wait uses up what the
        // runtime allows a task to do at once, and the other would get nothing.
        let order = turn.then_other();
        turn = turn.other();
        for direction in order {
            if !open[direction as usize] {
                continue;
            }
            let polled = match direction {
                Direction::Forward => forward.as_mut().poll(cx),
                Direction::Backward => backward.as_mut().poll(cx),
            };
            match polled {
                Poll::Pending => {}
                Poll::Ready(Ok(Over::Finished | Over::SinkClosed)) => {
                    open[direction as usize] = false;
                    // The other has to look again, and may have had its turn.
                    alone.store(true, Ordering::Relaxed);
                    cx.waker().wake_by_ref();
                }
                Poll::Ready(Ok(Over::SourceBroke)) => return Poll::Ready(Ok(End::Closed)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            }
        }
        if open == [false, false] {
            return Poll::Ready(Ok(End::Closed));
        }
        Poll::Pending
    })
    .await
}

/// Copies one direction until it is over; `alone` says that the other one is.
async fn pump(
    direction: Direction,
    source: &mut impl ByteSource,
    sink: &mut impl ByteSink,
    count: &AtomicU64,
    alone: &AtomicBool,
) -> Result<Over, Error> {
    loop {
        // A source and a sink that never have to wait must still leave room for other tasks.
        tokio::task::consume_budget().await;
        let Some(next) = next(source, sink, alone).await else {
            return Ok(Over::SinkClosed);
        };
        let (sent, length) = match next {
            Ok(Some(first)) => match source.next_ready() {
                None => {
                    let length = first.len();
                    (sink.write(first).await, length)
                }
                Some(second) => {
                    let batch = Batch::gather(first, second, source);
                    let length = batch.remaining();
                    (sink.write_batch(batch).await, length)
                }
            },
            Ok(None) => return over(sink.finish().await, Over::Finished, direction),
            Err(error) if is_close(&error) => {
                return over(sink.finish().await, Over::SourceBroke, direction);
            }
            Err(source) => return Err(Error::Receive { direction, source }),
        };
        match sent {
            Ok(()) => count.fetch_add(length as u64, Ordering::Relaxed),
            Err(error) if is_close(&error) => return Ok(Over::SinkClosed),
            Err(source) => return Err(Error::Send { direction, source }),
        };
    }
}

/// What the source gives next; nothing if this direction is alone and its sink is closed meanwhile.
/// Without that, a peer that first closes its sending direction and then goes away would be waited for
/// until the other peer says something, which may be never.
async fn next(
    source: &mut impl ByteSource,
    sink: &mut impl ByteSink,
    alone: &AtomicBool,
) -> Option<io::Result<Option<Bytes>>> {
    let mut next = pin!(source.next());
    let mut sink = Some(sink);
    // Made and boxed when it is needed: few connections half-close, and all have this in them.
    let mut closed: Option<Pin<Box<dyn Future<Output = ()> + Send + '_>>> = None;
    poll_fn(|cx| {
        if let Poll::Ready(next) = next.as_mut().poll(cx) {
            return Poll::Ready(Some(next));
        }
        if alone.load(Ordering::Relaxed)
            && let Some(sink) = sink.take()
        {
            closed = Some(Box::pin(sink.closed()));
        }
        match &mut closed {
            Some(closed) => closed.as_mut().poll(cx).map(|()| None),
            None => Poll::Pending,
        }
    })
    .await
}

fn over(finished: io::Result<()>, over: Over, direction: Direction) -> Result<Over, Error> {
    match finished {
        Err(source) if !is_close(&source) => Err(Error::Send { direction, source }),
        // A peer that is gone already need not be told.
        _ => Ok(over),
    }
}

/// Whether an error says only that the peer went away.
fn is_close(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected
            | io::ErrorKind::UnexpectedEof
    )
}

// === impl Batch ===

impl Batch {
    /// Most bytes gathered for one write; about what a socket's send buffer takes at once.
    const MAX_BYTES: usize = 256 * 1024;
    /// Most chunks gathered for one write; sixteen of HTTP/2's usual frames make `MAX_BYTES`.
    const MAX_CHUNKS: usize = 16;

    /// Takes the next chunk.
    pub fn pop(&mut self) -> Option<Bytes> {
        let chunk = self.chunks.pop_front()?;
        self.length -= chunk.len();
        Some(chunk)
    }

    fn gather(first: Bytes, second: Bytes, source: &mut impl ByteSource) -> Self {
        let mut batch = Self {
            chunks: VecDeque::with_capacity(Self::MAX_CHUNKS),
            length: 0,
        };
        batch.push(first);
        batch.push(second);
        while batch.length < Self::MAX_BYTES && batch.chunks.len() < Self::MAX_CHUNKS {
            let Some(chunk) = source.next_ready() else {
                break;
            };
            batch.push(chunk);
        }
        batch
    }

    fn push(&mut self, chunk: Bytes) {
        self.length += chunk.len();
        self.chunks.push_back(chunk);
    }
}

impl Buf for Batch {
    fn remaining(&self) -> usize {
        self.length
    }

    fn chunk(&self) -> &[u8] {
        self.chunks
            .iter()
            .find(|chunk| !chunk.is_empty())
            .map_or(&[], Bytes::as_ref)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [io::IoSlice<'a>]) -> usize {
        let chunks = self.chunks.iter().filter(|chunk| !chunk.is_empty());
        slices
            .iter_mut()
            .zip(chunks)
            .map(|(slice, chunk)| *slice = io::IoSlice::new(chunk))
            .count()
    }

    fn advance(&mut self, mut count: usize) {
        // `Buf` asks for a panic when told to advance too far; there it is.
        self.length = self
            .length
            .checked_sub(count)
            .expect("a batch is not advanced beyond its end");
        while let Some(front) = self.chunks.front_mut() {
            if count < front.len() {
                front.advance(count);
                break;
            }
            count -= front.len();
            self.chunks.pop_front();
        }
    }
}

// === impl Counters ===

impl Counters {
    /// What was copied so far.
    pub fn totals(&self) -> Totals {
        Totals {
            forward: self.forward.load(Ordering::Relaxed),
            backward: self.backward.load(Ordering::Relaxed),
        }
    }
}

// === impl Direction ===

impl Direction {
    fn other(self) -> Self {
        match self {
            Self::Forward => Self::Backward,
            Self::Backward => Self::Forward,
        }
    }

    fn then_other(self) -> [Self; 2] {
        [self, self.other()]
    }

    fn source(self) -> &'static str {
        match self {
            Self::Forward => "first",
            Self::Backward => "second",
        }
    }

    fn sink(self) -> &'static str {
        self.other().source()
    }
}

#[cfg(test)]
mod tests;

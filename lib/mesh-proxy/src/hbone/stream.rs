//! An established tunnel: the two halves of an HTTP/2 stream, as [`mesh_net::copy`] wants them.
//!
//! Received bytes are handed on as they are, and the peer may send more only when they have been
//! delivered: a slow reader stalls its sender, and holds at most one stream window here. Sent bytes
//! wait in a queue of [`Settings::send_buffer`](super::settings::Settings::send_buffer) bytes.
//!
//! Dropping both halves of a tunnel that is not finished in both directions resets it.

use std::{
    any::Any,
    future::poll_fn,
    io,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use mesh_net::copy::{ByteSink, ByteSource};

use super::payload::{Payload, Queue};

/// A chunk smaller than this waits until the stream's earlier ones have left for the wire.
///
/// An application that writes a few bytes at a time would otherwise queue a frame for each. Peers
/// count such frames and end the connection, with all its streams, when too many wait for a slow
/// reader (`h2` counts those under 256 bytes). While the chunk waits, what the application writes
/// next gathers in its socket and goes out as one. An application that waits for answers finds the
/// queue empty and is not held up.
const SMALL_CHUNK: usize = 1024;

/// An established tunnel.
#[derive(Debug)]
pub struct Stream {
    source: Source,
    sink: Sink,
}

/// The receiving half of a tunnel.
#[derive(Debug)]
pub struct Source {
    stream: RecvStream,
    /// Bytes handed out whose delivery has not been told to the peer.
    unreleased: usize,
    _keep: Keep,
}

/// The sending half of a tunnel.
#[derive(Debug)]
pub struct Sink {
    stream: SendStream<Payload>,
    queue: Queue,
    _keep: Keep,
}

/// What lives as long as a tunnel does: the pool's share of the connection. It is dropped after the
/// stream, so that whoever gets the freed capacity finds it there.
pub(super) type Keep = Option<Arc<dyn Any + Send + Sync>>;

// === impl Stream ===

impl Stream {
    pub(super) fn new(send: SendStream<Payload>, receive: RecvStream, keep: Keep) -> Self {
        Self {
            source: Source {
                stream: receive,
                unreleased: 0,
                _keep: keep.clone(),
            },
            sink: Sink {
                stream: send,
                queue: Queue::default(),
                _keep: keep,
            },
        }
    }

    /// The two halves, ready for [`mesh_net::copy::bidirectional`].
    pub fn into_split(self) -> (Source, Sink) {
        (self.source, self.sink)
    }
}

// === impl Source ===

impl Source {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        loop {
            let Some(received) = ready!(self.stream.poll_data(cx)) else {
                return Poll::Ready(Ok(None));
            };
            let chunk = received.map_err(into_io)?;
            // A frame may be empty, or all padding.
            if !chunk.is_empty() {
                self.unreleased += chunk.len();
                return Poll::Ready(Ok(Some(chunk)));
            }
        }
    }

    /// Lets the peer send as much again as has been delivered.
    fn release(&mut self) {
        let delivered = std::mem::take(&mut self.unreleased);
        // Fails only for more than was received.
        let released = self.stream.flow_control().release_capacity(delivered);
        debug_assert!(released.is_ok(), "released more than was received");
    }
}

impl ByteSource for Source {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        // Being asked for more means that the earlier chunks were delivered.
        self.release();
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn next_ready(&mut self) -> Option<Bytes> {
        let mut cx = Context::from_waker(Waker::noop());
        match self.poll_next(&mut cx) {
            Poll::Ready(Ok(chunk)) => chunk,
            // `h2` repeats its errors.
            Poll::Ready(Err(_)) | Poll::Pending => None,
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // The sending half may live on; the connection must not lack this capacity meanwhile.
        self.release();
    }
}

// === impl Sink ===

impl Sink {
    /// Waits for room, at most `wanted` bytes of it and at least one.
    async fn room(&mut self, wanted: usize) -> io::Result<usize> {
        self.stream.reserve_capacity(wanted);
        let room = poll_fn(|cx| self.poll_room(cx)).await?;
        Ok(room.min(wanted))
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let room = self.stream.capacity();
        if room > 0 {
            return Poll::Ready(Ok(room));
        }
        match ready!(self.stream.poll_capacity(cx)) {
            Some(Ok(room)) => Poll::Ready(Ok(room)),
            Some(Err(error)) => Poll::Ready(Err(into_io(error))),
            None => Poll::Ready(Err(self.reason())),
        }
    }

    /// Why the stream takes nothing any more.
    fn reason(&mut self) -> io::Error {
        let mut cx = Context::from_waker(Waker::noop());
        match self.stream.poll_reset(&mut cx) {
            Poll::Ready(Ok(reason)) => into_io(reason.into()),
            Poll::Ready(Err(error)) => into_io(error),
            Poll::Pending => io::ErrorKind::BrokenPipe.into(),
        }
    }
}

impl ByteSink for Sink {
    async fn write(&mut self, mut chunk: Bytes) -> io::Result<()> {
        if chunk.len() < SMALL_CHUNK {
            self.queue.drained().await;
        }
        // Never a frame without bytes: peers allow a connection only a hundred of them in its life.
        while !chunk.is_empty() {
            let room = self.room(chunk.len()).await?;
            let payload = self.queue.enqueue(chunk.split_to(room));
            self.stream
                .send_data(payload, false)
                .map_err(|_closed| self.reason())?;
        }
        Ok(())
    }

    async fn finish(&mut self) -> io::Result<()> {
        self.stream
            .send_data(Payload::empty(), true)
            .map_err(|_closed| self.reason())
    }

    async fn closed(&mut self) {
        // Either way it is over.
        drop(poll_fn(|cx| self.stream.poll_reset(cx)).await);
    }
}

/// How a tunnel that ends looks to one who knows only TCP.
///
/// A stream that its peer gives up ([`Reason::CANCEL`], [`Reason::NO_ERROR`]) is a connection reset;
/// so is one on a connection that was shut down in order. Anything else is a failure and keeps its
/// reason.
fn into_io(error: h2::Error) -> io::Error {
    if error.is_io() {
        return error
            .into_io()
            .unwrap_or_else(|| io::ErrorKind::BrokenPipe.into());
    }
    match error.reason() {
        Some(Reason::NO_ERROR | Reason::CANCEL | Reason::STREAM_CLOSED) => {
            io::Error::new(io::ErrorKind::ConnectionReset, error)
        }
        _ => io::Error::other(error),
    }
}

#[cfg(test)]
mod tests;

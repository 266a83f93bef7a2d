//! The halves of a TCP connection.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncWriteExt as _, Interest},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};
use tokio_util::io::poll_read_buf;

use super::{Batch, ByteSink, ByteSource, read_size::ReadSize};

/// A read this many times smaller than its buffer is copied into memory of its own size, so that a
/// connection whose peer does not take its bytes holds few of them.
const WASTE: usize = 16;

/// The receiving half of a TCP connection.
#[derive(Debug)]
pub struct TcpSource {
    half: OwnedReadHalf,
    size: ReadSize,
}

/// The sending half of a TCP connection. Dropping it closes the sending direction.
#[derive(Debug)]
pub struct TcpSink {
    half: OwnedWriteHalf,
}

/// The two halves of a connection, ready for [`bidirectional`](super::bidirectional).
pub fn split(stream: TcpStream) -> (TcpSource, TcpSink) {
    let (read, write) = stream.into_split();
    let source = TcpSource {
        half: read,
        size: ReadSize::default(),
    };
    (source, TcpSink { half: write })
}

// === impl TcpSource ===

impl TcpSource {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        ready!(self.half.as_ref().poll_read_ready(cx))?;
        let mut buffer = BytesMut::with_capacity(self.size.bytes());
        // Not `try_read`: `poll_read` knows that a read which does not fill its buffer has emptied
        // the socket, and saves the read that would only say so. Pending drops the buffer.
        let read = ready!(poll_read_buf(Pin::new(&mut self.half), cx, &mut buffer))?;
        self.size.record(read);
        Poll::Ready(Ok(match read {
            0 => None,
            read if read < buffer.capacity() / WASTE => Some(Bytes::copy_from_slice(&buffer)),
            _ => Some(buffer.freeze()),
        }))
    }
}

impl ByteSource for TcpSource {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }
}

// === impl TcpSink ===

impl ByteSink for TcpSink {
    async fn write(&mut self, chunk: Bytes) -> io::Result<()> {
        self.half.write_all(&chunk).await
    }

    async fn write_batch(&mut self, mut batch: Batch) -> io::Result<()> {
        self.half.write_all_buf(&mut batch).await
    }

    async fn finish(&mut self) -> io::Result<()> {
        self.half.shutdown().await
    }

    async fn closed(&mut self) {
        // A reset, or keepalive that gave up. An error says that the runtime shuts down.
        drop(self.half.ready(Interest::ERROR).await);
    }
}

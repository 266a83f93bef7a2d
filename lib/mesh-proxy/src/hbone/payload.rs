//! What is handed to `h2` for sending: bytes that tell when they have left its queue.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::{Buf, Bytes};
use futures::task::AtomicWaker;

/// The contents of one DATA frame, or of several if the peer's limits ask for that.
#[derive(Debug)]
pub(crate) struct Payload {
    bytes: Bytes,
    _token: Option<Token>,
}

/// How many payloads of one stream wait in this process to be written to the connection.
#[derive(Debug, Default)]
pub(super) struct Queue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: AtomicUsize,
    /// The stream's sender; there is only one.
    sender: AtomicWaker,
}

/// One payload in the queue. `h2` drops it when the last byte is written, or when the stream is reset.
#[derive(Debug)]
struct Token(Arc<Shared>);

// === impl Payload ===

impl Payload {
    /// Bytes that do not count, for a frame without any.
    pub(super) fn empty() -> Self {
        Self {
            bytes: Bytes::new(),
            _token: None,
        }
    }
}

impl Buf for Payload {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

// === impl Queue ===

impl Queue {
    pub(super) fn enqueue(&self, bytes: Bytes) -> Payload {
        self.0.waiting.fetch_add(1, Ordering::Relaxed);
        Payload {
            bytes,
            _token: Some(Token(Arc::clone(&self.0))),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        // Pairs with the release in `Token::drop`; nothing is read on the strength of it.
        self.0.waiting.load(Ordering::Acquire) == 0
    }

    /// Resolves when nothing waits.
    pub(super) async fn drained(&self) {
        std::future::poll_fn(|cx| {
            if self.is_empty() {
                return std::task::Poll::Ready(());
            }
            self.0.sender.register(cx.waker());
            // The last payload may have left between the look and the registration.
            if self.is_empty() {
                return std::task::Poll::Ready(());
            }
            std::task::Poll::Pending
        })
        .await;
    }
}

// === impl Token ===

impl Drop for Token {
    fn drop(&mut self) {
        if self.0.waiting.fetch_sub(1, Ordering::Release) == 1 {
            self.0.sender.wake();
        }
    }
}

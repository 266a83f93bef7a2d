//! What one client says: the messages of gRPC in the body of its request.

use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use tonic::{Code, Status, body::Body};

pub(super) use self::decode::Said;

mod decode;

/// The requests on one stream.
#[derive(Debug)]
pub(super) struct Requests {
    body: Body,
    frames: Frames,
}

/// Cuts what arrives into messages. Pure. Holds what has arrived of one message, and next to nothing between
/// two: the list of what a client holds when it connects is megabytes, and all that follows is small.
#[derive(Debug)]
struct Frames {
    arrived: BytesMut,
    limit: usize,
}

/// What arrives is no sequence of messages. The client is at fault; a retry does not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Error {
    /// The first byte of a message says that it is compressed, or nothing known. The client has been told
    /// in the headers that nothing compressed is taken.
    #[error("a request begins with {0}; only uncompressed ones are taken, which begin with 0")]
    Flag(u8),
    /// Larger than the client may have reason for.
    #[error("a request of {0} bytes is above the limit of {1}")]
    TooLarge(usize, usize),
    /// The stream ends within a message.
    #[error("the stream ends within a request")]
    Truncated,
}

/// Bytes before each message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// Memory of a message that is used again for the next one.
const KEPT: usize = 16 * 1024;

// === impl Requests ===

impl Requests {
    pub(super) fn new(body: Body, limit: usize) -> Self {
        Self {
            body,
            frames: Frames::new(limit),
        }
    }

    /// The next request; nothing when the client has no more. May be dropped and asked again: nothing is
    /// lost.
    pub(super) async fn message(&mut self) -> Result<Option<Box<Said>>, Status> {
        loop {
            if let Some(message) = self.frames.next()? {
                return Ok(Some(Box::new(Said::decode(message)?)));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.frames.push(&data);
                    }
                }
                // The client has gone.
                Some(Err(status)) if status.code() == Code::Cancelled => return Ok(None),
                Some(Err(status)) => return Err(status),
                None => {
                    self.frames.end()?;
                    return Ok(None);
                }
            }
        }
    }
}

// === impl Frames ===

impl Frames {
    fn new(limit: usize) -> Self {
        Self {
            arrived: BytesMut::new(),
            limit,
        }
    }

    fn push(&mut self, data: &[u8]) {
        self.arrived.extend_from_slice(data);
    }

    /// The next message that is complete.
    fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let mut head = self.arrived.as_ref();
        if head.len() < PREFIX {
            return Ok(None);
        }
        let flag = head.get_u8();
        let len = usize::try_from(head.get_u32()).unwrap_or(usize::MAX);
        if flag != 0 {
            return Err(Error::Flag(flag));
        }
        if len > self.limit {
            return Err(Error::TooLarge(len, self.limit));
        }
        if head.len() < len {
            // Once, instead of twice as much each time. It is not touched before it arrives.
            self.arrived.reserve(len - head.len());
            return Ok(None);
        }
        self.arrived.advance(PREFIX);
        let message = self.arrived.split_to(len).freeze();
        if len > KEPT {
            // What has arrived of the next one would keep the memory of this one.
            self.arrived = BytesMut::from(self.arrived.as_ref());
        }
        Ok(Some(message))
    }

    /// There is no more.
    fn end(&self) -> Result<(), Error> {
        if self.arrived.is_empty() {
            Ok(())
        } else {
            Err(Error::Truncated)
        }
    }
}

// === impl Status ===

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Flag(_) | Error::Truncated => Self::internal(message),
            Error::TooLarge(..) => Self::out_of_range(message),
        }
    }
}

impl From<decode::Error> for Status {
    fn from(error: decode::Error) -> Self {
        Self::internal(error.to_string())
    }
}

#[cfg(test)]
mod tests;

//! What one server allows its clients.

use std::time::Duration;

/// Bounds of time, number and size. The defaults suit 1,000 proxies of a mesh with 50,000 pods on one
/// replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Life of a stream, give or take a tenth so that not all end at once. Its client then connects
    /// again, possibly to another replica. Upstream's `keepaliveMaxServerConnectionAge`: 30 minutes.
    pub age: Duration,
    /// How long a stream that is to end waits for what it sent to be acknowledged: 10 seconds.
    pub grace: Duration,
    /// Streams at a time. More are sent away, to another replica if there is one: 10,000.
    pub streams: usize,
    /// Bytes of one request: 64 MiB, the versions of some 600,000 held names. Only authenticated
    /// clients get as far as to send one.
    pub request: usize,
    /// Shortest time between two pushes of changes on one stream: 10 milliseconds. A change after a
    /// quiet time is pushed at once; those that follow within this time are pushed together. Answers
    /// to requests do not wait.
    pub window: Duration,
    /// Streams that may begin, or make a large response, at a time: 8. Others wait for their turn, so
    /// that a thousand clients that reconnect at once need the memory of 8: the lists of what they hold,
    /// and of what they are sent, which are some 15 MB for 100,000 resources.
    pub turns: usize,
    /// After which time a turn ends though its client has not taken what was sent: 30 seconds. Slow
    /// clients delay the others, and do not stop them.
    pub turn: Duration,
    /// How long the first response of addresses waits for the client to ask for policies, which it
    /// should have before, and the other way round: 5 seconds. Only clients that never ask for one
    /// of both wait that long.
    pub companion: Duration,
    /// Requests of one stream beyond acknowledgements: this many at once, and this many a second
    /// after that; 500. More are read later, not refused.
    pub requests: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            age: Duration::from_secs(30 * 60),
            grace: Duration::from_secs(10),
            streams: 10_000,
            request: 64 * 1024 * 1024,
            window: Duration::from_millis(10),
            turns: 8,
            turn: Duration::from_secs(30),
            companion: Duration::from_secs(5),
            requests: 500,
        }
    }
}

//! What both ends of a tunnel say about themselves, and how the pool spends connections.

use std::time::Duration;

/// How HBONE connections behave.
///
/// The defaults of the first block are visible on the wire and those of Istio's ztunnel, so that
/// either proxy meets the same peer.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bytes a peer may send on one stream before the application has taken any. 4 MiB carries
    /// 4 Gbit/s over 8 ms.
    pub stream_window: u32,
    /// Bytes a peer may send on one connection before the applications have taken any: the most that
    /// slow readers can make one connection hold.
    pub connection_window: u32,
    /// Largest DATA frame that is accepted, in bytes.
    pub frame_size: u32,
    /// Largest header list that a client accepts with an answer, in bytes.
    pub client_header_list: u32,
    /// Largest header list that a server accepts with a request, in bytes.
    pub server_header_list: u32,
    /// Streams that a peer may have open at once on a connection it made.
    pub max_concurrent_streams: u32,

    /// Bytes of one stream that wait in this process to be written to the connection. Not visible on
    /// the wire. One stream fills 10 Gbit/s with it if the connection's task runs every 300 µs.
    pub send_buffer: usize,
    /// What received frames smaller than 256 bytes may cost in bookkeeping, in bytes, before the
    /// peer is told to go away. Flow control counts payload alone, and a frame of one byte costs 256;
    /// as much again as the connection's window lets 65 000 such frames wait for their readers.
    pub small_frame_budget: usize,
    /// How often an open connection is checked with a PING.
    pub ping_interval: Duration,
    /// How long the answer to a PING may take before the connection is given up.
    pub ping_timeout: Duration,
    /// Longest time for making a connection (TCP, TLS, HTTP/2 up to the peer's SETTINGS), and on the
    /// server for the client's preface.
    pub connect_timeout: Duration,
    /// Longest time that the far end may take to answer a CONNECT: to learn of its pod, to hear of the
    /// pod's policies and to reach the application, behind a waypoint twice over.
    pub answer_timeout: Duration,

    /// How the pool spends connections.
    pub pool: PoolLimits,
}

/// How many connections the pool makes, and how long it keeps them.
#[derive(Clone, Debug)]
pub struct PoolLimits {
    /// Streams on one connection, if its peer allows as many.
    pub streams_per_connection: usize,
    /// Connections to one peer. Reached only by more than `streams_per_connection` times as many
    /// streams; past it callers wait for one to end.
    pub connections_per_peer: usize,
    /// A peer counts as busy, and gets a further connection, when its connections carry this many
    /// streams each: one connection is one task here, and one worker thread on a waypoint.
    pub busy_streams: usize,
    /// How many connections a peer gets for being busy. More are made only when these are full.
    pub busy_connections: usize,
    /// How long a connection without streams is kept.
    pub idle_timeout: Duration,
    /// Connections without streams that are kept, over all peers.
    pub max_idle: usize,
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            stream_window: 4 * 1024 * 1024,
            connection_window: 16 * 1024 * 1024,
            frame_size: 1024 * 1024,
            client_header_list: 16 * 1024,
            server_header_list: 64 * 1024,
            max_concurrent_streams: 200,
            send_buffer: 400 * 1024,
            small_frame_budget: 16 * 1024 * 1024,
            ping_interval: Duration::from_secs(10),
            ping_timeout: Duration::from_secs(20),
            connect_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(60),
            pool: PoolLimits::default(),
        }
    }
}

// === impl PoolLimits ===

impl Default for PoolLimits {
    fn default() -> Self {
        Self {
            streams_per_connection: 100,
            connections_per_peer: 256,
            busy_streams: 4,
            busy_connections: 4,
            idle_timeout: Duration::from_secs(5 * 60),
            max_idle: 500,
        }
    }
}

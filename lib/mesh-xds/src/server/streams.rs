//! Which clients are connected, what they were told, and how their streams are ended.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use mesh_proto::discovery::Node;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Client, Metrics, Refusal, Response, client::claim};

/// The streams of one server; a handle that is cheap to clone.
#[derive(Clone, Debug)]
pub struct Streams {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    open: Mutex<Open>,
    /// How many are open.
    count: watch::Sender<usize>,
    /// Whether they are to end.
    closing: watch::Sender<bool>,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    streams: BTreeMap<u64, Arc<Mutex<Connection>>>,
    /// Streams by version of their clients.
    versions: BTreeMap<String, usize>,
}

/// One stream, as of now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Counts from the start of the process.
    pub number: u64,
    /// Who it is.
    pub client: Client,
    /// The client's name for itself, such as `ztunnel~<ip>~<pod>.<namespace>~<domain>`; empty until it
    /// has said it, at most 256 characters.
    pub node: String,
    /// The version it says it has; `unknown` otherwise.
    pub version: String,
    /// Since when.
    pub since: SystemTime,
    /// What it was told, by type.
    pub types: BTreeMap<String, TypeStatus>,
}

/// What a client was told of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeStatus {
    /// What it takes.
    pub mode: Mode,
    /// Resources that were sent in all responses together.
    pub resources: u64,
    /// Removals that were sent in all responses together.
    pub removals: u64,
    /// The last response.
    pub sent: Option<Moment>,
    /// The last response that has arrived, accepted or not. The client has all of this type if it is
    /// the same as `sent`.
    pub acknowledged: Option<Moment>,
    /// When the client last refused something, and its words.
    pub refused: Option<Moment>,
}

/// What a client takes of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// All of it.
    Everything,
    /// So many names, and what they bring.
    Names(usize),
}

/// A nonce or a message, and its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// When.
    pub at: SystemTime,
    /// The text.
    pub text: String,
}

/// An open stream, until it is dropped.
#[derive(Debug)]
pub(super) struct Registration {
    streams: Streams,
    connection: Arc<Mutex<Connection>>,
    number: u64,
    counted: Option<String>,
}

/// Characters of a node's id that are kept.
const MAX_NODE: usize = 256;

/// Characters of a version that are kept. It becomes a label of a metric.
const MAX_VERSION: usize = 32;

// === impl Streams ===

impl Streams {
    pub(super) fn new(metrics: Metrics) -> Self {
        let shared = Shared {
            open: Mutex::default(),
            count: watch::Sender::default(),
            closing: watch::Sender::default(),
            metrics,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// All open streams, in the order in which they began.
    pub fn snapshot(&self) -> Vec<Connection> {
        let streams: Vec<_> = self.shared.open.lock().streams.values().cloned().collect();
        let copy = |stream: &Arc<Mutex<Connection>>| stream.lock().clone();
        streams.iter().map(copy).collect()
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        *self.shared.count.borrow()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends all streams, each when its client has acknowledged what it was sent or the grace is over,
    /// and admits no more. The clients connect again, which should lead them to another replica.
    pub fn shutdown(&self) {
        self.shared.closing.send_replace(true);
    }

    /// Waits until no stream is open.
    pub async fn drained(&self) {
        let mut count = self.shared.count.subscribe();
        // The sender lives as long as `self`, so this ends when the condition holds.
        drop(count.wait_for(|count| *count == 0).await);
    }

    pub(super) fn closing(&self) -> watch::Receiver<bool> {
        self.shared.closing.subscribe()
    }

    pub(super) fn is_closing(&self) -> bool {
        *self.shared.closing.borrow()
    }

    /// Enters a stream; nothing if there are `most` already.
    pub(super) fn enter(&self, client: Client, most: usize) -> Option<Registration> {
        let mut open = self.shared.open.lock();
        if open.streams.len() >= most {
            return None;
        }
        let number = open.next;
        open.next += 1;
        let connection = Arc::new(Mutex::new(Connection {
            number,
            client,
            node: String::new(),
            version: UNKNOWN.to_owned(),
            since: SystemTime::now(),
            types: BTreeMap::new(),
        }));
        open.streams.insert(number, Arc::clone(&connection));
        self.shared.count.send_replace(open.streams.len());
        Some(Registration {
            streams: self.clone(),
            connection,
            number,
            counted: None,
        })
    }
}

// === impl Shared ===

impl Shared {
    /// The metric is set under the lock, so that it cannot be overtaken.
    fn count_version(&self, version: &str, change: impl FnOnce(usize) -> usize) {
        let mut open = self.open.lock();
        let before = open.versions.get(version).copied();
        let count = change(before.unwrap_or_default());
        if count == 0 {
            open.versions.remove(version);
        } else {
            open.versions.insert(version.to_owned(), count);
        }
        self.metrics.connected(version, count);
    }
}

/// The version of a client that does not say it.
const UNKNOWN: &str = "unknown";

// === impl Registration ===

impl Registration {
    /// The client says who it is.
    pub(super) fn named(&mut self, node: &Node) {
        let version = version_of(node);
        let mut connection = self.connection.lock();
        connection.node = node.id.chars().take(MAX_NODE).collect();
        connection.version.clone_from(&version);
        drop(connection);
        if self.counted.is_none() {
            self.streams
                .shared
                .count_version(&version, |count| count + 1);
            self.counted = Some(version);
        }
    }

    pub(super) fn node(&self) -> String {
        self.connection.lock().node.clone()
    }

    pub(super) fn asked(&self, type_url: &str, mode: Mode) {
        self.of_type(type_url, |status| status.mode = mode);
    }

    pub(super) fn sent(&self, response: &Response) {
        self.of_type(response.type_url(), |status| {
            status.sent = Some(Moment::now(response.nonce().to_owned()));
            status.resources += response.resources() as u64;
            status.removals += response.removed() as u64;
        });
    }

    pub(super) fn acknowledged(&self, type_url: &str, nonce: String) {
        self.of_type(type_url, |status| {
            status.acknowledged = Some(Moment::now(nonce));
        });
    }

    pub(super) fn refused(&self, refusal: &Refusal) {
        self.of_type(&refusal.type_url, |status| {
            status.refused = Some(Moment::now(refusal.message.clone()));
        });
    }

    fn of_type(&self, type_url: &str, change: impl FnOnce(&mut TypeStatus)) {
        let mut connection = self.connection.lock();
        if !connection.types.contains_key(type_url) {
            (connection.types).insert(type_url.to_owned(), TypeStatus::default());
        }
        if let Some(status) = connection.types.get_mut(type_url) {
            change(status);
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let shared = &self.streams.shared;
        if let Some(version) = &self.counted {
            shared.count_version(version, |count| count.saturating_sub(1));
        }
        let mut open = shared.open.lock();
        open.streams.remove(&self.number);
        shared.count.send_replace(open.streams.len());
    }
}

// === impl TypeStatus ===

impl Default for TypeStatus {
    fn default() -> Self {
        Self {
            mode: Mode::Names(0),
            resources: 0,
            removals: 0,
            sent: None,
            acknowledged: None,
            refused: None,
        }
    }
}

// === impl Moment ===

impl Moment {
    fn now(text: String) -> Self {
        Self {
            at: SystemTime::now(),
            text,
        }
    }
}

/// `ISTIO_VERSION` of the metadata, as far as it looks like a version.
fn version_of(node: &Node) -> String {
    let version = claim(node, "ISTIO_VERSION").unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+');
    if version.is_empty() || version.len() > MAX_VERSION || !version.chars().all(plain) {
        return UNKNOWN.to_owned();
    }
    version
}

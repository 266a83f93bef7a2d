//! The traffic counters.
//!
//! All five counters of one set of labels live in one [`Series`], found once per connection. Bytes are
//! not counted there: each connection has its own counters, and a scrape adds up those of the open
//! connections and what the closed ones left. So the byte path writes to no memory that connections
//! share.
//!
//! A series without connections is forgotten after a while (see [`Metrics::new`]); the store thereby
//! stays as large as what the node currently talks to, not as what it ever talked to.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, HashSet},
    fmt,
    hash::{BuildHasher as _, Hash, Hasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mesh_net::copy::{Counters, Totals};
use parking_lot::{Mutex, RwLock};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, NoLabelSet},
    metrics::{MetricType, family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::time::Instant;

use super::labels::{Labels, Reporter};

/// The proxies' metrics; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    traffic: Arc<Traffic>,
    sockets: [Gauge; 2],
}

/// All series, in shards so that new connections on different threads seldom meet.
#[derive(Debug)]
pub struct Traffic {
    shards: Box<[RwLock<Shard>]>,
    hasher: RandomState,
    retention: Duration,
    began: Instant,
}

#[derive(Debug, Default)]
struct Shard {
    series: HashSet<Keyed>,
    /// Seconds after [`Traffic::began`] at which a full shard was last looked through.
    swept: u64,
}

/// The counters of one set of labels.
#[derive(Debug)]
pub struct Series {
    labels: Labels,
    opened: AtomicU64,
    closed: AtomicU64,
    failed: AtomicU64,
    bytes: Mutex<Volume>,
    /// Seconds after [`Traffic::began`] at which the series was last looked up or had a
    /// connection end.
    used: AtomicU64,
}

/// What the connections of one series carried.
#[derive(Debug, Default)]
struct Volume {
    next: u64,
    open: BTreeMap<u64, Arc<Counters>>,
    closed: Totals,
}

/// An open connection's place in its series.
#[derive(Debug)]
pub struct Lease {
    series: Arc<Series>,
    id: u64,
}

/// One connection held by the proxy; the gauge falls when it is dropped.
#[derive(Debug)]
pub struct OpenSocket(Gauge);

/// A series, found by its labels.
#[derive(Debug)]
struct Keyed(Arc<Series>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ReporterLabel(Reporter);

/// What is read off a series for one scrape.
struct Sample {
    series: Arc<Series>,
    values: [Option<u64>; 5],
}

/// Name and help of the counters, in the order of [`Sample::values`]. The encoder appends `_total`.
const FAMILIES: [(&str, &str); 5] = [
    (
        "istio_tcp_connections_opened",
        "The total number of TCP connections opened",
    ),
    (
        "istio_tcp_connections_closed",
        "The total number of TCP connections closed",
    ),
    (
        "istio_tcp_received_bytes",
        "The size of total bytes received during request in case of a TCP connection",
    ),
    (
        "istio_tcp_sent_bytes",
        "The size of total bytes sent during response in case of a TCP connection",
    ),
    (
        "istio_tcp_connections_failed",
        "The total number of TCP connections that failed, by reason (unstable)",
    ),
];

/// More than the worker threads of a large node.
const SHARDS: usize = 32;

/// A shard is looked through for idle series when it first holds this many, and then whenever it has
/// doubled: the cost stays constant per new series, and bounded memory does not depend on scrapes.
const FIRST_SWEEP: usize = 1024;

/// Most series in a shard, 131 072 over all, which take some 150 MB. A large node talks to fewer; but a
/// peer from another network says itself who it is, and may say something new each time.
const MOST_IN_SHARD: usize = 4096;

// === impl Metrics ===

impl Metrics {
    /// Metrics, added to `registry`.
    ///
    /// A series that had no connection for `retention` is forgotten. A counter that comes back starts
    /// at 0, as after a restart; what was counted between the last scrape and the end of `retention`
    /// would be lost, so it should span many scrapes. An hour is a good value.
    pub fn new(registry: &mut Registry, retention: Duration) -> Self {
        let traffic = Arc::new(Traffic::new(retention));
        registry.register_collector(Box::new(traffic.clone()));
        let sockets = Family::<ReporterLabel, Gauge>::default();
        registry.register(
            "istio_tcp_sockets_open",
            "The number of connections that the proxy holds open (unstable)",
            sockets.clone(),
        );
        let gauge = |reporter| sockets.get_or_create(&ReporterLabel(reporter)).clone();
        Self {
            traffic,
            sockets: [gauge(Reporter::Source), gauge(Reporter::Destination)],
        }
    }

    /// The traffic counters.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Counts a connection as held until the result is dropped.
    pub fn socket(&self, reporter: Reporter) -> OpenSocket {
        let gauge = self.sockets[reporter as usize].clone();
        gauge.inc();
        OpenSocket(gauge)
    }
}

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl EncodeLabelSet for ReporterLabel {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        [("reporter", self.0.as_str())].encode(encoder)
    }
}

// === impl Traffic ===

impl Traffic {
    fn new(retention: Duration) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            hasher: RandomState::new(),
            retention,
            began: Instant::now(),
        }
    }

    /// The series with these labels; made if need be.
    ///
    /// When there are as many as there may be, it is one with fewer labels: see [`Labels::proven`].
    pub fn series(&self, labels: &Labels) -> Arc<Series> {
        self.find(labels, MOST_IN_SHARD).unwrap_or_else(|| {
            let proven = labels.proven();
            let found = self.find(&proven, usize::MAX);
            found.unwrap_or_else(|| Arc::new(Series::new(proven, self.seconds())))
        })
    }

    /// The series with these labels, made if its shard holds fewer than `most`.
    fn find(&self, labels: &Labels, most: usize) -> Option<Arc<Series>> {
        let shard = &self.shards[self.shard(labels)];
        let now = self.seconds();
        let known = |Keyed(series): &Keyed| {
            series.used.store(now, Ordering::Relaxed);
            series.clone()
        };
        if let Some(series) = shard.read().series.get(labels) {
            return Some(known(series));
        }
        let mut shard = shard.write();
        if let Some(series) = shard.series.get(labels) {
            return Some(known(series));
        }
        let Shard { series, swept } = &mut *shard;
        let grows = series.len() >= FIRST_SWEEP && series.len() == series.capacity();
        // A full shard only once a second: it is full because of someone who comes again and again.
        let full = series.len() >= most && *swept < now;
        if grows || full {
            *swept = now;
            series.retain(|keyed| self.is_in_use(keyed, now));
        }
        if series.len() >= most {
            return None;
        }
        let new = Arc::new(Series::new(labels.clone(), now));
        series.insert(Keyed(new.clone()));
        Some(new)
    }

    /// Keeps a series from now on for another retention: a connection of it has just ended, and however
    /// long it was open, the next scrape has to show that.
    pub fn keep(&self, series: &Series) {
        series.used.store(self.seconds(), Ordering::Relaxed);
    }

    /// How many series are kept.
    pub fn len(&self) -> usize {
        let lengths = self.shards.iter().map(|shard| shard.read().series.len());
        lengths.sum()
    }

    /// Whether no series is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, labels: &Labels) -> usize {
        // The remainder is below the number of shards, whatever the hash loses here.
        #[expect(
            clippy::cast_possible_truncation,
            reason = "any bits of the hash will do"
        )]
        let hash = self.hasher.hash_one(labels) as usize;
        hash % SHARDS
    }

    fn seconds(&self) -> u64 {
        self.began.elapsed().as_secs()
    }

    fn is_in_use(&self, keyed: &Keyed, now: u64) -> bool {
        let used = keyed.0.used.load(Ordering::Relaxed);
        Arc::strong_count(&keyed.0) > 1 || now.saturating_sub(used) < self.retention.as_secs()
    }

    /// Forgets idle series and reads the others. Each shard is locked only while it is copied.
    fn samples(&self) -> Vec<Sample> {
        let now = self.seconds();
        let mut samples = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.write();
            shard.series.retain(|keyed| self.is_in_use(keyed, now));
            samples.extend(shard.series.iter().map(|Keyed(series)| series.clone()));
        }
        samples.into_iter().map(Sample::new).collect()
    }
}

impl Collector for Traffic {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let samples = self.samples();
        for (index, (name, help)) in FAMILIES.into_iter().enumerate() {
            let values = || {
                samples
                    .iter()
                    .filter_map(|s| Some((&s.series, s.values[index]?)))
            };
            if values().next().is_none() {
                continue;
            }
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (series, value) in values() {
                family
                    .encode_family(&series.labels)?
                    .encode_counter::<NoLabelSet, u64, u64>(&value, None)?;
            }
        }
        Ok(())
    }
}

// === impl Series ===

impl Series {
    fn new(labels: Labels, now: u64) -> Self {
        Self {
            labels,
            opened: AtomicU64::new(0),
            closed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            bytes: Mutex::default(),
            used: AtomicU64::new(now),
        }
    }

    /// The labels.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// Counts a connection as opened, and what `counters` count until the lease is dropped.
    pub fn open(self: &Arc<Self>, counters: Arc<Counters>) -> Lease {
        self.opened.fetch_add(1, Ordering::Relaxed);
        let mut bytes = self.bytes.lock();
        let id = bytes.next;
        bytes.next += 1;
        bytes.open.insert(id, counters);
        Lease {
            series: self.clone(),
            id,
        }
    }

    /// Counts a connection as closed.
    pub fn closed(&self) {
        self.closed.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection as failed, besides counting it as closed.
    pub fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    fn volume(&self) -> Totals {
        let bytes = self.bytes.lock();
        bytes
            .open
            .values()
            .fold(bytes.closed, |sum, counters| add(sum, counters.totals()))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut bytes = self.series.bytes.lock();
        if let Some(counters) = bytes.open.remove(&self.id) {
            bytes.closed = add(bytes.closed, counters.totals());
        }
    }
}

fn add(a: Totals, b: Totals) -> Totals {
    Totals {
        forward: a.forward.wrapping_add(b.forward),
        backward: a.backward.wrapping_add(b.backward),
    }
}

// === impl Sample ===

impl Sample {
    fn new(series: Arc<Series>) -> Self {
        let count = |counter: &AtomicU64| Some(counter.load(Ordering::Relaxed)).filter(|n| *n > 0);
        let opened = count(&series.opened);
        let volume = opened.map(|_| series.volume());
        // Received is what the server receives, whichever end reports.
        let values = [
            opened,
            count(&series.closed),
            volume.map(|volume| volume.forward),
            volume.map(|volume| volume.backward),
            count(&series.failed),
        ];
        Self { series, values }
    }
}

// === impl Keyed ===

impl Borrow<Labels> for Keyed {
    fn borrow(&self) -> &Labels {
        &self.0.labels
    }
}

impl PartialEq for Keyed {
    fn eq(&self, other: &Self) -> bool {
        self.0.labels == other.0.labels
    }
}

impl Eq for Keyed {}

impl Hash for Keyed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.labels.hash(state);
    }
}

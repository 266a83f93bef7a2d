//! What the server counts, under the names that dashboards for Istio know.

use std::{fmt, time::Duration};

use mesh_proto::type_url::{ADDRESS, AUTHORIZATION};
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder},
    metrics::{
        MetricType, TypedMetric, counter::Counter, family::Family, gauge::Gauge,
        histogram::Histogram,
    },
    registry::{Registry, Unit},
};

/// The server's metrics; a handle that is cheap to clone. The names are complete: register them without
/// a prefix.
#[derive(Clone, Debug)]
pub struct Metrics {
    clients: Family<VersionLabels, Gauge>,
    pushes: Family<TypeLabels, Sum>,
    rejects: Family<TypeLabels, Sum>,
    expired_nonces: Family<TypeLabels, Sum>,
    push_time: Family<TypeLabels, Histogram, fn() -> Histogram>,
    config_size: Family<TypeLabels, Histogram, fn() -> Histogram>,
    send_time: Histogram,
    queue_time: Histogram,
    convergence_time: Histogram,
    refused_streams: Family<ReasonLabels, Counter>,
}

/// A counter whose name does not end in `_total`. Such are not counters for `OpenMetrics`, which has
/// its type "unknown" for them; rates are taken of them as of others.
#[derive(Clone, Debug, Default)]
struct Sum(Counter);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VersionLabels {
    version: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TypeLabels {
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// Seconds. Upstream's buckets, which begin at 10 or 100 ms, with finer ones before.
const SECONDS: [f64; 12] = [
    0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0,
];

/// Bytes. Upstream's buckets: 4 MB is a common limit of gRPC, 10 MB strain a system.
const BYTES: [f64; 6] = [1.0, 1e4, 1e6, 4e6, 1e7, 4e7];

// === impl Metrics ===

impl Default for Metrics {
    fn default() -> Self {
        Self {
            clients: Family::default(),
            pushes: Family::default(),
            rejects: Family::default(),
            expired_nonces: Family::default(),
            push_time: Family::new_with_constructor(seconds),
            config_size: Family::new_with_constructor(bytes),
            send_time: seconds(),
            queue_time: seconds(),
            convergence_time: seconds(),
            refused_streams: Family::default(),
        }
    }
}

impl Metrics {
    /// Registers all families.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Clients connected for discovery, by the version they say they have";
        registry.register("pilot_xds", help, self.clients.clone());
        let help = "Responses pushed, by type";
        registry.register("pilot_xds_pushes", help, self.pushes.clone());
        let help = "Responses that a client refused in whole or in part, by type";
        registry.register("pilot_total_xds_rejects", help, self.rejects.clone());
        let help = "Requests that answer another response than the last, by type";
        registry.register("pilot_xds_expired_nonce", help, self.expired_nonces.clone());
        let help = "Seconds that it takes to make a response, by type";
        registry.register("pilot_xds_push_time", help, self.push_time.clone());
        let help = "Seconds until the transport has taken a response";
        registry.register("pilot_xds_send_time", help, self.send_time.clone());
        let help = "Seconds from a publication until the push to a client begins";
        registry.register("pilot_proxy_queue_time", help, self.queue_time.clone());
        let help = "Seconds from a publication until a client has been sent all of it";
        let convergence_time = self.convergence_time.clone();
        registry.register("pilot_proxy_convergence_time", help, convergence_time);
        let help = "Size of the resources in a response, by type";
        let config_size = self.config_size.clone();
        registry.register_with_unit("pilot_xds_config_size", help, Unit::Bytes, config_size);
        let help = "Streams that were refused, by reason (unstable)";
        let refused = self.refused_streams.clone();
        registry.register("pilot_xds_refused_streams", help, refused);
    }

    /// So many clients have a version. Versions come and go with upgrades; what nobody has is not
    /// reported.
    pub(super) fn connected(&self, version: &str, clients: usize) {
        let labels = VersionLabels {
            version: version.to_owned(),
        };
        if clients == 0 {
            self.clients.remove(&labels);
            return;
        }
        let clients = i64::try_from(clients).unwrap_or(i64::MAX);
        self.clients.get_or_create(&labels).set(clients);
    }

    pub(super) fn pushed(&self, type_url: &str, bytes: usize, took: Duration) {
        let labels = TypeLabels::of(type_url);
        self.pushes.get_or_create(&labels).0.inc();
        let push_time = self.push_time.get_or_create(&labels);
        push_time.observe(took.as_secs_f64());
        drop(push_time);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.config_size
            .get_or_create(&labels)
            .observe(bytes.into());
    }

    pub(super) fn rejected(&self, type_url: &str) {
        self.rejects
            .get_or_create(&TypeLabels::of(type_url))
            .0
            .inc();
    }

    pub(super) fn expired(&self, type_url: &str) {
        let labels = TypeLabels::of(type_url);
        self.expired_nonces.get_or_create(&labels).0.inc();
    }

    pub(super) fn sent(&self, took: Duration) {
        self.send_time.observe(took.as_secs_f64());
    }

    pub(super) fn dequeued(&self, after: Duration) {
        self.queue_time.observe(after.as_secs_f64());
    }

    pub(super) fn converged(&self, after: Duration) {
        self.convergence_time.observe(after.as_secs_f64());
    }

    pub(super) fn refused_stream(&self, reason: &'static str) {
        self.refused_streams
            .get_or_create(&ReasonLabels { reason })
            .inc();
    }
}

// === impl labels ===

impl TypeLabels {
    /// Upstream's short names. Types that only clients know share one, so that they cannot make labels.
    fn of(type_url: &str) -> Self {
        let r#type = match type_url {
            ADDRESS | "type.googleapis.com/istio.workload.Workload" => "wds",
            AUTHORIZATION => "wads",
            _ => "other",
        };
        Self { r#type }
    }
}

// === impl Sum ===

impl EncodeMetric for Sum {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        encoder.encode_gauge(&i64::try_from(self.0.get()).unwrap_or(i64::MAX))
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for Sum {
    const TYPE: MetricType = MetricType::Unknown;
}

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

fn bytes() -> Histogram {
    Histogram::new(BYTES)
}

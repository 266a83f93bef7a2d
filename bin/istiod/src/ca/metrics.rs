//! What the authority counts, under the names that dashboards of Istio know.

use std::sync::Arc;
use std::{
    fmt,
    sync::atomic::AtomicU64,
    time::{SystemTime, UNIX_EPOCH},
};

use mesh_identity::issuer::{
    self,
    service::{Denied, Event, Observe},
};
use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric, MetricEncoder},
    metrics::{
        MetricType, TypedMetric,
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::Registry,
};

/// Counters of the authority. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    requests: Plain,
    issued: Plain,
    unauthenticated: Plain,
    unreadable: Plain,
    nameless: Plain,
    refused: Family<Refused, Plain>,
    denied: Family<Kind, Counter>,
    reloads: Family<Reload, Counter>,
    roots: Gauge,
    expiry: Arc<Mutex<Option<Expiry>>>,
}

/// A counter whose name does not end in `_total`, as OpenMetrics would have it: Istio's do not. Its type
/// is unknown, which every scraper takes for what it is.
#[derive(Clone, Debug, Default)]
struct Plain(Counter<u64, AtomicU64>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    error: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reload {
    outcome: Outcome,
}

/// What came of a root that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum Outcome {
    /// It is in force or on its way.
    Accepted,
    /// It cannot be used; the last good one stays.
    Refused,
}

/// Until when what signs is valid.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expiry {
    /// The root that expires first.
    pub(super) root: SystemTime,
    /// The signing certificate.
    pub(super) chain: SystemTime,
}

/// Computes seconds left at the time of the scrape.
#[derive(Debug)]
struct Expiries(Arc<Mutex<Option<Expiry>>>);

// === impl Metrics ===

impl Metrics {
    /// Counters that are shown in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let all = Self::default();
        let plain: [(&str, &str, &Plain); 5] = [
            ("csr_count", "Certificate requests received", &all.requests),
            (
                "success_cert_issuance_count",
                "Certificates issued",
                &all.issued,
            ),
            (
                "authentication_failure_count",
                "Certificate requests of callers that did not prove who they are",
                &all.unauthenticated,
            ),
            (
                "csr_parsing_err_count",
                "Certificate requests that could not be read",
                &all.unreadable,
            ),
            (
                "id_extraction_err_count",
                "Certificate requests that name an identity that is none",
                &all.nameless,
            ),
        ];
        let registry = registry.sub_registry_with_prefix("citadel_server");
        for (name, help, counter) in plain {
            registry.register(name, help, counter.clone());
        }
        registry.register(
            "csr_sign_err_count",
            "Certificate requests refused when they should have been signed, by error",
            all.refused.clone(),
        );
        registry.register(
            "denied_requests",
            "Certificate requests denied, by kind of reason (unstable)",
            all.denied.clone(),
        );
        registry.register(
            "root_reloads",
            "Roots read anew, by whether they could be used (unstable)",
            all.reloads.clone(),
        );
        registry.register(
            "trusted_roots",
            "Roots that workloads trust: more than one while one replaces another (unstable)",
            all.roots.clone(),
        );
        registry.register_collector(Box::new(Expiries(Arc::clone(&all.expiry))));
        all
    }

    pub(super) fn reloaded(&self, outcome: Outcome) {
        self.reloads.get_or_create(&Reload { outcome }).inc();
    }

    pub(super) fn in_force(&self, roots: usize, expiry: Expiry) {
        self.roots.set(i64::try_from(roots).unwrap_or(i64::MAX));
        *self.expiry.lock() = Some(expiry);
    }
}

impl Observe for Metrics {
    fn observe(&self, event: Event<'_>) {
        match event {
            Event::Received => self.requests.inc(),
            Event::Signed => self.issued.inc(),
            Event::Malformed => self.nameless.inc(),
            Event::Denied(denied) => {
                if matches!(denied, Denied::Unauthenticated(_)) {
                    self.unauthenticated.inc();
                }
                let reason = reason(denied);
                self.denied.get_or_create(&Kind { reason }).inc();
            }
            Event::Refused(refused) => {
                if matches!(refused, issuer::Error::Unreadable(_)) {
                    self.unreadable.inc();
                }
                let error = error(refused);
                self.refused.get_or_create(&Refused { error }).inc();
            }
        }
    }
}

fn reason(denied: &Denied) -> &'static str {
    match denied {
        Denied::Unauthenticated(_) => "unauthenticated",
        Denied::Forbidden(_) => "forbidden",
        Denied::Unavailable(_) => "unavailable",
    }
}

/// Istio's names for kinds of errors.
fn error(error: &issuer::Error) -> &'static str {
    use issuer::Error as E;
    match error {
        E::TooLarge(_) | E::Unreadable(_) | E::NotSigned | E::WeakKey { .. } => "CSR_ERROR",
        E::Lifetime { .. } => "TTL_ERROR",
        E::Expired => "CA_NOT_READY",
        _ => "CERT_GEN_ERROR",
    }
}

// === impl Plain ===

impl Plain {
    fn inc(&self) {
        self.0.inc();
    }
}

impl TypedMetric for Plain {
    const TYPE: MetricType = MetricType::Unknown;
}

impl EncodeMetric for Plain {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        encoder.encode_gauge(&self.0.get())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Unknown
    }
}

// === impl Expiries ===

impl Collector for Expiries {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(expiry) = *self.0.lock() else {
            return Ok(());
        };
        let mut show = |name: &str, help: &str, value: f64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
        };
        let now = SystemTime::now();
        show(
            "root_cert_expiry_timestamp",
            "When the first of the roots expires, in seconds since 1970",
            since(expiry.root, UNIX_EPOCH),
        )?;
        show(
            "root_cert_expiry_seconds",
            "Seconds until the first of the roots expires; negative if it has",
            since(expiry.root, now),
        )?;
        show(
            "cert_chain_expiry_timestamp",
            "When the signing certificate expires, in seconds since 1970",
            since(expiry.chain, UNIX_EPOCH),
        )?;
        show(
            "cert_chain_expiry_seconds",
            "Seconds until the signing certificate expires; negative if it has",
            since(expiry.chain, now),
        )
    }
}

fn since(time: SystemTime, from: SystemTime) -> f64 {
    match time.duration_since(from) {
        Ok(after) => after.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    }
}

#[cfg(test)]
mod tests;

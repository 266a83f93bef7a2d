//! What is told about a connection: its counters, its access-log line, its place in the dump.
//!
//! An [`Account`] follows one connection from the moment its two ends are known. Whatever happens then
//! — it is refused, it ends, its task is dropped — the connection is counted and logged exactly once.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use mesh_core::route::Authority;
use mesh_net::copy::Counters;
use tokio::time::Instant;

use crate::error::Error;

pub mod access_log;
pub mod labels;
pub mod metrics;
#[cfg(test)]
mod tests;

use labels::{Labels, Reporter, ResponseFlag};
use metrics::{Lease, Metrics, Series};

/// What is known of a connection once its two ends are.
#[derive(Clone, Debug)]
pub struct Ends {
    /// Labels of its counters; the log takes most of its fields from them.
    pub labels: Labels,
    /// The client's address.
    pub source: SocketAddr,
    /// The address the connection really goes to, or arrived at: with a tunnel, the tunnel's.
    pub destination: SocketAddr,
    /// What the CONNECT of a tunnel asks for.
    pub hbone_target: Option<Authority>,
    /// The client's pod.
    pub source_name: Option<Arc<str>>,
    /// The destination's pod.
    pub destination_name: Option<Arc<str>>,
}

/// The record of one connection. Dropping it without a result says that the proxy let go of the
/// connection: it counts as closed, with the error "closed from drain".
#[derive(Debug)]
pub struct Account {
    metrics: Metrics,
    series: Arc<Series>,
    counters: Arc<Counters>,
    lease: Option<Lease>,
    ends: EndNames,
    started: Instant,
    recorded: bool,
}

/// What the log says and the labels do not.
#[derive(Debug)]
struct EndNames {
    source: SocketAddr,
    destination: SocketAddr,
    hbone_target: Option<Authority>,
    source_name: Option<Arc<str>>,
    destination_name: Option<Arc<str>>,
}

// === impl Account ===

impl Account {
    /// Begins the record of a connection that was accepted at `started`. It counts as opened from here
    /// on, whether or not it will be let through: opened and closed stay in balance, and the ratio of
    /// failed to opened is what dashboards of Istio's kind show.
    pub fn new(metrics: &Metrics, ends: Ends, started: Instant) -> Self {
        let series = metrics.traffic().series(&ends.labels);
        let counters = Arc::default();
        let account = Self {
            lease: Some(series.open(Arc::clone(&counters))),
            series,
            metrics: metrics.clone(),
            counters,
            ends: EndNames {
                source: ends.source,
                destination: ends.destination,
                hbone_target: ends.hbone_target,
                source_name: ends.source_name,
                destination_name: ends.destination_name,
            },
            started,
            recorded: false,
        };
        access_log::opened(&account.entry());
        account
    }

    /// The connection's byte counters: forward is from client to server. One relaxed addition per
    /// chunk, on memory that no other connection writes to; a scrape adds them up.
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// Says how the connection ended.
    pub fn finish(mut self, result: Result<(), &Error>) {
        self.record(result);
    }

    fn record(&mut self, result: Result<(), &Error>) {
        if std::mem::replace(&mut self.recorded, true) {
            return;
        }
        let flag = result
            .err()
            .map_or(ResponseFlag::None, Error::response_flag);
        let flagged = match flag {
            ResponseFlag::None => self.series.clone(),
            flag => self
                .metrics
                .traffic()
                .series(&self.series.labels().flagged(flag)),
        };
        self.metrics.traffic().keep(&self.series);
        // The bytes are final before the connection counts as closed.
        drop(self.lease.take());
        flagged.closed();
        if flag != ResponseFlag::None {
            flagged.failed();
        }
        let took = self.started.elapsed();
        access_log::complete(&self.entry(), &self.totals(), took, result);
    }

    fn entry(&self) -> access_log::Entry<'_> {
        let (labels, ends) = (self.series.labels(), &self.ends);
        access_log::Entry {
            labels,
            source: ends.source,
            destination: ends.destination,
            hbone_target: ends.hbone_target.as_ref(),
            source_name: ends.source_name.as_deref(),
            destination_name: ends.destination_name.as_deref(),
        }
    }

    /// Bytes as the log tells them: sent is what the proxied workload sent.
    fn totals(&self) -> access_log::Bytes {
        let totals = self.counters.totals();
        let (sent, received) = match self.series.labels().reporter {
            Reporter::Source => (totals.forward, totals.backward),
            Reporter::Destination => (totals.backward, totals.forward),
        };
        access_log::Bytes { sent, received }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.record(Err(&Error::Drained));
    }
}

/// A duration as the access log prints it: whole milliseconds.
fn milliseconds(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

//! The access log: one event of the target `access` for each connection that ends, with the contract's
//! fields in the contract's order.
//!
//! Addresses are recorded as displayed values and names as strings, so that a formatter quotes the
//! names alone.

use std::{fmt, net::SocketAddr, time::Duration};

use mesh_core::{identity::Identity, route::Authority};
use tracing::Level;

use super::{
    labels::{Labels, Reporter, SecurityPolicy},
    milliseconds,
};
use crate::error::{self, Error};

/// What is logged of a connection whose two ends are known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) labels: &'a Labels,
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) hbone_target: Option<&'a Authority>,
    pub(super) source_name: Option<&'a str>,
    pub(super) destination_name: Option<&'a str>,
}

/// What a connection carried, seen from the proxied workload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes {
    pub(super) sent: u64,
    pub(super) received: u64,
}

/// An event of the access log: the fields that all have, then those of the caller.
macro_rules! event {
    ($level:expr, $entry:expr, $message:literal $(, $($field:ident).+ = $value:expr)*) => {{
        let entry: &Entry<'_> = $entry;
        let labels = entry.labels;
        let (source, destination) = (&labels.source, &labels.destination);
        let source_identity = entry.identity(source.principal.as_ref());
        let destination_identity = entry.identity(destination.principal.as_ref());
        tracing::event!(
            target: "access",
            $level,
            src.addr = %entry.source,
            src.workload = entry.source_name.or(source.service.as_deref()),
            src.namespace = source.namespace.as_deref(),
            src.identity = source_identity.as_deref(),
            src.cluster = source.cluster.as_deref(),
            dst.addr = %entry.destination,
            dst.hbone_addr = entry.hbone_target.map(tracing::field::display),
            dst.service = labels.service.as_deref().map(|service| &*service.hostname),
            dst.workload = entry.destination_name.or(destination.service.as_deref()),
            dst.namespace = destination.namespace.as_deref(),
            dst.identity = destination_identity.as_deref(),
            dst.cluster = destination.cluster.as_deref(),
            direction = labels.reporter.direction(),
            $($($field).+ = $value,)*
            $message
        );
    }};
}

/// Says that a connection began. Whether it stands, its end tells.
pub(super) fn opened(entry: &Entry<'_>) {
    if tracing::enabled!(target: "access", Level::DEBUG) {
        event!(Level::DEBUG, entry, "connection opened");
    }
}

/// Says that a connection ended, or that it never came about.
pub(super) fn complete(
    entry: &Entry<'_>,
    bytes: &Bytes,
    took: Duration,
    result: Result<(), &Error>,
) {
    match result {
        Ok(()) if tracing::enabled!(target: "access", Level::INFO) => event!(
            Level::INFO,
            entry,
            "connection complete",
            bytes_sent = bytes.sent,
            bytes_recv = bytes.received,
            duration = milliseconds(took).as_str()
        ),
        Err(error) if tracing::enabled!(target: "access", Level::ERROR) => event!(
            Level::ERROR,
            entry,
            "connection complete",
            bytes_sent = bytes.sent,
            bytes_recv = bytes.received,
            duration = milliseconds(took).as_str(),
            error = error::chain(error).to_string().as_str()
        ),
        _ => {}
    }
}

/// Says that a connection was refused before its two ends were known.
pub fn refused(
    source: SocketAddr,
    destination: impl fmt::Display,
    reporter: Reporter,
    error: &Error,
) {
    tracing::event!(
        target: "access",
        Level::WARN,
        src.addr = %source,
        dst.addr = %destination,
        direction = reporter.direction(),
        error = error::chain(error).to_string().as_str(),
        "connection failed"
    );
}

// === impl Entry ===

impl Entry<'_> {
    /// An identity is told only if TLS has proved it.
    fn identity(&self, principal: Option<&Identity>) -> Option<String> {
        principal
            .filter(|_| self.labels.security == SecurityPolicy::MutualTls)
            .map(Identity::to_string)
    }
}

//! The HBONE engine: outbound, inbound, passthrough, pool, connection tracking.
//!
//! What goes in are TCP connections captured in a pod's network namespace; what comes out are HBONE
//! tunnels to other nodes, plain connections where the mesh does not reach, one access-log line and the
//! traffic counters for each. The engine sees the world through two small traits, [`discover::Discover`]
//! and [`discover::Certs`], and through the socket factory of the pod: it knows neither the control
//! plane nor Kubernetes.

mod accept;
mod admission;
pub mod baggage;
pub mod config;
pub mod connections;
pub mod discover;
pub mod error;
pub mod forwarded;
pub mod hbone;
mod inbound;
mod outbound;
mod passthrough;
mod pod;
pub mod proxy;
pub mod proxy_protocol;
pub mod telemetry;
pub mod traceparent;

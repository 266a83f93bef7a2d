//! The operator: custom resources in, every object of the mesh out.
//!
//! ```text
//! API server ── watches ──▶ world ── view ──▶ reconcilers ── outcome ──▶ engine ──▶ API server
//! ```
//!
//! The reconcilers are pure: what is known and one custom resource in, what should be out. The engine
//! carries that out and does everything else alike for all kinds: order, pruning, finalizers, statuses,
//! events, retries, and who is woken by what.

pub mod args;
pub mod config;
pub mod images;
pub mod key;
pub mod lifecycle;
pub mod names;
pub mod outcome;
pub mod platform;
pub mod program;
pub mod readiness;
pub mod reconcile;
pub mod render;
pub mod rights;
pub mod secure;
pub mod usage;
pub mod version;
pub mod world;

mod component_pod;
mod engine;
mod feed;
mod metrics;
mod store;
mod watches;

pub use self::engine::Patience;

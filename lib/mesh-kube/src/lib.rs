//! Kubernetes mechanics: client, watch to index, server-side apply, leases, conditions, events.
//!
//! What every program of the mesh needs of an API server and none wants to write again. Nothing here
//! knows what a mesh is, and nothing here starts a task: the functions return futures, and the program
//! decides where they run and when they end.

pub mod apply;
pub mod client;
pub mod condition;
pub mod error;
pub mod events;
pub mod finalizer;
pub mod lease;
pub mod owned;
pub mod quantity;
pub mod queue;
pub mod reasons;
pub mod watch;

mod backoff;

pub use self::backoff::Backoff;

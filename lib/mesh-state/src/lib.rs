//! Data-plane store: workloads, services, policies; lookups; immutable snapshots.
//!
//! The program feeds [`store::Store::apply`] with what discovery says, in any order, and every reader
//! asks a [`snapshot::Snapshot`]: where does this connection go, where is this tunnel delivered, may
//! it be made. A snapshot never changes and never waits for a writer. It shares all that did not
//! change with the one before, so that publishing one costs as much as the change, not as the mesh;
//! docs/design/0003-state-snapshots.md says how and why.

mod backends;
pub mod dump;
#[cfg(test)]
mod fixtures;
mod inbound;
mod persistent;
mod policies;
mod route;
mod services;
pub mod snapshot;
pub mod store;
mod workloads;

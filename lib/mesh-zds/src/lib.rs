//! The CNI agent to ztunnel protocol (ZDS), both ends: codec, snapshot and acknowledgement machines,
//! descriptor passing.
//!
//! The proxy connects to the agent's socket and says hello. The agent names the pods that the proxy is
//! to serve, each with its network namespace as a file descriptor, says when all have been named, and
//! from then on tells what changes. Every request is answered by one acknowledgement before the next is
//! sent.
//!
//! What to do is decided by machines without I/O ([`proxy::Machine`] and the agent's sessions); the
//! loops around them only carry messages. Nothing here spawns: [`proxy::Client::run`] and
//! [`agent::Server::run`] are futures.

pub mod agent;
pub mod codec;
pub mod fuzz;
pub mod proxy;

mod backoff;
mod error;

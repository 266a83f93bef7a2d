//! Ambient control plane: workload discovery, L4 policy, certificate authority.
//!
//! ```text
//! API server ── watches ──▶ index ── changes ──▶ discovery ──▶ ztunnels
//!                 │           └── statuses ──▶ writer (leader) ──▶ API server
//!                 └──▶ placement ── who runs where ──▶ authority ──▶ certificates
//! ```
//!
//! [`program`] builds and runs the parts. The indexes are pure and lie in `mesh-index`, discovery in
//! `mesh-xds`, signing in `mesh-identity`, and what talks to the API server in `mesh-kube`.

pub mod args;
pub mod authn;
pub mod ca;
pub mod config;
pub mod mesh;
pub mod program;
pub mod version;

mod authority;
mod debug;
mod dump;
#[cfg(test)]
mod fake;
mod metrics;
mod publish;
mod serving;
mod status;
mod stored;
mod streams;
mod watches;
mod world;

//! A small ambient mesh on one Linux host: the demo and the end-to-end tests.
//!
//! Nodes and pods are network namespaces, applications and proxies real processes in them. What the
//! cluster would do, [`mesh::Mesh`] does: it publishes workloads and policies, signs certificates, and
//! enrols pods. Errors here are read by people, never matched on, hence `anyhow`.

mod agent;
pub mod cli;
mod control_plane;
pub mod demo;
pub mod mesh;
pub mod node;
pub mod report;

//! A small ambient mesh on one Linux host: the demo and the end-to-end tests.
//!
//! Nodes and pods are network namespaces; applications, proxies and istiod are real processes in them. What
//! else a cluster has, [`mesh::Mesh`] has in this process: an API server, whoever writes nodes and pods to
//! it, and an agent that enrols pods. Errors here are read by people, never matched on, hence `anyhow`.

mod agent;
pub mod cli;
pub mod control_plane;
pub mod demo;
pub mod mesh;
pub mod node;
pub mod program;
pub mod report;

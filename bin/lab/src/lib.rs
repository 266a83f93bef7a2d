//! A small ambient mesh on one Linux host: the demo and the end-to-end tests.
//!
//! Nodes and pods are network namespaces; applications, proxies, CNI agents and istiod are real processes in
//! them, and the CNI plugin is called for every pod. What else a cluster has, [`mesh::Mesh`] has in this
//! process: an API server, whoever writes nodes and pods to it, and what calls the plugins. Errors here are read by people, never matched on, hence `anyhow`.

pub mod agent;
pub mod cli;
pub mod control_plane;
pub mod demo;
mod kubelet;
pub mod mesh;
pub mod node;
pub mod program;
pub mod report;
pub mod traces;

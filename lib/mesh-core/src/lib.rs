//! Domain values and pure decisions of the mesh.
//!
//! What goes in is what the control plane said (workloads, services, policies) and what a connection
//! looks like; what comes out is a decision: which endpoint, which route, allow or deny. No async, no
//! I/O, no Kubernetes and no protobuf: every rule here can be tested as a function.

pub mod address;
pub mod balance;
pub mod change;
pub mod identity;
pub mod policy;
pub mod rbac;
pub mod route;
pub mod service;
pub mod workload;

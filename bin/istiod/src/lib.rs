//! Ambient control plane: workload discovery, L4 policy, certificate authority.

pub mod authn;
pub mod ca;

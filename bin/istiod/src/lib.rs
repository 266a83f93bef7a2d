//! Ambient control plane: workload discovery, L4 policy, certificate authority.

//! Data-plane store: workloads, services, policies; lookups; immutable snapshots.

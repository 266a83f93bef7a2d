//! Kubernetes mechanics: client, watch to index, server-side apply, leases, conditions, events.

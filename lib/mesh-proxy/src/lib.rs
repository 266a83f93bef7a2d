//! The HBONE engine: outbound, inbound, passthrough, pool, connection tracking.

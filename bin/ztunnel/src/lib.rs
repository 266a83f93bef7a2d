//! Node proxy: HBONE, mutual TLS, L4 authorization, telemetry.

//! Node proxy: HBONE, mutual TLS, L4 authorization, telemetry.

pub mod args;
pub mod config;

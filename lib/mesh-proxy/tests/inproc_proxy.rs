//! The proxy of one pod against the proxy of another, over loopback and with real TLS. Discovery and
//! the redirection are played by the test: each pod is an address of 127.0.0.0/8, and clients say
//! where they wanted to go.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a step that fails is a test that fails"
)]

#[path = "inproc_proxy/harness.rs"]
mod harness;

#[path = "inproc_proxy/drain.rs"]
mod drain;
#[path = "inproc_proxy/outbound.rs"]
mod outbound;
#[path = "inproc_proxy/passthrough.rs"]
mod passthrough;
#[path = "inproc_proxy/policy.rs"]
mod policy;
#[path = "inproc_proxy/strangers.rs"]
mod strangers;
#[path = "inproc_proxy/tunnel.rs"]
mod tunnel;

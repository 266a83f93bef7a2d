//! The whole control plane, with its own rights, between an embedded API server and scripted proxies.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a failed expectation of a test is a panic"
)]

mod mesh {
    mod callers;
    mod cluster;
    mod configuration;
    mod deployment;
    mod discovery;
    mod objects;
    mod outages;
    mod policy;
    mod proxy;
    mod replicas;
}

//! Istiod's parts against the embedded API server.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a failed expectation of a test is a panic"
)]

mod api {
    mod callers;
    mod fixture;
    mod namespaces;
    mod root;
}

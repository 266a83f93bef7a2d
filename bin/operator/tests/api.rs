//! The operator against an embedded API server.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a failed expectation of a test is a panic"
)]

mod api {
    mod cluster;
    mod drift;
    mod kill;
    mod kubectl;
    mod leaders;
    mod metrics;
    mod outages;
    mod owners;
    mod platform;
    mod rollouts;
    mod size;
    mod toys;
    mod upgrades;
    mod walkthrough;
}

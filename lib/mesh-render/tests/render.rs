//! All that is rendered, held to golden files and to the schemas of the API server.

#![expect(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    reason = "a failed expectation of a test is a panic"
)]

#[path = "render/cases.rs"]
mod cases;
#[path = "render/golden.rs"]
mod golden;
#[path = "render/istiod.rs"]
mod istiod;

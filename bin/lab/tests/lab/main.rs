//! The mesh from end to end: real proxies, real network namespaces, real programs. Each test has a lab of
//! its own; what it needs of the machine is bounded in [`fixture`].
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod authority;
mod balancing;
mod cni;
mod control_plane;
mod demo;
mod fixture;
mod outages;
mod reach;
mod streams;
mod surfaces;

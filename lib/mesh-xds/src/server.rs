//! The server: publishes resources to any number of clients, each of which costs what changed.
//!
//! [`Resources`] holds what is true, [`Machine`] decides what one client is told of it and when, and
//! [`Service`] connects both to gRPC.

mod catalog;
mod machine;
mod resources;
mod service;

pub use catalog::Catalog;
pub use machine::{Error, Machine, Refusal};
pub use resources::Resources;
pub use service::{Authenticate, Service};

//! The server: publishes resources to any number of clients, each of which costs what changed.
//!
//! [`Resources`] holds what is true, [`Machine`] decides what one client is told of it and when, and
//! [`Service`] connects both to gRPC. [`Authenticate`] says who a [`Client`] is and what it may read;
//! [`Streams`] shows and ends what is connected.
//!
//! # Cost
//!
//! With *c* resources changed since a stream was last told, a push to it costs O(*c*), plus O(log *n*)
//! to find them among *n*. A stream that takes everything keeps nothing per resource. A stream that
//! asks for names keeps those names and the names of what they brought; a change costs it
//! O(aliases + groups) of what changed, and O(members) when an address begins to stand for another
//! service. Contents are encoded once and shared by all streams.

mod catalog;
mod client;
mod limits;
mod machine;
mod metrics;
mod pace;
mod resource;
mod resources;
mod service;
mod session;
mod streams;
mod turns;

pub use catalog::Catalog;
pub use client::{Client, Contradiction, Readable};
pub use limits::Limits;
pub use machine::{Error, Heard, Machine, Refusal};
pub use metrics::Metrics;
pub use resource::{Group, Precedence, Resource, Update};
pub use resources::Resources;
pub use service::{Authenticate, Service};
pub use streams::{Connection, Mode, Moment, Streams, TypeStatus};

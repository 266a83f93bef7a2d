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
//! service.
//!
//! Contents are encoded once and shared by all streams. A [`Response`] is a list of handles, and its bytes
//! are made in pieces when the transport asks for them: a stream that is sent the whole mesh costs eight
//! bytes for each resource until it has been sent, and what the transport has in its window. Neither
//! responses nor requests leave anything with the stream.

mod catalog;
mod client;
mod encode;
mod held;
mod limits;
mod machine;
mod metrics;
mod pace;
mod requests;
mod resource;
mod resources;
mod response;
mod service;
mod session;
mod streams;
mod turns;

pub use catalog::Catalog;
pub use client::{Client, Contradiction, Readable};
pub use encode::Chunks;
pub use limits::Limits;
pub use machine::{Error, Heard, Machine, Refusal};
pub use metrics::Metrics;
pub use resource::{Group, Precedence, Resource, Update};
pub use resources::Resources;
pub use response::{Response, TooLarge};
pub use service::{Authenticate, Server, Service};
pub use streams::{Connection, Mode, Moment, Streams, TypeStatus};

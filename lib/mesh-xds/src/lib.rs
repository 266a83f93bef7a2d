//! Delta xDS as a pure state machine, client and server, with thin gRPC drivers; protobuf to core conversion.
//!
//! - [`convert`] turns messages of the wire into the values of `mesh-core` and back. What cannot be
//!   understood is an error that names the field: nothing is dropped or narrowed silently.
//! - [`client`] keeps one stream to the control plane and turns what arrives into [`Change`]s.
//! - [`server`] publishes changes to any number of such clients, each of which costs what changed.
//! - [`metrics`] counts what the client sees.
//!
//! The machines know nothing of sockets and time; the drivers know nothing of versions and nonces.
//! Nothing here spawns a task: drivers are futures and streams that the program runs.

pub use mesh_core::change::Change;

pub mod client;
pub mod convert;
pub mod fuzz;
pub mod metrics;
pub mod server;

//! The CNI node agent: puts the node's pods in the mesh, keeps them there, and installs the plugin.
//!
//! What is enrolled is read from the kernel and compared with what should be, again and again; nothing
//! else is memory. The parts know each other by the traits of [`parts`].

pub mod agent;
pub mod args;
pub mod config;
pub mod debug;
pub mod degraded;
pub mod ending;
pub mod enrolment_file;
pub mod installer;
pub mod kernel;
pub mod metrics;
pub mod parts;
pub mod platform;
pub mod program;
pub mod readiness;
pub mod server;
pub mod uninstall;
pub mod version;

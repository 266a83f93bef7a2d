//! The Container Network Interface as data: calls, configuration lists, results, and what our plugin and
//! its agent say to each other.
//!
//! No async and no client: the plugin is started by the container runtime for every pod of a node, and is
//! made of little more than this crate and the standard library.

pub mod config;
pub mod conflist;
pub mod enrolment;
pub mod fuzz;
pub mod protocol;
pub mod spec;

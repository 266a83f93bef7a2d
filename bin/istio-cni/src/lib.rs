//! The CNI plugin: asks the node's agent to put a pod in the mesh before the pod starts.
//!
//! The container runtime starts it for every sandbox of the node, as the last of a list of plugins. It decides
//! nothing while the agent can be reached, and has no credentials: it tells the agent what it was told, waits
//! for the answer, and passes on what the plugins before it did. A pod that belongs in the mesh, or may, is
//! never let through outside of it.
//!
//! ```text
//!                    ┌ not a pod, the agent's own, an excluded namespace ─► pass
//! ADD ─► what is it ─┤
//!                    └ a pod ─► agent ─┬ in the mesh, or does not belong there ─► pass
//!                                      ├ cannot do it ─► error
//!                                      └ away ─► enrolment.json ─┬ does not belong there ─► pass
//!                                                                └ else ─► error: try again
//! ```
//!
//! The outcome is always one JSON document on standard output, also after a panic or at the deadline.

pub mod agent;
pub mod log;
pub mod plugin;
pub mod supervise;

pub use plugin::{Answer, Plugin};
pub use supervise::{Patience, supervise};

//! What the plugin talks to: two Unix sockets in the agent's run directory, which only root may use.
//!
//! ```text
//! plugin ── pluginevent.sock ──▶ [`plugin`] ──▶ Attach
//!        ── log.sock ──────────▶ [`lines`] ───▶ our log
//! ```
//!
//! HTTP/1.1 by the server of the program's other ports: one connection carries one request, and everything
//! that a peer may send or hold is bounded in size, number and time.

use std::{sync::Arc, time::Duration};

use mesh_cni::protocol::MAX_BODY;
use mesh_runtime::{
    http::{self, Limits, Router},
    life::Tasks,
};

use crate::metrics::Metrics;

mod check;
pub mod fuzz;
pub mod lines;
pub mod plugin;
pub mod socket;

pub use self::socket::{Error, Socket};

/// What one peer, and all of them together, may use. A runtime starts many pods at once after a node's
/// restart; each waits for its answer in a connection of its own, at most for as long as the plugin waits.
pub const LIMITS: Limits = Limits {
    head_time: Duration::from_secs(5),
    head_size: 8 * 1024,
    body_time: Duration::from_secs(5),
    body_size: MAX_BODY,
    total_time: Duration::from_secs(40),
    connections: 256,
};

/// Serves `router` to root until the program stops; requests under way end with the program. The socket goes
/// then, unless another agent has taken its place.
pub fn serve(
    name: &'static str,
    socket: Socket,
    router: Router,
    limits: Limits,
    (tasks, metrics): (&Tasks, Metrics),
) {
    let root = socket::RootOnly::new(metrics);
    let (connections, drain) = (tasks.background.clone(), tasks.drain.clone());
    let serving = http::serve_over((socket, root), Arc::new(router), limits, connections, drain);
    drop(tasks.background.spawn(name, serving));
}

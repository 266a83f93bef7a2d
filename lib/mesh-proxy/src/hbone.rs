//! HBONE: TCP connections tunnelled by HTTP/2 CONNECT over mutual TLS.
//!
//! ```text
//!   outbound:  pool::Pool::open ── client::handshake ──▶ CONNECT ─▶ 200 ─▶ Stream
//!   inbound:   server::serve ──▶ Request ── Responder::accept ───────────▶ Stream
//! ```
//!
//! A [`stream::Stream`] is an established tunnel, ready for [`mesh_net::copy`]. This module knows
//! neither routing nor policy, and it sees TLS only as a connection to read from and write to: what
//! comes in is authenticated by whoever made that connection.

pub mod authority;
pub mod client;
mod keepalive;
mod payload;
pub mod pool;
pub mod server;
pub mod settings;
pub mod stream;

#[cfg(test)]
mod testing;

//! Node proxy: HBONE, mutual TLS, L4 authorization, telemetry.
//!
//! The program joins the crates: [`args`] says how to run, discovery feeds the state, the CNI agent
//! names the pods, and each pod gets a proxy of the engine. `ARCHITECTURE.md` shows the threads.

pub mod args;
mod certificates;
pub mod config;
mod discovery;
mod dump;
mod pods;
pub mod program;
mod servers;
mod settings;
pub mod version;

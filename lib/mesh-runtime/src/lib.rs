//! Process scaffold: everything a program of the mesh needs besides its own work.
//!
//! What goes in is a program's futures, its metrics registry and the values it wants to show; what
//! comes out is a process that logs without ever holding up the data path, answers its admin,
//! metrics and readiness ports, and stops in good order: [`shutdown`] hears the signal, [`drain`]
//! tells everybody, [`task`] waits for them, and [`life`] is the three together. [`process`] is what
//! stands around it in every main function.
//!
//! This crate knows nothing of meshes, proxies or Kubernetes. It spawns a task only on a
//! [`task::Tracker`] of the program, at the program's request.

pub mod admin;
pub mod drain;
pub mod environment;
pub mod error;
pub mod essential;
pub mod http;
pub mod life;
pub mod listen;
pub mod log;
pub mod process;
pub mod readiness;
pub mod shutdown;
pub mod stats;
pub mod task;

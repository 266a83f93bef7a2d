//! Real networks on one machine, for tests and the lab.
//!
//! A [`Namespace`] is a network of its own; a [`Topology`] connects several of them the way a
//! Kubernetes cluster does. Programs run in them as [`Process`]es, [`tcp`] and [`udp`] have peers to
//! talk to, and a [`Capture`] shows what was on the wire. A [`cni::Runtime`] calls CNI plugins as container
//! runtimes do. Everything is removed when the value that
//! stands for it is dropped, also when a test panics; what a killed process left behind is found by
//! [`leftover::list`].
//!
//! Root is needed (or a user namespace in which the caller is root), and the programs `ip` and, for
//! captures, `tcpdump`. Their absence is an error that says so, never a silent pass.

pub mod capture;
pub mod cni;
pub mod filters;
pub mod leftover;
pub mod namespace;
pub mod process;
pub mod tcp;
pub mod topology;
pub mod udp;
pub mod wait;

pub use capture::Capture;
/// The packet filter of a [`Namespace`], as the kernel tells it.
pub use mesh_net::nfnetlink;
pub use namespace::Namespace;
pub use process::Process;
pub use topology::Topology;
pub use wait::eventually;

//! The real kubectl as the server's user, whichever is in the PATH: what people type and what they see.
//!
//! With `LATEEN_CONFORMANCE_KUBECONFIG` the same commands go to that server, apart from those that need
//! somebody to run pods.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

#[path = "kubectl/harness.rs"]
mod harness;

#[path = "kubectl/access.rs"]
mod access;
#[path = "kubectl/apply.rs"]
mod apply;
#[path = "kubectl/change.rs"]
mod change;
#[path = "kubectl/create.rs"]
mod create;
#[path = "kubectl/custom.rs"]
mod custom;
#[path = "kubectl/explain.rs"]
mod explain;
#[path = "kubectl/get.rs"]
mod get;
#[path = "kubectl/pods.rs"]
mod pods;

//! How an API server behaves. The suite runs against the embedded server, and against a real one when
//! `LATEEN_CONFORMANCE_KUBECONFIG` names a kubeconfig of its administrator; where the two differ, the real
//! one is right. Each case has a namespace of its own, which goes away with it.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a step that fails is a test that fails"
)]

#[path = "conformance/harness.rs"]
mod harness;

#[path = "conformance/access.rs"]
mod access;
#[path = "conformance/apply.rs"]
mod apply;
#[path = "conformance/custom.rs"]
mod custom;
#[path = "conformance/discovery.rs"]
mod discovery;
#[path = "conformance/lifecycle.rs"]
mod lifecycle;
#[path = "conformance/list.rs"]
mod list;
#[path = "conformance/object.rs"]
mod object;
#[path = "conformance/patch.rs"]
mod patch;
#[path = "conformance/token.rs"]
mod token;
#[path = "conformance/validation.rs"]
mod validation;
#[path = "conformance/watch.rs"]
mod watch;

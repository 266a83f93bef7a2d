//! The plugin against an agent that says what a test wants, in this process and as the process that a container
//! runtime starts.
#![expect(
    clippy::unwrap_used,
    reason = "what a test needs is there or the test fails"
)]

#[path = "plugin/add.rs"]
mod add;
#[path = "plugin/chain.rs"]
mod chain;
#[path = "plugin/commands.rs"]
mod commands;
#[path = "plugin/fake.rs"]
mod fake;
#[path = "plugin/istio.rs"]
mod istio;
#[path = "plugin/portable.rs"]
mod portable;
#[path = "plugin/process.rs"]
mod process;

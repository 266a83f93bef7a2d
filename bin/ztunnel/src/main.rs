//! Runs the node proxy.
fn main() {}

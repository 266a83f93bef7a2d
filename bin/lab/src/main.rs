//! Runs the lab.
fn main() {}

//! The CNI node agent.

fn main() {}

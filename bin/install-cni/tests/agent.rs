//! The agent's parts with the kernel, sockets, files and API server that they work with.

#[cfg(test)]
#[path = "agent/sockets.rs"]
mod sockets;

#[cfg(test)]
#[path = "agent/kernel.rs"]
mod kernel;

#[cfg(test)]
#[path = "agent/chain.rs"]
mod chain;

#[cfg(test)]
#[path = "agent/chain_node.rs"]
mod chain_node;

//! The agent's parts with the kernel, sockets, files and API server that they work with.

#[cfg(test)]
#[path = "agent/calls.rs"]
mod calls;

#[cfg(test)]
#[path = "agent/chain.rs"]
mod chain;

#[cfg(test)]
#[path = "agent/chain_node.rs"]
mod chain_node;

#[cfg(test)]
#[path = "agent/containerd.rs"]
mod containerd;

#[cfg(test)]
#[path = "agent/containerd_runtime.rs"]
mod containerd_runtime;

#[cfg(test)]
#[path = "agent/crashes.rs"]
mod crashes;

#[cfg(test)]
#[path = "agent/enrolment.rs"]
mod enrolment;

#[cfg(test)]
#[path = "agent/fake_kernel.rs"]
mod fake_kernel;

#[cfg(test)]
#[path = "agent/fake_ztunnel.rs"]
mod fake_ztunnel;

#[cfg(test)]
#[path = "agent/kernel.rs"]
mod kernel;

#[cfg(test)]
#[path = "agent/load.rs"]
mod load;

#[cfg(test)]
#[path = "agent/node.rs"]
mod node;

#[cfg(test)]
#[path = "agent/pod_net.rs"]
mod pod_net;

#[cfg(test)]
#[path = "agent/recovery.rs"]
mod recovery;

#[cfg(test)]
#[path = "agent/program.rs"]
mod program;

#[cfg(test)]
#[path = "agent/sockets.rs"]
mod sockets;

#[cfg(test)]
#[path = "agent/whole.rs"]
mod whole;

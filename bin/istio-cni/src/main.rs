//! The CNI plugin: asks the node's agent to put a pod in the mesh before the pod starts.

fn main() {}

//! An embedded Kubernetes API server for tests and the lab: in memory, over HTTPS, for kube-rs and kubectl.

//! Network namespaces, veth topologies, echo peers and captures for tests and the lab.

//! What is computed as one: the smallest parts of what the index says.

use std::sync::Arc;

use crate::object::{Key, Kind};

/// A part of what the index says that is computed as one. The order is that in which they are said:
/// what others refer to comes first.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Unit {
    /// A policy for proxies.
    Policy(Key),
    /// The service of a host name in a namespace; the name of the key is the host name.
    Host(Key),
    /// The workload of a pod.
    Pod(Key),
    /// The workload of a WorkloadEntry.
    WorkloadEntry(Key),
    /// The workloads of a ServiceEntry: its inline endpoints or its names.
    Entry(Key),
    /// The workloads of an EndpointSlice.
    Slice(Key),
    /// The conditions of an object.
    Status(Kind, Key),
    /// The addresses of a ServiceEntry.
    Addresses(Key),
}

impl Unit {
    /// The service of a host name in a namespace.
    pub(crate) fn host(namespace: &Arc<str>, host: &Arc<str>) -> Self {
        Self::Host(Key {
            namespace: namespace.clone(),
            name: host.clone(),
        })
    }
}

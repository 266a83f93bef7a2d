//! What discovery says, one thing at a time.

use std::sync::Arc;

use crate::{policy::Authorization, service::Service, workload::Workload};

/// One change to what discovery says about the mesh. The control plane's indexes make them, discovery
/// carries them, and a proxy's store takes them in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A workload is new or has changed.
    Workload(Workload),
    /// A service is new or has changed. Its endpoints are told by the workloads.
    Service(Service),
    /// A policy is new or has changed.
    Policy(Authorization),
    /// A workload or service is gone. Holds its name: a workload's uid, or `namespace/hostname`.
    RemoveAddress(Arc<str>),
    /// A policy is gone. Holds its name: `namespace/name`.
    RemovePolicy(Arc<str>),
}

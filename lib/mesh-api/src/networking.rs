//! What the mesh knows beside Kubernetes' own objects: ServiceEntry and WorkloadEntry of
//! `networking.istio.io`.

mod service_entry;
mod workload_entry;

pub use service_entry::{ServiceEntry, ServiceEntrySpec, ServicePort, WorkloadSelector};
pub use workload_entry::{WorkloadEntry, WorkloadEntrySpec};

//! Generated protobuf and gRPC: delta xDS, workload, authorization, CA, ZDS. No logic.
//!
//! The `.proto` files hold the parts of the public APIs that the mesh uses, with their field numbers;
//! what is left out is skipped by decoders. Messages keep the names of the wire.

use bytes::Bytes;

/// Names of the resource types that discovery carries.
pub mod type_url {
    /// Workloads and services: an encoded [`crate::workload::Address`].
    pub const ADDRESS: &str = "type.googleapis.com/istio.workload.Address";
    /// L4 policies: an encoded [`crate::security::Authorization`].
    pub const AUTHORIZATION: &str = "type.googleapis.com/istio.security.Authorization";
}

/// `google.protobuf.Any` whose value is shared instead of copied.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Any {
    /// Which message `value` encodes, such as [`type_url::ADDRESS`].
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The encoded message.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

/// Workloads and services (`istio.workload`).
pub mod workload {
    pub use crate::generated::istio::workload::*;
}

/// L4 authorization policies (`istio.security`).
pub mod security {
    pub use crate::generated::istio::security::*;
}

/// CNI agent to ztunnel (`istio.workload.zds`).
pub mod zds {
    pub use crate::generated::istio::workload::zds::*;
}

/// The certificate authority (`istio.v1.auth`), client and server.
pub mod ca {
    pub use crate::generated::istio::v1::auth::*;
}

/// Delta discovery (`envoy.service.discovery.v3`, with `Node` and `Status`), client and server.
pub mod discovery {
    pub use crate::{
        Any,
        generated::{
            envoy::{
                config::core::v3::{ControlPlane, Locality, Node},
                service::discovery::v3::*,
            },
            google::rpc::Status,
        },
    };
}

#[expect(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::derive_partial_eq_without_eq,
    clippy::large_enum_variant,
    reason = "generated code"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/mesh.rs"));
}

#[cfg(test)]
mod tests;

//! A request as it is on the wire, without a map of what the client holds: it would be hundreds of thousands
//! of small pieces of memory, for something that is looked at once.

use std::str;

use bytes::Bytes;
use mesh_proto::discovery::{DeltaDiscoveryRequest, Node, Status};
use prost::{DecodeError, Message as _};

use super::super::{catalog::Version, held::Held};

/// A request, and what it says of what the client holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::server) struct Said {
    /// Its map of versions is empty.
    pub(in crate::server) request: DeltaDiscoveryRequest,
    pub(in crate::server) held: Held,
}

/// `DeltaDiscoveryRequest` with the entries of its map left encoded; they share the memory of the request.
#[derive(Clone, PartialEq, prost::Message)]
struct Encoded {
    #[prost(message, optional, tag = "1")]
    node: Option<Node>,
    #[prost(string, tag = "2")]
    type_url: String,
    #[prost(string, repeated, tag = "3")]
    subscribe: Vec<String>,
    #[prost(string, repeated, tag = "4")]
    unsubscribe: Vec<String>,
    #[prost(bytes = "bytes", repeated, tag = "5")]
    held: Vec<Bytes>,
    #[prost(string, tag = "6")]
    nonce: String,
    #[prost(message, optional, tag = "7")]
    error: Option<Status>,
}

/// One entry of the map.
#[derive(Clone, PartialEq, prost::Message)]
struct Entry {
    #[prost(bytes = "bytes", tag = "1")]
    name: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    version: Bytes,
}

/// Why a request is not understood. The client is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    /// It is not a message, or not this one.
    #[error("a request cannot be decoded: {0}")]
    Message(#[from] DecodeError),
    /// A name or a version in the map is not a text.
    #[error("a request cannot be decoded: initial_resource_versions: {0}")]
    Text(#[from] str::Utf8Error),
}

// === impl Said ===

impl Said {
    pub(super) fn decode(message: Bytes) -> Result<Self, Error> {
        let encoded = Encoded::decode(message)?;
        let mut held = Held::default();
        for entry in encoded.held {
            let Entry { name, version } = Entry::decode(entry)?;
            held.push(
                str::from_utf8(&name)?,
                Version::parse(str::from_utf8(&version)?),
            );
        }
        let request = DeltaDiscoveryRequest {
            node: encoded.node,
            type_url: encoded.type_url,
            resource_names_subscribe: encoded.subscribe,
            resource_names_unsubscribe: encoded.unsubscribe,
            response_nonce: encoded.nonce,
            error_detail: encoded.error,
            ..DeltaDiscoveryRequest::default()
        };
        Ok(Self { request, held })
    }
}

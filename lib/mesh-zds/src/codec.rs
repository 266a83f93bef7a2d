//! Messages as bytes: one datagram is one protobuf message without framing.

use std::sync::Arc;

use mesh_core::workload::PodInfo;
use mesh_proto::zds::{
    self, AddWorkload, DelWorkload, KeepWorkload, WorkloadInfo, WorkloadRequest, WorkloadResponse,
    ZdsHello, workload_request, workload_response,
};
use prost::Message as _;

/// The longest message either side accepts, in bytes. Contract: Istio's ends have buffers of this size.
pub const MAX_MESSAGE: usize = 1024;

/// The longest error text in an acknowledgement, in bytes; leaves room for what surrounds it.
const MAX_ERROR: usize = MAX_MESSAGE - 16;

/// What an agent asks of a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Serve this pod; its network namespace comes with the message.
    Add {
        /// The pod's Kubernetes UID.
        uid: Arc<str>,
        /// Who the pod is.
        pod: PodInfo,
    },
    /// Go on serving this pod, whose network namespace the agent does not know.
    Keep {
        /// The pod's Kubernetes UID.
        uid: Arc<str>,
    },
    /// Stop serving this pod.
    Delete {
        /// The pod's Kubernetes UID.
        uid: Arc<str>,
    },
    /// All pods have been named; those that were not are gone.
    SnapshotSent,
}

/// A proxy's answer to a request: done, or why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack(pub Result<(), String>);

/// Why bytes are no message, or a message cannot become bytes. The other end is at fault in the first
/// case (or speaks a newer version), the caller in the second; retrying does not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes are not protobuf.
    #[error("a {message} cannot be decoded")]
    Malformed {
        /// Which message was expected.
        message: &'static str,
        /// What is wrong with it.
        source: prost::DecodeError,
    },
    /// The message holds nothing that this version knows.
    #[error("a {message} holds no payload that is known here")]
    Unknown {
        /// Which message.
        message: &'static str,
    },
    /// A field that is needed is empty.
    #[error("{message} lacks {field}")]
    Missing {
        /// Which message.
        message: &'static str,
        /// Which field.
        field: &'static str,
    },
    /// The proxy speaks another version of the protocol than 1.
    #[error("ZdsHello names version {0}, and only 1 is known here")]
    Version(i32),
    /// The message would not fit into the receiver's buffer.
    #[error("a message of {0} bytes is longer than the {MAX_MESSAGE} allowed")]
    TooLong(usize),
}

/// The proxy's first message.
pub fn encode_hello() -> Vec<u8> {
    let version = zds::Version::V1.into();
    ZdsHello { version }.encode_to_vec()
}

/// Checks the proxy's first message.
pub fn decode_hello(bytes: &[u8]) -> Result<(), Error> {
    let message = "ZdsHello";
    let hello = ZdsHello::decode(bytes).map_err(|source| Error::Malformed { message, source })?;
    if hello.version == i32::from(zds::Version::V1) {
        Ok(())
    } else {
        Err(Error::Version(hello.version))
    }
}

// === impl Request ===

impl Request {
    /// As bytes, no more than [`MAX_MESSAGE`].
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        use workload_request::Payload;
        let payload = match self {
            Self::Add { uid, pod } => Payload::Add(AddWorkload {
                uid: uid.to_string(),
                workload_info: Some(WorkloadInfo {
                    name: pod.name.to_string(),
                    namespace: pod.namespace.to_string(),
                    service_account: pod.service_account.to_string(),
                }),
            }),
            Self::Keep { uid } => Payload::Keep(KeepWorkload {
                uid: uid.to_string(),
            }),
            Self::Delete { uid } => Payload::Del(DelWorkload {
                uid: uid.to_string(),
            }),
            Self::SnapshotSent => Payload::SnapshotSent(zds::SnapshotSent {}),
        };
        let bytes = WorkloadRequest {
            payload: Some(payload),
        }
        .encode_to_vec();
        match bytes.len() {
            length if length > MAX_MESSAGE => Err(Error::TooLong(length)),
            _ => Ok(bytes),
        }
    }

    /// From bytes. A pod without a service account has Kubernetes' `default`.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        use workload_request::Payload;
        let message = "WorkloadRequest";
        let request = WorkloadRequest::decode(bytes)
            .map_err(|source| Error::Malformed { message, source })?;
        match request.payload {
            Some(Payload::Add(add)) => decode_add(add),
            Some(Payload::Keep(keep)) => Ok(Self::Keep {
                uid: present("KeepWorkload", "uid", keep.uid)?,
            }),
            Some(Payload::Del(del)) => Ok(Self::Delete {
                uid: present("DelWorkload", "uid", del.uid)?,
            }),
            Some(Payload::SnapshotSent(_)) => Ok(Self::SnapshotSent),
            None => Err(Error::Unknown { message }),
        }
    }

    /// What the wire calls it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Add { .. } => "AddWorkload",
            Self::Keep { .. } => "KeepWorkload",
            Self::Delete { .. } => "DelWorkload",
            Self::SnapshotSent => "SnapshotSent",
        }
    }

    /// The pod concerned, if it is about one.
    pub fn uid(&self) -> Option<&Arc<str>> {
        match self {
            Self::Add { uid, .. } | Self::Keep { uid } | Self::Delete { uid } => Some(uid),
            Self::SnapshotSent => None,
        }
    }
}

// === impl Ack ===

impl Ack {
    /// As bytes. An error text that is too long for the receiver is cut.
    pub fn encode(&self) -> Vec<u8> {
        let error = match &self.0 {
            Ok(()) => String::new(),
            // Empty would mean success.
            Err(text) if text.is_empty() => "unknown error".to_owned(),
            Err(text) => cut(text, MAX_ERROR).to_owned(),
        };
        let payload = Some(workload_response::Payload::Ack(zds::Ack { error }));
        WorkloadResponse { payload }.encode_to_vec()
    }

    /// From bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let message = "WorkloadResponse";
        let response = WorkloadResponse::decode(bytes)
            .map_err(|source| Error::Malformed { message, source })?;
        match response.payload {
            Some(workload_response::Payload::Ack(ack)) if ack.error.is_empty() => Ok(Self(Ok(()))),
            Some(workload_response::Payload::Ack(ack)) => Ok(Self(Err(ack.error))),
            None => Err(Error::Unknown { message }),
        }
    }
}

fn decode_add(add: AddWorkload) -> Result<Request, Error> {
    let message = "AddWorkload";
    let info = add.workload_info.ok_or(Error::Missing {
        message,
        field: "workload_info",
    })?;
    let service_account = match info.service_account {
        empty if empty.is_empty() => "default".into(),
        name => name.into(),
    };
    Ok(Request::Add {
        uid: present(message, "uid", add.uid)?,
        pod: PodInfo {
            name: present(message, "workload_info.name", info.name)?,
            namespace: present(message, "workload_info.namespace", info.namespace)?,
            service_account,
        },
    })
}

fn present(message: &'static str, field: &'static str, value: String) -> Result<Arc<str>, Error> {
    if value.is_empty() {
        return Err(Error::Missing { message, field });
    }
    Ok(value.into())
}

/// The longest beginning of a text that has no more than `limit` bytes.
fn cut(text: &str, limit: usize) -> &str {
    text.get(..text.floor_char_boundary(limit)).unwrap_or(text)
}

#[cfg(test)]
mod tests;

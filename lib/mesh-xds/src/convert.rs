//! Protobuf to core values and back.
//!
//! `from_proto` is strict: an enum value, address, prefix or port that this version does not understand
//! is an error, because a policy or route that is applied in part means something else than was written.
//! `to_proto` cannot fail, and `from_proto` of its result gives the same value again.

use std::{fmt, net::IpAddr, sync::Arc};

use bytes::Bytes;
use ipnet::IpNet;
use mesh_proto::{type_url, workload as proto};
use prost::Message;

use crate::Change;

pub mod gateway;
mod intern;
pub mod policy;
pub mod service;
pub mod workload;

pub use intern::Interner;

/// Where in a resource something is wrong, and what. The sender is at fault; the same resource will
/// never be accepted.
///
/// Prints as `path.to[2].field: problem`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}", Prefix(.path))]
pub struct Error {
    path: String,
    problem: Problem,
}

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The bytes are not the message they are said to be.
    #[error("not a valid {message} message ({reason})")]
    Encoding {
        /// The full name of the message.
        message: &'static str,
        /// The decoder's words.
        reason: prost::DecodeError,
    },
    /// A text or message that must be there is not.
    #[error("must be set")]
    Missing,
    /// An address that is neither IPv4 nor IPv6.
    #[error("an IP address has 4 or 16 bytes, not {0}")]
    AddressLength(usize),
    /// A prefix that is longer than its address.
    #[error("prefix length {length} does not fit {address}")]
    PrefixLength {
        /// The address.
        address: IpAddr,
        /// The length that was given.
        length: u32,
    },
    /// A number that is no port.
    #[error("{0} is not a port")]
    Port(u32),
    /// A value this version does not know; a newer one may.
    #[error("value {0} is not known to this version")]
    Unknown(i32),
    /// A value this mesh does not support.
    #[error("{0} is not supported")]
    Unsupported(&'static str),
    /// A key that does not name a service.
    #[error("`{0}` is not of the form namespace/hostname")]
    ServiceName(String),
}

/// The path and its separator, or nothing.
struct Prefix<'a>(&'a str);

/// Says in which field something went wrong; the innermost call comes first.
trait InField<T> {
    fn field(self, name: &str) -> Result<T, Error>;
}

/// A workload or service of the wire with the name under which discovery knows it.
pub fn address_from_proto(
    encoded: Bytes,
    texts: &mut Interner,
) -> Result<(Arc<str>, Change), Error> {
    match decode::<proto::Address>("istio.workload.Address", encoded)?.r#type {
        Some(proto::address::Type::Workload(message)) => {
            let workload = workload::from_proto(message, texts).field("workload")?;
            Ok((Arc::clone(&workload.uid), Change::Workload(workload)))
        }
        Some(proto::address::Type::Service(message)) => {
            let service = service::from_proto(message, texts).field("service")?;
            Ok((service.key().to_string().into(), Change::Service(service)))
        }
        None => Err(Problem::Missing).field("type"),
    }
}

/// A policy of the wire with the name under which discovery knows it.
pub fn policy_from_proto(
    encoded: Bytes,
    texts: &mut Interner,
) -> Result<(Arc<str>, Change), Error> {
    let policy = policy::from_proto(decode("istio.security.Authorization", encoded)?, texts)?;
    Ok((policy.key(), Change::Policy(policy)))
}

/// What a change is called on the wire: its type and name, and the encoded resource unless it is a
/// removal.
pub fn change_to_proto(change: &Change) -> (&'static str, Arc<str>, Option<Bytes>) {
    let address = |address| proto::Address {
        r#type: Some(address),
    };
    match change {
        Change::Workload(workload) => {
            let message = proto::address::Type::Workload(workload::to_proto(workload));
            let body = address(message).encode_to_vec();
            (type_url::ADDRESS, workload.uid.clone(), Some(body.into()))
        }
        Change::Service(service) => {
            let message = proto::address::Type::Service(service::to_proto(service));
            let body = address(message).encode_to_vec();
            let name = service.key().to_string().into();
            (type_url::ADDRESS, name, Some(body.into()))
        }
        Change::Policy(policy) => {
            let body = policy::to_proto(policy).encode_to_vec();
            (type_url::AUTHORIZATION, policy.key(), Some(body.into()))
        }
        Change::RemoveAddress(name) => (type_url::ADDRESS, name.clone(), None),
        Change::RemovePolicy(name) => (type_url::AUTHORIZATION, name.clone(), None),
    }
}

// === impl Error ===

impl Error {
    /// The field, from the resource down; empty when the resource as a whole is meant.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What is wrong with it.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self {
            path: String::new(),
            problem,
        }
    }
}

impl<T, E: Into<Error>> InField<T> for Result<T, E> {
    fn field(self, name: &str) -> Result<T, Error> {
        self.map_err(|error| {
            let Error { path, problem } = error.into();
            // `name[2]` follows a field without a dot.
            let dot = match path.as_bytes().first() {
                None | Some(b'[') => "",
                Some(_) => ".",
            };
            let path = format!("{name}{dot}{path}");
            Error { path, problem }
        })
    }
}

impl fmt::Display for Prefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        write!(f, "{}: ", self.0)
    }
}

fn decode<M: Message + Default>(message: &'static str, encoded: Bytes) -> Result<M, Problem> {
    M::decode(encoded).map_err(|reason| Problem::Encoding { message, reason })
}

/// Converts each element; an error names the field and the position.
fn list<P, C, E: Into<Error>>(
    field: &str,
    items: impl IntoIterator<Item = P>,
    mut convert: impl FnMut(P) -> Result<C, E>,
) -> Result<Vec<C>, Error> {
    let convert = |(i, item)| convert(item).field(&format!("[{i}]")).field(field);
    items.into_iter().enumerate().map(convert).collect()
}

fn required(text: &str) -> Result<&str, Problem> {
    if text.is_empty() {
        return Err(Problem::Missing);
    }
    Ok(text)
}

fn text_or<'a>(text: &'a str, default: &'a str) -> &'a str {
    if text.is_empty() { default } else { text }
}

fn known<T: TryFrom<i32>>(value: i32) -> Result<T, Problem> {
    T::try_from(value).ok().ok_or(Problem::Unknown(value))
}

fn port(number: u32) -> Result<u16, Problem> {
    u16::try_from(number).ok().ok_or(Problem::Port(number))
}

/// An address in the mesh's form: an IPv4-mapped IPv6 address is the IPv4 address it holds, because
/// that is how connections are seen.
fn ip(bytes: &[u8]) -> Result<IpAddr, Problem> {
    Ok(raw_ip(bytes)?.to_canonical())
}

/// A range with its host bits cleared, in the mesh's form.
fn range(bytes: &[u8], length: u32) -> Result<IpNet, Problem> {
    let address = raw_ip(bytes)?;
    let net = u8::try_from(length)
        .ok()
        .and_then(|length| IpNet::new(address, length).ok())
        .ok_or(Problem::PrefixLength { address, length })?;
    Ok(unmapped(net).unwrap_or(net).trunc())
}

/// The IPv4 range that an IPv6 range holds, if it lies within the IPv4-mapped addresses.
fn unmapped(net: IpNet) -> Option<IpNet> {
    let IpNet::V6(v6) = net else { return None };
    let length = v6.prefix_len().checked_sub(MAPPED_BITS)?;
    IpNet::new(v6.addr().to_ipv4_mapped()?.into(), length).ok()
}

/// Bits in front of the IPv4 address in an IPv4-mapped IPv6 address (RFC 4291 §2.5.5.2).
const MAPPED_BITS: u8 = 96;

fn raw_ip(bytes: &[u8]) -> Result<IpAddr, Problem> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(v4.into());
    }
    let v6 = <[u8; 16]>::try_from(bytes).ok();
    Ok(v6.ok_or(Problem::AddressLength(bytes.len()))?.into())
}

fn ip_bytes(address: IpAddr) -> Bytes {
    match address {
        IpAddr::V4(v4) => Bytes::copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => Bytes::copy_from_slice(&v6.octets()),
    }
}

/// The beginning of a text from outside, for an error that will be logged.
fn excerpt(text: &str) -> String {
    text.chars().take(128).collect()
}

#[cfg(test)]
mod tests;

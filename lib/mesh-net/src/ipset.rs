//! The kernel's IP sets, of single addresses with a comment each (`hash:ip`), over netlink.
//!
//! For the packet filter of iptables, whose rules can look into such sets; nf_tables has its own.

use std::{collections::BTreeMap, net::IpAddr};

use crate::nfnetlink::{self, Socket};

/// `NFNL_SUBSYS_IPSET`.
const SUBSYSTEM: u16 = 6;
/// The version of the protocol; every kernel since 2.6.39 speaks it.
const PROTOCOL: u8 = 6;
/// The revision of `hash:ip`: comments are there since revision 2 (Linux 3.13), and this one is in every
/// kernel since 3.18.
const REVISION: u8 = 4;
/// `IPSET_FLAG_WITH_COMMENT`.
const WITH_COMMENT: u32 = 1 << 4;

/// Commands.
const CREATE: u16 = 2;
const DESTROY: u16 = 3;
const LIST: u16 = 7;
const ADD: u16 = 9;
const DELETE: u16 = 10;

/// Attributes of a message.
const ATTR_PROTOCOL: u16 = 1;
const ATTR_NAME: u16 = 2;
const ATTR_TYPE: u16 = 3;
const ATTR_REVISION: u16 = 4;
const ATTR_FAMILY: u16 = 5;
const ATTR_DATA: u16 = 7;
const ATTR_MEMBERS: u16 = 8;
/// Attributes of data and members.
const ATTR_ADDRESS: u16 = 1;
const ATTR_FLAGS: u16 = 8;
const ATTR_COMMENT: u16 = 26;

/// In the type of an attribute: the value is attributes itself, or in network byte order.
const NESTED: u16 = 0x8000;
const NETWORK_ORDER: u16 = 0x4000;
const TYPE: u16 = 0x3fff;

/// Flags of a message.
const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
const EXCLUSIVE: u16 = 0x200;
const DUMP: u16 = 0x300;

/// `IPSET_ERR_EXIST`, when a member is removed that is not there.
const ERR_EXIST: i32 = 4103;
/// `IPSET_ERR_BUSY`: rules look into the set. `EBUSY` has the same meaning.
const ERR_BUSY: i32 = 4100;
/// `IPSET_ERR_FIND_TYPE`: no such type of set, or not of this revision.
const ERR_FIND_TYPE: i32 = 4098;

/// The longest comment, in bytes without the zero at its end (`IPSET_MAX_COMMENT_SIZE`).
pub const COMMENT_LIMIT: usize = 255;
/// The longest name of a set, in bytes without the zero at its end (`IPSET_MAXNAMELEN`).
pub const NAME_LIMIT: usize = 31;

/// The members of a set, each with its comment; an empty one is none.
pub type Members = BTreeMap<IpAddr, String>;

/// A set of addresses of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set {
    /// Its name, at most [`NAME_LIMIT`] bytes.
    pub name: &'static str,
    /// Whether its members are of IPv6.
    pub ipv6: bool,
}

/// What could not be done to a set.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel has no IP sets, or none of this type: the modules `ip_set` and `ip_set_hash_ip` are
    /// missing. Load them, or use nf_tables.
    #[error("{verb} IP set {name}: the kernel lacks the module ip_set or ip_set_hash_ip")]
    NoModule {
        /// What was to be done.
        verb: &'static str,
        /// The set.
        name: &'static str,
    },
    /// Rules look into the set. They have to go first.
    #[error("{verb} IP set {name}: rules use it")]
    Busy {
        /// What was to be done.
        verb: &'static str,
        /// The set.
        name: &'static str,
    },
    /// There is a set of this name with members of another kind. Whoever made it has to remove it.
    #[error("create IP set {name}: there is another of this name")]
    Another {
        /// The set.
        name: &'static str,
    },
    /// The kernel refused; without `CAP_NET_ADMIN` it refuses everything.
    #[error("{verb} IP set {name}")]
    Refused {
        /// What was to be done.
        verb: &'static str,
        /// The set.
        name: &'static str,
        /// Why.
        source: nfnetlink::Error,
    },
}

// === impl Set ===

impl Set {
    /// Makes the set if it is not there; members of one that is there stay.
    pub fn create(&self, socket: &mut Socket) -> Result<(), Error> {
        let family = if self.ipv6 {
            libc::AF_INET6
        } else {
            libc::AF_INET
        };
        let mut body = self.begin();
        put(&mut body, ATTR_TYPE, b"hash:ip\0");
        put(&mut body, ATTR_REVISION, &[REVISION]);
        put(
            &mut body,
            ATTR_FAMILY,
            &[u8::try_from(family).unwrap_or_default()],
        );
        let mut data = Vec::new();
        put(
            &mut data,
            ATTR_FLAGS | NETWORK_ORDER,
            &WITH_COMMENT.to_be_bytes(),
        );
        put(&mut body, ATTR_DATA | NESTED, &data);
        match self.ask(socket, CREATE, 0, &body) {
            Err(error) if error.code() == Some(libc::EEXIST) => {
                Err(Error::Another { name: self.name })
            }
            result => self.judge("create", result),
        }
    }

    /// Makes an address a member with this comment, whatever it had before; false if there is no such set.
    pub fn insert(
        &self,
        socket: &mut Socket,
        address: IpAddr,
        comment: &str,
    ) -> Result<bool, Error> {
        let body = self.member(address, Some(comment));
        match self.ask(socket, ADD, 0, &body) {
            Err(error) if error.is_absent() => Ok(false),
            result => self.judge("add to", result).map(|()| true),
        }
    }

    /// Removes an address; false if it is no member, or there is no such set.
    pub fn remove(&self, socket: &mut Socket, address: IpAddr) -> Result<bool, Error> {
        let body = self.member(address, None);
        match self.ask(socket, DELETE, EXCLUSIVE, &body) {
            Err(error) if matches!(error.code(), Some(ERR_EXIST | libc::ENOENT)) => Ok(false),
            result => self.judge("remove from", result).map(|()| true),
        }
    }

    /// Its members; none if there is no such set.
    pub fn list(&self, socket: &mut Socket) -> Result<Option<Members>, Error> {
        let request = message(LIST, DUMP, self.family(), &self.begin());
        match socket.list(&request) {
            Ok(bytes) if bytes.is_empty() => Ok(None),
            Ok(bytes) => Ok(Some(members(&bytes))),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => self.judge("list", Err(error)).map(|()| None),
        }
    }

    /// Removes the set with its members; false if there is none.
    pub fn destroy(&self, socket: &mut Socket) -> Result<bool, Error> {
        match self.ask(socket, DESTROY, EXCLUSIVE, &self.begin()) {
            Err(error) if is_absent(&error) => Ok(false),
            result => self.judge("destroy", result).map(|()| true),
        }
    }

    fn ask(
        &self,
        socket: &mut Socket,
        command: u16,
        flags: u16,
        body: &[u8],
    ) -> Result<(), nfnetlink::Error> {
        socket.ask(&message(command, ACKNOWLEDGE | flags, self.family(), body))
    }

    fn judge(&self, verb: &'static str, result: Result<(), nfnetlink::Error>) -> Result<(), Error> {
        let name = self.name;
        result.map_err(|source| match source.code() {
            Some(libc::EBUSY | ERR_BUSY) => Error::Busy { verb, name },
            Some(libc::EINVAL | libc::EOPNOTSUPP | ERR_FIND_TYPE) => Error::NoModule { verb, name },
            _ => Error::Refused { verb, name, source },
        })
    }

    fn begin(&self) -> Vec<u8> {
        let mut body = Vec::new();
        put(&mut body, ATTR_PROTOCOL, &[PROTOCOL]);
        let name = [self.name.as_bytes(), &[0]].concat();
        put(&mut body, ATTR_NAME, &name);
        body
    }

    fn member(&self, address: IpAddr, comment: Option<&str>) -> Vec<u8> {
        let (kind, octets) = match address {
            IpAddr::V4(v4) => (1, v4.octets().to_vec()),
            IpAddr::V6(v6) => (2, v6.octets().to_vec()),
        };
        let mut ip = Vec::new();
        put(&mut ip, kind | NETWORK_ORDER, &octets);
        let mut data = Vec::new();
        put(&mut data, ATTR_ADDRESS | NESTED, &ip);
        if let Some(comment) = comment.filter(|comment| !comment.is_empty()) {
            put(
                &mut data,
                ATTR_COMMENT,
                &[comment.as_bytes(), &[0]].concat(),
            );
        }
        let mut body = self.begin();
        put(&mut body, ATTR_DATA | NESTED, &data);
        body
    }

    fn family(&self) -> u8 {
        // `NFPROTO_IPV4` and `NFPROTO_IPV6`.
        if self.ipv6 { 10 } else { 2 }
    }
}

/// No such set, or no sets at all in this kernel.
fn is_absent(error: &nfnetlink::Error) -> bool {
    matches!(
        error.code(),
        Some(libc::ENOENT | libc::EINVAL | libc::EOPNOTSUPP)
    )
}

fn message(command: u16, flags: u16, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(20 + body.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(20 + body.len());
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&(SUBSYSTEM << 8 | command).to_ne_bytes());
    bytes.extend_from_slice(&(REQUEST | flags).to_ne_bytes());
    // Number and sender.
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&[family, 0, 0, 0]);
    bytes.extend_from_slice(body);
    bytes
}

fn put(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    // Names, addresses and comments: all far below the limit.
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// Reads a listing. What is no member with an address is passed over.
fn members(mut bytes: &[u8]) -> Members {
    let mut members = Members::new();
    while let Some((header, _)) = bytes.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_ne_bytes(*header)).unwrap_or(usize::MAX);
        let body = bytes.get(20..length).unwrap_or_default();
        let lists = attributes(body).filter(|(kind, _)| *kind == ATTR_MEMBERS);
        let entries = lists.flat_map(|(_, list)| attributes(list));
        members.extend(entries.filter_map(|(_, entry)| member(entry)));
        let next = length.max(20).checked_next_multiple_of(4);
        bytes = next.and_then(|next| bytes.get(next..)).unwrap_or_default();
    }
    members
}

fn member(entry: &[u8]) -> Option<(IpAddr, String)> {
    let find = |kind| {
        attributes(entry)
            .find(|(k, _)| *k == kind)
            .map(|(_, value)| value)
    };
    let (_, octets) = attributes(find(ATTR_ADDRESS)?).next()?;
    let address = if let Ok(v4) = <[u8; 4]>::try_from(octets) {
        IpAddr::from(v4)
    } else {
        IpAddr::from(<[u8; 16]>::try_from(octets).ok()?)
    };
    let comment = find(ATTR_COMMENT).and_then(|text| text.strip_suffix(&[0]));
    let comment = comment.map(String::from_utf8_lossy).unwrap_or_default();
    Some((address, comment.into_owned()))
}

/// The attributes of one level, up to the first that is damaged.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let ([l0, l1, k0, k1], rest) = bytes.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([*l0, *l1])).checked_sub(4)?;
        let value = rest.get(..length)?;
        bytes = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([*k0, *k1]) & TYPE, value))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_listing_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            members(&bytes);
        }

        #[test]
        fn a_listing_with_a_wrong_length_is_survived(length: u32, attribute: u16, at in 0..3_usize) {
            let mut data = Vec::new();
            put(&mut data, ATTR_ADDRESS | NESTED, &[8, 0, 1, 0x40, 10, 0, 0, 1]);
            let mut list = Vec::new();
            put(&mut list, ATTR_DATA | NESTED, &data);
            let mut body = Vec::new();
            put(&mut body, ATTR_MEMBERS | NESTED, &list);
            let mut bytes = message(LIST, 0, 2, &body);
            prop_assert_eq!(members(&bytes).len(), 1);
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            members(&bytes);
            let start = 20 + 4 * at;
            bytes[start..start + 2].copy_from_slice(&attribute.to_ne_bytes());
            members(&bytes);
        }
    }
}

//! The `:authority` of CONNECT: `ip:port`, `[v6]:port` or `host:port`, and nothing else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use mesh_core::route::Authority;

/// Longest host name of DNS, in its text form (RFC 1035 §2.3.4 less the root's two bytes).
const MAX_HOST: usize = 253;

/// Longest label of a host name (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;

/// Longest authority: a host name, a colon and five digits.
const MAX_LENGTH: usize = MAX_HOST + 6;

/// Why a text is not an authority. The peer is at fault; retrying does not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is longer than any host name with a port can be.
    #[error("an authority of {0} bytes is longer than {MAX_LENGTH}")]
    TooLong(usize),
    /// There is no port, or it is not a number from 1 to 65535 in plain digits.
    #[error("an authority must end in a colon and a port from 1 to 65535")]
    Port,
    /// What stands before the port is neither an address nor a host name.
    #[error("an authority must name an IPv4 address, an IPv6 address in brackets or a host name")]
    Host,
}

/// Reads an authority. Host names come out in lower case, IPv4-mapped addresses as IPv4.
pub fn parse(text: &str) -> Result<Authority, Error> {
    if text.len() > MAX_LENGTH {
        return Err(Error::TooLong(text.len()));
    }
    let (host, port) = text.rsplit_once(':').ok_or(Error::Port)?;
    let port = parse_port(port).ok_or(Error::Port)?;
    if let Some(address) = parse_address(host)? {
        return Ok(Authority::Address(SocketAddr::new(address, port)));
    }
    if !is_host_name(host) {
        return Err(Error::Host);
    }
    Ok(Authority::Hostname(host.to_ascii_lowercase().into(), port))
}

/// What the fuzzer and its corpus feed: whatever parses must survive being printed.
///
/// # Panics
///
/// When it does not.
#[doc(hidden)]
pub fn fuzz(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(authority) = parse(text)
    {
        assert_eq!(parse(&authority.to_string()), Ok(authority));
    }
}

/// Only digits: the standard parser would take a sign too.
fn parse_port(text: &str) -> Option<u16> {
    let digits = (1..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    let port = digits.then(|| text.parse().ok())??;
    (port != 0).then_some(port)
}

/// An address if the text has the form of one, nothing if it may be a host name.
fn parse_address(text: &str) -> Result<Option<IpAddr>, Error> {
    if let Some(rest) = text.strip_prefix('[') {
        let inner = rest.strip_suffix(']').ok_or(Error::Host)?;
        let address: Ipv6Addr = inner.parse().or(Err(Error::Host))?;
        return Ok(Some(address.to_canonical()));
    }
    Ok(text.parse::<Ipv4Addr>().ok().map(IpAddr::V4))
}

/// Letters, digits, `-` and `_` in labels of 1 to 63. A last label of digits alone is refused: such a
/// name is a malformed address, which others may read as a different one.
fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=MAX_LABEL).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let numeric = |label: &str| label.bytes().all(|b| b.is_ascii_digit());
    text.len() <= MAX_HOST
        && text.split('.').all(label)
        && !text.rsplit('.').next().is_some_and(numeric)
}

#[cfg(test)]
mod tests;

//! Values of rules, from texts.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use mesh_core::{
    identity::Identity,
    policy::{ServiceAccountMatch, StringMatch},
};

use super::quote;

/// Why a text is not the value it should be. Whoever wrote the policy can repair it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing was written.
    #[error("is empty")]
    Empty,
    /// A wildcard where it has no meaning.
    #[error("`{0}` has a wildcard in the middle: `*` can stand alone, in front or at the end")]
    Wildcard(String),
    /// A principal with its scheme would never match.
    #[error("`{0}` is not a principal: write it without `spiffe://`")]
    Scheme(String),
    /// No port.
    #[error("`{0}` is not a port: use a number from 1 to 65535")]
    Port(String),
    /// Neither address nor prefix.
    #[error("`{0}` is not an IP address or prefix, such as 10.1.0.0/16")]
    IpBlock(String),
    /// No service account.
    #[error("`{0}` is not a service account: use `namespace/name`, or `name` without wildcards")]
    ServiceAccount(String),
}

/// A text with an optional wildcard at one end.
pub(super) fn text(value: &str) -> Result<StringMatch, Error> {
    let inner = |text: &str| {
        if text.contains('*') {
            Err(Error::Wildcard(quote(value)))
        } else {
            Ok(text.into())
        }
    };
    match (value.strip_prefix('*'), value.strip_suffix('*')) {
        _ if value.is_empty() => Err(Error::Empty),
        (Some(""), _) => Ok(StringMatch::Presence),
        (Some(rest), _) => inner(rest).map(StringMatch::Suffix),
        (None, Some(rest)) => inner(rest).map(StringMatch::Prefix),
        (None, None) => inner(value).map(StringMatch::Exact),
    }
}

/// A principal, which is a text in the form `trust domain/ns/namespace/sa/account`.
pub(super) fn principal(value: &str) -> Result<StringMatch, Error> {
    if value.contains("://") {
        return Err(Error::Scheme(quote(value)));
    }
    text(value)
}

/// A port, in digits only.
pub(super) fn port(value: &str) -> Result<u16, Error> {
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    let port = value.parse().ok().filter(|port| digits && *port != 0);
    port.ok_or_else(|| Error::Port(quote(value)))
}

/// An address or prefix, in the form in which addresses are compared: without host bits, and IPv4 where
/// it is mapped into IPv6.
pub(super) fn ip_block(value: &str) -> Result<IpNet, Error> {
    const MAPPED: u8 = 96;
    let address = || value.parse::<IpAddr>().map(IpNet::from);
    let block = value.parse::<IpNet>().or_else(|_| address());
    let block = block.ok().ok_or_else(|| Error::IpBlock(quote(value)))?;
    let block = block.trunc();
    let mapped = match block {
        IpNet::V6(v6) if v6.prefix_len() >= MAPPED => v6
            .network()
            .to_ipv4_mapped()
            .and_then(|v4| Ipv4Net::new(v4, v6.prefix_len() - MAPPED).ok()),
        IpNet::V4(_) | IpNet::V6(_) => None,
    };
    Ok(mapped.map_or(block, IpNet::V4))
}

/// A service account, of the policy's own namespace unless it says another.
pub(super) fn service_account(value: &str, own: &str) -> Result<ServiceAccountMatch, Error> {
    let (namespace, name) = value.split_once('/').unwrap_or((own, value));
    // Any trust domain does: the parts alone are checked.
    let known = Identity::try_new("any", namespace, name).ok();
    known.ok_or_else(|| Error::ServiceAccount(quote(value)))?;
    Ok(ServiceAccountMatch {
        namespace: namespace.into(),
        service_account: name.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_at_one_end() {
        assert_eq!(text("*"), Ok(StringMatch::Presence));
        assert_eq!(text("a"), Ok(StringMatch::Exact("a".into())));
        assert_eq!(text("a*"), Ok(StringMatch::Prefix("a".into())));
        assert_eq!(text("*a"), Ok(StringMatch::Suffix("a".into())));
        for value in ["a*b", "*a*", "**"] {
            assert_eq!(text(value), Err(Error::Wildcard(value.into())));
        }
        assert_eq!(text(""), Err(Error::Empty));
    }

    #[test]
    fn a_port_has_digits_only() {
        assert_eq!([port("1"), port("65535")], [Ok(1), Ok(65535)]);
        for value in ["", "0", "+80", "-1", "65536", "0x50", " 80", "http"] {
            assert_eq!(port(value), Err(Error::Port(value.into())));
        }
    }

    #[test]
    fn a_block_is_in_the_form_in_which_addresses_are_compared() {
        for (value, expected) in [
            ("10.1.2.3", "10.1.2.3/32"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("2001:db8::1/64", "2001:db8::/64"),
            ("::ffff:10.1.2.3", "10.1.2.3/32"),
            ("::ffff:10.1.2.3/112", "10.1.0.0/16"),
            ("::ffff:0:0/95", "::fffe:0:0/95"),
        ] {
            assert_eq!(ip_block(value).unwrap().to_string(), expected);
        }
        for value in ["", "10.0.0.0/33", "10.0.0", "a", "10.0.0.1-10.0.0.2"] {
            assert_eq!(ip_block(value), Err(Error::IpBlock(value.into())));
        }
    }

    #[test]
    fn a_service_account_is_of_the_own_namespace_unless_it_says_another() {
        let account = |namespace: &str, name: &str| ServiceAccountMatch {
            namespace: namespace.into(),
            service_account: name.into(),
        };
        assert_eq!(service_account("a", "own"), Ok(account("own", "a")));
        assert_eq!(service_account("b/a", "own"), Ok(account("b", "a")));
        for value in ["", "/", "a/", "/a", "a/b/c", "*", "a b"] {
            assert_eq!(
                service_account(value, "own"),
                Err(Error::ServiceAccount(value.into()))
            );
        }
    }

    #[test]
    fn a_long_value_is_cut_in_the_message() {
        let error = port(&"9".repeat(1000)).unwrap_err().to_string();
        assert!(error.len() < 200, "{error}");
    }
}

//! The `forwarded` header (RFC 7239): the client's address and the host name of the service that the
//! client addressed, `for="10.0.0.1:4000";host=details.bookinfo.svc.cluster.local`.

use std::net::SocketAddr;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header's name.
pub const HEADER: &str = "forwarded";

/// Longest host name that is taken over, in bytes (RFC 1035).
const MAX_HOST: usize = 253;

/// The header for a connection from `client`, to the service with the host name `host` if to one.
pub fn build(client: SocketAddr, host: Option<&str>) -> Option<HeaderValue> {
    let text = match host.filter(|host| is_host(host)) {
        Some(host) => format!("for=\"{client}\";host={host}"),
        None => format!("for=\"{client}\""),
    };
    HeaderValue::try_from(text).ok()
}

/// The host name of the service that the client addressed, if the header names a valid one.
///
/// Only the first element is read: proxies append, and ours writes one.
pub fn host(headers: &HeaderMap) -> Option<&str> {
    let first = headers.get(HEADER)?.to_str().ok()?.split(',').next()?;
    let (_, value) = first
        .split(';')
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| key.eq_ignore_ascii_case("host"))?;
    let unquoted = value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'));
    Some(unquoted.unwrap_or(value)).filter(|host| is_host(host))
}

/// What the fuzzer and its corpus feed: a header of a peer.
///
/// # Panics
///
/// When a host name is taken over that does not survive being printed.
#[doc(hidden)]
pub fn fuzz(data: &[u8]) {
    let headers = |value| HeaderMap::from_iter([(HeaderName::from_static(HEADER), value)]);
    if let Ok(value) = HeaderValue::from_bytes(data)
        && let Some(name) = host(&headers(value))
    {
        let printed = build(([10, 0, 0, 1], 1).into(), Some(name)).map(headers);
        assert_eq!(printed.as_ref().and_then(host), Some(name));
    }
}

fn is_host(text: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'*');
    !text.is_empty() && text.len() <= MAX_HOST && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(value: &HeaderValue) -> HeaderMap {
        HeaderMap::from_iter([(HEADER.parse().unwrap(), value.clone())])
    }

    fn host_of(text: &str) -> Option<String> {
        host(&headers(&HeaderValue::from_str(text).unwrap())).map(str::to_owned)
    }

    #[test]
    fn the_printed_form_is_the_one_of_the_contract() {
        let v4 = "10.0.0.1:4000".parse().unwrap();
        let v6 = "[fd00::1]:4000".parse().unwrap();
        assert_eq!(build(v4, None).unwrap(), "for=\"10.0.0.1:4000\"");
        assert_eq!(
            build(v6, Some("a.b.svc.cluster.local")).unwrap(),
            "for=\"[fd00::1]:4000\";host=a.b.svc.cluster.local"
        );
    }

    #[test]
    fn the_host_is_found_wherever_it_stands() {
        let expected = Some("a.b".to_owned());
        for text in [
            "host=a.b",
            "for=\"1.2.3.4:5\";host=a.b",
            "For=x; Host=\"a.b\"; proto=http",
        ] {
            assert_eq!(host_of(text), expected, "{text}");
        }
        for text in [
            "",
            "for=x",
            "host=",
            "host=\"",
            "host=a b",
            "ghost=a.b",
            "for=x, host=a.b",
        ] {
            assert_eq!(host_of(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_built_is_read_back(client: SocketAddr, name in "[a-z0-9.-]{1,60}") {
            let value = build(client, Some(&name)).unwrap();
            let headers = headers(&value);
            prop_assert_eq!(host(&headers), Some(name.as_str()));
        }

        #[test]
        fn no_header_makes_the_parser_panic(line in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(value) = HeaderValue::from_bytes(&line) {
                let _ = host(&headers(&value));
            }
        }
    }
}

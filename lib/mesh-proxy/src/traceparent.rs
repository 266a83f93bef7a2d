//! The `traceparent` header (W3C Trace Context): made by the outbound side of a tunnel, read by the
//! inbound side, so that the log lines of the two can be put together.

use std::{fmt, str::FromStr};

use http::{HeaderMap, HeaderValue};

/// The header's name.
pub const HEADER: &str = "traceparent";

/// A trace and a span within it: `00-<trace id>-<parent id>-<flags>` in lower-case hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceParent {
    /// Never 0.
    trace: u128,
    /// Never 0.
    parent: u64,
    flags: u8,
}

/// The text is not a `traceparent` of version 00. The peer is at fault; the connection goes on without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not of the form 00-<32 hexadecimal digits>-<16>-<2>, or with an id of zero")]
pub struct Error;

/// Length of the printed form, in bytes.
const LENGTH: usize = 55;

/// What the fuzzer and its corpus feed: a header of a peer.
///
/// # Panics
///
/// When what was read does not survive being printed.
#[doc(hidden)]
pub fn fuzz(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(read) = text.parse::<TraceParent>()
    {
        assert_eq!(read.to_string(), text);
    }
}

// === impl TraceParent ===

impl TraceParent {
    /// A new trace, with the given source of randomness.
    pub fn generate(random: &mut fastrand::Rng) -> Self {
        Self {
            trace: random.u128(1..),
            parent: random.u64(1..),
            flags: 0,
        }
    }

    /// What a peer sent, if it sent one that is well formed.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        headers.get(HEADER)?.to_str().ok()?.parse().ok()
    }

    /// As the value of the header.
    pub fn to_header(self) -> Option<HeaderValue> {
        HeaderValue::try_from(self.to_string()).ok()
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "00-{:032x}-{:016x}-{:02x}",
            self.trace, self.parent, self.flags
        )
    }
}

impl FromStr for TraceParent {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-');
        if text.len() != LENGTH || !text.bytes().all(hex) {
            return Err(Error);
        }
        let mut parts = text.split('-');
        let mut part = |length: usize| {
            parts
                .next()
                .filter(|part| part.len() == length)
                .ok_or(Error)
        };
        let (version, trace, parent, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        let read = Self {
            trace: u128::from_str_radix(trace, 16).map_err(|_digits| Error)?,
            parent: u64::from_str_radix(parent, 16).map_err(|_digits| Error)?,
            flags: u8::from_str_radix(flags, 16).map_err(|_digits| Error)?,
        };
        if version != "00" || read.trace == 0 || read.parent == 0 {
            return Err(Error);
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_the_standard_is_read() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(text.parse::<TraceParent>().unwrap().to_string(), text);
    }

    #[test]
    fn anything_else_is_refused() {
        let zeros = "0".repeat(LENGTH);
        let dashes = "-".repeat(LENGTH);
        for text in [
            "",
            &zeros,
            &dashes,
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
        ] {
            assert_eq!(text.parse::<TraceParent>(), Err(Error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_generated_is_read_back(seed: u64) {
            let made = TraceParent::generate(&mut fastrand::Rng::with_seed(seed));
            let headers = HeaderMap::from_iter([(HEADER.parse().unwrap(), made.to_header().unwrap())]);
            prop_assert_eq!(TraceParent::from_headers(&headers), Some(made));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "[0-9a-fA-F-]{55}|.{0,60}") {
            let _ = text.parse::<TraceParent>();
        }
    }
}

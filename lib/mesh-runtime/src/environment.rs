//! The environment of a process, read in one place per program: values with their types, and errors
//! that name the variable.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    str::FromStr,
    time::Duration,
};

/// A variable has a value of the wrong form. The one who deploys the program is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}=`{value}`: expected {expected}")]
pub struct Error {
    /// The variable.
    name: String,
    /// Its value, shortened.
    value: String,
    /// What it should look like.
    expected: &'static str,
}

/// The process environment, or a test's.
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<String, String>);

/// What a variable that is on or off should look like.
pub const BOOL: &str = "`true` or `false`";
/// What a number should look like.
pub const NUMBER: &str = "a whole number in range";
/// What an address of a port should look like.
pub const ADDRESS: &str = "`:port` or `address:port`";
/// What a duration should look like.
pub const DURATION: &str = "a duration such as `5s`, `1m30s` or `300ms`";

// === impl Environment ===

impl Environment {
    /// The environment of this process. Variables that are not UTF-8 are passed over.
    pub fn of_process() -> Self {
        let pairs = std::env::vars_os();
        Self(
            pairs
                .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
                .collect(),
        )
    }

    /// The value as it is, which may be empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The value, unless it is empty: charts set variables to nothing when they mean the default.
    pub fn filled(&self, name: &str) -> Option<&str> {
        self.text(name).filter(|value| !value.is_empty())
    }

    /// The value as a number or the like. `expected` says what it should look like.
    pub fn parsed<T: FromStr>(
        &self,
        name: &str,
        expected: &'static str,
    ) -> Result<Option<T>, Error> {
        let parse = |value: &str| {
            value
                .parse()
                .map_err(|_wrong| Error::new(name, value, expected))
        };
        self.filled(name).map(parse).transpose()
    }

    /// Whether a switch is on.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, Error> {
        Ok(self.parsed(name, BOOL)?.unwrap_or(default))
    }

    /// A duration in the form of Go.
    pub fn duration(&self, name: &str, default: Duration) -> Result<Duration, Error> {
        let parse = |value| duration(value).ok_or_else(|| Error::new(name, value, DURATION));
        Ok(self.filled(name).map(parse).transpose()?.unwrap_or(default))
    }

    /// Variables with a prefix, the prefix taken off.
    pub fn prefixed<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let strip = move |(key, value): (&'a String, &'a String)| {
            Some((key.strip_prefix(prefix)?, value.as_str()))
        };
        self.0.iter().filter_map(strip)
    }

    /// The name of our pod: `POD_NAME`, which the downward API sets, else `HOSTNAME`. Outside of a pod it is
    /// made up of `program` and the process's id, so that two replicas on one host differ.
    pub fn pod_name(&self, program: &str) -> String {
        let named = self.filled("POD_NAME").or_else(|| self.filled("HOSTNAME"));
        named.map_or_else(
            || format!("{program}-{:08x}", std::process::id()),
            str::to_owned,
        )
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self(
            pairs
                .into_iter()
                .map(|(k, v)| (k.into(), v.into()))
                .collect(),
        )
    }
}

// === impl Error ===

impl Error {
    /// An error about the variable (or flag) `name`; of a long value the beginning is kept.
    pub fn new(name: impl Into<String>, value: &str, expected: &'static str) -> Self {
        Self {
            name: name.into(),
            value: shortened(value),
            expected,
        }
    }
}

/// A duration in the form of Go and of protobuf's JSON: numbers with a unit, one after another.
pub fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at_checked(digits)?;
        let letters = tail
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(letters)?;
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        total = total.checked_add(part)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

/// An address to listen on in the form of Go, in which the host may be missing and then is every address.
/// Without a text it is every address at port `default`. `name` is the variable's or flag's, for the error.
pub fn address(name: &str, text: Option<&str>, default: u16) -> Result<SocketAddr, Error> {
    let Some(text) = text else {
        return Ok((unspecified(), default).into());
    };
    let port = text.strip_prefix(':').map(str::parse::<u16>);
    let parsed = match port {
        Some(port) => port.ok().map(|port| (unspecified(), port).into()),
        None => text.parse().ok(),
    };
    parsed.ok_or_else(|| Error::new(name, text, ADDRESS))
}

/// Every address of both families, or of IPv4 where the host has no other.
pub fn unspecified() -> IpAddr {
    let has_ipv6 = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    if has_ipv6 {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    }
}

/// The beginning of a value, for an error.
pub fn shortened(value: &str) -> String {
    value.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        for (text, expected) in [
            ("5s", Some(5_000)),
            ("1m30s", Some(90_000)),
            ("300ms", Some(300)),
            ("1.5h", Some(5_400_000)),
            ("", None),
            ("5", None),
            ("s", None),
            ("5x", None),
            ("-5s", None),
            ("99999999999999999999h", None),
        ] {
            assert_eq!(
                duration(text),
                expected.map(Duration::from_millis),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_set_to_nothing_is_the_default() {
        let env: Environment = [("A", ""), ("B", "7"), ("C", "x")].into_iter().collect();
        assert_eq!(env.parsed::<u8>("A", NUMBER), Ok(None));
        assert_eq!(env.parsed::<u8>("B", NUMBER), Ok(Some(7)));
        let refused = env.parsed::<u8>("C", NUMBER).unwrap_err().to_string();
        assert_eq!(refused, "C=`x`: expected a whole number in range");
    }
    #[test]
    fn an_address_without_a_host_is_every_address() {
        for (text, expected) in [
            (None, Some((unspecified(), 8080))),
            (Some(":9"), Some((unspecified(), 9))),
            (Some("127.0.0.1:9"), Some(([127, 0, 0, 1].into(), 9))),
            (Some("[::1]:9"), Some((Ipv6Addr::LOCALHOST.into(), 9))),
            (Some(":65536"), None),
            (Some("localhost:9"), None),
            (Some(""), None),
        ] {
            let parsed = address("--at", text, 8080);
            assert_eq!(parsed.ok(), expected.map(Into::into), "{text:?}");
        }
        let refused = address("--at", Some("9"), 8080).unwrap_err().to_string();
        assert_eq!(refused, "--at=`9`: expected `:port` or `address:port`");
    }

    #[test]
    fn a_pod_is_called_as_the_downward_api_says() {
        let both = [("POD_NAME", "istiod-1"), ("HOSTNAME", "node")];
        let name = |env: Environment| env.pod_name("istiod");
        assert_eq!(name(both.into_iter().collect()), "istiod-1");
        assert_eq!(name(both[1..].iter().copied().collect()), "node");
        assert!(name(Environment::default()).starts_with("istiod-"));
    }
}

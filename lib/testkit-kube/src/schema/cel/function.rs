//! What Kubernetes adds to the language: more functions of lists, and URLs, IP addresses and quantities.
//!
//! A URL, address or network is the text it was written as, and a quantity is a double, so that neither
//! needs a type of its own. Expressions cannot tell the difference, unless they mix them up.

use std::{cmp::Ordering, net::IpAddr};

use cel::{
    DeclarationError, Env, ExecutionError, Value,
    common::{
        types::{DOUBLE_TYPE, DYN_TYPE, LIST_TYPE, STRING_TYPE, Type},
        value::CowVal,
    },
};
use regex::Regex;

use crate::schema::format;

type Answer<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;
type Function = for<'b, 'v> fn(Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v>;

/// Declares the functions.
pub(super) fn extension(env: &mut Env) -> Result<(), DeclarationError> {
    for (name, operation) in LISTS {
        env.add_member_overload(name, &format!("list_{name}"), LIST_TYPE, vec![], operation)?;
    }
    for (name, operation) in LIST_SEARCHES {
        env.add_member_overload(
            name,
            &format!("list_{name}"),
            LIST_TYPE,
            vec![DYN_TYPE],
            operation,
        )?;
    }
    for (name, operation) in GLOBALS {
        env.add_overload(
            name,
            &format!("string_{name}"),
            vec![STRING_TYPE],
            operation,
        )?;
    }
    for (name, operation) in STRINGS {
        let id = format!("of_string_{name}");
        env.add_member_overload(name, &id, STRING_TYPE, vec![], operation)?;
    }
    for (name, operation) in STRING_PAIRS {
        let id = format!("of_strings_{name}");
        env.add_member_overload(name, &id, STRING_TYPE, vec![STRING_TYPE], operation)?;
    }
    for (name, arguments, operation) in QUANTITIES {
        let arguments: Vec<Type> = (0..arguments).map(|_| DOUBLE_TYPE).collect();
        env.add_member_overload(
            name,
            &format!("quantity_{name}"),
            DOUBLE_TYPE,
            arguments,
            operation,
        )?;
    }
    for (name, operation) in SETS {
        env.add_overload(name, name, vec![LIST_TYPE, LIST_TYPE], operation)?;
    }
    Ok(())
}

const LISTS: [(&str, Function); 4] = [
    ("isSorted", |args| {
        answer(list(&args, 0)?.is_sorted_by(|a, b| compare(a, b).is_some_and(Ordering::is_le)))
    }),
    ("sum", |args| sum(&list(&args, 0)?)),
    ("min", |args| {
        extreme("min", list(&args, 0)?, Ordering::Less)
    }),
    ("max", |args| {
        extreme("max", list(&args, 0)?, Ordering::Greater)
    }),
];

const LIST_SEARCHES: [(&str, Function); 2] = [
    ("indexOf", |args| {
        let wanted = value(&args, 1)?;
        answer(position(
            list(&args, 0)?.iter().position(|item| *item == wanted),
        ))
    }),
    ("lastIndexOf", |args| {
        let wanted = value(&args, 1)?;
        answer(position(
            list(&args, 0)?.iter().rposition(|item| *item == wanted),
        ))
    }),
];

const GLOBALS: [(&str, Function); 9] = [
    ("isURL", |args| {
        answer(Url::parse(&text(&args, 0)?).is_some())
    }),
    ("url", |args| {
        checked("url", text(&args, 0)?, |text| Url::parse(text).is_some())
    }),
    ("isIP", |args| {
        answer(text(&args, 0)?.parse::<IpAddr>().is_ok())
    }),
    ("ip", |args| {
        checked("ip", text(&args, 0)?, |text| text.parse::<IpAddr>().is_ok())
    }),
    ("ip.isCanonical", |args| {
        let text = text(&args, 0)?;
        answer(
            text.parse::<IpAddr>()
                .is_ok_and(|address| address.to_string() == text),
        )
    }),
    ("isCIDR", |args| {
        answer(format::network(&text(&args, 0)?).is_some())
    }),
    ("cidr", |args| {
        checked("cidr", text(&args, 0)?, |text| {
            format::network(text).is_some()
        })
    }),
    ("isQuantity", |args| {
        answer(format::is_quantity(&text(&args, 0)?))
    }),
    ("quantity", |args| {
        let text = text(&args, 0)?;
        format::quantity(&text).map_or_else(|| Err(wrong("quantity", &text)), answer)
    }),
];

const STRINGS: [(&str, Function); 11] = [
    ("getScheme", |args| answer(url(&args)?.scheme)),
    ("getHost", |args| answer(url(&args)?.host)),
    ("getHostname", |args| {
        answer(url(&args)?.hostname().to_owned())
    }),
    ("getPort", |args| answer(url(&args)?.port().to_owned())),
    ("getEscapedPath", |args| answer(url(&args)?.path)),
    ("family", |args| {
        answer(if address(&args)?.is_ipv4() { 4_i64 } else { 6 })
    }),
    ("isLoopback", |args| answer(address(&args)?.is_loopback())),
    ("isUnspecified", |args| {
        answer(address(&args)?.is_unspecified())
    }),
    ("isCanonical", |args| {
        answer(address(&args)?.to_string() == text(&args, 0)?)
    }),
    ("prefixLength", |args| {
        answer(i64::from(network(&args, 0)?.1))
    }),
    ("ip", |args| answer(network(&args, 0)?.0.to_string())),
];

const STRING_PAIRS: [(&str, Function); 4] = [
    ("find", |args| {
        let (text, pattern) = (text(&args, 0)?, pattern(&args)?);
        answer(
            pattern
                .find(&text)
                .map_or("", |found| found.as_str())
                .to_owned(),
        )
    }),
    ("findAll", |args| {
        let (text, pattern) = (text(&args, 0)?, pattern(&args)?);
        let found = pattern.find_iter(&text).map(|found| found.as_str());
        answer(found.map(Value::from).collect::<Vec<_>>())
    }),
    ("containsIP", |args| {
        let inner = text(&args, 1)?
            .parse()
            .map_err(|error| wrong("containsIP", &format!("{error}")))?;
        answer(contains(network(&args, 0)?, inner))
    }),
    ("containsCIDR", |args| {
        let (outer, inner) = (network(&args, 0)?, network(&args, 1)?);
        answer(outer.1 <= inner.1 && contains(outer, inner.0))
    }),
];

const QUANTITIES: [(&str, usize, Function); 5] = [
    ("isGreaterThan", 1, |args| {
        answer(double(&args, 0)? > double(&args, 1)?)
    }),
    ("isLessThan", 1, |args| {
        answer(double(&args, 0)? < double(&args, 1)?)
    }),
    ("compareTo", 1, |args| {
        let order = double(&args, 0)?.total_cmp(&double(&args, 1)?);
        answer(i64::from(order as i8))
    }),
    ("isInteger", 0, |args| {
        answer(double(&args, 0)?.fract() == 0.0)
    }),
    ("sign", 0, |args| {
        let order = double(&args, 0)?.total_cmp(&0.0);
        answer(i64::from(order as i8))
    }),
];

const SETS: [(&str, Function); 3] = [
    ("sets.contains", |args| {
        answer(within(&list(&args, 1)?, &list(&args, 0)?))
    }),
    ("sets.equivalent", |args| {
        let (a, b) = (list(&args, 0)?, list(&args, 1)?);
        answer(within(&a, &b) && within(&b, &a))
    }),
    ("sets.intersects", |args| {
        let (a, b) = (list(&args, 0)?, list(&args, 1)?);
        answer(a.iter().any(|item| b.contains(item)))
    }),
];

/// The parts of an absolute URL.
#[derive(Debug, Default)]
struct Url {
    scheme: String,
    /// With the port, if there is one.
    host: String,
    path: String,
}

// === impl Url ===

impl Url {
    /// Reads an absolute URI or an absolute path, which are what the API server takes for a URL.
    fn parse(text: &str) -> Option<Self> {
        if text.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return None;
        }
        let until = |text: &str, ends: &[char]| -> (String, String) {
            let end = text.find(ends).unwrap_or(text.len());
            let (head, tail) = text.split_at(end);
            (head.to_owned(), tail.to_owned())
        };
        if text.starts_with('/') {
            let path = until(text, &['?', '#']).0;
            return Some(Self {
                path,
                ..Self::default()
            });
        }
        let (scheme, rest) = text.split_once(':')?;
        let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.bytes().all(letters) {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        let Some(rest) = rest.strip_prefix("//") else {
            return (!rest.is_empty()).then(|| Self {
                scheme,
                ..Self::default()
            });
        };
        let (authority, rest) = until(rest, &['/', '?', '#']);
        let host = authority
            .rsplit_once('@')
            .map_or(authority.as_str(), |(_, host)| host)
            .to_owned();
        let url = Self {
            scheme,
            host,
            path: until(&rest, &['?', '#']).0,
        };
        let port = url.port();
        port.bytes()
            .all(|byte| byte.is_ascii_digit())
            .then_some(url)
    }

    fn split(&self) -> (&str, &str) {
        let host = self.host.as_str();
        match (host.rsplit_once(':'), host.rfind(']'), host.rfind(':')) {
            (Some((name, port)), bracket, colon) if bracket < colon => (name, port),
            _ => (host, ""),
        }
    }

    fn hostname(&self) -> &str {
        self.split().0.trim_matches(['[', ']'])
    }

    fn port(&self) -> &str {
        self.split().1
    }
}

fn answer<'b, 'v>(value: impl Into<Value>) -> Answer<'b, 'v> {
    value.into().try_into().map(CowVal::Owned)
}

fn wrong(function: &str, what: &str) -> ExecutionError {
    ExecutionError::function_error(function, what)
}

fn checked<'b, 'v>(function: &str, text: String, valid: impl Fn(&str) -> bool) -> Answer<'b, 'v> {
    if valid(&text) {
        answer(text)
    } else {
        Err(wrong(function, &format!("cannot read {text:?}")))
    }
}

fn value(args: &[CowVal<'_, '_>], index: usize) -> Result<Value, ExecutionError> {
    let argument = args
        .get(index)
        .ok_or(ExecutionError::MissingArgumentOrTarget)?;
    Value::try_from(argument.as_ref())
}

fn list(args: &[CowVal<'_, '_>], index: usize) -> Result<Vec<Value>, ExecutionError> {
    match value(args, index)? {
        Value::List(items) => Ok(items.to_vec()),
        other => Err(ExecutionError::unsupported_target_type(other)),
    }
}

fn text(args: &[CowVal<'_, '_>], index: usize) -> Result<String, ExecutionError> {
    match value(args, index)? {
        Value::String(text) => Ok(text.to_string()),
        other => Err(ExecutionError::unsupported_target_type(other)),
    }
}

fn double(args: &[CowVal<'_, '_>], index: usize) -> Result<f64, ExecutionError> {
    match value(args, index)? {
        Value::Float(double) => Ok(double),
        other => Err(ExecutionError::unsupported_target_type(other)),
    }
}

fn url(args: &[CowVal<'_, '_>]) -> Result<Url, ExecutionError> {
    let text = text(args, 0)?;
    Url::parse(&text).ok_or_else(|| wrong("url", &format!("cannot read {text:?}")))
}

fn address(args: &[CowVal<'_, '_>]) -> Result<IpAddr, ExecutionError> {
    let text = text(args, 0)?;
    text.parse()
        .map_err(|error| wrong("ip", &format!("cannot read {text:?}: {error}")))
}

fn network(args: &[CowVal<'_, '_>], index: usize) -> Result<(IpAddr, u8), ExecutionError> {
    let text = text(args, index)?;
    format::network(&text).ok_or_else(|| wrong("cidr", &format!("cannot read {text:?}")))
}

fn pattern(args: &[CowVal<'_, '_>]) -> Result<Regex, ExecutionError> {
    Regex::new(&text(args, 1)?).map_err(|error| wrong("find", &error.to_string()))
}

fn contains((network, bits): (IpAddr, u8), address: IpAddr) -> bool {
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let shift = 32 - u32::from(bits.min(32));
            let differ = network.to_bits() ^ address.to_bits();
            differ.checked_shr(shift).unwrap_or(0) == 0
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let shift = 128 - u32::from(bits.min(128));
            let differ = network.to_bits() ^ address.to_bits();
            differ.checked_shr(shift).unwrap_or(0) == 0
        }
        _ => false,
    }
}

fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    a.partial_cmp(b)
}

fn extreme<'b, 'v>(name: &str, items: Vec<Value>, wanted: Ordering) -> Answer<'b, 'v> {
    let best = items.into_iter().reduce(|best, item| {
        if compare(&item, &best) == Some(wanted) {
            item
        } else {
            best
        }
    });
    best.map_or_else(|| Err(wrong(name, "called on an empty list")), answer)
}

fn sum<'b, 'v>(items: &[Value]) -> Answer<'b, 'v> {
    let mut integer = 0_i64;
    let mut float = 0.0;
    for item in items {
        match item {
            Value::Int(number) => {
                integer = integer
                    .checked_add(*number)
                    .ok_or_else(|| wrong("sum", "integer overflow"))?;
            }
            Value::Float(number) => float += number,
            other => return Err(ExecutionError::unsupported_target_type(other.clone())),
        }
    }
    let floats = items.iter().any(|item| matches!(item, Value::Float(_)));
    if floats {
        answer(float)
    } else {
        answer(integer)
    }
}

fn within(inner: &[Value], outer: &[Value]) -> bool {
    inner.iter().all(|item| outer.contains(item))
}

fn position(found: Option<usize>) -> i64 {
    found
        .and_then(|index| i64::try_from(index).ok())
        .unwrap_or(-1)
}

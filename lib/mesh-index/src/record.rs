//! What is kept of each object: as little as discovery needs, in shared texts.
//!
//! Reading an object never fails. What cannot be used is left out and told as a problem, and what is
//! left out never opens anything.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::ObjectMeta, jiff::Timestamp};

use crate::{
    object::{Key, Kind},
    output::Problem,
    text::{Labels, Texts},
};

pub(crate) mod binding;
pub(crate) mod endpoint;
pub(crate) mod entry;
pub(crate) mod gateway;
pub(crate) mod namespace;
pub(crate) mod node;
pub(crate) mod owner;
pub(crate) mod pod;
pub(crate) mod policy;
pub(crate) mod protocol;
pub(crate) mod service;
pub(crate) mod slice;

/// Reads one object: shares its texts and collects what is wrong with it.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    texts: &'a mut Texts,
    kind: Kind,
    key: &'a Key,
    problems: Vec<Problem>,
}

/// What all objects have that rank by age.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Age {
    /// When the object was created, in seconds since 1970.
    created: i64,
}

/// Most problems that are told of one object.
const MAX_PROBLEMS: usize = 16;
/// Longest excerpt of a bad value in a problem, in characters.
const EXCERPT: usize = 80;
/// Longest DNS name (RFC 1035 §2.3.4).
const MAX_HOSTNAME: usize = 253;

// === impl Reader ===

impl<'a> Reader<'a> {
    pub(crate) fn new(texts: &'a mut Texts, kind: Kind, key: &'a Key) -> Self {
        Self {
            texts,
            kind,
            key,
            problems: Vec::new(),
        }
    }

    /// The object's key.
    pub(crate) fn key(&self) -> &'a Key {
        self.key
    }

    /// What was wrong with the object.
    pub(crate) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    /// The shared text sources.
    pub(crate) fn texts(&mut self) -> &mut Texts {
        self.texts
    }

    /// The shared form of a text.
    pub(crate) fn text(&mut self, text: &str) -> Arc<str> {
        self.texts.share(text)
    }

    /// The shared form of an optional text; empty if there is none.
    pub(crate) fn optional(&mut self, text: Option<&str>) -> Arc<str> {
        self.texts.share(text.unwrap_or_default())
    }

    /// The labels of an object.
    pub(crate) fn labels(&mut self, meta: &ObjectMeta) -> Labels {
        self.texts.labels(meta.labels.as_ref())
    }

    /// The shared form of a plain map of labels.
    pub(crate) fn label_map(&mut self, labels: Option<&BTreeMap<String, String>>) -> Labels {
        self.texts.labels(labels)
    }

    /// Tells that `field` cannot be used.
    pub(crate) fn problem(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        let (field, reason) = (field.into(), reason.into());
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem {
                kind: self.kind,
                key: self.key.clone(),
                field,
                reason,
            });
        }
    }

    /// At most `most` of a list; tells that the others are left out.
    pub(crate) fn bounded<'v, T>(&mut self, field: &str, list: &'v [T], most: usize) -> &'v [T] {
        if list.len() > most {
            self.problem(
                field,
                format!(
                    "has {} entries, and only the first {most} are in force: split the object",
                    list.len()
                ),
            );
        }
        list.get(..most).unwrap_or(list)
    }

    /// An IP address, never an IPv4-mapped one.
    pub(crate) fn ip(&mut self, field: &str, text: &str) -> Option<IpAddr> {
        let parsed = text.parse::<IpAddr>();
        if parsed.is_err() {
            self.problem(field, format!("`{}` is no IP address", excerpt(text)));
        }
        parsed.ok().map(|address| address.to_canonical())
    }

    /// A port number between 1 and 65535.
    pub(crate) fn port(&mut self, field: &str, number: i64) -> Option<u16> {
        let port = u16::try_from(number).ok().filter(|port| *port > 0);
        if port.is_none() {
            self.problem(field, format!("{number} is no port: use 1 to 65535"));
        }
        port
    }

    /// A host name, in lower case; the first label may be `*` if `wildcard` says so.
    pub(crate) fn hostname(&mut self, field: &str, text: &str, wildcard: bool) -> Option<Arc<str>> {
        if is_hostname(text, wildcard) {
            return Some(self.text(&text.to_ascii_lowercase()));
        }
        self.problem(field, format!("`{}` is no DNS name", excerpt(text)));
        None
    }
}

/// The beginning of a value from outside, fit for a message.
pub(crate) fn excerpt(text: &str) -> String {
    let clean = text.chars().take(EXCERPT);
    clean
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

fn is_hostname(text: &str, wildcard: bool) -> bool {
    let prefixed = || text.strip_prefix("*.").or_else(|| text.strip_prefix("*-"));
    let rest = wildcard.then(prefixed).flatten().unwrap_or(text);
    let label = |label: &str| {
        let inner = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
        let edge = |c: Option<&u8>| c.is_some_and(|c| *c != b'-');
        let bytes = label.as_bytes();
        bytes.len() <= 63
            && edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().all(|c| inner(*c))
    };
    text.len() <= MAX_HOSTNAME && rest.split('.').all(label)
}

// === impl Age ===

impl Age {
    /// The age of an object. One without a time of creation counts as older than all others.
    pub(crate) fn of(meta: &ObjectMeta) -> Self {
        let created = meta.creation_timestamp.as_ref();
        Self {
            created: created.map_or(i64::MIN, |time| Timestamp::as_second(time.0)),
        }
    }
}

/// The value of an annotation.
pub(crate) fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

/// Whether an annotation or a label has this value.
pub(crate) fn marked(meta: &ObjectMeta, key: &str, value: &str) -> bool {
    let label = meta.labels.as_ref().and_then(|labels| labels.get(key));
    annotation(meta, key) == Some(value) || label.is_some_and(|label| label == value)
}

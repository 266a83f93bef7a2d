//! The rules for names, label keys and label values.

use crate::registry::Resource;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
    characters, '-' or '.', and must start and end with an alphanumeric character";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or \
    '-', and must start and end with an alphanumeric character";
const DNS_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', \
    start with an alphabetic character, and end with an alphanumeric character";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must \
    start and end with an alphanumeric character, after an optional DNS subdomain and '/'";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, \
    '-', '_' or '.', and must start and end with an alphanumeric character";
const SEGMENT: &str = "may not be '.' or '..' nor contain '/' or '%'";
const LONG_63: &str = "must be no more than 63 bytes";
const LONG_253: &str = "must be no more than 253 bytes";

/// The rule that an object's name breaks.
pub(super) fn broken_rule(resource: &Resource, name: &str) -> Option<&'static str> {
    match (&*resource.storage.group, &*resource.storage.resource) {
        ("", "namespaces") => broken_label(name, false),
        ("", "services") => broken_label(name, true),
        ("rbac.authorization.k8s.io", _) => {
            let broken = matches!(name, "." | "..") || name.contains(['/', '%']);
            broken.then_some(SEGMENT)
        }
        _ => broken_subdomain(name),
    }
}

/// The rule that a label or annotation key, or a finalizer, breaks.
pub(super) fn broken_key_rule(key: &str) -> Option<&'static str> {
    let (prefix, name) = key
        .rsplit_once('/')
        .map_or((None, key), |(prefix, name)| (Some(prefix), name));
    if let Some(rule) = prefix.and_then(broken_subdomain) {
        return Some(rule);
    }
    if name.len() > 63 {
        return Some(LONG_63);
    }
    (name.is_empty() || !is_loose(name)).then_some(QUALIFIED)
}

/// The rule that a label's value breaks.
pub(super) fn broken_label_rule(value: &str) -> Option<&'static str> {
    if value.len() > 63 {
        return Some(LONG_63);
    }
    (!value.is_empty() && !is_loose(value)).then_some(LABEL_VALUE)
}

fn broken_subdomain(name: &str) -> Option<&'static str> {
    if name.len() > 253 {
        return Some(LONG_253);
    }
    (!name.split('.').all(is_dns)).then_some(SUBDOMAIN)
}

fn broken_label(name: &str, strict: bool) -> Option<&'static str> {
    if name.len() > 63 {
        return Some(LONG_63);
    }
    if strict {
        let starts = name.starts_with(|letter: char| letter.is_ascii_lowercase());
        return (!starts || !is_dns(name)).then_some(DNS_1035);
    }
    (!is_dns(name)).then_some(LABEL)
}

fn is_dns(name: &str) -> bool {
    let edge = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    name.starts_with(edge) && name.ends_with(edge) && name.chars().all(|it| edge(it) || it == '-')
}

fn is_loose(name: &str) -> bool {
    let edge = |letter: char| letter.is_ascii_alphanumeric();
    name.starts_with(edge)
        && name.ends_with(edge)
        && name.chars().all(|it| edge(it) || "-_.".contains(it))
}

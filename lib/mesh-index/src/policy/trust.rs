//! Principals whose trust domain is one of the mesh's.

use std::{iter, sync::Arc};

use mesh_core::policy::StringMatch;

/// The names under which the mesh's trust domain is known: its own, and the aliases that it had before or
/// will have. An identity under one of them is the same as under any other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustDomains {
    names: Arc<[Arc<str>]>,
}

/// In a policy this stands for the mesh's trust domain, whatever its name.
const CLUSTER_LOCAL: &str = "cluster.local";

/// How many slashes stand behind the trust domain in `/ns/<namespace>/sa/<account>`.
const SLASHES: usize = 4;

// === impl TrustDomains ===

impl TrustDomains {
    /// The mesh's own name, and its aliases.
    pub fn new<'a>(own: &'a str, aliases: impl IntoIterator<Item = &'a str>) -> Self {
        let mut names = Vec::new();
        for name in iter::once(own).chain(aliases) {
            if !names.iter().any(|known: &Arc<str>| **known == *name) {
                names.push(Arc::from(name));
            }
        }
        Self {
            names: names.into(),
        }
    }

    /// What is matched so that the pattern finds an identity under every name of the mesh as soon as it
    /// finds it under one.
    pub(super) fn expand(&self, pattern: StringMatch) -> Vec<StringMatch> {
        match &pattern {
            StringMatch::Presence => vec![pattern],
            StringMatch::Exact(text) => match self.behind_own(text) {
                Some(rest) => self.under_all(rest, StringMatch::Exact),
                None => vec![pattern],
            },
            StringMatch::Prefix(text) => match self.behind_own(text) {
                Some(rest) => self.under_all(rest, StringMatch::Prefix),
                None if !text.contains('/') && self.any(|name| name.starts_with(&**text)) => {
                    let all = self.under_all("/", StringMatch::Prefix);
                    iter::once(pattern.clone()).chain(all).collect()
                }
                None => vec![pattern],
            },
            StringMatch::Suffix(text) => match self.behind_end_of_own(text) {
                Some(rest) => {
                    let all = self.under_all(rest, StringMatch::Exact);
                    iter::once(pattern.clone()).chain(all).collect()
                }
                None => vec![pattern],
            },
        }
    }

    /// What follows the trust domain, with its slash, if that is one of the mesh's.
    fn behind_own<'a>(&self, text: &'a str) -> Option<&'a str> {
        let (domain, rest) = text.split_at_checked(text.find('/')?)?;
        self.any(|name| name == domain).then_some(rest)
    }

    /// The same for a text that begins within the trust domain.
    fn behind_end_of_own<'a>(&self, text: &'a str) -> Option<&'a str> {
        let (at, _) = text.rmatch_indices('/').nth(SLASHES - 1)?;
        let (end, rest) = text.split_at_checked(at)?;
        (!end.is_empty() && self.any(|name| name.ends_with(end))).then_some(rest)
    }

    fn any(&self, mut holds: impl FnMut(&str) -> bool) -> bool {
        self.names.iter().any(|name| holds(name)) || holds(CLUSTER_LOCAL)
    }

    fn under_all(&self, rest: &str, kind: fn(Arc<str>) -> StringMatch) -> Vec<StringMatch> {
        let names = self.names.iter();
        names
            .map(|name| kind(format!("{name}{rest}").into()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::value;

    /// What a pattern comes to in the mesh `prod`, which was `old`.
    fn expanded(pattern: &str) -> Vec<String> {
        let trust_domains = TrustDomains::new("prod", ["old", "prod"]);
        let patterns = trust_domains.expand(value::principal(pattern).unwrap());
        let text = |pattern| match pattern {
            StringMatch::Exact(text) => text.to_string(),
            StringMatch::Prefix(text) => format!("{text}*"),
            StringMatch::Suffix(text) => format!("*{text}"),
            StringMatch::Presence => "*".to_owned(),
        };
        patterns.into_iter().map(text).collect()
    }

    #[test]
    fn a_name_of_the_mesh_stands_for_all_of_them() {
        for own in ["prod", "old", "cluster.local"] {
            let both = ["prod/ns/a/sa/b", "old/ns/a/sa/b"];
            assert_eq!(expanded(&format!("{own}/ns/a/sa/b")), both);
            assert_eq!(
                expanded(&format!("{own}/ns/a/*")),
                ["prod/ns/a/*", "old/ns/a/*"]
            );
        }
    }

    #[test]
    fn a_pattern_that_finds_one_name_finds_all() {
        assert_eq!(expanded("pro*"), ["pro*", "prod/*", "old/*"]);
        let found = ["*d/ns/a/sa/b", "prod/ns/a/sa/b", "old/ns/a/sa/b"];
        assert_eq!(expanded("*d/ns/a/sa/b"), found);
    }

    #[test]
    fn what_is_foreign_or_finds_all_anyway_stays_as_it_is() {
        for pattern in [
            "*",
            "foreign/ns/a/sa/b",
            "foreign/*",
            "for*",
            "*/ns/a/sa/b",
            "*/sa/b",
            "*n/ns/a/sa/b",
        ] {
            assert_eq!(expanded(pattern), [pattern]);
        }
    }
}

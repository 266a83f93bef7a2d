//! SPIFFE identities: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.

use std::{fmt, str::FromStr, sync::Arc};

/// The identity of a workload, as it stands in the first URI SAN of its certificate.
///
/// Each part is non-empty and holds only characters that a SPIFFE path segment may hold, so that the
/// printed form parses back to the same value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    trust_domain: Arc<str>,
    namespace: Arc<str>,
    service_account: Arc<str>,
}

/// Why a text is not the identity of a workload. The input is at fault; retrying does not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text does not have the form `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
    #[error("`{0}` is not of the form spiffe://<trust domain>/ns/<namespace>/sa/<service account>")]
    Form(String),
    /// One part is empty, too long or holds a character that SPIFFE does not allow there.
    #[error(
        "the {part} `{value}` of a SPIFFE identity may hold only letters, digits, `.`, `-` and `_`"
    )]
    Part {
        /// Which part: trust domain, namespace or service account.
        part: &'static str,
        /// What stood there.
        value: String,
    },
}

/// Longest SPIFFE ID that an implementation must support, in bytes (SPIFFE ID §2.3).
const MAX_LENGTH: usize = 2048;

// === impl Identity ===

impl Identity {
    /// An identity of three parts, each checked.
    pub fn try_new(
        trust_domain: impl Into<Arc<str>>,
        namespace: impl Into<Arc<str>>,
        service_account: impl Into<Arc<str>>,
    ) -> Result<Self, Error> {
        let identity = Self {
            trust_domain: trust_domain.into(),
            namespace: namespace.into(),
            service_account: service_account.into(),
        };
        check("trust domain", &identity.trust_domain)?;
        check("namespace", &identity.namespace)?;
        check("service account", &identity.service_account)?;
        Ok(identity)
    }

    /// The trust domain, such as `cluster.local`.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The Kubernetes namespace of the workload.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The Kubernetes service account of the workload.
    pub fn service_account(&self) -> &str {
        &self.service_account
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "spiffe://{}/ns/{}/sa/{}",
            self.trust_domain, self.namespace, self.service_account
        )
    }
}

impl FromStr for Identity {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let form = || Error::Form(text.chars().take(256).collect());
        if text.len() > MAX_LENGTH {
            return Err(form());
        }
        let path = text.strip_prefix("spiffe://").ok_or_else(form)?;
        let parts: Vec<&str> = path.split('/').collect();
        match parts[..] {
            [trust_domain, "ns", namespace, "sa", account] => {
                Self::try_new(trust_domain, namespace, account)
            }
            _ => Err(form()),
        }
    }
}

fn check(part: &'static str, value: &str) -> Result<(), Error> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let relative = value == "." || value == "..";
    if value.is_empty() || value.len() > 253 || relative || !value.chars().all(allowed) {
        return Err(Error::Part {
            part,
            value: value.chars().take(256).collect(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_printed_form_is_the_one_of_the_contract() {
        let identity = Identity::try_new("cluster.local", "bookinfo", "details").unwrap();
        assert_eq!(
            identity.to_string(),
            "spiffe://cluster.local/ns/bookinfo/sa/details"
        );
    }

    #[test]
    fn anything_else_is_refused_with_its_reason() {
        for text in [
            "",
            "spiffe://",
            "spiffe://td",
            "spiffe://td/ns/a/sa",
            "spiffe://td/ns/a/sa/b/c",
            "spiffe://td/ns/a/xx/b",
            "https://td/ns/a/sa/b",
        ] {
            assert_eq!(text.parse::<Identity>(), Err(Error::Form(text.into())));
        }
        assert!(matches!(
            "spiffe://td/ns/../sa/b".parse::<Identity>(),
            Err(Error::Part {
                part: "namespace",
                ..
            })
        ));
        assert!(matches!(
            "spiffe://td/ns/a/sa/".parse::<Identity>(),
            Err(Error::Part {
                part: "service account",
                ..
            })
        ));
    }

    proptest! {
        #[test]
        fn printing_and_parsing_agree(td in "[a-z0-9.-]{3,20}", ns in "[a-z0-9-]{3,20}", sa in "[a-zA-Z0-9._-]{3,20}") {
            let identity = Identity::try_new(td, ns, sa).unwrap();
            prop_assert_eq!(identity.to_string().parse::<Identity>().unwrap(), identity);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,80}") {
            drop(text.parse::<Identity>());
        }
    }
}

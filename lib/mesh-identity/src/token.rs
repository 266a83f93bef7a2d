//! The bearer token with which a component proves itself to its control plane.

use std::{fmt, io, path::PathBuf, sync::Arc};

use openssl::sha::sha256;

/// Where the token comes from.
#[derive(Clone)]
pub enum Source {
    /// A file, read anew for each request: Kubernetes replaces a projected token well before it expires.
    File(PathBuf),
    /// The token itself.
    Literal(Arc<str>),
    /// No token: the control plane knows its client by other means.
    None,
}

/// What a token is remembered by: its SHA-256, from which it cannot be made again.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

/// Why there is no token. The configuration of the pod is at fault (a projected volume is missing);
/// retrying helps once the kubelet has written it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("the token file {path} cannot be read")]
    Read {
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The file is empty, or holds something that cannot stand in an HTTP header.
    #[error("the token from {origin} is not a token: {reason}")]
    Unusable {
        /// Where it came from; never the token.
        origin: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// Longest token in bytes; those of Kubernetes are about 1 KiB, and servers limit headers to 8 KiB.
const MAX_LENGTH: usize = 8 * 1024;

// === impl Digest ===

impl Digest {
    /// The digest of a token.
    pub fn of(token: &str) -> Self {
        Self(sha256(token.as_bytes()))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A few bytes tell entries of a log apart.
        let [first, second, third, ..] = self.0;
        write!(f, "Digest({first:02x}{second:02x}{third:02x}..)")
    }
}

// === impl Source ===

impl Source {
    /// The token as of now, without surrounding white space; `None` if none is configured.
    pub async fn token(&self) -> Result<Option<String>, Error> {
        let text = match self {
            Self::File(path) => {
                let read = tokio::fs::read_to_string(path).await;
                read.map_err(|source| Error::Read {
                    path: path.clone(),
                    source,
                })?
            }
            Self::Literal(token) => token.to_string(),
            Self::None => return Ok(None),
        };
        self.checked(text.trim()).map(Some)
    }

    fn checked(&self, token: &str) -> Result<String, Error> {
        let reason = if token.is_empty() {
            "it is empty"
        } else if token.len() > MAX_LENGTH {
            "it is longer than 8 KiB"
        } else if !token.chars().all(|c| c.is_ascii_graphic()) {
            "it holds white space or characters outside ASCII"
        } else {
            return Ok(token.to_owned());
        };
        Err(Error::Unusable {
            origin: format!("{self:?}"),
            reason,
        })
    }
}

impl fmt::Debug for Source {
    /// Names the source, never the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Literal(_) => f.write_str("literal"),
            Self::None => f.write_str("none"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_replaced_file_is_seen_by_the_next_request() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let source = Source::File(path.clone());
        assert!(matches!(source.token().await, Err(Error::Read { .. })));
        std::fs::write(&path, "first\n").unwrap();
        assert_eq!(source.token().await.unwrap().as_deref(), Some("first"));
        std::fs::write(&path, "second").unwrap();
        assert_eq!(source.token().await.unwrap().as_deref(), Some("second"));
    }

    #[tokio::test]
    async fn what_cannot_stand_in_a_header_is_refused_and_never_printed() {
        for bad in ["", "  \n", "two words", "secret\u{e9}", &"x".repeat(9000)] {
            let error = Source::Literal(bad.into()).token().await.unwrap_err();
            assert!(matches!(error, Error::Unusable { .. }));
            assert!(!error.to_string().contains("secret"));
        }
        assert_eq!(Source::None.token().await.unwrap(), None);
    }
}

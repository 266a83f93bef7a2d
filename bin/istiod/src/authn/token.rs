//! Bearer tokens, as far as they can be judged without the API server.
//!
//! Nothing here proves anything: it only spares the API server tokens that it would surely refuse.

use std::time::{Duration, SystemTime};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use mesh_identity::token::Digest;
use serde::Deserialize;
use tonic::metadata::MetadataMap;

/// A token as it came, with what it says about itself.
#[derive(Clone)]
pub struct Bearer {
    token: String,
    digest: Digest,
    claims: Claims,
}

/// The claims that are looked at, unverified.
#[derive(Clone, Debug, Default, Deserialize)]
struct Claims {
    #[serde(default)]
    exp: Option<u64>,
    #[serde(default)]
    aud: Option<Audience>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

/// Why a token is not even worth a review. The caller is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no `authorization: Bearer` among the request's metadata.
    #[error("there is neither a client certificate nor a bearer token")]
    Missing,
    /// It is longer than any token of Kubernetes.
    #[error("the bearer token has {0} bytes, at most {MAX_TOKEN} are read")]
    TooLong(usize),
    /// It is not a JSON web token, as those of service accounts are.
    #[error("the bearer token is not that of a service account")]
    NotJwt,
    /// It says itself that it has run out. Projected tokens are renewed in time: the caller has not read
    /// its file anew, or the clocks differ.
    #[error("the bearer token is expired")]
    Expired,
    /// It is meant for somebody else. The pod's projected volume names the wrong audience.
    #[error("the bearer token is for other audiences than {0:?}")]
    Audience(Vec<String>),
}

/// Longest token that is read. Those of Kubernetes have about 1 KiB.
const MAX_TOKEN: usize = 8 * 1024;

/// How far clocks may differ before an expired token is refused unseen.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

// === impl Bearer ===

impl Bearer {
    /// The token of a request.
    pub fn from_metadata(metadata: &MetadataMap) -> Result<Self, Error> {
        let header = metadata.get("authorization").ok_or(Error::Missing)?;
        let header = header.to_str().map_err(|_not_ascii| Error::NotJwt)?;
        let (scheme, token) = header.split_once(' ').ok_or(Error::Missing)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Error::Missing);
        }
        Self::parse(token.trim())
    }

    /// Reads a token's claims.
    pub fn parse(token: &str) -> Result<Self, Error> {
        if token.len() > MAX_TOKEN {
            return Err(Error::TooLong(token.len()));
        }
        let parts: Vec<&str> = token.split('.').collect();
        let [_, claims, _] = parts[..] else {
            return Err(Error::NotJwt);
        };
        let claims = URL_SAFE_NO_PAD.decode(claims).ok();
        let claims = claims.and_then(|json| serde_json::from_slice(&json).ok());
        Ok(Self {
            token: token.to_owned(),
            digest: Digest::of(token),
            claims: claims.ok_or(Error::NotJwt)?,
        })
    }

    /// Refuses what the API server would refuse too.
    pub(super) fn check(&self, audiences: &[String], now: SystemTime) -> Result<(), Error> {
        let late = self.expires().and_then(|at| now.duration_since(at).ok());
        if late.is_some_and(|late| late > CLOCK_SKEW) {
            return Err(Error::Expired);
        }
        let meant = |audience: &String| audiences.contains(audience);
        let ours = match &self.claims.aud {
            None => true,
            Some(Audience::One(audience)) => meant(audience),
            Some(Audience::Several(several)) => several.iter().any(meant),
        };
        if ours {
            Ok(())
        } else {
            Err(Error::Audience(audiences.to_vec()))
        }
    }

    /// When it says that it expires.
    pub(super) fn expires(&self) -> Option<SystemTime> {
        // A date that no clock can hold is as good as none.
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(self.claims.exp?))
    }

    pub(super) fn digest(&self) -> Digest {
        self.digest
    }

    pub(super) fn secret(&self) -> &str {
        &self.token
    }
}

impl std::fmt::Debug for Bearer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Bearer").field(&self.digest).finish()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An unsigned token with these claims.
    pub(in crate::authn) fn mk_token(claims: &serde_json::Value) -> String {
        let part = |json: String| URL_SAFE_NO_PAD.encode(json);
        let header = part("{}".into());
        format!("{header}.{}.c2ln", part(claims.to_string()))
    }

    fn check(claims: &serde_json::Value) -> Result<(), Error> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let audiences = ["istio-ca".to_owned()];
        Bearer::parse(&mk_token(claims))?.check(&audiences, now)
    }

    #[test]
    fn tokens_that_may_be_good_are_passed_on() {
        for claims in [
            serde_json::json!({}),
            serde_json::json!({"exp": 1_000_001, "aud": "istio-ca"}),
            serde_json::json!({"exp": 999_990, "aud": ["else", "istio-ca"]}),
            serde_json::json!({"exp": u64::MAX}),
            // The last second that a clock can hold: nothing can be added to it.
            serde_json::json!({"exp": i64::MAX}),
        ] {
            assert_eq!(check(&claims), Ok(()), "{claims}");
        }
    }

    #[test]
    fn tokens_that_say_themselves_that_they_are_no_good_are_not() {
        assert_eq!(
            check(&serde_json::json!({"exp": 999_000})),
            Err(Error::Expired)
        );
        for aud in [serde_json::json!("api"), serde_json::json!([])] {
            let refused = check(&serde_json::json!({ "aud": aud }));
            assert_eq!(refused, Err(Error::Audience(vec!["istio-ca".into()])));
        }
        for garbage in ["", "a.b", "a.b.c", "a.b.c.d"] {
            assert!(
                matches!(Bearer::parse(garbage), Err(Error::NotJwt)),
                "{garbage}"
            );
        }
        let long = Bearer::parse(&"x".repeat(MAX_TOKEN + 1));
        assert!(matches!(long, Err(Error::TooLong(_))));
    }

    #[test]
    fn the_header_is_read_as_http_writes_it() {
        let token = mk_token(&serde_json::json!({}));
        let read = |header: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("authorization", header.parse().unwrap());
            Bearer::from_metadata(&metadata).map(|bearer| bearer.token)
        };
        assert_eq!(read(&format!("Bearer {token}")), Ok(token.clone()));
        assert_eq!(read(&format!("bearer  {token}")), Ok(token));
        assert_eq!(read("Basic dTpw"), Err(Error::Missing));
        let none = Bearer::from_metadata(&MetadataMap::new());
        assert!(matches!(none, Err(Error::Missing)));
    }

    #[test]
    fn a_token_is_never_printed() {
        let token = mk_token(&serde_json::json!({}));
        let printed = format!("{:?}", Bearer::parse(&token));
        assert!(!printed.contains(&token), "{printed}");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in ".{0,200}") {
            drop(Bearer::parse(&text));
        }
    }
}

//! Tokens of service accounts: signed JWTs that count as long as what they are bound to exists.

mod jwt;
pub mod request;

#[cfg(test)]
mod tests;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::jwt::SigningKey;
use super::{Extra, User, refusal::quoted, tls, user::CREDENTIAL_ID};
use crate::store::{GroupResource, Store, new_uid};

/// Signs tokens and believes them.
#[derive(Debug)]
pub struct Issuer {
    key: SigningKey,
}

/// What is to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Who may be shown the token; [`AUDIENCE`] if empty.
    pub audiences: Vec<String>,
    /// How long it is valid.
    pub lifetime: SignedDuration,
    /// The object that it dies with.
    pub bound: Option<Bound>,
}

/// An object that a token dies with, in the namespace of the service account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// What it is.
    pub kind: BoundKind,
    /// Its name.
    pub name: String,
    /// Its uid, if the requester knows it; another one's is refused.
    pub uid: Option<String>,
}

/// The kinds that tokens are bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoundKind {
    /// A pod of the service account.
    Pod,
    /// A secret.
    Secret,
}

/// A signed token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// What to show.
    pub token: String,
    /// Until when it is valid.
    pub expires: Timestamp,
}

/// Whom a token speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Believed {
    /// The service account, with the pod and node of the token as further facts.
    pub user: User,
    /// Those of the asked-for audiences that the token is for.
    pub audiences: Vec<String>,
}

/// Why a token is not believed, in the words of the real server. Its bearer is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unbelievable {
    /// It is no token of this server.
    #[error("invalid bearer token")]
    Foreign,
    /// It is meant for somebody else.
    #[error(
        "[invalid bearer token, token audiences {} is invalid for the target audiences {}]",
        quoted(has),
        quoted(wanted)
    )]
    Audience {
        /// Whom it is meant for.
        has: Vec<String>,
        /// Who was shown it.
        wanted: Vec<String>,
    },
    /// Its time is over.
    #[error("[invalid bearer token, service account token has expired]")]
    Expired,
    /// Its time has not come.
    #[error("[invalid bearer token, service account token is not valid yet]")]
    Early,
    /// The service account, or what the token is bound to, is gone or another one.
    #[error("[invalid bearer token, service account token has been invalidated]")]
    Invalidated,
}

/// The issuer in tokens, and the audience of the API server itself.
pub const AUDIENCE: &str = "https://kubernetes.default.svc.cluster.local";

/// Where service accounts are kept.
pub static SERVICE_ACCOUNTS: GroupResource = GroupResource::new("", "serviceaccounts");
static PODS: GroupResource = GroupResource::new("", "pods");
static SECRETS: GroupResource = GroupResource::new("", "secrets");
static NODES: GroupResource = GroupResource::new("", "nodes");

/// What the real server's extra fields start with.
const EXTRA: &str = "authentication.kubernetes.io/";

/// The payload of a token.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    aud: Vec<String>,
    exp: i64,
    iat: i64,
    iss: String,
    jti: String,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Private,
    nbf: i64,
    sub: String,
}

/// What a token says in Kubernetes' own terms.
#[derive(Debug, Serialize, Deserialize)]
struct Private {
    namespace: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<Reference>,
    serviceaccount: Reference,
}

/// A name, and whose at that time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Reference {
    name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    uid: String,
}

// === impl Issuer ===

impl Issuer {
    /// An issuer with a key of its own.
    pub fn new() -> Result<Self, tls::Error> {
        Ok(Self {
            key: SigningKey::generate()?,
        })
    }

    /// The issuer's name, which is the audience of the API server too.
    pub fn audience(&self) -> &'static str {
        AUDIENCE
    }

    /// The public key, for those who verify tokens themselves: the answer to `/openid/v1/jwks`.
    pub fn jwks(&self) -> Value {
        self.key.jwks()
    }

    /// Whom a token speaks of, if it is for one of these audiences.
    pub fn identify(
        &self,
        store: &Store,
        token: &str,
        audiences: &[String],
    ) -> Result<Believed, Unbelievable> {
        self.identify_at(store, token, audiences, Timestamp::now())
    }

    fn identify_at(
        &self,
        store: &Store,
        token: &str,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<Believed, Unbelievable> {
        let claims: Claims = self.key.open(token).ok_or(Unbelievable::Foreign)?;
        let shared = audiences.iter().filter(|a| claims.aud.contains(a));
        let shared: Vec<_> = shared.cloned().collect();
        if shared.is_empty() {
            return Err(Unbelievable::Audience {
                has: claims.aud,
                wanted: audiences.to_vec(),
            });
        }
        if now.as_second() < claims.nbf {
            return Err(Unbelievable::Early);
        }
        if now.as_second() >= claims.exp {
            return Err(Unbelievable::Expired);
        }
        if !claims.kubernetes.still_exists(store) {
            return Err(Unbelievable::Invalidated);
        }
        Ok(Believed {
            user: claims.user(),
            audiences: shared,
        })
    }

    fn sign(&self, claims: &Claims) -> Result<String, tls::Error> {
        self.key.seal(claims)
    }
}

// === impl Claims ===

impl Claims {
    fn user(self) -> User {
        let Private {
            namespace,
            node,
            pod,
            serviceaccount,
            ..
        } = self.kubernetes;
        let mut extra = Extra::new();
        extra.insert(CREDENTIAL_ID.to_owned(), vec![format!("JTI={}", self.jti)]);
        for (kind, reference) in [("pod", pod), ("node", node)] {
            let Some(reference) = reference else { continue };
            extra.insert(format!("{EXTRA}{kind}-name"), vec![reference.name]);
            if !reference.uid.is_empty() {
                extra.insert(format!("{EXTRA}{kind}-uid"), vec![reference.uid]);
            }
        }
        User {
            uid: serviceaccount.uid,
            extra,
            ..User::service_account(&namespace, &serviceaccount.name)
        }
    }
}

// === impl Private ===

impl Private {
    /// Whether the service account and what the token is bound to are the ones that they were.
    fn still_exists(&self, store: &Store) -> bool {
        let same = |resource: &GroupResource, reference: &Reference| {
            let object = store.get(resource, &self.namespace, &reference.name);
            object.is_some_and(|object| uid(&object) == reference.uid)
        };
        same(&SERVICE_ACCOUNTS, &self.serviceaccount)
            && self.pod.as_ref().is_none_or(|pod| same(&PODS, pod))
            && self
                .secret
                .as_ref()
                .is_none_or(|secret| same(&SECRETS, secret))
    }
}

// === impl BoundKind ===

impl BoundKind {
    fn resource(self) -> &'static GroupResource {
        match self {
            Self::Pod => &PODS,
            Self::Secret => &SECRETS,
        }
    }
}

/// The claims for a service account of this uid.
fn claims(
    namespace: &str,
    account: Reference,
    bound: Option<(BoundKind, Reference)>,
    node: Option<Reference>,
) -> impl FnOnce(Vec<String>, Timestamp, Timestamp) -> Claims {
    let sub = User::service_account(namespace, &account.name).name;
    let (mut pod, mut secret) = (None, None);
    match bound {
        Some((BoundKind::Pod, reference)) => pod = Some(reference),
        Some((BoundKind::Secret, reference)) => secret = Some(reference),
        None => {}
    }
    let kubernetes = Private {
        namespace: namespace.to_owned(),
        node,
        pod,
        secret,
        serviceaccount: account,
    };
    move |aud, now, expires| Claims {
        aud,
        exp: expires.as_second(),
        iat: now.as_second(),
        iss: AUDIENCE.to_owned(),
        jti: new_uid(),
        kubernetes,
        nbf: now.as_second(),
        sub,
    }
}

/// The uid of an object; empty when it has none.
fn uid(object: &Value) -> &str {
    let uid = object.pointer("/metadata/uid").and_then(Value::as_str);
    uid.unwrap_or_default()
}

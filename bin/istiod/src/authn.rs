//! Who calls: the authentication that the certificate authority and discovery share.
//!
//! A caller proves itself by a certificate of the mesh, verified in the handshake, or by the token of
//! its service account, which the API server reviews. They are tried in this order and the first that
//! succeeds counts. Two of Istio's ways do not exist here: identities in an `x-forwarded-client-cert`
//! header, which are only as good as every proxy in front, and tokens of OIDC issuers other than the
//! API server.

pub mod discovery;
pub mod node;
pub mod review;
pub mod token;

mod cache;
pub mod metrics;

use std::sync::Arc;

use mesh_core::identity::Identity;
use tokio::sync::watch;
use tonic::metadata::MetadataMap;

pub use self::cache::TokenReviews;
use self::token::Bearer;

/// A caller that has proved who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Who it is, in this mesh's trust domain or the one of its certificate.
    pub identity: Identity,
    /// The pod its token is bound to; unknown for a caller with a certificate or an unbound token.
    pub pod: Option<Pod>,
}

/// The pod to which a token is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its uid, which another pod of that name does not have.
    pub uid: String,
}

/// The trust domains whose callers are this mesh's own. Changes with the mesh configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustDomains {
    /// The domain in the certificates that are issued.
    pub own: Arc<str>,
    /// Others that mean the same mesh, for the time of a migration.
    pub aliases: Vec<Arc<str>>,
}

/// Why a caller is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing it presents proves anything. The caller is at fault; it should renew its token.
    #[error("{0}")]
    Unauthenticated(String),
    /// Its token cannot be reviewed now: the API server does not answer. Retry.
    #[error("{0}")]
    Unavailable(String),
}

/// Finds out who calls. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Authenticator {
    reviews: TokenReviews,
    domains: watch::Receiver<TrustDomains>,
}

// === impl Caller ===

impl Caller {
    /// The namespace of its service account.
    pub fn namespace(&self) -> &str {
        self.identity.namespace()
    }

    /// The name of its service account.
    pub fn service_account(&self) -> &str {
        self.identity.service_account()
    }
}

// === impl TrustDomains ===

impl TrustDomains {
    /// One domain without aliases.
    pub fn of(own: impl Into<Arc<str>>) -> Self {
        Self {
            own: own.into(),
            aliases: Vec::new(),
        }
    }

    /// Whether this domain is the mesh's.
    pub fn contains(&self, domain: &str) -> bool {
        *self.own == *domain || self.aliases.iter().any(|alias| **alias == *domain)
    }
}

// === impl Authenticator ===

impl Authenticator {
    /// Callers are reviewed by `reviews` and belong to the mesh of `domains`.
    pub fn new(reviews: TokenReviews, domains: watch::Receiver<TrustDomains>) -> Self {
        Self { reviews, domains }
    }

    /// Who calls, by what the transport knows of the peer and by the token in the metadata.
    pub async fn authenticate(
        &self,
        metadata: &MetadataMap,
        peer: Option<&Identity>,
    ) -> Result<Caller, Error> {
        let stranger = match peer.map(|peer| self.by_certificate(peer)) {
            Some(Ok(caller)) => return Ok(caller),
            Some(Err(foreign)) => Some(foreign),
            None => None,
        };
        match (Bearer::from_metadata(metadata), stranger) {
            (Ok(bearer), _) => self.by_token(bearer).await,
            (Err(token::Error::Missing), Some(foreign)) => Err(foreign),
            (Err(error), _) => Err(Error::Unauthenticated(error.to_string())),
        }
    }

    /// The mesh's own trust domain.
    pub fn trust_domain(&self) -> Arc<str> {
        Arc::clone(&self.domains.borrow().own)
    }

    fn by_certificate(&self, peer: &Identity) -> Result<Caller, Error> {
        if !self.domains.borrow().contains(peer.trust_domain()) {
            let foreign = format!("the certificate of {peer} is of another trust domain");
            return Err(Error::Unauthenticated(foreign));
        }
        Ok(Caller {
            identity: peer.clone(),
            pod: None,
        })
    }

    async fn by_token(&self, bearer: Bearer) -> Result<Caller, Error> {
        let subject = self.reviews.review(bearer).await?;
        let domain = self.trust_domain();
        let identity = Identity::try_new(
            domain,
            subject.namespace.as_str(),
            subject.service_account.as_str(),
        );
        let identity = identity.map_err(|e| Error::Unauthenticated(e.to_string()))?;
        Ok(Caller {
            identity,
            pod: subject.pod,
        })
    }
}

#[cfg(test)]
mod tests;

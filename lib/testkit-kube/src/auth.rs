//! Who is calling, and what they may do.
//!
//! [`Authority`] holds what the server needs for it: the [certificates](tls), the [tokens](token) of
//! service accounts and the [roles](rbac). Everything else is looked up in the store at the moment of the
//! request, so a deleted service account, pod or binding counts at once.
//!
//! A request passes through here in this order: [`Authority::identify`] once per connection,
//! [`Authority::authenticate`] (which also impersonates), [`Authority::authorize`], and for roles and
//! bindings [`Authority::check_escalation`]. The [reviews](review) answer the same questions through the
//! API.

mod bootstrap;
mod impersonation;
mod kubeconfig;
pub mod rbac;
mod refusal;
pub mod review;
pub mod tls;
pub mod token;
mod user;

#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc};

use http::{HeaderMap, header::AUTHORIZATION};
use openssl::{ssl::SslAcceptorBuilder, x509::X509Ref};
use parking_lot::RwLock;
use serde_json::Value;

pub use self::{
    bootstrap::bootstrap,
    rbac::{Attributes, Decision, Target},
    user::{Extra, User, group},
};
use crate::{status::Status, store::Store};

/// The keys of a server: its certificate authority, its certificate and what signs tokens. It outlives
/// the listener, so that certificates and tokens stay valid over a restart.
#[derive(Debug)]
pub struct Authority {
    ca: tls::Ca,
    tokens: token::Issuer,
    /// Bearer tokens that were agreed on beforehand.
    agreed: RwLock<HashMap<String, User>>,
    roles: rbac::Cache,
}

/// What a connection proves by itself.
#[derive(Clone, Debug, Default)]
pub enum Peer {
    /// No certificate was shown.
    #[default]
    Nobody,
    /// A valid certificate speaks of this user.
    Known(User),
    /// A certificate was shown, and it is not believed.
    Unbelievable(tls::Unbelievable),
}

// === impl Authority ===

impl Authority {
    /// Makes new keys.
    pub fn generate() -> Result<Self, tls::Error> {
        Ok(Self {
            ca: tls::Ca::new()?,
            tokens: token::Issuer::new()?,
            agreed: RwLock::default(),
            roles: rbac::Cache::default(),
        })
    }

    /// The certificate authority, as PEM.
    pub fn ca_pem(&self) -> &str {
        self.ca.pem()
    }

    /// The server's side of TLS with HTTP/2 and HTTP/1.1, for these names and addresses besides the usual
    /// ones. It asks for client certificates without requiring them.
    pub fn acceptor(&self, hosts: &[&str]) -> Result<SslAcceptorBuilder, tls::Error> {
        self.ca.acceptor(hosts)
    }

    /// What signs the tokens of service accounts.
    pub fn tokens(&self) -> &token::Issuer {
        &self.tokens
    }

    /// Whoever brings `token` is `user` from now on.
    pub fn agree(&self, token: impl Into<String>, user: User) {
        self.agreed.write().insert(token.into(), user);
    }

    /// Judges the certificate of a new connection.
    pub fn identify(&self, certificate: Option<&X509Ref>) -> Peer {
        match certificate.map(|certificate| self.ca.identify(certificate)) {
            None => Peer::Nobody,
            Some(Ok(user)) => Peer::Known(user),
            Some(Err(reason)) => Peer::Unbelievable(reason),
        }
    }

    /// Says who is calling, from the connection's certificate or the bearer token; neither is
    /// `system:anonymous`. Who is impersonated is resolved here too.
    pub fn authenticate(
        &self,
        store: &Store,
        peer: &Peer,
        headers: &HeaderMap,
    ) -> Result<User, Status> {
        let user = self.caller(store, peer, headers)?;
        impersonation::resolve(self, store, user, headers)
    }

    fn caller(&self, store: &Store, peer: &Peer, headers: &HeaderMap) -> Result<User, Status> {
        if let Peer::Known(user) = peer {
            return Ok(user.clone().member_of(group::AUTHENTICATED));
        }
        if let Some(token) = bearer_token(headers) {
            let known = self.agreed.read().get(token).cloned();
            let user = match known {
                Some(user) => user,
                None => self.of_service_account(store, token)?,
            };
            return Ok(user.member_of(group::AUTHENTICATED));
        }
        match peer {
            Peer::Unbelievable(reason) => {
                tracing::debug!(%reason, "refused a client certificate");
                Err(Status::unauthorized())
            }
            Peer::Nobody | Peer::Known(_) => Ok(User::anonymous()),
        }
    }

    fn of_service_account(&self, store: &Store, token: &str) -> Result<User, Status> {
        let audiences = [self.tokens.audience().to_owned()];
        let identified = self.tokens.identify(store, token, &audiences);
        identified.map(|believed| believed.user).map_err(|reason| {
            tracing::debug!(%reason, "refused a bearer token");
            Status::unauthorized()
        })
    }

    /// May this be done?
    pub fn authorize(&self, store: &Store, attributes: &Attributes<'_>) -> Decision {
        self.roles.current(store).authorize(attributes)
    }

    /// As [`authorize`](Self::authorize); a refusal becomes the answer.
    pub fn require(&self, store: &Store, attributes: &Attributes<'_>) -> Result<(), Status> {
        let decision = self.authorize(store, attributes);
        if decision.allowed {
            return Ok(());
        }
        Err(refusal::forbidden(attributes, &decision.reason))
    }

    /// Whether a write of a role or binding gives away more than its author has (`escalate`, `bind`), or
    /// changes what a binding refers to. For every create (`old` is `None`) and update of the four RBAC
    /// kinds.
    pub fn check_escalation(
        &self,
        store: &Store,
        user: &User,
        old: Option<&Value>,
        new: &Value,
    ) -> Result<(), Status> {
        let roles = self.roles.current(store);
        rbac::escalation::check(&roles, user, old, new)
    }

    /// The roles and bindings as they are now.
    fn roles(&self, store: &Store) -> Arc<rbac::Index> {
        self.roles.current(store)
    }
}

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

//! Who gets which certificate.
//!
//! A caller that asks for itself gets the certificate of its own service account. A node's proxy gets
//! that of a workload if a pod of it runs on the proxy's node. Nobody else gets anything.

use std::time::Duration;

use futures::future::BoxFuture;
use mesh_core::identity::Identity;
use mesh_identity::issuer::service::{Authorizer, Caller as Request, Denied};

use super::keeper::Authority;
use crate::authn::{
    self, Authenticator, Caller,
    node::{Nodes, Refusal},
};

/// Decides for the certificate service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct NodeAuthorizer {
    authenticator: Authenticator,
    nodes: Nodes,
    authority: Authority,
}

// === impl NodeAuthorizer ===

impl NodeAuthorizer {
    /// Admits whom `authenticator` knows, lets proxies act for what `nodes` sees on their node, and tells
    /// `authority` how long certificates are going to live.
    pub fn new(authenticator: Authenticator, nodes: Nodes, authority: Authority) -> Self {
        Self {
            authenticator,
            nodes,
            authority,
        }
    }

    async fn decide(&self, request: Request<'_>) -> Result<Identity, Denied> {
        let caller = self
            .authenticator
            .authenticate(request.metadata, request.peer)
            .await?;
        let identity = match request.impersonated {
            None => self.own(&caller)?,
            Some(wanted) => self.impersonated(&caller, wanted).await?,
        };
        self.reserve(request.lifetime).await?;
        Ok(identity)
    }

    /// The caller's identity as this mesh writes it now. An alias of the trust domain is believed and
    /// never issued: it is for the time of a migration away from it.
    fn own(&self, caller: &Caller) -> Result<Identity, Denied> {
        let domain = self.authenticator.trust_domain();
        Identity::try_new(domain, caller.namespace(), caller.service_account())
            .map_err(|error| Denied::Forbidden(error.to_string()))
    }

    async fn impersonated(&self, caller: &Caller, wanted: &Identity) -> Result<Identity, Denied> {
        let domain = self.authenticator.trust_domain();
        if wanted.trust_domain() != &*domain {
            return Err(Denied::Forbidden(format!(
                "{wanted} is not of trust domain {domain}"
            )));
        }
        self.nodes.may_impersonate(caller, wanted).await?;
        Ok(wanted.clone())
    }

    async fn reserve(&self, lifetime: Duration) -> Result<(), Denied> {
        let reserved = self.authority.reserve(lifetime).await;
        reserved.map_err(|error| Denied::Unavailable(error.to_string()))
    }
}

impl Authorizer for NodeAuthorizer {
    fn authorize<'a>(&'a self, caller: Request<'a>) -> BoxFuture<'a, Result<Identity, Denied>> {
        Box::pin(self.decide(caller))
    }
}

impl From<authn::Error> for Denied {
    fn from(error: authn::Error) -> Self {
        match error {
            authn::Error::Unauthenticated(reason) => Self::Unauthenticated(reason),
            authn::Error::Unavailable(reason) => Self::Unavailable(reason),
        }
    }
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        Self::Forbidden(refusal.to_string())
    }
}

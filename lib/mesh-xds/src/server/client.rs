//! Who a client is, what it may read, and whether what it says of itself is true.

use std::{net::SocketAddr, sync::Arc};

use mesh_proto::discovery::Node;
use prost_types::value::Kind;

/// A client as it has been authenticated. What is not known is not compared with what it claims.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// Who it is, for people: a SPIFFE identity, or a service account.
    pub identity: Arc<str>,
    /// The namespace of its service account.
    pub namespace: Option<Arc<str>>,
    /// Its service account.
    pub service_account: Option<Arc<str>>,
    /// The node it runs on. If it asks for names, it gets this node's workloads unasked.
    pub node: Option<Arc<str>>,
    /// Which resources it may read.
    pub may_read: Readable,
    /// Where it connects from.
    pub address: Option<SocketAddr>,
}

/// The types of resources that a client may read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Readable {
    /// Whatever is published.
    #[default]
    Everything,
    /// These types.
    Only(&'static [&'static str]),
}

/// What a client claims in its node's metadata is not what was authenticated. The client is
/// misconfigured, or pretends to be another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the client claims {field} `{claimed}` in its node's metadata, and is authenticated as {identity} \
     with `{actual}`; use the service account that belongs to the claim, or correct the claim"
)]
pub struct Contradiction {
    field: &'static str,
    claimed: String,
    actual: Arc<str>,
    identity: Arc<str>,
}

/// Characters of a claim that are repeated to the client and in logs.
const MAX_CLAIM: usize = 256;

// === impl Client ===

impl Client {
    /// Compares the claims of a request with what is known.
    ///
    /// These are `NAMESPACE`, `SERVICE_ACCOUNT` and `NODE_NAME` of the metadata, and the namespace at
    /// the end of the id of an Istio proxy (`type~address~name~namespace.svc.domain`). An empty claim
    /// is none.
    pub fn verify(&self, node: &Node) -> Result<(), Contradiction> {
        self.compare(
            "NAMESPACE",
            claim(node, "NAMESPACE"),
            self.namespace.as_ref(),
        )?;
        let account = claim(node, "SERVICE_ACCOUNT");
        self.compare("SERVICE_ACCOUNT", account, self.service_account.as_ref())?;
        self.compare("NODE_NAME", claim(node, "NODE_NAME"), self.node.as_ref())?;
        let namespace = namespace_of_id(&node.id).map(ToOwned::to_owned);
        self.compare(
            "namespace of the node id",
            namespace,
            self.namespace.as_ref(),
        )
    }

    fn compare(
        &self,
        field: &'static str,
        claimed: Option<String>,
        actual: Option<&Arc<str>>,
    ) -> Result<(), Contradiction> {
        match (claimed, actual) {
            (Some(claimed), Some(actual)) if claimed != **actual => Err(Contradiction {
                field,
                claimed: claimed.chars().take(MAX_CLAIM).collect(),
                actual: actual.clone(),
                identity: self.identity.clone(),
            }),
            _ => Ok(()),
        }
    }
}

// === impl Readable ===

impl Readable {
    /// Whether resources of a type may be read.
    pub fn includes(self, type_url: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Only(types) => types.contains(&type_url),
        }
    }
}

/// A text in the metadata; something else in its place is no valid claim, and equals nothing.
pub(super) fn claim(node: &Node, field: &str) -> Option<String> {
    let value = node.metadata.as_ref()?.fields.get(field)?;
    match &value.kind {
        Some(Kind::StringValue(text)) if text.is_empty() => None,
        Some(Kind::StringValue(text)) => Some(text.clone()),
        None | Some(Kind::NullValue(_)) => None,
        Some(_) => Some("(not a text)".to_owned()),
    }
}

fn namespace_of_id(id: &str) -> Option<&str> {
    let (namespace, _) = id.splitn(4, '~').nth(3)?.split_once(".svc.")?;
    Some(namespace).filter(|namespace| !namespace.is_empty())
}

#[cfg(test)]
mod tests {
    use mesh_proto::type_url::{ADDRESS, AUTHORIZATION};

    use super::*;

    fn node(id: &str, claims: &[(&str, prost_types::Value)]) -> Node {
        let fields = claims.iter().map(|(k, v)| ((*k).to_owned(), v.clone()));
        Node {
            id: id.to_owned(),
            metadata: Some(prost_types::Struct {
                fields: fields.collect(),
            }),
            ..Node::default()
        }
    }

    fn ztunnel() -> Client {
        Client {
            identity: "spiffe://cluster.local/ns/istio-system/sa/ztunnel".into(),
            namespace: Some("istio-system".into()),
            service_account: Some("ztunnel".into()),
            node: Some("n1".into()),
            ..Client::default()
        }
    }

    #[test]
    fn true_claims_and_no_claims_are_accepted() {
        let id = "ztunnel~10.0.0.1~z.istio-system~istio-system.svc.cluster.local";
        let claims = [
            ("NAMESPACE", "istio-system".to_owned().into()),
            ("SERVICE_ACCOUNT", String::new().into()),
            ("NODE_NAME", "n1".to_owned().into()),
        ];
        ztunnel().verify(&node(id, &claims)).unwrap();
        ztunnel().verify(&Node::default()).unwrap();
        // Nothing is known of this one that a claim could contradict.
        Client::default().verify(&node(id, &claims)).unwrap();
    }

    #[test]
    fn a_claim_that_contradicts_what_is_known_is_refused_by_its_field() {
        let refused = |id: &str, claims: &[(&str, prost_types::Value)]| {
            let error = ztunnel().verify(&node(id, claims)).unwrap_err();
            error.to_string()
        };
        for field in ["NAMESPACE", "SERVICE_ACCOUNT", "NODE_NAME"] {
            let text = refused("", &[(field, "other".to_owned().into())]);
            assert!(text.contains(&format!("{field} `other`")), "{text}");
            assert!(refused("", &[(field, 1.0.into())]).contains(field));
        }
        let text = refused("ztunnel~1.1.1.1~z.other~other.svc.cluster.local", &[]);
        assert!(text.contains("node id `other`"), "{text}");
    }

    #[test]
    fn only_the_listed_types_may_be_read() {
        assert!(Readable::Everything.includes("anything"));
        let policies = Readable::Only(&[AUTHORIZATION]);
        assert!(policies.includes(AUTHORIZATION) && !policies.includes(ADDRESS));
    }
}

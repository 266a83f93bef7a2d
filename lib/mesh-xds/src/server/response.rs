//! What one response says, as handles on what is published.

use std::sync::Arc;

use mesh_proto::discovery::{Any, DeltaDiscoveryResponse, Resource as Message};

use super::{catalog::Published, encode::Chunks};

/// One response to one client. It holds no content: eight bytes for each resource it brings, which it
/// shares with the catalog and with the responses to other clients. [`Response::encode`] makes bytes of
/// it as they are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    pub(super) type_url: String,
    pub(super) nonce: String,
    pub(super) resources: Vec<Arc<Published>>,
    /// Resources that are sent under one of their aliases. They come after those above.
    pub(super) aliased: Vec<(Arc<str>, Arc<Published>)>,
    pub(super) removed: Vec<Arc<str>>,
}

/// A response has no encoding: gRPC counts the bytes of a message with 32 bits. The mesh has outgrown
/// the protocol; clients can be limited to what they need by asking for names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a response of {0} bytes is too large for gRPC; ask for names instead of everything")]
pub struct TooLarge(pub u64);

/// A resource as a response brings it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item<'a> {
    pub(super) name: &'a str,
    pub(super) aliases: &'a [Arc<str>],
    pub(super) published: &'a Published,
}

// === impl Response ===

impl Response {
    pub(super) fn new(type_url: &str) -> Self {
        Self {
            type_url: type_url.to_owned(),
            ..Self::default()
        }
    }

    /// The type of what it brings and removes.
    pub fn type_url(&self) -> &str {
        &self.type_url
    }

    /// What the client's acknowledgement will repeat.
    pub fn nonce(&self) -> &str {
        &self.nonce
    }

    /// How many resources it brings. One that is sent under an alias too counts twice.
    pub fn resources(&self) -> usize {
        self.resources.len() + self.aliased.len()
    }

    /// How many names it removes.
    pub fn removed(&self) -> usize {
        self.removed.len()
    }

    /// Bytes of the resources, without what is said around them.
    pub fn contents(&self) -> usize {
        self.items().map(|item| item.published.body.len()).sum()
    }

    /// Whether it says nothing but its nonce.
    pub fn is_empty(&self) -> bool {
        self.resources() == 0 && self.removed() == 0
    }

    /// The bytes of the wire, gRPC's prefix included.
    pub fn encode(self) -> Result<Chunks, TooLarge> {
        Chunks::new(self)
    }

    pub(super) fn items(&self) -> impl Iterator<Item = Item<'_>> {
        (0..self.resources()).map_while(|index| self.item(index))
    }

    pub(super) fn item(&self, index: usize) -> Option<Item<'_>> {
        if let Some(published) = self.resources.get(index) {
            return Some(Item {
                name: &published.name,
                aliases: &published.aliases,
                published,
            });
        }
        let (alias, published) = self.aliased.get(index - self.resources.len())?;
        Some(Item {
            name: alias,
            aliases: &[],
            published,
        })
    }
}

impl From<&Response> for DeltaDiscoveryResponse {
    /// What a client makes of it. The server sends what [`Response::encode`] gives, which is the same.
    fn from(response: &Response) -> Self {
        let resources = response.items().map(|item| Message {
            version: item.published.version.to_string(),
            resource: Some(Any {
                type_url: response.type_url.clone(),
                value: item.published.body.clone(),
            }),
            name: item.name.to_owned(),
            aliases: item.aliases.iter().map(ToString::to_string).collect(),
        });
        Self {
            resources: resources.collect(),
            type_url: response.type_url.clone(),
            nonce: response.nonce.clone(),
            removed_resources: response.removed.iter().map(ToString::to_string).collect(),
            ..Self::default()
        }
    }
}

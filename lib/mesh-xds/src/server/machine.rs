//! What one client is told, and when. No I/O, no time.

use std::{collections::BTreeMap, sync::Arc};

use mesh_proto::{
    discovery::DeltaDiscoveryRequest,
    type_url::{ADDRESS, AUTHORIZATION},
};

use self::subscription::{Part, Subscription};
use super::{Catalog, Client, Mode, Readable, Response, catalog::Table, held::Held};

mod selection;
mod subscription;

/// The server's side of one stream.
///
/// A client may ask for everything of a type (the first request names nothing, or `*`) or for names; it
/// may say what it already holds, which is then not sent again, and what of that is gone is removed. Of
/// each type one response at a time is on its way: until it is acknowledged further changes gather in
/// the catalog, so a slow client costs no memory and is told the latest state when it is ready.
///
/// The first response of a type is complete: clients may conclude that what is not in it, and was not
/// among what they said they hold, is gone.
///
/// # Clients that ask for names
///
/// A name is that of a resource, or an alias. What an alias stands for is sent under its own name with
/// all its aliases, and once more under the alias that was asked for: Istio's ztunnel waits for the
/// name that it asked for and for no other. When the alias comes to stand for something else, that is
/// told in the same way; when it stands for nothing, it is removed. A name that is not found is
/// removed at once, so that nobody waits for it.
///
/// A service brings its workloads, and the client's own node brings its workloads too. What is no
/// longer brought by anything is removed. What a client says it holds when it connects counts as
/// asked for: it has no other way to say that it goes on with it.
///
/// # The order of policies and workloads
///
/// Istio's ztunnel takes a policy that it does not know for none, and lets traffic pass. So what is
/// sent must at any point be safe:
///
/// 1. New and changed policies go first. While there are policies that the client has not been sent,
///    because a response is outstanding, addresses wait; they follow in the moment in which the
///    policies are sent, which is one round trip later at most.
/// 2. Addresses follow.
/// 3. What takes force from a policy goes last, when the client has been sent all addresses: that it is
///    removed, or that it now holds only for the workloads that name it. Otherwise a workload would
///    for a while name a policy that is gone, and not yet the one in its place.
///
/// This holds for clients that take all policies, as all proxies do. A client that asks for one of the
/// two types is expected to ask for the other; the first responses wait for that until
/// [`Machine::settle`].
#[derive(Debug)]
pub struct Machine {
    subscriptions: BTreeMap<String, Subscription>,
    readable: Readable,
    node: Option<Arc<str>>,
    settled: bool,
    responses: u64,
}

/// What a request was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// The client refuses the response on its way, or a part of it.
    pub refusal: Option<Refusal>,
    /// The nonce of the response that has arrived.
    pub acknowledged: Option<String>,
    /// The request answers a response that is not on its way: a late answer, or a confused client.
    pub stale: bool,
}

/// A client refused a response or a part of it. It is not sent again until it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The type of the response.
    pub type_url: String,
    /// What the client says, names included; at most some thousand characters.
    pub message: String,
}

/// Why a stream must be closed. Retrying helps for `Behind` only.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The client asks for more types than any proxy needs. The client is at fault.
    #[error("more than {MAX_TYPES} resource types on one stream")]
    TooManyTypes,
    /// The client asks for more names than are allowed. The client should ask for everything.
    #[error("more than {MAX_NAMES} names of type {0} on one stream; ask for everything instead")]
    TooManyNames(String),
    /// The client asks for what it may not read. It needs another identity, or another rule.
    #[error(
        "type {0} may not be read with this identity; connect as a service account that the control \
         plane trusts as a node proxy"
    )]
    Forbidden(String),
    /// The client is so slow that what was removed meanwhile is no longer known. It should return
    /// with the versions it holds.
    #[error("the client is too far behind with type {0}")]
    Behind(String),
}

/// Resource types that one stream may ask for. ztunnels use 2, waypoints some 6.
const MAX_TYPES: usize = 16;

/// Names of one type that one stream may ask for.
const MAX_NAMES: usize = 100_000;

/// Characters of a refusal, or of a type that is refused, that are kept.
const MAX_MESSAGE: usize = 4096;

// === impl Machine ===

impl Default for Machine {
    /// For a client that may read everything, and is on no node.
    fn default() -> Self {
        Self::new(&Client::default())
    }
}

impl Machine {
    /// For a client on which nothing is known but who it is.
    pub fn new(client: &Client) -> Self {
        Self {
            subscriptions: BTreeMap::new(),
            readable: client.may_read,
            node: client.node.clone(),
            settled: false,
            responses: 0,
        }
    }

    /// A request arrived. Afterwards responses may be ready.
    pub fn request(&mut self, mut request: DeltaDiscoveryRequest) -> Result<Heard, Error> {
        let held = std::mem::take(&mut request.initial_resource_versions);
        self.hear(request, held.into())
    }

    /// The same, of which the map of versions has been read already.
    pub(super) fn hear(
        &mut self,
        request: DeltaDiscoveryRequest,
        held: Held,
    ) -> Result<Heard, Error> {
        let type_url = request.type_url.clone();
        let first = !self.subscriptions.contains_key(&type_url);
        if first {
            self.admit(&type_url)?;
        }
        let subscription = (self.subscriptions.entry(type_url.clone()))
            .or_insert_with(|| Subscription::new(self.node.clone()));
        let acknowledged = subscription.acknowledge(&request.response_nonce);
        let refusal = request.error_detail.filter(|_| acknowledged.is_some());
        let heard = Heard {
            refusal: refusal.map(|status| Refusal {
                message: excerpt(&status.message),
                type_url: type_url.clone(),
            }),
            stale: acknowledged.is_none() && !request.response_nonce.is_empty(),
            acknowledged,
        };
        subscription.hear(
            first,
            request.resource_names_subscribe,
            request.resource_names_unsubscribe,
            held,
        );
        if subscription.names() > MAX_NAMES {
            return Err(Error::TooManyNames(type_url));
        }
        Ok(heard)
    }

    fn admit(&self, type_url: &str) -> Result<(), Error> {
        if !self.readable.includes(type_url) {
            return Err(Error::Forbidden(excerpt(type_url)));
        }
        if self.subscriptions.len() == MAX_TYPES {
            return Err(Error::TooManyTypes);
        }
        Ok(())
    }

    /// The next response that can be sent now. To be asked until there is none.
    pub fn respond(&mut self, catalog: &Catalog) -> Result<Option<Response>, Error> {
        // In alphabetical order policies come before addresses. What of them must come after addresses
        // may be due once those have nothing to say.
        let policies = (AUTHORIZATION.to_owned(), true);
        let order = self.subscriptions.keys().cloned().map(|url| (url, false));
        let order: Vec<_> = order.chain([policies]).collect();
        for (type_url, again) in order {
            let Some(part) = self.part(&type_url, catalog) else {
                continue;
            };
            if again && part != Part::Whole {
                continue;
            }
            if let Some(response) = self.respond_of(&type_url, part, catalog)? {
                return Ok(Some(response));
            }
        }
        Ok(None)
    }

    fn respond_of(
        &mut self,
        type_url: &str,
        part: Part,
        catalog: &Catalog,
    ) -> Result<Option<Response>, Error> {
        let Some(subscription) = self.subscriptions.get_mut(type_url) else {
            return Ok(None);
        };
        if subscription.is_waiting() {
            return Ok(None);
        }
        let nothing = Table::default();
        let table = catalog.table(type_url).unwrap_or(&nothing);
        let Some(mut response) = subscription.tell(type_url, table, part) else {
            return Err(Error::Behind(type_url.to_owned()));
        };
        if response.is_empty() && !subscription.take_owed() {
            return Ok(None);
        }
        self.responses += 1;
        response.nonce = self.responses.to_string();
        subscription.sent(&response);
        Ok(Some(response))
    }

    /// Which part of a type may be told now, if any.
    fn part(&self, type_url: &str, catalog: &Catalog) -> Option<Part> {
        match type_url {
            ADDRESS => self.is_told(AUTHORIZATION, catalog).then_some(Part::Whole),
            AUTHORIZATION if self.is_told(ADDRESS, catalog) => Some(Part::Whole),
            AUTHORIZATION => Some(Part::Strengthening),
            _ => Some(Part::Whole),
        }
    }

    /// Whether the client has been sent all there is of a type, or will not ask for it.
    fn is_told(&self, type_url: &str, catalog: &Catalog) -> bool {
        match self.subscriptions.get(type_url) {
            Some(subscription) => subscription.is_told(latest(catalog, type_url)),
            None => self.settled || !self.readable.includes(type_url),
        }
    }

    /// Whether something waits for the client to ask for policies besides addresses, or for addresses
    /// besides policies.
    pub fn is_unsettled(&self) -> bool {
        let asked = |type_url| self.subscriptions.contains_key(type_url);
        !self.settled
            && asked(ADDRESS) != asked(AUTHORIZATION)
            && self.readable.includes(ADDRESS)
            && self.readable.includes(AUTHORIZATION)
    }

    /// Says that the client has had its time to ask for both.
    pub fn settle(&mut self) {
        self.settled = true;
    }

    /// Whether no response is on its way.
    pub fn is_idle(&self) -> bool {
        !self.subscriptions.values().any(Subscription::is_waiting)
    }

    /// At most so many resources have not been told yet.
    pub fn backlog(&self, catalog: &Catalog) -> usize {
        let of_type = |(type_url, subscription): (&String, &Subscription)| {
            let table = catalog.table(type_url);
            table.map_or(0, |table| subscription.backlog(table))
        };
        self.subscriptions.iter().map(of_type).sum()
    }

    /// What the client takes of a type.
    pub fn mode(&self, type_url: &str) -> Option<Mode> {
        Some(self.subscriptions.get(type_url)?.mode())
    }
}

fn latest(catalog: &Catalog, type_url: &str) -> u64 {
    catalog.table(type_url).map_or(0, Table::latest)
}

fn excerpt(text: &str) -> String {
    text.chars().take(MAX_MESSAGE).collect()
}

#[cfg(test)]
mod tests;

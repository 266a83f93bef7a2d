//! What one client is told, and when. No I/O, no time.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use mesh_proto::discovery::{
    Any, DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource as Published,
};

use super::{
    Catalog,
    catalog::{Entry, Table},
};

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
/// Types are served in alphabetical order, which puts policies before the workloads they concern.
#[derive(Debug, Default)]
pub struct Machine {
    subscriptions: BTreeMap<String, Subscription>,
    responses: u64,
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
    #[error("more than {MAX_NAMES} names of type {0} on one stream")]
    TooManyNames(String),
    /// The client is so slow that what was removed meanwhile is no longer known. It should return
    /// with the versions it holds.
    #[error("the client is too far behind with type {0}")]
    Behind(String),
}

/// What the client asked for and knows, of one type.
#[derive(Debug, Default)]
struct Subscription {
    everything: bool,
    names: HashSet<Arc<str>>,
    /// Change up to which the client has been told; nothing before the first response.
    told: Option<u64>,
    /// Version by name of what the client held when it connected, until the first response.
    held: HashMap<String, String>,
    /// Names that are sent even if they did not change.
    due: BTreeSet<Arc<str>>,
    /// Whether a response is due even if it is empty.
    owed: bool,
    /// Nonce of the response on its way.
    outstanding: Option<String>,
}

/// Resource types that one stream may ask for. ztunnels use 2, waypoints some 6.
const MAX_TYPES: usize = 16;

/// Names of one type that one stream may ask for.
const MAX_NAMES: usize = 100_000;

/// Characters of a refusal that are kept.
const MAX_MESSAGE: usize = 4096;

/// The name that stands for all names.
const WILDCARD: &str = "*";

// === impl Machine ===

impl Machine {
    /// A request arrived. Afterwards responses may be ready.
    pub fn request(&mut self, request: DeltaDiscoveryRequest) -> Result<Option<Refusal>, Error> {
        let first = !self.subscriptions.contains_key(&request.type_url);
        if first && self.subscriptions.len() == MAX_TYPES {
            return Err(Error::TooManyTypes);
        }
        let subscription = (self.subscriptions)
            .entry(request.type_url.clone())
            .or_default();
        let current = subscription.acknowledge(&request.response_nonce);
        if first {
            subscription.held = request.initial_resource_versions;
            subscription.everything = request.resource_names_subscribe.is_empty();
            subscription.owed = true;
        }
        subscription.subscribe(request.resource_names_subscribe);
        subscription.unsubscribe(request.resource_names_unsubscribe);
        if subscription.names.len() > MAX_NAMES {
            return Err(Error::TooManyNames(request.type_url));
        }
        let refusal = request.error_detail.filter(|_| current);
        Ok(refusal.map(|status| Refusal {
            message: status.message.chars().take(MAX_MESSAGE).collect(),
            type_url: request.type_url,
        }))
    }

    /// The next response that can be sent now. To be asked until there is none.
    pub fn respond(&mut self, catalog: &Catalog) -> Result<Option<DeltaDiscoveryResponse>, Error> {
        let nothing = Table::default();
        for (type_url, subscription) in &mut self.subscriptions {
            if subscription.outstanding.is_some() {
                continue;
            }
            let table = catalog.table(type_url).unwrap_or(&nothing);
            let Some(names) = subscription.due(table) else {
                return Err(Error::Behind(type_url.clone()));
            };
            let held = std::mem::take(&mut subscription.held);
            let mut response = build(type_url, table, names, &held);
            let empty = response.resources.is_empty() && response.removed_resources.is_empty();
            subscription.told = Some(table.latest());
            if empty && !std::mem::take(&mut subscription.owed) {
                continue;
            }
            subscription.owed = false;
            self.responses += 1;
            response.nonce = self.responses.to_string();
            subscription.outstanding = Some(response.nonce.clone());
            return Ok(Some(response));
        }
        Ok(None)
    }
}

// === impl Subscription ===

impl Subscription {
    /// Whether the nonce is that of the response on its way, which thereby has arrived. Other nonces
    /// are of another stream or of a client that is confused; they acknowledge nothing.
    fn acknowledge(&mut self, nonce: &str) -> bool {
        let current = self.outstanding.as_deref() == Some(nonce);
        if current {
            self.outstanding = None;
        }
        current
    }

    fn subscribe(&mut self, names: Vec<String>) {
        self.owed |= !names.is_empty();
        for name in names {
            if name == WILDCARD {
                if !self.everything {
                    self.everything = true;
                    self.told = None;
                }
                continue;
            }
            let name: Arc<str> = name.into();
            // Once told, a name that is asked for is sent, known to the client or not. Before,
            // what the client holds decides.
            if self.told.is_some() {
                self.due.insert(name.clone());
            }
            self.names.insert(name);
        }
    }

    fn unsubscribe(&mut self, names: Vec<String>) {
        for name in names {
            if name == WILDCARD {
                self.everything = false;
                continue;
            }
            let name: Arc<str> = name.into();
            self.due.remove(&name);
            // Still of interest as one of all: the client, which may have dropped it, is told again.
            if self.names.remove(&name) && self.everything {
                self.due.insert(name);
            }
        }
    }

    /// Names that the next response has to speak of; nothing if that can no longer be told.
    fn due(&mut self, table: &Table) -> Option<HashSet<Arc<str>>> {
        let mut names: HashSet<Arc<str>> = std::mem::take(&mut self.due).into_iter().collect();
        if let Some(told) = self.told {
            let wanted = |name: &&Arc<str>| self.everything || self.names.contains(*name);
            names.extend(table.since(told)?.filter(wanted).cloned());
            return Some(names);
        }
        names.extend(self.names.iter().cloned());
        if self.everything {
            names.extend(table.names().cloned());
            names.extend(self.held.keys().map(|name| Arc::from(name.as_str())));
        }
        Some(names)
    }
}

/// Speaks of each name: its content, its absence, or nothing if the client holds this very version.
fn build(
    type_url: &str,
    table: &Table,
    names: HashSet<Arc<str>>,
    held: &HashMap<String, String>,
) -> DeltaDiscoveryResponse {
    let mut response = DeltaDiscoveryResponse {
        type_url: type_url.to_owned(),
        ..DeltaDiscoveryResponse::default()
    };
    for name in names {
        match table.get(&name) {
            Some(entry)
                if held
                    .get(&*name)
                    .is_some_and(|held| **held == *entry.version) => {}
            Some(entry) => response.resources.push(resource(type_url, &name, entry)),
            None => response.removed_resources.push(name.to_string()),
        }
    }
    response
}

fn resource(type_url: &str, name: &str, entry: &Entry) -> Published {
    Published {
        version: entry.version.to_string(),
        resource: Some(Any {
            type_url: type_url.to_owned(),
            value: entry.body.clone(),
        }),
        name: name.to_owned(),
        aliases: Vec::new(),
    }
}

#[cfg(test)]
mod tests;

//! What to send and what a response means. No I/O, no time.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

use mesh_proto::{
    discovery::{self as proto, DeltaDiscoveryRequest, DeltaDiscoveryResponse},
    type_url,
};
use prost::Message as _;

use super::Config;
use crate::{Change, convert};

/// The client's side of delta discovery: what it holds, by name and version, and what follows from a
/// response.
///
/// It asks for everything of two types, workloads with services and policies. Each response is applied
/// and answered at once. A resource that cannot be accepted is refused by name; the others of the same
/// response count, and of the refused one the last good value and its version are kept, so that the
/// server sends it again after a reconnect.
///
/// # Reconnecting with more names than fit
///
/// The first request of a type tells the server what the client holds, which is how the server knows
/// what need not be sent and what is gone. From some 40,000 names on that request is larger than istiod
/// accepts (4 MiB), and it cannot be divided: the protocol allows the list in one request only. So the
/// client names as many as fit. The server then sends the others in full, as it does to a new client,
/// and what it does *not* send of them is gone. This relies on the first response of a type being
/// complete, as it is with istiod and with our own server.
#[derive(Debug)]
pub struct Machine {
    config: Config,
    types: [Subscription; 2],
    texts: convert::Interner,
}

/// The outcome of a response.
#[derive(Debug)]
pub struct Received {
    /// What to apply, in this order, before `reply` is sent.
    pub changes: Vec<Change>,
    /// The acknowledgement or refusal.
    pub reply: DeltaDiscoveryRequest,
    /// What was refused.
    pub rejected: Vec<Rejection>,
}

/// A resource that was refused, or a whole response when `name` is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The resource's name on the wire.
    pub name: Arc<str>,
    /// Why. The control plane is at fault.
    pub reason: Reason,
}

/// Why a resource was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// A response for a type that was not asked for.
    #[error("type `{0}` was not asked for")]
    Type(String),
    /// The resource has no name, so that it could never be changed or removed.
    #[error("the resource has no name")]
    Nameless,
    /// The resource is in the response more than once; the first one counts.
    #[error("the name occurs more than once in one response")]
    Repeated,
    /// The resource has no content.
    #[error("the resource has no content")]
    Empty,
    /// The content is of another type than the response.
    #[error("the content is of type `{0}`")]
    ContentType(String),
    /// The content is called otherwise than the resource, so that its removal would not be understood.
    #[error("the content is called `{0}`")]
    Name(Arc<str>),
    /// A field that cannot be accepted.
    #[error(transparent)]
    Content(#[from] convert::Error),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Address,
    Authorization,
}

/// What the client knows of one type.
#[derive(Debug)]
struct Subscription {
    kind: Kind,
    /// Version by name of everything that was applied and not removed.
    versions: HashMap<Arc<str>, Box<str>>,
    /// Names that are held but did not fit into the first request of this stream: those that the
    /// first response does not bring are gone.
    unnamed: HashSet<Arc<str>>,
    /// Whether a response ever came.
    synced: bool,
}

/// Longest refusal, in bytes. It is written to logs on both sides, and headers must not overflow.
const MAX_REFUSAL: usize = 4096;

/// `INVALID_ARGUMENT` of gRPC.
const INVALID_ARGUMENT: i32 = 3;

// === impl Machine ===

impl Machine {
    /// A client that holds nothing.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            types: [
                Subscription::new(Kind::Address),
                Subscription::new(Kind::Authorization),
            ],
            texts: convert::Interner::default(),
        }
    }

    /// A stream was opened: what to send first.
    pub fn connected(&mut self) -> Vec<DeltaDiscoveryRequest> {
        let node = proto::Node::from(&self.config.node);
        let limit = self.config.request_limit;
        let first = |subscription: &mut Subscription| subscription.first_request(&node, limit);
        self.types.iter_mut().map(first).collect()
    }

    /// A response arrived.
    pub fn received(&mut self, response: DeltaDiscoveryResponse) -> Received {
        let mut reply = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..DeltaDiscoveryRequest::default()
        };
        let subscription = (self.types.iter_mut())
            .find(|subscription| subscription.kind.type_url() == response.type_url);
        let (changes, rejected) = match subscription {
            Some(subscription) => subscription.apply(response, &mut self.texts),
            None => (Vec::new(), vec![Rejection::of_type(&response.type_url)]),
        };
        self.texts.sweep();
        if !rejected.is_empty() {
            reply.error_detail = Some(refusal(&rejected));
        }
        Received {
            changes,
            reply,
            rejected,
        }
    }

    /// Whether both types have been answered at least once, so that what was applied is a full picture.
    /// Stays true over reconnects.
    pub fn is_synced(&self) -> bool {
        self.types.iter().all(|subscription| subscription.synced)
    }
}

// === impl Subscription ===

impl Subscription {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            versions: HashMap::new(),
            unnamed: HashSet::new(),
            synced: false,
        }
    }

    /// Asks for everything and says what is already here, in at most `limit` bytes.
    fn first_request(&mut self, node: &proto::Node, limit: usize) -> DeltaDiscoveryRequest {
        let mut request = DeltaDiscoveryRequest {
            node: Some(node.clone()),
            type_url: self.kind.type_url().to_owned(),
            ..DeltaDiscoveryRequest::default()
        };
        let mut size = request.encoded_len();
        self.unnamed.clear();
        for (name, version) in &self.versions {
            size += entry_size(name, version);
            if size > limit {
                self.unnamed.insert(name.clone());
            } else {
                (request.initial_resource_versions).insert(name.to_string(), version.to_string());
            }
        }
        request
    }

    fn apply(
        &mut self,
        response: DeltaDiscoveryResponse,
        texts: &mut convert::Interner,
    ) -> (Vec<Change>, Vec<Rejection>) {
        let mut changes = Vec::with_capacity(response.resources.len());
        let mut rejected = Vec::new();
        let mut seen = HashSet::with_capacity(response.resources.len());
        // Removals come first: of a name that is both removed and present, the presence counts.
        for name in &response.removed_resources {
            self.remove(name, &mut changes);
        }
        for resource in response.resources {
            let name: Arc<str> = resource.name.as_str().into();
            self.unnamed.remove(&name);
            let change = if seen.insert(name.clone()) {
                self.kind.accept(&name, resource.resource, texts)
            } else {
                Err(Reason::Repeated)
            };
            match change {
                Ok((key, change)) => {
                    changes.push(change);
                    self.versions.insert(key, resource.version.into());
                }
                Err(reason) => rejected.push(Rejection { name, reason }),
            }
        }
        for name in std::mem::take(&mut self.unnamed) {
            self.remove(&name, &mut changes);
        }
        self.synced = true;
        (changes, rejected)
    }

    /// Forgets a name. One that was never accepted is nobody's business.
    fn remove(&mut self, name: &str, changes: &mut Vec<Change>) {
        self.unnamed.remove(name);
        if let Some((name, _)) = self.versions.remove_entry(name) {
            changes.push(self.kind.removal(name));
        }
    }
}

// === impl Kind ===

impl Kind {
    fn type_url(self) -> &'static str {
        match self {
            Self::Address => type_url::ADDRESS,
            Self::Authorization => type_url::AUTHORIZATION,
        }
    }

    fn removal(self, name: Arc<str>) -> Change {
        match self {
            Self::Address => Change::RemoveAddress(name),
            Self::Authorization => Change::RemovePolicy(name),
        }
    }

    /// The change and its name, which shares memory with the change where it can.
    fn accept(
        self,
        name: &Arc<str>,
        content: Option<proto::Any>,
        texts: &mut convert::Interner,
    ) -> Result<(Arc<str>, Change), Reason> {
        if name.is_empty() {
            return Err(Reason::Nameless);
        }
        let content = content.ok_or(Reason::Empty)?;
        if content.type_url != self.type_url() {
            return Err(Reason::ContentType(excerpt(&content.type_url)));
        }
        let (key, change) = match self {
            Self::Address => convert::address_from_proto(content.value, texts)?,
            Self::Authorization => convert::policy_from_proto(content.value, texts)?,
        };
        if key != *name {
            return Err(Reason::Name(excerpt(&key).into()));
        }
        Ok((key, change))
    }
}

// === impl Rejection ===

impl Rejection {
    fn of_type(type_url: &str) -> Self {
        Self {
            name: "".into(),
            reason: Reason::Type(excerpt(type_url)),
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() {
            return self.reason.fmt(f);
        }
        write!(f, "{}: {}", excerpt(&self.name), self.reason)
    }
}

/// `name: reason; name: reason`, cut after a few thousand bytes with the number of those left out.
fn refusal(rejected: &[Rejection]) -> proto::Status {
    let mut left = MAX_REFUSAL;
    let texts = rejected.iter().map_while(|rejection| {
        let text = rejection.to_string();
        left = left.checked_sub(text.len())?;
        Some(text)
    });
    let mut texts: Vec<String> = texts.collect();
    if texts.len() < rejected.len() {
        texts.push(format!("and {} more", rejected.len() - texts.len()));
    }
    proto::Status {
        code: INVALID_ARGUMENT,
        message: texts.join("; "),
        details: Vec::new(),
    }
}

/// The most that a name and its version can add to a request: three tags and lengths of at most five
/// bytes each, besides the texts.
fn entry_size(name: &str, version: &str) -> usize {
    name.len() + version.len() + 3 * 6
}

fn excerpt(text: &str) -> String {
    text.chars().take(256).collect()
}

#[cfg(test)]
mod tests;

//! Watch to index: what the API server holds of one kind, told to an index in three verbs.
//!
//! [`run`] lists a collection page by page, then watches it, and tells an [`Index`] what exists, what is
//! gone and what cannot be read. It knows which keys it has told of, so that a list after a gap becomes
//! the same verbs as a watch without one: an index that handles [`Event::Apply`] and [`Event::Delete`]
//! never misses a removal, and nobody holds a second copy of the collection.
//!
//! - One object that cannot be decoded is an [`Event::Invalid`] of its key; the others arrive.
//! - When the connection breaks, the watch goes on where it was. When that version is no longer kept
//!   (410), everything is listed again, from the API server's memory if [`Options::lists`] says so.
//! - A kind that the API server does not know (its CRD is missing) counts as an empty, synced
//!   collection and is looked for again every few seconds. When the CRD goes away, its objects go.
//! - Failures are retried for ever, with back-off, and are visible in [`State::trouble`], in the log and
//!   in the metrics. What was learned before stays.

use std::{convert::Infallible, fmt, sync::Arc, time::Duration};

use kube::{
    Api, Client, Resource,
    api::{ApiResource, DynamicObject},
};
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::sync::watch;

use crate::{
    backoff::Backoff,
    error::{Explained, Fault},
};

mod driver;
mod known;
mod metrics;
mod wire;

pub use self::metrics::Metrics;

/// What is fed by [`run`].
pub trait Index<K>: Send {
    /// Takes what happened, oldest first: everything that was there at once, up to [`BATCH`] events, so
    /// that a lock around the index is taken once.
    fn update(&mut self, events: Vec<Event<K>>);
}

/// One thing that happened to a collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<K> {
    /// The object exists in this form. It may be told again unchanged, after a gap.
    Apply(K),
    /// The object of this name is gone.
    Delete(ObjectKey),
    /// The object exists and cannot be decoded. What the index knew of it before stays the best it has.
    Invalid(Invalid),
}

/// An object that does not have the form of its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Which object.
    pub key: ObjectKey,
    /// What the decoder says, with the field where it knows it.
    pub reason: String,
}

/// What identifies an object within its kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Empty for an object of the cluster.
    pub namespace: String,
    /// The object's name.
    pub name: String,
}

/// What is watched, and how patiently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Only objects with these labels, as in `kubectl -l`.
    pub labels: Option<String>,
    /// Only objects with these fields, as in `kubectl --field-selector`.
    pub fields: Option<String>,
    /// Where lists come from.
    pub lists: Lists,
    /// How many objects a page of a list of [`Lists::Stored`] holds at most.
    pub page: u32,
    /// How long to wait between two looks for a kind that the API server does not know.
    pub absent: Duration,
    /// How long to wait after a failure.
    pub backoff: Backoff,
}

/// Where the API server takes a list from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lists {
    /// From its store, page by page: as new as anything. The store reads all objects of the kind for it, also
    /// where only few of them are selected.
    #[default]
    Stored,
    /// From its memory, all at once: perhaps a moment old, as a watch may be, but never older than what was
    /// known before. For programs that run on every node: thousands of them may start at the same time, and what
    /// each selects of many objects is little.
    Cached,
}

/// How a watch does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The whole collection has been told to the index once. Never false again.
    pub synced: bool,
    /// The API server does not know the kind at present.
    pub absent: bool,
    /// Why nothing new is learned at present: in words, for a readiness check or a debug page.
    pub trouble: Option<Arc<str>>,
}

/// Why a list or a watch ended. All are retried; the words say who can help.
#[derive(Debug, Error)]
pub enum Error {
    /// The server refused the list, or did not answer.
    #[error("listing {0}")]
    List(Kind, #[source] kube::Error),
    /// The server refused the watch, or did not answer.
    #[error("watching {0}")]
    Watch(Kind, #[source] kube::Error),
    /// The server did not answer in time: it hangs, or something on the way swallows the packets.
    #[error("waiting for the API server's answer about {0}: nothing came within {1:?}")]
    Silent(Kind, Duration),
    /// The connection broke while the watch ran.
    #[error("reading the watch of {0}")]
    Broken(Kind, #[source] std::io::Error),
    /// The server ended the watch right away, more than once. It is restarting or overloaded.
    #[error("watching {0}: the API server ends every watch at once")]
    Short(Kind),
    /// The server says in a watch that it cannot go on.
    #[error("watching {0}")]
    Refused(Kind, #[source] Box<kube::core::Status>),
    /// The answer is not what an API server says: a proxy or another server answers.
    #[error("reading the API server's answer about {0}")]
    Malformed(Kind, #[source] Malformed),
}

/// What is wrong with an answer.
#[derive(Debug, Error)]
pub enum Malformed {
    /// It is not JSON of the expected form.
    #[error("it does not have the form of a list or a watch event")]
    Form(#[source] serde_json::Error),
    /// An object lacks what every object has.
    #[error("an object has no {0}")]
    Metadata(&'static str),
    /// An event of a type that nobody has defined.
    #[error("a watch event has the unknown type {0:?}")]
    Type(String),
    /// A line is longer than any object can be.
    #[error("a watch event is longer than {0} bytes")]
    Long(usize),
}

/// A kind as the API server's addresses and permissions name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind(Arc<Names>);

#[derive(Debug, PartialEq, Eq)]
struct Names {
    kind: String,
    plural: String,
    group: String,
    version: String,
}

/// Most events that an index takes at once.
pub const BATCH: usize = 512;

/// A watch that says nothing for this long is asked for again, at the version where it was: the
/// connection may be dead. API servers send a bookmark about once a minute, so that a living one is
/// hardly ever silent for so long.
pub(crate) const SILENCE: Duration = Duration::from_secs(180);

/// How the API server's answer names a version that it has not seen yet.
const TOO_NEW: &str = "ResourceVersionTooLarge";

/// Tells `index` what the collection behind `api` holds, for ever.
///
/// The program spawns this, and drops it to end it; `state` says when the first list is complete.
///
/// Of a collection of [`PartialObjectMeta`](kube::core::PartialObjectMeta) the API server is asked for
/// the metadata alone: what is large about an object is neither sent nor held. Memory for objects on
/// their way is that of one page.
pub async fn run<K, I>(
    api: Api<K>,
    options: Options,
    metrics: Metrics,
    state: watch::Sender<State>,
    index: I,
) -> Infallible
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Send,
    I: Index<K>,
{
    let target = driver::Target::new(api, Kind::of::<K>());
    let driver = driver::Driver::new(target, options, metrics, state, index);
    Box::pin(driver.run()).await
}

/// Like [`run`], for a kind that is chosen at run time; `resource` is what `api` was made with.
pub async fn run_dynamic<I>(
    (api, resource): (Api<DynamicObject>, &ApiResource),
    options: Options,
    metrics: Metrics,
    state: watch::Sender<State>,
    index: I,
) -> Infallible
where
    I: Index<DynamicObject>,
{
    let target = driver::Target::new(api, Kind::from(resource));
    let driver = driver::Driver::new(target, options, metrics, state, index);
    Box::pin(driver.run()).await
}

/// Waits until every one of these watches has told its index the whole collection once. Returns early
/// with `false` if a watch ended, because its future was dropped.
pub async fn all_synced(states: impl IntoIterator<Item = &mut watch::Receiver<State>>) -> bool {
    for state in states {
        if state.wait_for(|state| state.synced).await.is_err() {
            return false;
        }
    }
    true
}

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        Self {
            labels: None,
            fields: None,
            lists: Lists::default(),
            // What all of Kubernetes' own clients use.
            page: 500,
            absent: Duration::from_secs(5),
            backoff: Backoff::default(),
        }
    }
}

// === impl ObjectKey ===

impl ObjectKey {
    /// The key of `object`, if it has a name.
    pub fn of<K: Resource>(object: &K) -> Option<Self> {
        let meta = object.meta();
        Some(Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone()?,
        })
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

// === impl Kind ===

impl Kind {
    /// The names of `K`.
    pub fn of<K: Resource<DynamicType = ()>>() -> Self {
        Self(Arc::new(Names {
            kind: K::kind(&()).into_owned(),
            plural: K::plural(&()).into_owned(),
            group: K::group(&()).into_owned(),
            version: K::version(&()).into_owned(),
        }))
    }

    /// The kind's name, as in a manifest.
    pub fn name(&self) -> &str {
        &self.0.kind
    }
}

impl From<&ApiResource> for Kind {
    fn from(resource: &ApiResource) -> Self {
        Self(Arc::new(Names {
            kind: resource.kind.clone(),
            plural: resource.plural.clone(),
            group: resource.group.clone(),
            version: resource.version.clone(),
        }))
    }
}

impl fmt::Display for Kind {
    /// `pods` or `serviceentries.networking.istio.io`, as in RBAC and as kubectl takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.plural)?;
        if !self.0.group.is_empty() {
            write!(f, ".{}", self.0.group)?;
        }
        Ok(())
    }
}

// === impl Error ===

impl Error {
    fn fault(&self) -> Fault {
        match self {
            Self::List(_, source) | Self::Watch(_, source) => Fault::of(source),
            Self::Refused(_, status) => Fault::of_status(status),
            Self::Silent(..) | Self::Broken(..) | Self::Short(_) => Fault::Unavailable,
            Self::Malformed(..) => Fault::Protocol,
        }
    }

    /// Whether the API server says that it has seen nothing as new as what we know: it lags behind another, or
    /// its store was restored.
    fn is_too_new(&self) -> bool {
        let Self::List(_, kube::Error::Api(status)) = self else {
            return false;
        };
        let mut causes = status.details.iter().flat_map(|details| &details.causes);
        causes.any(|cause| cause.reason == TOO_NEW)
    }

    /// The failure in words, with what helps where we know it.
    fn in_words(&self) -> String {
        let text = Explained(self).to_string();
        match (self, self.fault()) {
            (
                Self::List(kind, _) | Self::Watch(kind, _) | Self::Refused(kind, _),
                Fault::Denied,
            ) => {
                format!("{text}; allow our service account to list and watch {kind}")
            }
            _ => text,
        }
    }
}

/// Whether the API server, asked for its groups, says that it does not know the kind. A 404 alone is not
/// enough: a load balancer in front of it may say that too, and policies must not vanish for it.
async fn is_absent(client: &Client, kind: &Kind) -> Result<bool, kube::Error> {
    let names = &kind.0;
    if names.group.is_empty() {
        return Ok(false);
    }
    let group_version = format!("{}/{}", names.group, names.version);
    let groups = client.list_api_groups().await?.groups;
    let mut versions = groups.iter().flat_map(|group| &group.versions);
    if !versions.any(|version| version.group_version == group_version) {
        return Ok(true);
    }
    let known = client.list_api_group_resources(&group_version).await?;
    let mut resources = known.resources.iter();
    Ok(!resources.any(|resource| resource.name == names.plural))
}

#[cfg(test)]
mod tests;

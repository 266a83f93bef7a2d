//! What is known of the cluster, shared by what fills it and what asks it.

use std::sync::Arc;

use mesh_index::{Index, Key, Kind, Object, Output, Placement, Settings};
use mesh_kube::watch::{self, Event};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch as news};

use crate::metrics::Metrics;

/// The indexes behind locks that are held for single events only. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct World(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    index: Mutex<Index>,
    placement: Arc<RwLock<Placement>>,
    /// Grows with the placement: whoever waits for a pod waits for this.
    placed: news::Sender<u64>,
    changed: Notify,
    metrics: Metrics,
}

/// Carries one kind of object from the API server into the indexes.
#[derive(Debug)]
pub(crate) struct Feed {
    world: World,
    kind: Kind,
}

// === impl World ===

impl World {
    pub(crate) fn new(settings: &Settings, metrics: Metrics) -> Self {
        let world = Self(Arc::new(Inner {
            index: Mutex::new(Index::new(settings.clone())),
            placement: Arc::default(),
            placed: news::Sender::new(0),
            changed: Notify::new(),
            metrics,
        }));
        world.place(|placement| placement.configure(trust_domains(settings)));
        world
    }

    /// Replaces the settings; what they touch changes with the next drain.
    pub(crate) fn configure(&self, settings: Settings) {
        self.place(|placement| placement.configure(trust_domains(&settings)));
        self.0.index.lock().configure(settings);
        self.0.changed.notify_one();
    }

    /// What has changed since the last call.
    pub(crate) fn drain(&self) -> Output {
        self.0.index.lock().drain()
    }

    /// Resolves when there may be something to drain, also if that was before the call.
    pub(crate) async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// Makes the next drain say every status again.
    pub(crate) fn resend_statuses(&self) {
        self.0.index.lock().resend_statuses();
        self.0.changed.notify_one();
    }

    /// A summary for people.
    pub(crate) fn dump(&self) -> impl serde::Serialize + use<> {
        self.0.index.lock().dump()
    }

    /// The pods by node, for decisions about certificates.
    pub(crate) fn placement(&self) -> Arc<RwLock<Placement>> {
        Arc::clone(&self.0.placement)
    }

    /// News of the placement.
    pub(crate) fn placed(&self) -> news::Receiver<u64> {
        self.0.placed.subscribe()
    }

    /// What takes in objects of a kind.
    pub(crate) fn feed(&self, kind: Kind) -> Feed {
        Feed {
            world: self.clone(),
            kind,
        }
    }

    fn place(&self, change: impl FnOnce(&mut Placement)) {
        let generation = {
            let mut placement = self.0.placement.write();
            change(&mut placement);
            placement.generation()
        };
        self.0.placed.send_if_modified(|known| {
            let grown = *known != generation;
            *known = generation;
            grown
        });
    }

    fn place_pods(&self, events: &[Event<Object>]) {
        self.place(|placement| {
            for event in events {
                match event {
                    Event::Apply(Object::Pod(pod)) => placement.apply(pod),
                    Event::Delete(key) => placement.delete(&of(key)),
                    _ => {}
                }
            }
        });
    }
}

/// The trust domain and its other names.
fn trust_domains(settings: &Settings) -> Vec<String> {
    let own = std::iter::once(&settings.trust_domain);
    own.chain(&settings.trust_domain_aliases).cloned().collect()
}

// === impl Feed ===

impl<K: Into<Object> + Send> watch::Index<K> for Feed {
    fn update(&mut self, events: Vec<Event<K>>) {
        let events = events.into_iter().map(into_object).collect::<Vec<_>>();
        let inner = &self.world.0;
        if self.kind == Kind::Pod {
            self.world.place_pods(&events);
        }
        let mut index = inner.index.lock();
        for event in events {
            match event {
                Event::Apply(object) => index.apply(object),
                Event::Delete(key) => index.delete(self.kind, &of(&key)),
                Event::Invalid(invalid) => {
                    inner.metrics.rejected(self.kind);
                    tracing::warn!(
                        kind = %self.kind,
                        object = %invalid.key,
                        reason = invalid.reason,
                        "object cannot be read; what it said before stays in force"
                    );
                }
            }
        }
        drop(index);
        inner.changed.notify_one();
    }
}

fn into_object<K: Into<Object>>(event: Event<K>) -> Event<Object> {
    match event {
        Event::Apply(object) => Event::Apply(object.into()),
        Event::Delete(key) => Event::Delete(key),
        Event::Invalid(invalid) => Event::Invalid(invalid),
    }
}

fn of(key: &watch::ObjectKey) -> Key {
    Key::new(key.namespace.as_str(), key.name.as_str())
}

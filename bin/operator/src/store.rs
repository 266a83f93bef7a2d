//! What is known, shared by what fills it and what works on it; and who is woken by what.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use mesh_api::sail::IstioRevision;
use mesh_kube::queue::{self, Pace};
use parking_lot::Mutex;

use crate::{
    key::{Key, Managed, ObjectRef},
    world::{Custom, Defaults, Depends, Live, View, World},
};

mod wakes;

use self::wakes::Wakes;

/// The world behind a lock that is held for single decisions only, never while somebody waits. Cheap to
/// clone.
#[derive(Clone, Debug)]
pub(crate) struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    queue: queue::Shared<Key>,
}

#[derive(Debug, Default)]
struct State {
    world: World,
    wakes: Wakes,
}

/// What a change concerns.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    keys: BTreeSet<Key>,
    things: BTreeSet<Depends>,
}

// === impl Store ===

impl Store {
    pub(crate) fn new(pace: Pace) -> Self {
        Self(Arc::new(Inner {
            state: Mutex::default(),
            queue: queue::Shared::new(pace),
        }))
    }

    /// The resources that have to be looked at.
    pub(crate) fn queue(&self) -> &queue::Shared<Key> {
        &self.0.queue
    }

    /// Changes the world, and wakes whoever looks at what has changed.
    pub(crate) fn change(&self, change: impl FnOnce(&mut World, &mut Changes)) {
        let mut changes = Changes::default();
        let woken = {
            let mut state = self.0.state.lock();
            change(&mut state.world, &mut changes);
            state.wakes.woken_by(changes)
        };
        if !woken.is_empty() {
            self.0.queue.wake(woken);
        }
    }

    /// Reads the world.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&World) -> T) -> T {
        read(&self.0.state.lock().world)
    }

    /// Decides about a resource. What is asked of the view wakes it from now on, and nothing else does:
    /// no change can come between the decision and that.
    pub(crate) fn decide<T>(
        &self,
        key: &Key,
        (defaults, now): (&Defaults, Timestamp),
        decide: impl FnOnce(&World, &View<'_>) -> T,
    ) -> T {
        let mut state = self.0.state.lock();
        state.world.owned.doubt(now);
        let view = View::new(&state.world, defaults, now);
        let decision = decide(&state.world, &view);
        let seen = view.seen();
        state.wakes.saw(key, seen);
        decision
    }

    /// Wakes all resources.
    pub(crate) fn wake_all(&self) {
        let keys: Vec<_> = self.read(|world| world.keys().collect());
        self.0.queue.wake(keys);
    }

    /// Remembers an object as the API server has answered it to a write, so that the next decision need
    /// not wait for the watch.
    pub(crate) fn learn(&self, object: ObjectRef, live: Live, now: Timestamp) {
        self.change(|world, changes| {
            if Managed::of(object.kind) == Some(Managed::IstioRevision) {
                // A new one is left to its watch, which tells of the end of what it has told of.
                if world.revisions.contains_key(&object.name)
                    && let Ok(revision) = serde_json::from_value::<IstioRevision>(live.body)
                {
                    world.put(revision, changes);
                }
            } else if world.owned.learn(object.clone(), live, now) {
                changes.thing(Depends::Object(object));
            }
        });
    }

    /// Remembers a resource as the API server has answered it.
    pub(crate) fn learn_resource<K: Custom>(&self, resource: K) {
        self.change(|world, changes| world.put(resource, changes));
    }
}

// === impl Changes ===

impl Changes {
    /// Wakes this resource.
    pub(crate) fn key(&mut self, key: Key) {
        self.keys.insert(key);
    }

    /// Wakes whoever has asked about this.
    pub(crate) fn thing(&mut self, thing: Depends) {
        self.things.insert(thing);
    }
}

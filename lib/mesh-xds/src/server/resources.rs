//! The published resources, shared between those who change them and the streams that tell of them.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use parking_lot::{RwLock, RwLockReadGuard};
use tokio::{sync::watch, time::Instant};

use super::{Catalog, Update};
use crate::Change;

/// What is published. A handle that is cheap to clone; all clones share one catalog.
///
/// A control plane that has just started knows little, and clients take what is missing for gone. So
/// nothing is told before [`Resources::ready`] is called: [`super::Service`] sends clients away until
/// then, and they keep what they have.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Held for writing only while prepared changes are filed.
    state: RwLock<State>,
    /// How often something was published.
    published: watch::Sender<u64>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) catalog: Catalog,
    ready: bool,
    /// How often something was published into `catalog`.
    pub(super) published: u64,
    /// When the latest publications were, oldest first.
    times: VecDeque<Instant>,
}

/// Publications whose time is remembered. A stream that is further behind reports less delay than it
/// has; 10 pushes a second last for 100 seconds.
const TIMES: usize = 1024;

// === impl Resources ===

impl Resources {
    /// Resources over a catalog that may already hold some.
    pub fn new(catalog: Catalog) -> Self {
        let shared = Shared {
            state: RwLock::new(State {
                catalog,
                ..State::default()
            }),
            published: watch::Sender::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Says that the catalog is complete: from now on what is not in it does not exist. It cannot be
    /// taken back.
    pub fn ready(&self) {
        self.shared.state.write().ready = true;
    }

    /// Whether the catalog is complete.
    pub fn is_ready(&self) -> bool {
        self.shared.state.read().ready
    }

    /// Publishes a batch of changes; streams see all of it or nothing. What does not change a resource
    /// is not pushed.
    pub fn apply(&self, changes: impl IntoIterator<Item = Change>) {
        let encoded = changes.into_iter();
        self.publish(encoded.map(|change| Update::from(&change)));
    }

    /// Publishes resources of any type.
    pub fn publish<'a>(&self, updates: impl IntoIterator<Item = Update<'a>>) {
        let now = Instant::now();
        // Collected first, so that nothing is encoded under the lock.
        let updates: Vec<_> = updates.into_iter().collect();
        let mut state = self.shared.state.write();
        let mut changed = false;
        for update in updates {
            changed |= (state.catalog).set(update.type_url, update.name, update.resource);
        }
        if !changed {
            return;
        }
        state.note(now);
        let published = state.published;
        drop(state);
        self.shared.published.send_replace(published);
    }

    /// How many resources of a type are published.
    pub fn len(&self, type_url: &str) -> usize {
        self.read().catalog.len(type_url)
    }

    /// The names and encoded messages of a type, for a view of what is published. The messages are
    /// shared, not copied.
    pub fn bodies(&self, type_url: &str) -> Vec<(Arc<str>, Bytes)> {
        let state = self.read();
        let bodies = state.catalog.bodies(type_url);
        bodies
            .map(|(name, body)| (name.clone(), body.clone()))
            .collect()
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.shared.state.read()
    }

    /// Changes with each publication, to its number.
    pub(super) fn published(&self) -> watch::Receiver<u64> {
        self.shared.published.subscribe()
    }

    /// When the publication with a number was, or the oldest one after it that is remembered.
    pub(super) fn time_of(&self, number: u64) -> Option<Instant> {
        self.shared.state.read().time_of(number)
    }
}

// === impl State ===

impl State {
    fn note(&mut self, now: Instant) {
        self.published += 1;
        if self.times.len() == TIMES {
            self.times.pop_front();
        }
        self.times.push_back(now);
    }

    fn time_of(&self, number: u64) -> Option<Instant> {
        let back = usize::try_from(self.published.checked_sub(number)?).unwrap_or(usize::MAX);
        let index = self.times.len().saturating_sub(back.saturating_add(1));
        self.times.get(index).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_time_of_each_publication_is_remembered_for_a_while() {
        let mut state = State::default();
        let start = Instant::now();
        let at = |i: usize| start + Duration::from_millis(i as u64);
        for i in 1..=TIMES + 2 {
            state.note(at(i));
        }
        let last = TIMES + 2;
        assert_eq!(state.time_of(last as u64), Some(at(last)));
        assert_eq!(state.time_of(last as u64 - 5), Some(at(last - 5)));
        assert_eq!(state.time_of(1), Some(at(3)));
        assert_eq!(state.time_of(last as u64 + 1), None);
    }

    #[test]
    fn what_changes_nothing_is_not_published() {
        let resources = Resources::default();
        let published = resources.published();
        let update = || Update {
            type_url: "t",
            name: "a".into(),
            resource: Some(Bytes::from_static(b"1").into()),
        };
        resources.publish([update()]);
        resources.publish([update()]);
        assert_eq!(*published.borrow(), 1);
        assert!(!resources.is_ready());
        resources.ready();
        assert!(resources.is_ready());
    }
}

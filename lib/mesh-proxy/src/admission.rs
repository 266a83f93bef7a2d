//! Who may be in the middle of a handshake: a bounded number, of which the oldest yields.
//!
//! Strangers can open connections and say nothing. If newcomers were turned away while such handshakes
//! fill all places, a handful of strangers would lock out everybody; so the newcomer is let in and the
//! one that has stalled longest is given up. A real peer is done within milliseconds.

use std::{collections::BTreeMap, future::Future, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// A bounded number of places; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Admission(Arc<Mutex<Places>>);

#[derive(Debug)]
struct Places {
    next: u64,
    limit: usize,
    /// By age. Dropping a sender evicts its place.
    taken: BTreeMap<u64, oneshot::Sender<()>>,
}

/// A place; left when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    admission: Admission,
    id: u64,
    evicted: oneshot::Receiver<()>,
}

// === impl Admission ===

impl Admission {
    pub(crate) fn new(limit: usize) -> Self {
        Self(Arc::new(Mutex::new(Places {
            next: 0,
            limit: limit.max(1),
            taken: BTreeMap::new(),
        })))
    }

    /// Takes a place, from the one that has held its place longest if none is free.
    pub(crate) fn enter(&self) -> Place {
        let (sender, evicted) = oneshot::channel();
        let mut places = self.0.lock();
        if places.taken.len() >= places.limit {
            places.taken.pop_first();
        }
        let id = places.next;
        places.next += 1;
        places.taken.insert(id, sender);
        Place {
            admission: self.clone(),
            id,
            evicted,
        }
    }
}

// === impl Place ===

impl Place {
    /// Runs `work` while the place is held; `None` if it was taken away before the work was done.
    pub(crate) async fn hold<T>(mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            _ = &mut self.evicted => None,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.admission.0.lock().taken.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use std::{future::pending, pin::pin};

    #[test]
    fn the_oldest_yields_to_the_newest_and_only_when_there_is_no_room() {
        let admission = Admission::new(2);
        let mut first = pin!(admission.enter().hold(pending::<()>()));
        let mut second = pin!(admission.enter().hold(pending::<()>()));
        assert_eq!(first.as_mut().now_or_never(), None);
        let mut third = pin!(admission.enter().hold(pending::<()>()));
        assert_eq!(first.as_mut().now_or_never(), Some(None));
        assert_eq!(second.as_mut().now_or_never(), None);
        assert_eq!(third.as_mut().now_or_never(), None);
    }

    #[test]
    fn a_place_is_free_again_when_its_work_is_done() {
        let admission = Admission::new(1);
        for _ in 0..3 {
            assert_eq!(
                admission.enter().hold(async { 7 }).now_or_never(),
                Some(Some(7))
            );
        }
        assert_eq!(admission.0.lock().taken.len(), 0);
    }
}

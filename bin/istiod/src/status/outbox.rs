//! Statuses on their way from the index to the API server, the newest of each object only.
//!
//! While the API server hangs the index goes on; what is waiting then grows with the objects, not with
//! what happens to them.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use mesh_index::{Key, Kind, output::StatusUpdate};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

/// The queue between the publisher and the writer. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// None while nobody writes: then nothing is kept.
    queue: Mutex<Option<Queue>>,
    news: Notify,
}

/// What is to be written and what is being written. Whatever is here, each [`Id`] is in one place.
#[derive(Debug, Default)]
struct Queue {
    ready: BTreeMap<Id, StatusUpdate>,
    /// What is being written, with what is to be written after it.
    busy: HashMap<Id, Option<StatusUpdate>>,
    failed: HashMap<Id, StatusUpdate>,
    /// When what failed is due again, the earliest first.
    retries: VecDeque<(Instant, Id)>,
}

/// Who says something about which object.
pub(super) type Id = (Kind, Key, &'static str);

/// How long to wait before what failed is tried again.
const RETRY: Duration = Duration::from_secs(5);

// === impl Outbox ===

impl Outbox {
    /// Puts updates into the queue, if somebody is going to write them.
    pub(crate) fn put(&self, updates: Vec<StatusUpdate>) {
        if let Some(queue) = &mut *self.0.queue.lock() {
            for update in updates {
                queue.put(update);
            }
        }
        self.0.news.notify_one();
    }

    /// Begins to keep what is put, from nothing.
    pub(super) fn open(&self) {
        *self.0.queue.lock() = Some(Queue::default());
    }

    /// Forgets everything, and keeps nothing from now on.
    pub(super) fn close(&self) {
        *self.0.queue.lock() = None;
    }

    /// What is to be written next. Nothing else of its object is given out before [`done`](Self::done).
    pub(super) fn take(&self) -> Option<(Id, StatusUpdate)> {
        self.0.queue.lock().as_mut()?.take(Instant::now())
    }

    /// Something has been written, or has failed and is worth another attempt.
    pub(super) fn done(&self, id: Id, failed: Option<StatusUpdate>) {
        if let Some(queue) = &mut *self.0.queue.lock() {
            queue.done(id, failed, Instant::now());
        }
    }

    /// When something that failed is due again.
    pub(super) fn retry(&self) -> Option<Instant> {
        let queue = self.0.queue.lock();
        queue.as_ref()?.retries.front().map(|(due, _)| *due)
    }

    /// Resolves when something has been put, also if that was before the call.
    pub(super) async fn news(&self) {
        self.0.news.notified().await;
    }
}

// === impl Queue ===

impl Queue {
    fn put(&mut self, update: StatusUpdate) {
        let id = id(&update);
        if let Some(after) = self.busy.get_mut(&id) {
            *after = Some(update);
        } else if let Some(failed) = self.failed.get_mut(&id) {
            // It waits its turn: what changes fast is not tried fast.
            *failed = update;
        } else {
            self.ready.insert(id, update);
        }
    }

    fn take(&mut self, now: Instant) -> Option<(Id, StatusUpdate)> {
        while let Some((_, id)) = self.retries.pop_front_if(|(due, _)| *due <= now) {
            self.ready.extend(self.failed.remove_entry(&id));
        }
        let (id, update) = self.ready.pop_first()?;
        self.busy.insert(id.clone(), None);
        Some((id, update))
    }

    fn done(&mut self, id: Id, failed: Option<StatusUpdate>, now: Instant) {
        let newer = self.busy.remove(&id).flatten();
        match (newer, failed) {
            (newer, Some(failed)) => {
                self.failed.insert(id.clone(), newer.unwrap_or(failed));
                self.retries.push_back((now + RETRY, id));
            }
            (Some(newer), None) => drop(self.ready.insert(id, newer)),
            (None, None) => {}
        }
    }
}

fn id(update: &StatusUpdate) -> Id {
    (update.kind, update.key.clone(), update.reporter)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An update of the service `name` that is the `generation`th.
    fn mk_update(name: &str, generation: i64) -> StatusUpdate {
        StatusUpdate {
            kind: Kind::Service,
            key: Key::new("shop", name),
            generation,
            reporter: "test",
            conditions: Vec::new(),
            addresses: Vec::new(),
        }
    }

    fn generation(taken: Option<(Id, StatusUpdate)>) -> Option<i64> {
        taken.map(|(_, update)| update.generation)
    }

    #[test]
    fn the_newest_of_each_object_is_kept_while_nothing_is_written() {
        let outbox = Outbox::default();
        outbox.open();
        for generation in 0..1000 {
            outbox.put(vec![
                mk_update("a", generation),
                mk_update("b", -generation),
            ]);
        }
        assert_eq!(generation(outbox.take()), Some(999));
        assert_eq!(generation(outbox.take()), Some(-999));
        assert_eq!(outbox.take(), None);
    }

    #[test]
    fn one_write_of_an_object_follows_another() {
        let mut queue = Queue::default();
        let now = Instant::now();
        queue.put(mk_update("a", 1));
        let (id, _) = queue.take(now).unwrap();
        queue.put(mk_update("a", 2));
        queue.put(mk_update("a", 3));
        assert_eq!(queue.take(now), None);
        queue.done(id, None, now);
        assert_eq!(generation(queue.take(now)), Some(3));
    }

    #[test]
    fn what_failed_is_tried_again_in_time_in_its_newest_form() {
        let mut queue = Queue::default();
        let now = Instant::now();
        queue.put(mk_update("a", 1));
        let (id, update) = queue.take(now).unwrap();
        queue.done(id.clone(), Some(update.clone()), now);
        assert_eq!(queue.take(now), None);
        queue.put(mk_update("a", 2));
        assert_eq!(queue.take(now), None);
        assert_eq!(generation(queue.take(now + RETRY)), Some(2));
        // It may have changed while it was being tried, too.
        queue.put(mk_update("a", 3));
        queue.done(id, Some(update), now);
        assert_eq!(generation(queue.take(now + RETRY)), Some(3));
        assert_eq!(queue.take(now + 2 * RETRY), None);
    }

    #[test]
    fn a_failure_that_changes_all_the_time_takes_no_more_room() {
        let mut queue = Queue::default();
        let now = Instant::now();
        for round in 0..100 {
            queue.put(mk_update("a", round));
            if let Some((id, update)) = queue.take(now) {
                queue.done(id, Some(update), now);
            }
        }
        assert_eq!((queue.retries.len(), queue.failed.len()), (1, 1));
        assert!(queue.ready.is_empty() && queue.busy.is_empty());
    }

    #[test]
    fn nothing_is_kept_while_nobody_writes() {
        let outbox = Outbox::default();
        outbox.put(vec![mk_update("a", 1)]);
        outbox.open();
        assert_eq!(outbox.take(), None);
        outbox.put(vec![mk_update("a", 2)]);
        outbox.close();
        outbox.open();
        assert_eq!(outbox.take(), None);
    }
}

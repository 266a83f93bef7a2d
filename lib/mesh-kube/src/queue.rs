//! What has to be looked at, by key: each once, one worker per key at a time, in order of time.
//!
//! [`Queue`] is the pure table, [`Shared`] what programs hold. A key that is woken while somebody works
//! on it is handed out again afterwards, so that no news is lost and nothing is done twice at once. Keys
//! that fail wait, each with a back-off of its own; keys that are woken without end, such as by somebody
//! who undoes what we write, are slowed down to their [`Pace`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::backoff::Backoff;

/// The table. Nothing happens in it by itself: every call says what time it is.
#[derive(Clone, Debug)]
pub struct Queue<K> {
    entries: BTreeMap<K, Entry>,
    /// The keys that nobody works on and that are due some time.
    schedule: BTreeSet<(Instant, K)>,
    pace: Pace,
}

/// A queue that tasks share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shared<K>(Arc<Inner<K>>);

/// How fast one key may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How often a key is handed out in a row.
    pub burst: u32,
    /// How long it takes until one more time is granted.
    pub every: Duration,
    /// How long a key waits after a failure.
    pub backoff: Backoff,
}

/// How the work on a key ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// Well. It is handed out when it is woken.
    Settled,
    /// Well so far. It is handed out after this time, or when it is woken.
    Again(Duration),
    /// It failed for a reason that may pass: the back-off of the key says when it is handed out.
    Failed,
    /// It failed, and somebody has to help: it is handed out after this time, or when it is woken.
    Stuck(Duration),
    /// There is nothing of this key any more.
    Gone,
}

/// What a queue hands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next<K> {
    /// This key, until [`Queue::done`].
    Key(K),
    /// Nothing before this time.
    At(Instant),
    /// Nothing before something is woken.
    Idle,
}

#[derive(Clone, Debug)]
struct Entry {
    /// When it is to be handed out.
    due: Option<Instant>,
    running: bool,
    backoff: Backoff,
    /// How often it may be handed out in a row, as of `counted`.
    credit: u32,
    counted: Instant,
}

#[derive(Debug)]
struct Inner<K> {
    queue: Mutex<Queue<K>>,
    changed: Notify,
}

// === impl Queue ===

impl<K: Clone + Ord> Queue<K> {
    /// An empty queue.
    pub const fn new(pace: Pace) -> Self {
        Self {
            entries: BTreeMap::new(),
            schedule: BTreeSet::new(),
            pace,
        }
    }

    /// Keys that are due at `now` and that nobody works on.
    pub fn depth(&self, now: Instant) -> usize {
        let due = self.schedule.iter().take_while(|(due, _)| *due <= now);
        due.count()
    }

    /// Has the key handed out as soon as its pace allows.
    pub fn wake(&mut self, key: K, now: Instant) {
        self.wake_at(key, now, now);
    }

    /// Hands out the key that has been due for longest.
    pub fn next(&mut self, now: Instant) -> Next<K> {
        loop {
            let Some((due, key)) = self.schedule.first().cloned() else {
                return Next::Idle;
            };
            if due > now {
                return Next::At(due);
            }
            self.schedule.pop_first();
            let Some(entry) = self.entries.get_mut(&key) else {
                continue;
            };
            match entry.take_credit(&self.pace, now) {
                Ok(()) => {
                    entry.due = None;
                    entry.running = true;
                    return Next::Key(key);
                }
                Err(at) => {
                    entry.due = Some(at);
                    self.schedule.insert((at, key));
                }
            }
        }
    }

    /// The work on a key has ended.
    pub fn done(&mut self, key: &K, done: Done, now: Instant) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        entry.running = false;
        let wait = match done {
            Done::Settled | Done::Gone => None,
            Done::Again(wait) | Done::Stuck(wait) => Some(wait),
            Done::Failed => Some(entry.backoff.failed()),
        };
        if !matches!(done, Done::Failed | Done::Stuck(_)) {
            entry.backoff.succeeded();
        }
        // It may have been woken meanwhile.
        let due = entry.due.take();
        let after = wait.map(|wait| now + wait);
        if done == Done::Gone && due.is_none() {
            self.entries.remove(key);
        } else if let Some(at) = earlier(due, after) {
            self.wake_at(key.clone(), at, now);
        }
    }

    fn wake_at(&mut self, key: K, at: Instant, now: Instant) {
        let new = || Entry::new(&self.pace, now);
        let entry = self.entries.entry(key.clone()).or_insert_with(new);
        if let Some(due) = entry.due {
            if due <= at {
                return;
            }
            self.schedule.remove(&(due, key.clone()));
        }
        entry.due = Some(at);
        if !entry.running {
            self.schedule.insert((at, key));
        }
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

// === impl Entry ===

impl Entry {
    fn new(pace: &Pace, now: Instant) -> Self {
        Self {
            due: None,
            running: false,
            backoff: pace.backoff.clone(),
            credit: pace.burst.max(1),
            counted: now,
        }
    }

    /// Counts one more time, or says when it is granted.
    fn take_credit(&mut self, pace: &Pace, now: Instant) -> Result<(), Instant> {
        let every = pace.every.max(Duration::from_nanos(1));
        let earned = now.saturating_duration_since(self.counted).as_nanos() / every.as_nanos();
        let earned = u32::try_from(earned).unwrap_or(u32::MAX);
        if self.credit.saturating_add(earned) >= pace.burst.max(1) {
            self.credit = pace.burst.max(1);
            self.counted = now;
        } else {
            self.credit += earned;
            self.counted += every * earned;
        }
        match self.credit.checked_sub(1) {
            Some(left) => {
                self.credit = left;
                Ok(())
            }
            None => Err(self.counted + every),
        }
    }
}

// === impl Shared ===

impl<K: Clone + Ord> Shared<K> {
    /// An empty queue.
    pub fn new(pace: Pace) -> Self {
        Self(Arc::new(Inner {
            queue: Mutex::new(Queue::new(pace)),
            changed: Notify::new(),
        }))
    }

    /// See [`Queue::depth`].
    pub fn depth(&self) -> usize {
        self.0.queue.lock().depth(Instant::now())
    }

    /// See [`Queue::wake`].
    pub fn wake(&self, keys: impl IntoIterator<Item = K>) {
        let now = Instant::now();
        let mut queue = self.0.queue.lock();
        for key in keys {
            queue.wake(key, now);
        }
        drop(queue);
        self.0.changed.notify_one();
    }

    /// Waits for the next key. The caller owes a [`Shared::done`] for it.
    pub async fn next(&self) -> K {
        loop {
            let next = self.0.queue.lock().next(Instant::now());
            match next {
                Next::Key(key) => {
                    // Another worker may find more.
                    self.0.changed.notify_one();
                    return key;
                }
                Next::At(at) => tokio::select! {
                    () = sleep_until(at) => {}
                    () = self.0.changed.notified() => {}
                },
                Next::Idle => self.0.changed.notified().await,
            }
        }
    }

    /// See [`Queue::done`].
    pub fn done(&self, key: &K, done: Done) {
        self.0.queue.lock().done(key, done, Instant::now());
        self.0.changed.notify_one();
    }
}

// === impl Pace ===

impl Default for Pace {
    /// Thirty times in a row, then twice a second: an installation writes some twenty objects of one
    /// key, each of which wakes it once; a war over a field costs little.
    fn default() -> Self {
        Self {
            burst: 30,
            every: Duration::from_millis(500),
            backoff: Backoff::default(),
        }
    }
}

#[cfg(test)]
mod tests;

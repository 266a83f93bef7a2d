//! Turns: a bound on how many streams do something that takes much memory.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep_until},
};

/// Gives turns, first come, first served. A turn that lasts too long no longer counts, so that clients
/// which do not take what they asked for cannot keep the others waiting for ever.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    free: Semaphore,
    longest: Duration,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    /// When each turn ceases to count; in the order of time as well.
    until: BTreeMap<u64, Instant>,
}

/// Somebody's turn, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    shared: Arc<Shared>,
    number: u64,
}

// === impl Turns ===

impl Turns {
    pub(super) fn new(turns: usize, longest: Duration) -> Self {
        let shared = Shared {
            free: Semaphore::new(turns.clamp(1, Semaphore::MAX_PERMITS)),
            longest,
            taken: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    pub(super) async fn take(&self) -> Turn {
        let free = self.shared.free.acquire();
        tokio::pin!(free);
        loop {
            tokio::select! {
                biased;
                permit = &mut free => {
                    // An error is impossible, since nothing closes the semaphore; a turn too many does
                    // less harm than none.
                    if let Ok(permit) = permit {
                        permit.forget();
                    }
                    return self.shared.begin();
                }
                () = sleep_until(self.shared.next_end()) => self.shared.end_overdue(),
            }
        }
    }
}

// === impl Shared ===

impl Shared {
    fn begin(self: &Arc<Self>) -> Turn {
        let mut taken = self.taken.lock();
        let number = taken.next;
        taken.next += 1;
        taken.until.insert(number, Instant::now() + self.longest);
        Turn {
            shared: Arc::clone(self),
            number,
        }
    }

    fn next_end(&self) -> Instant {
        let taken = self.taken.lock();
        let first = taken.until.first_key_value().map(|(_, until)| *until);
        first.unwrap_or_else(|| Instant::now() + self.longest)
    }

    fn end_overdue(&self) {
        let now = Instant::now();
        let mut taken = self.taken.lock();
        while let Some(first) = taken.until.first_entry() {
            if *first.get() > now {
                return;
            }
            first.remove();
            self.free.add_permits(1);
        }
    }
}

// === impl Turn ===

impl Drop for Turn {
    fn drop(&mut self) {
        if self
            .shared
            .taken
            .lock()
            .until
            .remove(&self.number)
            .is_some()
        {
            self.shared.free.add_permits(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, pin_mut};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_are_given_back_and_the_first_who_waits_is_next() {
        let turns = Turns::new(1, Duration::from_secs(30));
        let first = turns.take().await;
        let (second, third) = (turns.take(), turns.take());
        pin_mut!(second, third);
        assert!((&mut second).now_or_never().is_none());
        assert!((&mut third).now_or_never().is_none());
        drop(first);
        assert!((&mut third).now_or_never().is_none());
        drop((&mut second).now_or_never().unwrap());
        assert!((&mut third).now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_is_never_given_back_ceases_to_count() {
        let turns = Turns::new(1, Duration::from_secs(30));
        let before = Instant::now();
        let lost = turns.take().await;
        let next = turns.take().await;
        assert_eq!(before.elapsed().as_secs(), 30);
        // Giving it back late does not make two of it.
        drop(lost);
        assert!(turns.take().now_or_never().is_none());
        drop(next);
        assert!(turns.take().now_or_never().is_some());
    }
}

//! How fast to undo what others do.
//!
//! One change is repaired at once. Somebody who changes it back again and again owns the file as much as
//! we do, and to answer every time would keep both busy for ever, with the runtime reading a new
//! configuration every time: after a handful the answers come slowly. They never stop.

use std::time::Duration;

use tokio::time::Instant;

/// A bucket of repairs.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    /// Whole repairs that are left.
    left: u32,
    /// When the last one came into the bucket, while it is not full.
    since: Instant,
}

/// Whether to repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Now.
    Now,
    /// When this time has passed.
    In(Duration),
}

/// How many repairs in a row are done at once.
pub(super) const AT_ONCE: u32 = 5;
/// How long one more takes to come. A runtime that reads its configuration anew once in this time has nothing
/// to suffer.
pub(super) const EVERY: Duration = Duration::from_secs(30);

// === impl Pace ===

impl Pace {
    /// A full bucket.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            left: AT_ONCE,
            since: now,
        }
    }

    /// Asks for a repair, and takes it if it is given.
    pub(super) fn take(&mut self, now: Instant) -> Turn {
        self.refill(now);
        if self.left == 0 {
            return Turn::In((self.since + EVERY).saturating_duration_since(now));
        }
        if self.left == AT_ONCE {
            self.since = now;
        }
        self.left -= 1;
        Turn::Now
    }

    /// A repair that was taken could not be done: the disk is to blame, and not another owner.
    pub(super) fn give_back(&mut self) {
        self.left = (self.left + 1).min(AT_ONCE);
    }

    /// Whether somebody else does not leave off.
    pub(super) fn is_contended(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.left <= 1
    }

    fn refill(&mut self, now: Instant) {
        while self.left < AT_ONCE && now.saturating_duration_since(self.since) >= EVERY {
            self.since += EVERY;
            self.left += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handful_is_repaired_at_once_and_the_rest_slowly() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        for repair in 0..AT_ONCE {
            assert_eq!(pace.take(start), Turn::Now, "repair {repair}");
        }
        assert!(pace.is_contended(start));
        assert_eq!(pace.take(start), Turn::In(EVERY));
        let later = start + EVERY / 3;
        assert_eq!(pace.take(later), Turn::In(EVERY / 3 * 2));
        for round in 1..4 {
            let now = start + EVERY * round;
            assert_eq!(pace.take(now), Turn::Now, "round {round}");
            assert_eq!(pace.take(now), Turn::In(EVERY), "round {round}");
        }
    }

    #[test]
    fn who_leaves_off_is_answered_at_once_again() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        for _ in 0..AT_ONCE {
            pace.take(start);
        }
        let quiet = start + EVERY * (AT_ONCE + 1);
        assert!(!pace.is_contended(quiet));
        for repair in 0..AT_ONCE {
            assert_eq!(pace.take(quiet), Turn::Now, "repair {repair}");
        }
        assert_eq!(pace.take(quiet), Turn::In(EVERY));
    }

    #[test]
    fn what_the_disk_refused_does_not_count() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        for _ in 0..100 {
            assert_eq!(pace.take(start), Turn::Now);
            pace.give_back();
        }
        assert!(!pace.is_contended(start));
    }
}

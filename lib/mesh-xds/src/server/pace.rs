//! How often one stream is served. Pure: time comes in.

use std::time::Duration;

use tokio::time::Instant;

/// When changes are pushed: at once after a quiet time, and otherwise once per window.
#[derive(Debug)]
pub(super) struct Pace {
    window: Duration,
    /// When the last push was complete.
    last: Option<Instant>,
    /// Whether something must be said without waiting, or a push has begun.
    now: bool,
}

/// Requests that may be read: so many at once, and as many a second after that.
#[derive(Debug)]
pub(super) struct Budget {
    most: u32,
    left: u32,
    /// From when `left` counts.
    since: Instant,
}

// === impl Pace ===

impl Pace {
    pub(super) fn new(window: Duration) -> Self {
        Self {
            window,
            last: None,
            now: false,
        }
    }

    /// Something is to be said at once: a request is to be answered.
    pub(super) fn hurry(&mut self) {
        self.now = true;
    }

    /// From when on changes may be pushed.
    pub(super) fn from(&self, now: Instant) -> Instant {
        match self.last {
            Some(last) if !self.now => now.max(last + self.window),
            _ => now,
        }
    }

    /// A response was made; those of other types belong to the same push.
    pub(super) fn pushing(&mut self) {
        self.now = true;
    }

    /// There is nothing more to say. Only if something has been said, the window begins.
    pub(super) fn pushed(&mut self, now: Instant, something: bool) {
        self.now = false;
        if something {
            self.last = Some(now);
        }
    }
}

// === impl Budget ===

impl Budget {
    pub(super) fn new(most: u32, now: Instant) -> Self {
        let most = most.max(1);
        Self {
            most,
            left: most,
            since: now,
        }
    }

    /// A request was read.
    pub(super) fn spend(&mut self, now: Instant) {
        self.refill(now);
        self.left = self.left.saturating_sub(1);
    }

    /// When the next request may be read; nothing if now.
    pub(super) fn wait(&mut self, now: Instant) -> Option<Instant> {
        self.refill(now);
        (self.left == 0).then(|| self.since + self.interval())
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.since);
        let gained = elapsed.as_nanos() / self.interval().as_nanos().max(1);
        let gained = u32::try_from(gained).unwrap_or(self.most).min(self.most);
        self.left = self.left.saturating_add(gained).min(self.most);
        if self.left == self.most {
            self.since = now;
        } else {
            self.since += self.interval() * gained;
        }
    }

    fn interval(&self) -> Duration {
        Duration::from_secs(1) / self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_millis(10);

    #[test]
    fn a_change_after_a_quiet_time_is_pushed_at_once_and_the_next_ones_together() {
        let start = Instant::now();
        let mut pace = Pace::new(WINDOW);
        assert_eq!(pace.from(start), start);
        pace.pushing();
        pace.pushed(start, true);
        let soon = start + WINDOW / 2;
        assert_eq!(pace.from(soon), start + WINDOW);
        // A request does not wait.
        pace.hurry();
        assert_eq!(pace.from(soon), soon);
        pace.pushed(soon, false);
        let later = start + WINDOW * 3;
        assert_eq!(pace.from(later), later);
    }

    #[test]
    fn requests_are_read_as_fast_as_the_budget_allows() {
        let start = Instant::now();
        let mut budget = Budget::new(10, start);
        for _ in 0..10 {
            assert_eq!(budget.wait(start), None);
            budget.spend(start);
        }
        let tenth = Duration::from_millis(100);
        assert_eq!(budget.wait(start), Some(start + tenth));
        assert_eq!(budget.wait(start + tenth), None);
        budget.spend(start + tenth);
        assert_eq!(budget.wait(start + tenth), Some(start + tenth * 2));
        // A long rest gives no more than the budget.
        let mut read = 0;
        let later = start + Duration::from_secs(3600);
        while budget.wait(later).is_none() {
            budget.spend(later);
            read += 1;
        }
        assert_eq!(read, 10);
    }
}

//! How long to wait before the next attempt.

use std::time::Duration;

/// Waits that double with every failure, each shortened by up to a half at random so that the clients of
/// a server that comes back do not all come at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

// === impl Backoff ===

impl Backoff {
    /// Waits from `first` to `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            next: first,
        }
    }

    /// How long to wait after one more failure.
    pub fn failed(&mut self) -> Duration {
        let wait = self.next.min(self.longest);
        self.next = wait.saturating_mul(2).min(self.longest);
        wait.mul_f64(1.0 - fastrand::f64() / 2.0)
    }

    /// Something worked: the next failure waits the first wait again.
    pub const fn succeeded(&mut self) {
        self.next = self.first;
    }
}

impl Default for Backoff {
    /// A quarter of a second to half a minute: an API server that restarts is found again soon, one that
    /// is down for an hour is asked twice a minute.
    fn default() -> Self {
        Self::new(Duration::from_millis(250), Duration::from_secs(30))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_start_over_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        for longest in [1, 2, 4, 5, 5] {
            let (wait, longest) = (backoff.failed(), Duration::from_secs(longest));
            assert!(wait <= longest && wait >= longest / 2, "{wait:?}");
        }
        backoff.succeeded();
        assert!(backoff.failed() <= Duration::from_secs(1));
    }
}

//! How long to wait before the next attempt.

use std::time::Duration;

/// First wait after a failure.
const FIRST: Duration = Duration::from_millis(10);

/// Longest wait. Also how long a stream must have worked for the waits to start over: a server that
/// accepts, answers and falls over is not asked for everything a hundred times a second.
pub(super) const LONGEST: Duration = Duration::from_secs(15);

/// Doubling waits with jitter, so that the proxies of a cluster do not return all at once.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

// === impl Backoff ===

impl Backoff {
    pub(super) fn new() -> Self {
        Self { next: FIRST }
    }

    /// Takes note of an attempt that ended after `worked`, which is zero if it never got an answer,
    /// and says how long to wait: between half of the nominal wait and all of it.
    pub(super) fn ended(&mut self, worked: Duration) -> Duration {
        if worked >= LONGEST {
            self.next = FIRST;
        }
        let nominal = self.next;
        self.next = (nominal * 2).min(LONGEST);
        nominal.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_from_ten_milliseconds_to_fifteen_seconds() {
        let mut backoff = Backoff::new();
        let mut nominal = FIRST;
        for _ in 0..20 {
            let wait = backoff.ended(Duration::ZERO);
            assert!(wait >= nominal / 2 && wait <= nominal, "{wait:?}");
            nominal = (nominal * 2).min(LONGEST);
        }
        assert_eq!(nominal, LONGEST);
    }

    #[test]
    fn a_healthy_stream_starts_the_waits_over() {
        let mut backoff = Backoff::new();
        for _ in 0..20 {
            backoff.ended(Duration::ZERO);
        }
        assert!(backoff.ended(LONGEST) <= FIRST);
    }

    #[test]
    fn a_stream_that_ends_soon_after_its_answer_does_not() {
        let mut backoff = Backoff::new();
        for _ in 0..20 {
            backoff.ended(Duration::from_secs(1));
        }
        assert!(backoff.ended(Duration::from_secs(1)) >= LONGEST / 2);
    }
}

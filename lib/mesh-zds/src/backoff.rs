//! How long to wait before the next attempt.

use std::time::Duration;

/// The first wait.
const FIRST: Duration = Duration::from_millis(10);

/// No wait is longer, but for the jitter. Also how long a conversation must have worked for the waits to
/// start over: an agent that names all pods and falls over is not asked for them a hundred times a
/// second.
pub(crate) const LONGEST: Duration = Duration::from_secs(15);

/// Waits that double with each attempt, with up to a fifth more or less, so that the proxies of many
/// nodes do not act in step.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    attempts: u32,
}

// === impl Backoff ===

impl Backoff {
    /// Starts over, after a conversation that lasted.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }

    /// The next wait.
    pub(crate) fn next(&mut self) -> Duration {
        let wait = FIRST
            .saturating_mul(2_u32.saturating_pow(self.attempts))
            .min(LONGEST);
        self.attempts = self.attempts.saturating_add(1);
        wait.mul_f64(0.8 + 0.4 * fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_from_ten_milliseconds_to_fifteen_seconds_and_start_over() {
        let mut backoff = Backoff::default();
        let mut expected = FIRST;
        for _ in 0..40 {
            let wait = backoff.next();
            assert!(
                wait >= expected.mul_f64(0.8) && wait <= expected.mul_f64(1.2),
                "{wait:?} is far from {expected:?}"
            );
            expected = (expected * 2).min(LONGEST);
        }
        backoff.reset();
        assert!(backoff.next() <= FIRST.mul_f64(1.2));
    }
}

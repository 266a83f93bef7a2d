//! Waiting for something to become true.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(2);

/// It did not become true. Either what is tested is broken or the deadline is too tight for the machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} did not happen within {within:?}")]
pub struct TimedOut {
    /// What was waited for.
    pub what: String,
    /// For how long.
    pub within: Duration,
}

/// Waits until the condition holds, at most for the time given. For conditions of the kernel or of other
/// programs, which nobody announces; where there is a channel to wait on, wait on that.
pub async fn eventually(
    what: impl Into<String>,
    within: Duration,
    mut condition: impl FnMut() -> bool,
) -> Result<(), TimedOut> {
    let deadline = Instant::now() + within;
    while !condition() {
        if Instant::now() >= deadline {
            return Err(TimedOut {
                what: what.into(),
                within,
            });
        }
        sleep(INTERVAL).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn condition_is_looked_at_until_it_holds() {
        let mut looks = 0;
        let waited = eventually("the third look", Duration::from_secs(1), || {
            looks += 1;
            looks == 3
        });
        assert_eq!(waited.await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_never_happens_is_named() {
        let waited = eventually("the end of time", Duration::from_secs(1), || false).await;
        let text = waited.unwrap_err().to_string();
        assert_eq!(text, "the end of time did not happen within 1s");
    }
}

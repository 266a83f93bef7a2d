//! How loudly an interruption is told: a control plane that stays away is told of once for each reason,
//! not once for each attempt.

use std::time::Duration;

use tokio::time::Instant;

use super::backoff::LONGEST;

/// Follows the interruptions of the stream.
#[derive(Debug, Default)]
pub(super) struct Outage(Option<Present>);

/// How loudly to tell that a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loudness {
    /// Something does not work.
    Warn,
    /// A stream that worked has ended, as all of them do: control planes move their clients about.
    Info,
    /// It is known already.
    Debug,
}

/// An outage that somebody was told of, and that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Over {
    pub(super) attempts: u32,
    pub(super) lasted: Duration,
}

#[derive(Debug)]
struct Present {
    since: Instant,
    attempts: u32,
    /// What the last warning said; none as long as there was no reason to warn.
    warned: Option<String>,
}

// === impl Outage ===

impl Outage {
    /// A stream ended for `reason` after it had worked for so long.
    pub(super) fn ended(&mut self, reason: &str, worked: Duration) -> Loudness {
        let routine = self.0.is_none() && worked >= LONGEST;
        let present = self.0.get_or_insert_with(|| Present {
            since: Instant::now(),
            attempts: 0,
            warned: None,
        });
        present.attempts = present.attempts.saturating_add(1);
        if routine {
            return Loudness::Info;
        }
        if present.warned.as_deref() == Some(reason) {
            return Loudness::Debug;
        }
        present.warned = Some(reason.to_owned());
        Loudness::Warn
    }

    /// The control plane answers. Returns what is over, if anybody was warned of it.
    pub(super) fn answered(&mut self) -> Option<Over> {
        let present = self.0.take()?;
        present.warned.map(|_reason| Over {
            attempts: present.attempts,
            lasted: present.since.elapsed(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: Duration = Duration::ZERO;

    #[test]
    fn a_reason_is_told_once_until_the_control_plane_answers() {
        let mut outage = Outage::default();
        assert_eq!(outage.ended("refused", NEVER), Loudness::Warn);
        for _ in 0..100 {
            assert_eq!(outage.ended("refused", NEVER), Loudness::Debug);
        }
        assert_eq!(outage.ended("no token", NEVER), Loudness::Warn);
        assert_eq!(outage.ended("no token", NEVER), Loudness::Debug);
        assert_eq!(outage.answered().map(|over| over.attempts), Some(103));
        assert_eq!(outage.answered(), None);
        assert_eq!(outage.ended("no token", NEVER), Loudness::Warn);
    }

    #[test]
    fn the_end_of_a_stream_that_worked_is_no_reason_to_worry() {
        let mut outage = Outage::default();
        assert_eq!(outage.ended("moved", LONGEST), Loudness::Info);
        assert_eq!(outage.answered(), None);
        // It is one if the way back is barred.
        assert_eq!(outage.ended("moved", LONGEST), Loudness::Info);
        assert_eq!(outage.ended("refused", NEVER), Loudness::Warn);
        assert!(outage.answered().is_some());
    }
}

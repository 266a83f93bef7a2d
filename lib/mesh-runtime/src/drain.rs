//! Drain: ask everything that is under way to come to an end, and know when it has.
//!
//! A component gets a [`Watch`], clones it into whatever it starts and lets go of the clones as that
//! work ends. The owner keeps the [`Trigger`]; [`Trigger::drain`] resolves when the last clone is
//! gone. Drains nest: [`Watch::child`] makes a pair that hears its own trigger *and* the parent's,
//! and whose watches hold up the parent's drain as if they were its own. So one pod's proxy can be
//! stopped alone, and the whole process can be stopped with one call.

use std::{convert::Infallible, sync::Arc, time::Duration};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// How much patience there is with work under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Accept nothing new, let what is under way finish.
    Graceful,
    /// Drop what is under way at the next opportunity.
    Immediate,
}

/// How a drain with a time limit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All work ended by itself within the limit.
    Finished,
    /// The limit passed first and the rest was told to stop at once.
    Forced,
}

/// The right to start a drain. Dropping it is an [`Mode::Immediate`] drain that nobody waits for: work
/// whose owner is gone could never be stopped otherwise.
#[derive(Debug)]
#[must_use = "dropping the trigger stops everything that watches it"]
pub struct Trigger {
    signals: Signals,
    /// Whether being dropped stops the work.
    decides: bool,
    finished: oneshot::Receiver<Infallible>,
}

/// A share in work that a drain has to wait for, and the ear for its signal. Cloning costs one atomic
/// increment.
#[derive(Clone, Debug)]
pub struct Watch(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    signals: Signals,
    // The next two are only ever dropped: the first tells our trigger that the last watch is gone, the
    // second lets go of the parent's drain at the same moment.
    _finished: oneshot::Sender<Infallible>,
    _parent: Option<Watch>,
}

/// `immediate` is always cancelled before `stop`, so that whoever wakes on `stop` reads the right mode.
#[derive(Clone, Debug)]
struct Signals {
    stop: CancellationToken,
    immediate: CancellationToken,
}

/// A trigger and the first watch on it.
pub fn channel() -> (Trigger, Watch) {
    let signals = Signals {
        stop: CancellationToken::new(),
        immediate: CancellationToken::new(),
    };
    pair(signals, None)
}

fn pair(signals: Signals, parent: Option<Watch>) -> (Trigger, Watch) {
    let (sender, finished) = oneshot::channel();
    let shared = Shared {
        signals: signals.clone(),
        _finished: sender,
        _parent: parent,
    };
    let trigger = Trigger {
        signals,
        decides: true,
        finished,
    };
    (trigger, Watch(Arc::new(shared)))
}

// === impl Signals ===

impl Signals {
    fn raise(&self, mode: Mode) {
        if mode == Mode::Immediate {
            self.immediate.cancel();
        }
        self.stop.cancel();
    }

    fn mode(&self) -> Mode {
        if self.immediate.is_cancelled() {
            Mode::Immediate
        } else {
            Mode::Graceful
        }
    }
}

// === impl Trigger ===

impl Trigger {
    /// Tells all watches to stop and resolves when the last of them is dropped.
    ///
    /// Dropping the returned future turns a graceful drain into an immediate one.
    pub async fn drain(mut self, mode: Mode) {
        self.signals.raise(mode);
        self.finish().await;
    }

    /// Drains gracefully; what is still there after `limit` is told to stop at once. Resolves when the
    /// last watch is dropped, which only work that ignores [`Watch::immediate`] can delay further.
    pub async fn drain_within(mut self, limit: Duration) -> Outcome {
        self.signals.raise(Mode::Graceful);
        if tokio::time::timeout(limit, self.finish()).await.is_ok() {
            return Outcome::Finished;
        }
        self.signals.raise(Mode::Immediate);
        self.finish().await;
        Outcome::Forced
    }

    /// Gives up the right to stop this work apart from its parent's: only a drain of the parent ends it now.
    /// Without a parent nothing does.
    pub fn leave_to_parent(mut self) {
        self.decides = false;
    }

    async fn finish(&mut self) {
        // Nothing can be sent, so any answer means that the sender is gone.
        if let Ok(never) = (&mut self.finished).await {
            match never {}
        }
    }
}

impl Drop for Trigger {
    fn drop(&mut self) {
        if self.decides {
            self.signals.raise(Mode::Immediate);
        }
    }
}

// === impl Watch ===

impl Watch {
    /// Resolves when a drain begins, here or in a parent, with the mode at that moment; at once if it
    /// already has. A graceful drain can become immediate later: see [`Watch::immediate`].
    pub async fn signaled(&self) -> Mode {
        self.0.signals.stop.cancelled().await;
        self.0.signals.mode()
    }

    /// Resolves when work has to be dropped: on an immediate drain, or when the limit of a graceful one
    /// has passed.
    pub async fn immediate(&self) {
        self.0.signals.immediate.cancelled().await;
    }

    /// The mode of the drain under way, `None` while there is none.
    pub fn mode(&self) -> Option<Mode> {
        let signals = &self.0.signals;
        signals.stop.is_cancelled().then(|| signals.mode())
    }

    /// A drain within this one. It begins when its own trigger says so or when this one begins, and
    /// this one ends only after its watches are gone. Its trigger alone holds nothing up.
    pub fn child(&self) -> (Trigger, Self) {
        let signals = Signals {
            stop: self.0.signals.stop.child_token(),
            immediate: self.0.signals.immediate.child_token(),
        };
        pair(signals, Some(self.clone()))
    }
}

#[cfg(test)]
mod tests;

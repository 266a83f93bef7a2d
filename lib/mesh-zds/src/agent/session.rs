//! What to say to one proxy and how to take its answers, without I/O.
//!
//! An answer does not say which request it is to, so the order alone tells. The session therefore
//! remembers every request until its answer arrives, also when nobody waits for it any more: a late
//! answer is matched to its own request and not to the next.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{Change, Entry, Error};
use crate::codec::{Ack, Request};

/// Time a proxy has for its answer. Contract with Istio's proxy, which binds its listeners in it.
pub(super) const ACK_DEADLINE: Duration = Duration::from_secs(5);

/// Answers that may be overdue before the proxy counts as dead.
const MOST_OVERDUE: usize = 6;

/// One proxy that has said hello. `R` takes the answer to a change.
#[derive(Debug)]
pub(super) struct Session<R> {
    /// Pods still to be told of before the snapshot is complete; none when it has been sent.
    snapshot: Option<VecDeque<Arc<str>>>,
    queue: VecDeque<(Change, R)>,
    /// Requests sent and not answered, oldest first.
    owed: VecDeque<Owed<R>>,
}

/// A request to be sent now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outgoing<N> {
    pub(super) request: Request,
    pub(super) netns: Option<N>,
}

/// A request that was answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answered<R> {
    pub(super) request: Request,
    pub(super) result: Result<(), String>,
    /// Who waits for it; none when it is part of the snapshot or was given up.
    pub(super) reply: Option<R>,
    pub(super) late: bool,
}

/// What came of looking at the clock.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Expired<R> {
    pub(super) request: Request,
    pub(super) reply: Option<R>,
}

/// Why a session cannot go on. The proxy is at fault; it connects again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    /// The proxy answers what it was not asked.
    #[error("an acknowledgement that was not asked for")]
    Unsolicited,
    /// The proxy hangs.
    #[error("{MOST_OVERDUE} acknowledgements are overdue")]
    Stuck,
}

#[derive(Debug)]
struct Owed<R> {
    request: Request,
    reply: Option<R>,
    /// None when it has passed.
    deadline: Option<Instant>,
}

// === impl Session ===

impl<R> Session<R> {
    /// A session that begins with telling of these pods.
    pub(super) fn new(snapshot: impl IntoIterator<Item = Arc<str>>) -> Self {
        Self {
            snapshot: Some(snapshot.into_iter().collect()),
            queue: VecDeque::new(),
            owed: VecDeque::new(),
        }
    }

    /// A change that the proxy is to be told of.
    pub(super) fn push(&mut self, change: Change, reply: R) {
        self.queue.push_back((change, reply));
    }

    /// Whether everything that was pushed has been sent.
    pub(super) fn has_room(&self) -> bool {
        self.queue.is_empty()
    }

    /// The next request to send, if one may be sent now: there is something to tell, and no answer is
    /// awaited that is not overdue. Replies of changes that became void are handed to `void`.
    ///
    /// Changes come before the rest of the snapshot, because somebody waits for them. That is harmless:
    /// each pod is looked up when it is its turn, so that the proxy hears the newest of it last.
    pub(super) fn next<N: Clone>(
        &mut self,
        now: Instant,
        pods: &BTreeMap<Arc<str>, Entry<N>>,
        mut void: impl FnMut(R, Error),
    ) -> Option<Outgoing<N>> {
        if self.deadline().is_some() {
            return None;
        }
        while let Some((change, reply)) = self.queue.pop_front() {
            let outgoing = match change {
                Change::Delete(uid) => Some(Outgoing {
                    request: Request::Delete { uid },
                    netns: None,
                }),
                Change::Add(uid) => pods.get(&uid).map(|entry| introduce(uid, entry)),
            };
            match outgoing {
                Some(outgoing) => return Some(self.sent(now, outgoing, Some(reply))),
                None => void(reply, Error::Deleted),
            }
        }
        let snapshot = self.snapshot.as_mut()?;
        while let Some(uid) = snapshot.pop_front() {
            if let Some(entry) = pods.get(&uid) {
                return Some(self.sent(now, introduce(uid, entry), None));
            }
        }
        self.snapshot = None;
        let outgoing = Outgoing {
            request: Request::SnapshotSent,
            netns: None,
        };
        Some(self.sent(now, outgoing, None))
    }

    /// Matches an answer to the oldest request without one.
    pub(super) fn answered(&mut self, ack: Ack) -> Result<Answered<R>, Broken> {
        let owed = self.owed.pop_front().ok_or(Broken::Unsolicited)?;
        Ok(Answered {
            request: owed.request,
            result: ack.0,
            reply: owed.reply,
            late: owed.deadline.is_none(),
        })
    }

    /// When the answer that is awaited is overdue; none when none is awaited.
    pub(super) fn deadline(&self) -> Option<Instant> {
        // Only the youngest can have one: nothing is sent before it is answered or overdue.
        self.owed.back().and_then(|owed| owed.deadline)
    }

    /// Gives up waiting for what is overdue; its answer may still come.
    pub(super) fn expire(&mut self, now: Instant) -> Result<Option<Expired<R>>, Broken> {
        let Some(owed) = self.owed.back_mut() else {
            return Ok(None);
        };
        if owed.deadline.is_none_or(|deadline| now < deadline) {
            return Ok(None);
        }
        owed.deadline = None;
        let expired = Expired {
            request: owed.request.clone(),
            reply: owed.reply.take(),
        };
        if self.owed.len() >= MOST_OVERDUE {
            return Err(Broken::Stuck);
        }
        Ok(Some(expired))
    }

    fn sent<N>(&mut self, now: Instant, outgoing: Outgoing<N>, reply: Option<R>) -> Outgoing<N> {
        self.owed.push_back(Owed {
            request: outgoing.request.clone(),
            reply,
            deadline: Some(now + ACK_DEADLINE),
        });
        outgoing
    }
}

fn introduce<N: Clone>(uid: Arc<str>, entry: &Entry<N>) -> Outgoing<N> {
    let netns = entry.netns.clone();
    let request = match netns {
        Some(_) => Request::Add {
            uid,
            pod: entry.info.clone(),
        },
        None => Request::Keep { uid },
    };
    Outgoing { request, netns }
}

#[cfg(test)]
mod tests;

//! When which identity's certificate is fetched: a machine without clock, threads or network.
//!
//! ```text
//!            request                 slot free                    fetched
//!   (none) ----------> Ready ----------------------> Fetching ---------------> Waiting
//!                        ^                              | failed (back off)       |
//!                        |                              +----------------------> Waiting
//!                        +--------------------------------------------------------+
//!                                     due, or asked for in real time
//! ```
//!
//! A certificate is renewed at half its remaining life. A failure keeps what there is and is retried
//! with back-off, but no later than the certificate's end.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use mesh_core::identity::Identity;
use tokio::time::Instant;

/// How urgent a fetch is; the first is served first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Priority {
    /// A connection waits for it.
    RealTime,
    /// A pod of this identity runs here and will want it soon.
    Warm,
    /// A renewal: the present certificate is good for some time.
    Background,
}

/// What happened. `C` is a certificate and `E` a failure; the machine looks into neither.
#[derive(Debug)]
pub(super) enum Event<C, E> {
    /// Somebody wants a certificate, and there is no valid one to give.
    Wanted(Identity, Priority),
    /// Nobody on this node needs the identity any more.
    Forgotten(Identity),
    /// A fetch has ended well.
    Fetched {
        ticket: Ticket,
        certificate: C,
        remaining: Duration,
    },
    /// A fetch has failed.
    Failed { ticket: Ticket, error: E },
    /// Time has passed; see [`Schedule::next_due`].
    Elapsed,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action<C, E> {
    /// Start a fetch, and report its end with the ticket.
    Fetch(Ticket),
    /// Give this certificate to all who wait and to all who come.
    Publish {
        identity: Identity,
        certificate: C,
        expires: Instant,
    },
    /// Tell all who wait that there is none for now.
    Refuse {
        identity: Identity,
        error: E,
        retry: Instant,
    },
}

/// One fetch. The number tells it from an earlier one for the same identity that was forgotten while
/// it ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) identity: Identity,
    number: u64,
}

/// The schedule of all identities of this node.
#[derive(Debug)]
pub(super) struct Schedule<E> {
    concurrency: usize,
    random: fastrand::Rng,
    entries: HashMap<Identity, Entry<E>>,
    /// Entries that wait, by due time.
    waiting: BTreeSet<(Instant, Identity)>,
    /// Entries that wait for a free slot, most urgent first.
    ready: BTreeSet<(Priority, Instant, Identity)>,
    in_flight: usize,
    tickets: u64,
}

#[derive(Debug)]
struct Entry<E> {
    state: State,
    /// End of the certificate that was last obtained.
    expires: Option<Instant>,
    /// The failures since the last success.
    failure: Option<Failure<E>>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Waiting { due: Instant },
    Ready { priority: Priority, since: Instant },
    Fetching { number: u64 },
}

#[derive(Clone, Debug)]
struct Failure<E> {
    in_a_row: u32,
    last: E,
}

/// First pause after a failure; upstream's value, like the two below.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// Longest pause. With the factor 2 it is reached after eight failures in a row.
const BACKOFF_MAX: Duration = Duration::from_secs(150);
/// A pause is lengthened or shortened by up to this share, so that the proxies of a cluster do not
/// return to a recovering authority in step.
const BACKOFF_JITTER: f64 = 0.2;
/// A renewal comes before half-life by up to this share of it, for the same reason.
const RENEWAL_JITTER: f64 = 0.1;
/// Shortest time to a renewal, so that an authority that hands out certificates about to expire is not
/// asked without pause.
const RENEWAL_MIN: Duration = Duration::from_secs(1);

// === impl Schedule ===

impl<E: Clone> Schedule<E> {
    /// A schedule of at most `concurrency` fetches at a time, with the given source of jitter.
    pub(super) fn new(concurrency: usize, random: fastrand::Rng) -> Self {
        Self {
            concurrency: concurrency.max(1),
            random,
            entries: HashMap::new(),
            waiting: BTreeSet::new(),
            ready: BTreeSet::new(),
            in_flight: 0,
            tickets: 0,
        }
    }

    /// Takes in one event and says what follows from it.
    pub(super) fn step<C>(&mut self, now: Instant, event: Event<C, E>) -> Vec<Action<C, E>> {
        let told = match event {
            Event::Wanted(identity, priority) => self.wanted(now, identity, priority),
            Event::Forgotten(identity) => self.forgotten(&identity),
            Event::Fetched {
                ticket,
                certificate,
                remaining,
            } => self.fetched(now, ticket, certificate, remaining),
            Event::Failed { ticket, error } => self.failed(now, ticket, error),
            Event::Elapsed => None,
        };
        self.release_due(now);
        told.into_iter().chain(self.start()).collect()
    }

    /// When the machine wants to be told that time has passed; `None` while nothing is to come.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.waiting.first().map(|(due, _)| *due)
    }

    fn wanted<C>(
        &mut self,
        now: Instant,
        identity: Identity,
        priority: Priority,
    ) -> Option<Action<C, E>> {
        let Some(entry) = self.entries.get(&identity) else {
            let state = State::Ready {
                priority,
                since: now,
            };
            self.enter(identity, state, None, None);
            return None;
        };
        match (entry.state, &entry.failure) {
            (State::Waiting { due }, Some(failure)) => {
                let error = failure.last.clone();
                (priority == Priority::RealTime).then_some(Action::Refuse {
                    identity,
                    error,
                    retry: due,
                })
            }
            // The caller has found the certificate expired before we did: the clock was set, or the
            // machine slept.
            (State::Waiting { .. }, None) if priority == Priority::RealTime => {
                self.make_ready(&identity, priority, now);
                None
            }
            (
                State::Ready {
                    priority: present,
                    since,
                },
                _,
            ) => {
                self.make_ready(&identity, priority.min(present), since);
                None
            }
            (State::Waiting { .. } | State::Fetching { .. }, _) => None,
        }
    }

    fn forgotten<C>(&mut self, identity: &Identity) -> Option<Action<C, E>> {
        // A fetch under way keeps its slot until it ends; its ticket is then unknown.
        drop(self.leave(identity));
        None
    }

    fn fetched<C>(
        &mut self,
        now: Instant,
        ticket: Ticket,
        certificate: C,
        remaining: Duration,
    ) -> Option<Action<C, E>> {
        drop(self.redeem(&ticket)?);
        let early = 1.0 - RENEWAL_JITTER * self.random.f64();
        let due = now + (remaining / 2).mul_f64(early).max(RENEWAL_MIN);
        let expires = now + remaining;
        let identity = ticket.identity;
        let state = State::Waiting { due };
        self.enter(identity.clone(), state, Some(expires), None);
        Some(Action::Publish {
            identity,
            certificate,
            expires,
        })
    }

    fn failed<C>(&mut self, now: Instant, ticket: Ticket, error: E) -> Option<Action<C, E>> {
        let entry = self.redeem(&ticket)?;
        let in_a_row = entry.failure.map_or(0, |f| f.in_a_row).saturating_add(1);
        let retry = now + self.backoff(in_a_row);
        let valid_until = entry.expires.filter(|expires| *expires > now);
        let due = valid_until.map_or(retry, |expires| retry.min(expires));
        let identity = ticket.identity;
        let failure = Failure {
            in_a_row,
            last: error.clone(),
        };
        let state = State::Waiting { due };
        self.enter(identity.clone(), state, entry.expires, Some(failure));
        Some(Action::Refuse {
            identity,
            error,
            retry: due,
        })
    }

    fn backoff(&mut self, failures: u32) -> Duration {
        let doubled =
            BACKOFF_FIRST.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
        let jitter = BACKOFF_JITTER.mul_add(self.random.f64().mul_add(2.0, -1.0), 1.0);
        doubled.min(BACKOFF_MAX).mul_f64(jitter).min(BACKOFF_MAX)
    }

    fn release_due(&mut self, now: Instant) {
        while let Some((due, identity)) = self.waiting.first().cloned() {
            if due > now {
                break;
            }
            let expires = self.entries.get(&identity).and_then(|e| e.expires);
            let priority = match expires {
                Some(expires) if expires > now => Priority::Background,
                _ => Priority::Warm,
            };
            self.make_ready(&identity, priority, due);
        }
    }

    fn start<C>(&mut self) -> Vec<Action<C, E>> {
        let mut fetches = Vec::new();
        while self.in_flight < self.concurrency {
            let Some((_, _, identity)) = self.ready.first().cloned() else {
                break;
            };
            let Some(entry) = self.leave(&identity) else {
                break;
            };
            self.tickets += 1;
            self.in_flight += 1;
            let number = self.tickets;
            let state = State::Fetching { number };
            self.enter(identity.clone(), state, entry.expires, entry.failure);
            fetches.push(Action::Fetch(Ticket { identity, number }));
        }
        fetches
    }

    /// Frees the slot of a fetch and takes out its entry, unless that was forgotten meanwhile.
    fn redeem(&mut self, ticket: &Ticket) -> Option<Entry<E>> {
        self.in_flight -= 1;
        match self.entries.get(&ticket.identity)?.state {
            State::Fetching { number } if number == ticket.number => self.leave(&ticket.identity),
            _ => None,
        }
    }

    fn make_ready(&mut self, identity: &Identity, priority: Priority, since: Instant) {
        if let Some(entry) = self.leave(identity) {
            let state = State::Ready { priority, since };
            self.enter(identity.clone(), state, entry.expires, entry.failure);
        }
    }

    /// Puts an entry in, and into the queue of its state.
    fn enter(
        &mut self,
        identity: Identity,
        state: State,
        expires: Option<Instant>,
        failure: Option<Failure<E>>,
    ) {
        match state {
            State::Waiting { due } => self.waiting.insert((due, identity.clone())),
            State::Ready { priority, since } => {
                self.ready.insert((priority, since, identity.clone()))
            }
            State::Fetching { .. } => true,
        };
        let entry = Entry {
            state,
            expires,
            failure,
        };
        self.entries.insert(identity, entry);
    }

    /// Takes an entry out, and out of the queue of its state.
    fn leave(&mut self, identity: &Identity) -> Option<Entry<E>> {
        let entry = self.entries.remove(identity)?;
        match entry.state {
            State::Waiting { due } => self.waiting.remove(&(due, identity.clone())),
            State::Ready { priority, since } => {
                self.ready.remove(&(priority, since, identity.clone()))
            }
            State::Fetching { .. } => true,
        };
        Some(entry)
    }
}

#[cfg(test)]
mod tests;

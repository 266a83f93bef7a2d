//! The machine on one stream: waits for requests, changes and times, and hands out responses.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tonic::{Code, Status};

use super::{
    Client, Contradiction, Error, Machine, Refusal, Response,
    pace::{Budget, Pace},
    requests::{Requests, Said},
    service::Shared,
    streams::Registration,
    turns::Turn,
};

/// One client.
pub(super) struct Session {
    shared: Shared,
    client: Client,
    machine: Machine,
    registration: Registration,
    requests: Requests,
    published: watch::Receiver<u64>,
    closing: watch::Receiver<bool>,
    pace: Pace,
    budget: Budget,
    /// Held while the session needs much memory: until the first responses are taken, and for large ones.
    turn: Option<Turn>,
    /// When the transport was given the last response.
    handed: Option<Instant>,
    /// When the oldest change was published that the client has not been sent.
    pending: Option<Instant>,
    /// Number of the last publication that was looked at.
    seen: u64,
    /// Whether the current push has said something.
    said: bool,
    /// Whether an acknowledgement has made way for something that may be left to say.
    freed: bool,
    /// Whether the client has asked for anything.
    heard: bool,
    /// Since when the machine waits for the client to ask for the other of two types.
    unsettled_since: Option<Instant>,
    life: Life,
}

/// When a stream ends.
#[derive(Clone, Copy, Debug)]
enum Life {
    /// It ends at this time.
    Until(Instant),
    /// It ends when nothing is on its way any more, or at this time.
    Closing(Instant),
    Over,
}

/// What a session waits for.
enum Event {
    Request(Result<Option<Box<Said>>, Status>),
    Published,
    /// It may be time for something.
    Time,
}

/// Responses with more resources take a turn: some 300 KiB.
const LARGE: usize = 1000;

/// Part of a stream's age by which it may be longer or shorter.
const JITTER: f64 = 0.1;

// === impl Session ===

impl Session {
    pub(super) fn new(
        shared: Shared,
        client: Client,
        registration: Registration,
        requests: Requests,
    ) -> Self {
        let now = Instant::now();
        let published = shared.resources.published();
        let seen = *published.borrow();
        Self {
            machine: Machine::new(&client),
            client,
            registration,
            requests,
            published,
            closing: shared.streams.closing(),
            pace: Pace::new(shared.limits.window),
            budget: Budget::new(shared.limits.requests, now),
            turn: None,
            handed: None,
            pending: None,
            seen,
            said: false,
            freed: false,
            heard: false,
            unsettled_since: None,
            life: Life::Until(now + jittered(shared.limits.age, fastrand::f64())),
            shared,
        }
    }

    /// The next response, or how the stream ends.
    pub(super) async fn next(&mut self) -> Option<Result<Response, Status>> {
        if let Some(handed) = self.handed.take() {
            self.shared.metrics.sent(handed.elapsed());
        }
        let next = self.run().await;
        if let Err(status) = &next
            && status.code() == Code::PermissionDenied
        {
            self.shared.metrics.refused_stream("forbidden");
            let (client, reason) = (&*self.client.identity, status.message());
            tracing::warn!(client, reason, "discovery stream refused");
        }
        if !matches!(next, Ok(Some(_))) {
            self.life = Life::Over;
            self.turn = None;
        }
        next.transpose()
    }

    async fn run(&mut self) -> Result<Option<Response>, Status> {
        loop {
            let now = Instant::now();
            match self.life {
                Life::Over => return Ok(None),
                Life::Closing(until) if self.machine.is_idle() || now >= until => return Ok(None),
                Life::Until(until) if now >= until || *self.closing.borrow() => {
                    self.close(now);
                    continue;
                }
                Life::Closing(_) | Life::Until(_) => {}
            }
            if let Some(response) = self.push(now).await? {
                return Ok(Some(response));
            }
            match self.wait().await {
                Event::Request(Ok(Some(request))) => self.request(*request)?,
                Event::Request(Ok(None)) => return Ok(None),
                Event::Request(Err(status)) => return Err(status),
                Event::Published => {
                    let published = *self.published.borrow_and_update();
                    self.note_publication(published);
                }
                Event::Time => self.settle(),
            }
        }
    }

    /// The next response of the current push, or of one that may begin now.
    async fn push(&mut self, now: Instant) -> Result<Option<Response>, Status> {
        let closing = matches!(self.life, Life::Closing(_));
        if closing || !self.heard || self.pace.from(now) > now {
            return Ok(None);
        }
        let backlog = self.machine.backlog(&self.shared.resources.read().catalog);
        if backlog > LARGE && self.turn.is_none() {
            self.turn = Some(self.shared.turns.take().await);
        }
        let begun = Instant::now();
        let (response, done, published) = {
            let state = self.shared.resources.read();
            let response = self.machine.respond(&state.catalog)?;
            let done = self.machine.backlog(&state.catalog) == 0;
            (response, done, state.published)
        };
        // An answer to a request may be ahead of the news that something was published.
        self.note_publication(published);
        let Some(response) = response else {
            self.pushed(begun);
            return Ok(None);
        };
        if let Some(pending) = self.pending.filter(|_| !self.said) {
            self.shared.metrics.dequeued(begun - pending);
        }
        self.said = true;
        self.pace.pushing();
        if done && let Some(pending) = self.pending.take() {
            self.shared.metrics.converged(pending.elapsed());
        }
        self.note_response(&response, begun);
        Ok(Some(response))
    }

    fn note_response(&mut self, response: &Response, begun: Instant) {
        let bytes = response.contents();
        let metrics = &self.shared.metrics;
        metrics.pushed(response.type_url(), bytes, begun.elapsed());
        self.registration.sent(response);
        self.handed = Some(Instant::now());
        tracing::debug!(
            client = %self.client.identity,
            url = response.type_url(),
            nonce = response.nonce(),
            resources = response.resources(),
            removed = response.removed(),
            bytes,
            "push"
        );
    }

    /// Nothing more can be sent now.
    fn pushed(&mut self, now: Instant) {
        self.pace.pushed(now, self.said);
        self.said = false;
        self.freed = false;
        // What is left waits for an acknowledgement; if nothing is left, nothing concerned the client.
        if self.machine.backlog(&self.shared.resources.read().catalog) == 0 {
            self.pending = None;
        }
        if !self.machine.is_unsettled() {
            self.turn = None;
        }
    }

    async fn wait(&mut self) -> Event {
        if !self.heard && self.turn.is_none() && matches!(self.life, Life::Until(_)) {
            // What the client holds can be large: it is read when the answer can be made as well.
            tokio::select! {
                turn = self.shared.turns.take() => self.turn = Some(turn),
                _ = self.closing.changed() => return Event::Time,
            }
        }
        let now = Instant::now();
        let read = self.budget.wait(now);
        let at = self.wake_at(now, read);
        let closing = matches!(self.life, Life::Closing(_));
        tokio::select! {
            request = self.requests.message(), if read.is_none() => {
                Event::Request(request)
            }
            // Neither fails: the senders live in `shared`.
            _ = self.published.changed(), if !closing => Event::Published,
            _ = self.closing.changed(), if !closing => Event::Time,
            () = sleep_until(at) => Event::Time,
        }
    }

    /// When something is to be done though nothing happens.
    fn wake_at(&self, now: Instant, read: Option<Instant>) -> Instant {
        let end = match self.life {
            Life::Until(until) | Life::Closing(until) => until,
            Life::Over => now,
        };
        let push = (self.pending.is_some() || self.freed).then(|| self.pace.from(now));
        let push = push.filter(|at| *at > now);
        let settle = self.settle_at();
        [push, settle, read]
            .into_iter()
            .flatten()
            .fold(end, Instant::min)
    }

    fn settle_at(&self) -> Option<Instant> {
        let asked = self.unsettled_since?;
        Some(asked + self.shared.limits.companion)
    }

    fn settle(&mut self) {
        if self.settle_at().is_some_and(|at| Instant::now() >= at) {
            self.unsettled_since = None;
            self.machine.settle();
            self.pace.hurry();
        }
    }

    fn note_publication(&mut self, number: u64) {
        if number > self.seen && self.pending.is_none() {
            self.pending = self.shared.resources.time_of(self.seen + 1);
        }
        self.seen = self.seen.max(number);
    }

    fn close(&mut self, now: Instant) {
        if let Life::Until(_) = self.life {
            self.life = Life::Closing(now + self.shared.limits.grace);
            self.turn = None;
        }
    }

    fn request(&mut self, Said { request, held }: Said) -> Result<(), Status> {
        if let Some(node) = &request.node {
            self.client.verify(node)?;
            self.registration.named(node);
        }
        let type_url = request.type_url.clone();
        let asks = !(request.resource_names_subscribe.is_empty()
            && request.resource_names_unsubscribe.is_empty());
        let heard = self.machine.hear(request, held)?;
        self.heard = true;
        if let Some(mode) = self.machine.mode(&type_url) {
            self.registration.asked(&type_url, mode);
        }
        if asks || heard.acknowledged.is_none() {
            self.budget.spend(Instant::now());
            self.pace.hurry();
        }
        if let Some(nonce) = heard.acknowledged {
            self.registration.acknowledged(&type_url, nonce);
            self.freed = true;
        }
        if heard.stale {
            self.shared.metrics.expired(&type_url);
        }
        if let Some(refusal) = heard.refusal {
            self.note_refusal(&refusal);
        }
        let since = self.unsettled_since.unwrap_or_else(Instant::now);
        self.unsettled_since = self.machine.is_unsettled().then_some(since);
        Ok(())
    }

    fn note_refusal(&self, refusal: &Refusal) {
        self.shared.metrics.rejected(&refusal.type_url);
        self.registration.refused(refusal);
        tracing::warn!(
            client = %self.client.identity,
            node = self.registration.node(),
            url = refusal.type_url,
            reason = refusal.message,
            "client refused resources"
        );
    }
}

// === impl Status ===

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::TooManyTypes | Error::TooManyNames(_) => Self::resource_exhausted(message),
            Error::Forbidden(_) => Self::permission_denied(message),
            Error::Behind(_) => Self::aborted(message),
        }
    }
}

impl From<Contradiction> for Status {
    fn from(contradiction: Contradiction) -> Self {
        Self::permission_denied(contradiction.to_string())
    }
}

/// An age within its jitter, by a number between 0 and 1.
fn jittered(age: Duration, random: f64) -> Duration {
    age.mul_f64(1.0 + JITTER * (2.0 * random - 1.0))
}

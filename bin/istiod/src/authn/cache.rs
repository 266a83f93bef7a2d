//! Reviews of tokens, remembered.
//!
//! A node's proxy asks for a certificate per pod with one and the same token, so one review serves many
//! requests, and requests that come together share one. A token is remembered by its digest only.
//!
//! A good token is taken as good for five minutes: so long may the token of a deleted pod still be
//! accepted, and every grant looks at the pods of the moment besides. When the API server does not
//! answer then, it goes on being good for up to an hour, never beyond its own end: running workloads
//! get through an outage, and a replica that is cut off ends issuing. A bad token is remembered for
//! moments, only to blunt a caller that insists.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared, WeakShared},
};
use k8s_openapi::api::authentication::v1::TokenReviewStatus;
use mesh_identity::token::Digest;
use parking_lot::Mutex;
use tokio::{sync::Semaphore, time::Instant};

use super::{
    Error,
    metrics::{Metrics, Outcome},
    review::{Rejection, Reviewer, Subject, Unreachable},
    token::Bearer,
};

/// Reviews tokens, and remembers for a while what came out. Clones share what is remembered.
#[derive(Clone)]
pub struct TokenReviews(Arc<Inner>);

struct Inner {
    reviewer: Arc<dyn Reviewer>,
    audiences: Vec<String>,
    metrics: Metrics,
    memory: Mutex<Memory>,
    /// Reviews at a time: whoever floods us with invented tokens floods the API server no more than this.
    places: Semaphore,
}

/// What is remembered, and what is being found out.
#[derive(Default)]
struct Memory {
    good: HashMap<Digest, Good>,
    bad: HashMap<Digest, Bad>,
    under_review: HashMap<Digest, WeakShared<Review>>,
    /// Until when nobody needs to try, since the API server has just failed to answer.
    away_until: Option<Instant>,
}

struct Good {
    subject: Subject,
    fresh_until: Instant,
    usable_until: Instant,
}

struct Bad {
    rejection: Rejection,
    until: Instant,
}

type Review = BoxFuture<'static, Result<Subject, Failure>>;

#[derive(Clone, Debug)]
enum Failure {
    Rejected(Rejection),
    Unreachable(Unreachable),
}

/// What is known of a token without asking.
#[derive(Debug, PartialEq, Eq)]
enum Known {
    Good(Subject),
    /// It was good; ask again if there is somebody to ask.
    Stale(Subject),
    Bad(Rejection),
    Nothing,
}

/// How long a review is believed.
const FRESH: Duration = Duration::from_secs(5 * 60);
/// How long it is believed if the API server does not answer.
pub(crate) const USABLE: Duration = Duration::from_secs(60 * 60);
/// How long a rejection is believed: the API server may learn of a new pod a moment after its token is
/// used.
const BAD: Duration = Duration::from_secs(3);
/// How long an API server that did not answer is left alone.
const AWAY: Duration = Duration::from_secs(2);
/// Most good tokens: two per node of the largest cluster, since they are renewed.
const MAX_GOOD: usize = 10_000;
/// Most bad tokens. More of them are reviewed each time.
const MAX_BAD: usize = 1_000;
/// Most reviews at a time.
const MAX_REVIEWS: usize = 32;

// === impl TokenReviews ===

impl TokenReviews {
    /// Tokens for one of `audiences` are accepted if `reviewer` says so.
    pub fn new(reviewer: Arc<dyn Reviewer>, audiences: Vec<String>, metrics: Metrics) -> Self {
        Self(Arc::new(Inner {
            reviewer,
            audiences,
            metrics,
            memory: Mutex::default(),
            places: Semaphore::new(MAX_REVIEWS),
        }))
    }

    /// Whom the token is of.
    pub async fn review(&self, bearer: Bearer) -> Result<Subject, Error> {
        let checked = bearer.check(&self.0.audiences, SystemTime::now());
        checked.map_err(|e| self.refuse(Outcome::Implausible, e.to_string()))?;
        let known = self.0.memory.lock().recall(bearer.digest(), Instant::now());
        let stale = match known {
            Known::Good(subject) => {
                self.0.metrics.count(Outcome::Remembered);
                return Ok(subject);
            }
            Known::Bad(rejection) => {
                return Err(self.refuse(Outcome::Remembered, rejection.to_string()));
            }
            Known::Stale(subject) => Some(subject),
            Known::Nothing => None,
        };
        match (self.ask(bearer).await, stale) {
            (Ok(subject), _) => Ok(subject),
            (Err(Failure::Rejected(rejection)), _) => {
                Err(Error::Unauthenticated(rejection.to_string()))
            }
            (Err(Failure::Unreachable(_)), Some(subject)) => {
                self.0.metrics.count(Outcome::Stale);
                Ok(subject)
            }
            (Err(Failure::Unreachable(error)), None) => Err(Error::Unavailable(error.to_string())),
        }
    }

    fn refuse(&self, outcome: Outcome, reason: String) -> Error {
        self.0.metrics.count(outcome);
        Error::Unauthenticated(reason)
    }

    /// Joins the review of this token that is under way, or begins one.
    async fn ask(&self, bearer: Bearer) -> Result<Subject, Failure> {
        let review = {
            let mut memory = self.0.memory.lock();
            if memory.is_away(Instant::now()) {
                let away = "it has just failed to answer".to_owned();
                return Err(Failure::Unreachable(Unreachable(away)));
            }
            let digest = bearer.digest();
            let others = memory
                .under_review
                .get(&digest)
                .and_then(WeakShared::upgrade);
            others.unwrap_or_else(|| {
                let review = Arc::clone(&self.0).conduct(bearer).boxed().shared();
                memory.begin(digest, &review);
                review
            })
        };
        review.await
    }
}

impl std::fmt::Debug for TokenReviews {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenReviews")
            .field("audiences", &self.0.audiences)
            .finish_non_exhaustive()
    }
}

// === impl Inner ===

impl Inner {
    async fn conduct(self: Arc<Self>, bearer: Bearer) -> Result<Subject, Failure> {
        // Never closed, so there is always a permit to come.
        let place = self.places.acquire().await.ok();
        let answer = self.reviewer.review(bearer.secret()).await;
        drop(place);
        let result = self.judge(answer);
        self.metrics.count(match &result {
            Ok(_) => Outcome::Accepted,
            Err(Failure::Rejected(_)) => Outcome::Rejected,
            Err(Failure::Unreachable(_)) => Outcome::Unreachable,
        });
        let left = bearer
            .expires()
            .map(|at| at.duration_since(SystemTime::now()));
        let left = left.map(Result::unwrap_or_default);
        let mut memory = self.memory.lock();
        memory.learn(bearer.digest(), &result, left, Instant::now());
        result
    }

    fn judge(&self, answer: Result<TokenReviewStatus, Unreachable>) -> Result<Subject, Failure> {
        let status = answer.map_err(Failure::Unreachable)?;
        Subject::of(status, &self.audiences).map_err(Failure::Rejected)
    }
}

// === impl Memory ===

impl Memory {
    fn recall(&self, digest: Digest, now: Instant) -> Known {
        if let Some(good) = self.good.get(&digest) {
            if now < good.fresh_until {
                return Known::Good(good.subject.clone());
            }
            if now < good.usable_until {
                return Known::Stale(good.subject.clone());
            }
        }
        match self.bad.get(&digest) {
            Some(bad) if now < bad.until => Known::Bad(bad.rejection.clone()),
            _ => Known::Nothing,
        }
    }

    fn is_away(&self, now: Instant) -> bool {
        self.away_until.is_some_and(|until| now < until)
    }

    fn begin(&mut self, digest: Digest, review: &Shared<Review>) {
        // Reviews that everybody gave up stay behind here.
        if self.under_review.len() >= MAX_BAD {
            self.under_review
                .retain(|_, review| review.upgrade().is_some());
        }
        if let Some(weak) = review.downgrade() {
            self.under_review.insert(digest, weak);
        }
    }

    /// Notes what a review gave. `left` is how long the token says that it is still good.
    fn learn(
        &mut self,
        digest: Digest,
        result: &Result<Subject, Failure>,
        left: Option<Duration>,
        now: Instant,
    ) {
        self.under_review.remove(&digest);
        match result {
            Ok(subject) => {
                self.away_until = None;
                self.bad.remove(&digest);
                let usable = left.unwrap_or(USABLE).min(USABLE);
                make_room(&mut self.good, MAX_GOOD, now, |good| good.usable_until);
                let good = Good {
                    subject: subject.clone(),
                    fresh_until: now + usable.min(FRESH),
                    usable_until: now + usable,
                };
                self.good.insert(digest, good);
            }
            Err(Failure::Rejected(rejection)) => {
                self.away_until = None;
                self.good.remove(&digest);
                make_room(&mut self.bad, MAX_BAD, now, |bad| bad.until);
                let bad = Bad {
                    rejection: rejection.clone(),
                    until: now + BAD,
                };
                self.bad.insert(digest, bad);
            }
            Err(Failure::Unreachable(_)) => self.away_until = Some(now + AWAY),
        }
    }
}

/// Forgets what is over if there is no room, and if there is none still, what will be over first.
fn make_room<T>(
    entries: &mut HashMap<Digest, T>,
    limit: usize,
    now: Instant,
    until: impl Fn(&T) -> Instant,
) {
    if entries.len() < limit {
        return;
    }
    entries.retain(|_, entry| now < until(entry));
    if entries.len() < limit {
        return;
    }
    let first = entries.iter().min_by_key(|(_, entry)| until(entry));
    if let Some((&first, _)) = first {
        entries.remove(&first);
    }
}

#[cfg(test)]
mod tests;

//! How one root follows another without a moment at which two workloads do not believe each other.
//! Pure: the keeper brings the time and carries out what is decided here.
//!
//! A workload trusts the roots that came with its certificate, and keeps both for as long as the
//! certificate lives. So a change takes two waits, each as long as the longest life that was granted,
//! and a margin:
//!
//! ```text
//!   announce                  switch                     retire
//!      |  old signs, both are   |  new signs, both are      |  new signs,
//!      |  trusted               |  trusted                  |  the old one is forgotten
//!      |<- every certificate -->|<- every certificate ----->|
//!          older than this is       signed by the old one
//!          gone: all know new       is gone
//! ```
//!
//! The age of each root in the bundle is kept rather than a phase, so that the rule also covers what an
//! owner of plug-in certificates does: roots that were added long ago may sign at once, and a root that
//! comes back before it was forgotten just stays.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::material::{Root, Signer};

/// The authority as it is at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// What signs.
    pub signing: Arc<Signer>,
    /// What is going to sign as soon as everybody trusts it.
    pub next: Option<Arc<Signer>>,
    /// What workloads trust, those of `signing` and `next` among them.
    pub trusted: Vec<Trusted>,
    /// The longest life of any certificate that may exist.
    pub longest: Duration,
    /// What somebody wrote to have the root replaced.
    pub requested: Option<String>,
    /// Which such request was the last to be followed.
    pub followed: Option<String>,
}

/// A root that workloads trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trusted {
    /// The root.
    pub root: Root,
    /// Since when every certificate is issued with it.
    pub added: SystemTime,
    /// Since when nothing leads to it that is issued; `None` as long as somebody wants it.
    pub dropped: Option<SystemTime>,
}

/// What decides when something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Which part of its life, in percent, a root has left when its successor is announced.
    pub grace_percent: u32,
    /// What is waited in excess of the longest life: for replicas that learn late, for clocks that
    /// differ, for ConfigMaps on their way into pods.
    pub margin: Duration,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make a new root and [announce](State::announce) it.
    Announce,
    /// [Give up what is next](State::withdraw): it has run out before its turn came.
    Withdraw,
    /// [Sign with the next](State::switch).
    Switch,
    /// [Forget roots](State::retire) that nobody needs any more.
    Retire,
    /// Nothing, until then or until something else changes.
    Wait(Option<SystemTime>),
}

/// Longest life that is reckoned with, whatever the Secret says: a hundred years.
const MAX_LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

// === impl State ===

impl State {
    /// The first state: what workloads trust has always been so.
    pub fn new(signing: Arc<Signer>, longest: Duration) -> Self {
        let mut state = Self {
            signing,
            next: None,
            trusted: Vec::new(),
            longest,
            requested: None,
            followed: None,
        };
        state.trust_wanted(SystemTime::UNIX_EPOCH);
        state
    }

    /// What is to be done at `now`.
    pub fn step(&self, now: SystemTime, rules: Rules) -> Action {
        let moments = [
            (Action::Withdraw, self.next.as_ref().map(|n| n.not_after)),
            (Action::Switch, self.may_switch_at(rules)),
            (Action::Retire, self.may_retire_at(rules)),
            (Action::Announce, self.must_announce_at(rules)),
        ];
        let upcoming = moments
            .iter()
            .filter_map(|(action, at)| Some((*action, (*at)?)));
        match upcoming.clone().find(|(_, at)| *at <= now) {
            Some((action, _)) => action,
            None => Action::Wait(upcoming.map(|(_, at)| at).min()),
        }
    }

    /// Lets workloads trust what `next` brings; it signs once they do. Something else that was next is
    /// given up: it has signed nothing.
    pub fn announce(&mut self, next: Arc<Signer>, now: SystemTime) {
        self.next = Some(next);
        self.followed.clone_from(&self.requested);
        self.trust_wanted(now);
    }

    /// Does without what is next. It has signed nothing.
    pub fn withdraw(&mut self, now: SystemTime) {
        self.next = None;
        self.trust_wanted(now);
    }

    /// Signs with what is next.
    pub fn switch(&mut self, now: SystemTime) {
        if let Some(next) = self.next.take() {
            self.signing = next;
            self.trust_wanted(now);
        }
    }

    /// Forgets roots to which no certificate can lead any more.
    pub fn retire(&mut self, now: SystemTime, rules: Rules) {
        let overlap = self.overlap(rules);
        self.trusted
            .retain(|trusted| trusted.may_go_at(overlap).is_none_or(|at| now < at));
    }

    /// Goes on trusting what was trusted before, where another hand has left it out: certificates that
    /// lead to it are in use.
    pub fn remember(&mut self, former: &Self, now: SystemTime, rules: Rules) {
        let overlap = self.overlap(rules);
        let known: HashSet<_> = self.trusted.iter().map(|t| &t.root.fingerprint).collect();
        let lost = former
            .trusted
            .iter()
            .filter(|t| !known.contains(&t.root.fingerprint));
        let lost = lost.filter(|t| t.may_go_at(overlap).is_none_or(|at| now < at));
        let lost: Vec<_> = lost
            .map(|trusted| Trusted {
                dropped: trusted.dropped.or(Some(now)),
                ..trusted.clone()
            })
            .collect();
        self.trusted.extend(lost);
    }

    /// The roots that workloads trust.
    pub fn roots(&self) -> impl Iterator<Item = &Root> {
        self.trusted.iter().map(|trusted| &trusted.root)
    }

    /// Whether a root is on its way in or out.
    pub fn is_in_transition(&self) -> bool {
        self.next.is_some() || self.trusted.iter().any(|trusted| trusted.dropped.is_some())
    }

    /// After how long nothing exists any more that was issued before.
    fn overlap(&self, rules: Rules) -> Duration {
        self.longest.min(MAX_LONGEST) + rules.margin
    }

    /// When everybody will trust what is next. If what signs runs out earlier, so does everything that
    /// it signed, and nobody is left who could not, unless what signs was new itself: then certificates
    /// that not everybody believes are better than none.
    fn may_switch_at(&self, rules: Rules) -> Option<SystemTime> {
        let next = self.next.as_ref()?;
        let anchors = self.trusted.iter();
        let anchors = anchors.filter(|t| next.anchors.contains(&t.root.fingerprint));
        let known = anchors.map(|t| t.added + self.overlap(rules)).min();
        Some(known.map_or(self.signing.not_after, |at| at.min(self.signing.not_after)))
    }

    fn may_retire_at(&self, rules: Rules) -> Option<SystemTime> {
        let overlap = self.overlap(rules);
        self.trusted
            .iter()
            .filter_map(|t| t.may_go_at(overlap))
            .min()
    }

    /// A request waits for a rotation under way to end; running out does not.
    fn must_announce_at(&self, rules: Rules) -> Option<SystemTime> {
        if self.next.is_some() {
            return None;
        }
        if self.requested.is_some() && self.requested != self.followed && !self.is_in_transition() {
            return Some(SystemTime::UNIX_EPOCH);
        }
        let life = self
            .signing
            .not_after
            .duration_since(self.signing.not_before);
        let grace = life.unwrap_or_default() * rules.grace_percent.min(100) / 100;
        Some(self.signing.not_after - grace)
    }

    /// Notes which roots are wanted from `now` on and which no more.
    fn trust_wanted(&mut self, now: SystemTime) {
        let next = self.next.iter().flat_map(|next| &next.roots);
        let wanted: Vec<Root> = self.signing.roots.iter().chain(next).cloned().collect();
        for trusted in &mut self.trusted {
            trusted.dropped = if wanted.contains(&trusted.root) {
                None
            } else {
                trusted.dropped.or(Some(now))
            };
        }
        for root in wanted {
            if !self.trusted.iter().any(|trusted| trusted.root == root) {
                self.trusted.push(Trusted {
                    root,
                    added: now,
                    dropped: None,
                });
            }
        }
    }
}

// === impl Trusted ===

impl Trusted {
    /// When nobody needs it any more: a while after it was dropped, or when it has expired.
    fn may_go_at(&self, overlap: Duration) -> Option<SystemTime> {
        Some((self.dropped? + overlap).min(self.root.not_after))
    }
}

#[cfg(test)]
mod tests;

//! What to do next about one pod, without I/O.
//!
//! A [`Machine`] holds what should be and what is known to be, and names one [`Action`] at a time; whoever
//! carries it out says how it went. In the mesh that is: find the namespace, put in the rules, tell
//! ztunnel, enter the addresses to which probes may go. Out of it: the same backwards. Nothing that failed
//! is taken for done, nothing that is done is done again, and what is doubted is looked at before it is
//! touched.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use mesh_core::workload::PodInfo;
use mesh_net::netns::NetNsId;
use mesh_redirect::{Options, Verdict};

mod action;
mod standing;

pub use self::{action::Step, standing::Phase};
pub(crate) use self::{
    action::{Action, Cause, Failure, Outcome},
    standing::Report,
};

/// What should be of one pod, and what is known to be.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    desired: Desired,
    place: Place,
    rules: Held,
    proxy: Proxy,
    /// The pod's addresses in the node's probe set.
    probes: BTreeSet<IpAddr>,
    /// Addresses that may be there: an attempt to enter or remove them has failed.
    doubted: BTreeSet<IpAddr>,
    /// Whether ztunnels may be told: not before the first pass over all pods, see [`Machine::introduce`].
    serving: bool,
    /// Counts the ztunnels that came; what an earlier one confirmed is confirmed again.
    epoch: u64,
    failure: Option<Failure>,
}

/// What should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Desired {
    /// It belongs in the mesh, like this.
    InMesh(Arc<Enrolment>),
    /// It does not.
    Outside(Strip),
}

/// How a pod is in the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Enrolment {
    /// Its rules.
    pub(crate) options: Options,
    /// Who it is, for ztunnel.
    pub(crate) info: PodInfo,
    /// Where probes reach it.
    pub(crate) addresses: BTreeSet<IpAddr>,
}

/// Whether a pod outside the mesh may hold rules that have to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strip {
    /// It has ended: its namespace goes by itself.
    Never,
    /// It is looked at if its namespace is known.
    Known,
    /// The API server says that it was in the mesh: its namespace is searched.
    Search,
}

/// What is worth counting about an action that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// Somebody had changed the rules of a pod in the mesh.
    Tampered,
    /// The pod has another namespace than before.
    Moved,
}

/// How a ztunnel that connects is told of the pod, see [`Machine::introduce`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Introduction {
    /// Serve it, in this namespace.
    Serve(NetNsId),
    /// Go on if you do.
    Keep,
    /// It is not told.
    Nothing,
}

/// The pod's namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Not found yet. It may have been known to those before us, so that nothing of it is given up.
    Unknown,
    At(NetNsId),
    /// It was this one; that is to be confirmed.
    Doubtful(NetNsId),
    /// It had one that is gone.
    Lost,
    /// The runtime has taken its network; it gets another, or ends.
    Detached,
}

/// What the namespace holds of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Held {
    /// Not looked at. What it held when it was looked at last.
    Unknown(Option<Options>),
    Nothing,
    /// Something, but not what is wanted.
    Wrong,
    Rules(Options),
}

/// What the ztunnels were told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proxy {
    Absent,
    /// To go on if they do.
    Kept,
    /// By the list that each is given when it connects, in the name of this process's predecessor.
    Restored(NetNsId),
    /// Without success so far.
    Told(NetNsId),
    /// Confirmed, in this epoch.
    Serves(NetNsId, u64),
}

// === impl Machine ===

impl Machine {
    /// Nothing is known of the pod.
    pub(crate) fn new(desired: Desired, serving: bool, epoch: u64) -> Self {
        Self {
            desired,
            place: Place::Unknown,
            rules: Held::Unknown(None),
            proxy: Proxy::Absent,
            probes: BTreeSet::new(),
            doubted: BTreeSet::new(),
            serving,
            epoch,
            failure: None,
        }
    }

    /// What should be, from now on. Says whether that is news.
    pub(crate) fn want(&mut self, desired: Desired) -> bool {
        if self.desired == desired {
            return false;
        }
        self.desired = desired;
        self.failure = None;
        true
    }

    /// The runtime says that this is the pod's namespace. It is looked at again even if that is no news.
    pub(crate) fn attached(&mut self, netns: NetNsId) {
        if self.netns() == Some(netns) {
            self.place = Place::At(netns);
            self.doubt_rules();
        } else {
            self.move_to(netns);
        }
        self.failure = None;
    }

    /// The runtime says that the pod's network goes.
    pub(crate) fn detached(&mut self) {
        self.place = Place::Detached;
        self.failure = None;
    }

    /// Gives up the namespace of a pod that has ended and left the mesh: whoever held it would keep it from going
    /// with its sandbox, for as long as the API server shows the pod.
    pub(crate) fn release(&mut self) {
        let over = self.desired == Desired::Outside(Strip::Never) && self.next().is_none();
        if over && self.netns().is_some() {
            self.place = Place::Lost;
            self.rules = Held::Unknown(None);
        }
    }

    /// Time to look whether everything still is as it was left.
    pub(crate) fn doubt(&mut self) {
        match self.place {
            Place::At(netns) => {
                self.place = Place::Doubtful(netns);
                self.doubt_rules();
            }
            // It may have got another network without our plugin.
            Place::Detached => self.place = Place::Lost,
            Place::Unknown | Place::Doubtful(_) | Place::Lost => {}
        }
    }

    /// A ztunnel has connected.
    pub(crate) fn proxies_changed(&mut self, epoch: u64) {
        self.epoch = epoch;
    }

    /// What the probe set holds of the pod. Not to be called while an action is under way that changes it.
    pub(crate) fn probes_seen(&mut self, addresses: BTreeSet<IpAddr>) {
        self.probes = addresses;
        self.doubted.clear();
    }

    /// The first pass is over: how ztunnels are told of this pod that was there before us. From now on they
    /// may be told more.
    pub(crate) fn introduce(&mut self) -> Introduction {
        self.serving = true;
        let may_hold_rules = matches!(self.rules, Held::Wrong | Held::Rules(_));
        let wanted = matches!(self.desired, Desired::InMesh(_));
        match self.place {
            // Rules that could not be taken out would lead into nothing.
            Place::At(netns) | Place::Doubtful(netns) if wanted || may_hold_rules => {
                self.proxy = Proxy::Restored(netns);
                Introduction::Serve(netns)
            }
            Place::Unknown if wanted => {
                self.proxy = Proxy::Kept;
                Introduction::Keep
            }
            _ => Introduction::Nothing,
        }
    }

    /// What to do now; nothing if there is nothing to do before something happens.
    pub(crate) fn next(&self) -> Option<Action> {
        match &self.desired {
            Desired::InMesh(enrolment) => self.enter(enrolment),
            Desired::Outside(strip) => self.leave(*strip),
        }
    }

    fn enter(&self, enrolment: &Enrolment) -> Option<Action> {
        // What is said to be the namespace of a pod is believed only if it has the pod's address.
        let search = (!enrolment.addresses.is_empty()).then_some(Action::Find);
        match self.place {
            Place::Unknown => search,
            Place::Lost => self.withdraw().or(search),
            Place::Detached => self.withdraw(),
            Place::Doubtful(netns) => Some(Action::Recheck(netns)),
            Place::At(netns) => self.enrol(netns, enrolment),
        }
    }

    fn enrol(&self, netns: NetNsId, enrolment: &Enrolment) -> Option<Action> {
        // An address that is not the pod's any more may be somebody else's by now.
        if let Some(stale) = self.stale(&enrolment.addresses) {
            return Some(Action::Dismiss(stale));
        }
        let options = &enrolment.options;
        match &self.rules {
            Held::Unknown(_) => return Some(Action::Verify(netns, options.clone())),
            Held::Rules(held) if held == options => {}
            _ => return Some(Action::Apply(netns, options.clone())),
        }
        if !self.serving {
            return None;
        }
        let tell = || Action::Tell(netns, enrolment.info.clone(), self.epoch);
        if !self.is_served(netns) {
            return Some(tell());
        }
        if let Some(missing) = enrolment.addresses.difference(&self.probes).next() {
            return Some(Action::Admit(*missing));
        }
        (self.proxy != Proxy::Serves(netns, self.epoch)).then(tell)
    }

    /// An address that may be in the probe set and should not.
    fn stale(&self, wanted: &BTreeSet<IpAddr>) -> Option<IpAddr> {
        let mut held = self.probes.iter().chain(&self.doubted);
        held.find(|address| !wanted.contains(address)).copied()
    }

    /// What has to be given up with a namespace.
    fn withdraw(&self) -> Option<Action> {
        let dismiss = self.stale(&BTreeSet::new()).map(Action::Dismiss);
        dismiss.or_else(|| (self.proxy != Proxy::Absent).then_some(Action::Untell))
    }

    fn leave(&self, strip: Strip) -> Option<Action> {
        if let Some(address) = self.stale(&BTreeSet::new()) {
            return Some(Action::Dismiss(address));
        }
        let stripping = match (strip, self.place) {
            (Strip::Never, _)
            | (_, Place::Lost | Place::Detached)
            | (Strip::Known, Place::Unknown) => None,
            (Strip::Search, Place::Unknown) => Some(Action::Find),
            (_, Place::Doubtful(netns)) => Some(Action::Recheck(netns)),
            (_, Place::At(netns)) => self.strip(netns),
        };
        stripping.or_else(|| self.withdraw())
    }

    fn strip(&self, netns: NetNsId) -> Option<Action> {
        match &self.rules {
            // Which rules does not matter: it is to be none.
            Held::Unknown(_) => Some(Action::Verify(netns, Options::default())),
            Held::Nothing => None,
            Held::Wrong | Held::Rules(_) => Some(Action::Strip(netns)),
        }
    }

    /// How the action went that [`next`](Self::next) named. What happened meanwhile counts.
    pub(crate) fn done(
        &mut self,
        action: &Action,
        result: Result<Outcome, Cause>,
    ) -> Option<Notice> {
        let result = match result {
            Ok(outcome) => Ok(outcome),
            Err(cause) => {
                self.failed(action, cause);
                Err(())
            }
        };
        let notice = self.learn(action, result);
        self.forget_overcome_failure();
        notice
    }

    fn learn(&mut self, action: &Action, result: Result<Outcome, ()>) -> Option<Notice> {
        match (action, result) {
            (Action::Find, Ok(Outcome::Found(netns))) => return self.found(None, netns),
            (Action::Recheck(old), Ok(Outcome::Found(netns))) => {
                return self.found(Some(*old), netns);
            }
            (Action::Find, Ok(Outcome::Gone)) if self.place == Place::Unknown => {
                self.place = Place::Lost;
            }
            (Action::Recheck(old), Ok(Outcome::Gone)) if self.place == Place::Doubtful(*old) => {
                self.place = Place::Lost;
            }
            (Action::Verify(netns, options), Ok(Outcome::Holds(verdict))) if self.is_at(*netns) => {
                return self.verified(options, &verdict);
            }
            (Action::Apply(netns, options), Ok(_)) if self.is_at(*netns) => {
                self.rules = Held::Rules(options.clone());
            }
            (Action::Strip(netns), Ok(_)) if self.is_at(*netns) => self.rules = Held::Nothing,
            (
                Action::Verify(netns, _) | Action::Apply(netns, _) | Action::Strip(netns),
                Err(()),
            ) if self.is_at(*netns) => {
                // The namespace itself may be what is wrong.
                self.place = Place::Doubtful(*netns);
                self.rules = Held::Unknown(None);
            }
            (Action::Tell(netns, _, epoch), Ok(_)) => self.proxy = Proxy::Serves(*netns, *epoch),
            (Action::Tell(netns, ..), Err(())) => self.untold(*netns),
            (Action::Untell, Ok(_)) => self.proxy = Proxy::Absent,
            (Action::Untell, Err(())) => self.half_untold(),
            (Action::Admit(address), Ok(_)) => {
                self.doubted.remove(address);
                self.probes.insert(*address);
            }
            (Action::Dismiss(address), Ok(_)) => {
                self.doubted.remove(address);
                self.probes.remove(address);
            }
            (Action::Admit(address) | Action::Dismiss(address), Err(())) => {
                self.probes.remove(address);
                self.doubted.insert(*address);
            }
            _ => {}
        }
        None
    }

    fn found(&mut self, old: Option<NetNsId>, netns: NetNsId) -> Option<Notice> {
        let asked = match old {
            Some(old) => self.place == Place::Doubtful(old),
            None => matches!(self.place, Place::Unknown | Place::Lost),
        };
        // The runtime has spoken meanwhile, and knows better.
        if !asked {
            return None;
        }
        if old == Some(netns) {
            self.place = Place::At(netns);
            return None;
        }
        let moved = old.is_some() || self.place == Place::Lost;
        self.move_to(netns);
        moved.then_some(Notice::Moved)
    }

    fn verified(&mut self, options: &Options, verdict: &Verdict) -> Option<Notice> {
        let held = match verdict {
            Verdict::Same => Held::Rules(options.clone()),
            Verdict::Absent => Held::Nothing,
            Verdict::Differs(_) => Held::Wrong,
        };
        let before = std::mem::replace(&mut self.rules, held);
        let wanted = matches!(&self.desired, Desired::InMesh(e) if e.options == *options);
        let tampered = *verdict != Verdict::Same && before == Held::Unknown(Some(options.clone()));
        (wanted && tampered).then_some(Notice::Tampered)
    }

    /// A ztunnel that is away still serves the pod when it comes back, by the list it is given; one that
    /// refuses does not.
    fn untold(&mut self, netns: NetNsId) {
        let refused = self.failure.as_ref().is_some_and(|f| f.cause.refused);
        let lasting = matches!(self.proxy, Proxy::Restored(n) | Proxy::Serves(n, _) if n == netns);
        if refused || !lasting {
            self.proxy = Proxy::Told(netns);
        }
    }

    /// Some ztunnels may have stopped serving it.
    fn half_untold(&mut self) {
        if let Proxy::Restored(netns) | Proxy::Serves(netns, _) = self.proxy {
            self.proxy = Proxy::Told(netns);
        }
    }

    fn failed(&mut self, action: &Action, cause: Cause) {
        let step = action.step();
        let before = self.failure.take().filter(|failure| failure.step == step);
        let attempts = before
            .map_or(0, |failure| failure.attempts)
            .saturating_add(1);
        self.failure = Some(Failure {
            step,
            cause,
            attempts,
        });
    }

    /// A failure is over when its step is behind us: an attempt begins with steps that may well succeed.
    fn forget_overcome_failure(&mut self) {
        let Some(failure) = &self.failure else {
            return;
        };
        let overcome = match self.next() {
            None => true,
            Some(action) => self.position(action.step()) > self.position(failure.step),
        };
        if overcome {
            self.failure = None;
        }
    }

    fn position(&self, step: Step) -> Option<usize> {
        let order = match (&self.desired, self.place) {
            (Desired::InMesh(_), Place::Lost | Place::Detached) => {
                [Step::Probes, Step::Ztunnel, Step::Namespace, Step::Rules]
            }
            (Desired::InMesh(_), _) => [Step::Namespace, Step::Rules, Step::Ztunnel, Step::Probes],
            (Desired::Outside(_), _) => [Step::Probes, Step::Namespace, Step::Rules, Step::Ztunnel],
        };
        order.iter().position(|other| *other == step)
    }

    fn move_to(&mut self, netns: NetNsId) {
        self.place = Place::At(netns);
        self.rules = Held::Unknown(None);
    }

    fn doubt_rules(&mut self) {
        if let Held::Rules(options) = &self.rules {
            self.rules = Held::Unknown(Some(options.clone()));
        } else if !matches!(self.rules, Held::Unknown(_)) {
            self.rules = Held::Unknown(None);
        }
    }

    /// The pod's namespace, as far as it is known.
    pub(crate) fn netns(&self) -> Option<NetNsId> {
        match self.place {
            Place::At(netns) | Place::Doubtful(netns) => Some(netns),
            Place::Unknown | Place::Lost | Place::Detached => None,
        }
    }

    fn is_at(&self, netns: NetNsId) -> bool {
        self.place == Place::At(netns)
    }

    fn is_served(&self, netns: NetNsId) -> bool {
        matches!(self.proxy, Proxy::Serves(served, _) if served == netns)
    }

    /// What should be.
    pub(crate) fn desired(&self) -> &Desired {
        &self.desired
    }

    /// What the probe set holds of the pod.
    pub(crate) fn probes(&self) -> &BTreeSet<IpAddr> {
        &self.probes
    }

    /// Whether ztunnels are told to go on with the pod, whose namespace is not known.
    pub(crate) fn is_kept(&self) -> bool {
        self.proxy == Proxy::Kept
    }

    /// What goes wrong.
    pub(crate) fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }
}

#[cfg(test)]
mod tests;

//! One pod, its namespaces, a ztunnel and the probe set, without a kernel: what happens to them, and what
//! must hold whatever happens.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::{Action, Desired, Introduction, Machine, Outcome, Report, Strip},
    cause, mk_enrolment,
};
use mesh_net::netns::NetNsId;
use mesh_redirect::{Options, Verdict};
use std::sync::Arc;

/// Something happens.
#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    /// The agent takes its next step.
    Step(Fate),
    /// The API server says something else.
    Want(usize),
    /// The runtime gives the pod this network, and says so.
    Attach(u64),
    /// The pod gets this network, and nobody says so.
    Restart(u64),
    /// The runtime takes the pod's network, and says so.
    Detach,
    /// Somebody changes the rules.
    Tamper,
    /// It is time for a look.
    Doubt,
    /// The probe set is read.
    Audit,
    /// The ztunnel goes or comes.
    Ztunnel(bool),
    /// The agent dies and starts again.
    Crash,
}

/// How a step goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Works,
    /// It fails, and nothing has happened.
    FailsBefore,
    /// It has happened, and seems to have failed.
    FailsAfter,
    /// It has happened, and the agent dies before it knows.
    Crashes,
}

/// What a namespace holds.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Rules {
    Ours(Options),
    Damaged,
}

#[derive(Debug)]
pub(super) struct World {
    machine: Machine,
    desired: usize,
    /// The pod's network.
    netns: Option<NetNsId>,
    /// Whether the agent was told that the pod has none.
    detached: bool,
    rules: BTreeMap<NetNsId, Rules>,
    /// What the agent's list for ztunnels says.
    list: Introduction,
    connected: bool,
    /// What the ztunnel serves.
    served: Option<NetNsId>,
    epoch: u64,
    probes: BTreeSet<std::net::IpAddr>,
    /// Whether something has happened that the agent cannot know of yet.
    disturbed: bool,
}

fn desired(index: usize) -> Desired {
    match index {
        0 => Desired::InMesh(Arc::new(mk_enrolment(true, 1))),
        1 => Desired::InMesh(Arc::new(mk_enrolment(false, 1))),
        2 => Desired::InMesh(Arc::new(mk_enrolment(true, 2))),
        3 => Desired::Outside(Strip::Known),
        4 => Desired::Outside(Strip::Search),
        _ => Desired::Outside(Strip::Never),
    }
}

fn namespace(number: u64) -> NetNsId {
    NetNsId {
        dev: 1,
        ino: 100 + number,
    }
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            machine: Machine::new(desired(0), true, 0),
            desired: 0,
            netns: Some(namespace(0)),
            detached: false,
            rules: BTreeMap::new(),
            list: Introduction::Nothing,
            connected: true,
            served: None,
            epoch: 0,
            probes: BTreeSet::new(),
            disturbed: false,
        }
    }

    pub(super) fn act(&mut self, act: Act) {
        match act {
            Act::Step(fate) => self.step(fate),
            Act::Want(index) => {
                self.desired = index;
                self.machine.want(desired(index));
            }
            Act::Attach(number) => {
                self.move_to(Some(namespace(number)));
                self.detached = false;
                self.machine.attached(namespace(number));
            }
            Act::Restart(number) => {
                self.move_to(Some(namespace(number)));
                self.disturbed = true;
            }
            Act::Detach => {
                self.move_to(None);
                self.detached = true;
                self.machine.detached();
            }
            Act::Tamper => self.tamper(),
            Act::Doubt => self.machine.doubt(),
            Act::Audit => self.machine.probes_seen(self.probes.clone()),
            Act::Ztunnel(connected) => self.ztunnel(connected),
            Act::Crash => self.crash(),
        }
        self.report_is_true();
    }

    /// A namespace that is left is gone, with its rules.
    fn move_to(&mut self, netns: Option<NetNsId>) {
        if self.netns != netns {
            self.rules.clear();
        }
        self.netns = netns;
    }

    fn tamper(&mut self) {
        if let Some(netns) = self.netns {
            self.rules.insert(netns, Rules::Damaged);
            self.disturbed = true;
        }
    }

    fn ztunnel(&mut self, connected: bool) {
        if connected && !self.connected {
            // By the list; what is to be kept it does not have.
            self.served = self.listed();
            self.epoch += 1;
            self.machine.proxies_changed(self.epoch);
        }
        self.connected = connected;
    }

    /// The ztunnel lives on. The list is made anew, after a first pass over the pod.
    fn crash(&mut self) {
        self.detached = false;
        self.machine = Machine::new(desired(self.desired), false, self.epoch);
        self.machine.probes_seen(self.probes.clone());
        for _ in 0..10 {
            if self.machine.is_surveyed() {
                break;
            }
            self.step(Fate::Works);
        }
        self.list = self.machine.introduce();
        if self.list != Introduction::Keep {
            self.served = self.listed();
        }
        self.disturbed = false;
    }

    /// What a ztunnel serves that knows only the list.
    fn listed(&self) -> Option<NetNsId> {
        match self.list {
            Introduction::Serve(netns) => Some(netns),
            Introduction::Keep | Introduction::Nothing => None,
        }
    }

    fn step(&mut self, fate: Fate) {
        let Some(action) = self.machine.next() else {
            return;
        };
        self.is_in_order(&action);
        if fate == Fate::FailsBefore {
            self.machine.done(&action, Err(cause(false)));
            return;
        }
        let outcome = self.happen(&action);
        match fate {
            Fate::Crashes => self.crash(),
            Fate::FailsAfter => drop(self.machine.done(&action, Err(cause(false)))),
            _ => drop(self.machine.done(&action, outcome)),
        }
    }

    /// The kernel and the ztunnel do it.
    fn happen(&mut self, action: &Action) -> Result<Outcome, super::Cause> {
        Ok(match action {
            Action::Find => match self.netns {
                Some(netns) => Outcome::Found(netns),
                None if matches!(self.machine.desired(), Desired::InMesh(_)) => {
                    return Err(cause(false));
                }
                None => Outcome::Gone,
            },
            Action::Recheck(_) => self.netns.map_or(Outcome::Gone, Outcome::Found),
            Action::Verify(netns, options) => Outcome::Holds(match self.rules.get(netns) {
                None => Verdict::Absent,
                Some(Rules::Ours(held)) if held == options => Verdict::Same,
                Some(_) => Verdict::Differs(Vec::new()),
            }),
            Action::Apply(netns, options) => {
                if self.netns != Some(*netns) {
                    return Err(cause(false));
                }
                self.rules.insert(*netns, Rules::Ours(options.clone()));
                Outcome::Done
            }
            Action::Strip(netns) => {
                self.rules.remove(netns);
                Outcome::Done
            }
            Action::Tell(netns, ..) => {
                self.list = Introduction::Serve(*netns);
                if !self.connected {
                    return Err(cause(false));
                }
                self.served = Some(*netns);
                Outcome::Done
            }
            Action::Untell => {
                self.list = Introduction::Nothing;
                if self.connected {
                    self.served = None;
                }
                Outcome::Done
            }
            Action::Admit(address) => {
                self.probes.insert(*address);
                Outcome::Done
            }
            Action::Dismiss(address) => {
                self.probes.remove(address);
                Outcome::Done
            }
        })
    }

    /// One namespace at a time, and no step before those that it needs.
    fn is_in_order(&self, action: &Action) {
        let about = match action {
            Action::Verify(netns, _)
            | Action::Apply(netns, _)
            | Action::Strip(netns)
            | Action::Tell(netns, ..)
            | Action::Recheck(netns) => Some(*netns),
            _ => None,
        };
        assert!(
            about.is_none() || about == self.machine.netns(),
            "{action:?}"
        );
        if self.disturbed {
            return;
        }
        match (action, self.machine.desired()) {
            (Action::Tell(netns, ..), Desired::InMesh(enrolment)) => {
                let held = self.rules.get(netns);
                assert_eq!(
                    held,
                    Some(&Rules::Ours(enrolment.options.clone())),
                    "{action:?}"
                );
            }
            (Action::Admit(_), _) => assert!(self.served.is_some() || !self.connected),
            (Action::Strip(_), _) => assert_eq!(self.probes, BTreeSet::new()),
            (Action::Untell, Desired::Outside(Strip::Known | Strip::Search)) => {
                let left = self.netns.and_then(|netns| self.rules.get(&netns));
                assert!(left.is_none() || self.machine.netns().is_none(), "{left:?}");
            }
            _ => {}
        }
    }

    /// What the annotation says holds, as far as the agent can know.
    fn report_is_true(&self) {
        if self.machine.report() == Report::Enabled && !self.disturbed && self.connected {
            assert!(self.is_enrolled(), "{self:?}");
        }
    }

    fn is_enrolled(&self) -> bool {
        let Desired::InMesh(enrolment) = self.machine.desired() else {
            return false;
        };
        let rules = self.netns.and_then(|netns| self.rules.get(&netns));
        rules == Some(&Rules::Ours(enrolment.options.clone()))
            && self.served == self.netns
            && self.probes == enrolment.addresses
    }

    /// Failures stop; what is looked at from time to time is.
    pub(super) fn recover(&mut self) {
        self.ztunnel(true);
        if self.netns.is_none() {
            self.act(Act::Attach(2));
        }
        self.act(Act::Audit);
        self.act(Act::Doubt);
    }

    pub(super) fn converges_within(&mut self, steps: usize) {
        for _ in 0..steps {
            self.step(Fate::Works);
        }
        assert_eq!(self.machine.next(), None, "there is no end: {self:?}");
        assert!(self.machine.failure().is_none(), "{self:?}");
        if matches!(self.machine.desired(), Desired::InMesh(_)) {
            assert_eq!(self.machine.report(), Report::Enabled, "{self:?}");
            assert!(self.is_enrolled(), "{self:?}");
            return;
        }
        assert_eq!(self.machine.report(), Report::Clear, "{self:?}");
        assert_eq!(
            (self.served, &self.probes),
            (None, &BTreeSet::new()),
            "{self:?}"
        );
        let known = self.machine.netns().is_some();
        let left = self
            .netns
            .filter(|_| known)
            .and_then(|netns| self.rules.get(&netns));
        let strips = matches!(
            self.machine.desired(),
            Desired::Outside(Strip::Known | Strip::Search)
        );
        assert!(!strips || left.is_none(), "{self:?}");
    }
}

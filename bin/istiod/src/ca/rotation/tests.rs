//! The rule against a model of a mesh: whatever happens in whatever order, two certificates that are both
//! valid are believed by each other's workload.

use proptest::prelude::*;

use super::*;
use crate::ca::material::Pem;

const HOUR: Duration = Duration::from_secs(3600);
const RULES: Rules = Rules {
    grace_percent: 20,
    margin: Duration::from_secs(2 * 3600),
};
/// How many hours back a replica may be: what it knows then is more than one hour old and at most two,
/// for which the margin is made.
const LAG: u32 = 2;

fn at(hour: u32) -> SystemTime {
    SystemTime::UNIX_EPOCH + HOUR * (1_000_000 + hour)
}

fn mk_root(name: u32, not_after: SystemTime) -> Root {
    Root {
        fingerprint: format!("root-{name}"),
        pem: format!("root-{name}\n"),
        not_after,
    }
}

/// A root that signs itself, and wants `others` trusted besides.
fn mk_signer(name: u32, born: u32, life: u32, others: &[Root]) -> Arc<Signer> {
    let own = mk_root(name, at(born + life));
    Arc::new(Signer {
        pem: Arc::new(Pem::default()),
        id: own.fingerprint.clone(),
        anchors: vec![own.fingerprint.clone()],
        roots: std::iter::once(own).chain(others.iter().cloned()).collect(),
        not_before: at(born),
        not_after: at(born + life),
    })
}

fn names(state: &State) -> Vec<&str> {
    state
        .roots()
        .map(|root| root.fingerprint.as_str())
        .collect()
}

#[test]
fn a_root_is_replaced_in_three_steps_with_a_wait_for_each_certificate() {
    let mut state = State::new(mk_signer(1, 0, 1000, &[]), 24 * HOUR);
    assert_eq!(state.step(at(0), RULES), Action::Wait(Some(at(800))));
    assert_eq!(state.step(at(799), RULES), Action::Wait(Some(at(800))));
    assert_eq!(state.step(at(800), RULES), Action::Announce);

    state.announce(mk_signer(2, 800, 1000, &[]), at(800));
    assert_eq!(
        (names(&state), &*state.signing.id),
        (vec!["root-1", "root-2"], "root-1")
    );
    assert_eq!(state.step(at(825), RULES), Action::Wait(Some(at(826))));
    assert_eq!(state.step(at(826), RULES), Action::Switch);

    state.switch(at(830));
    assert_eq!(
        (names(&state), &*state.signing.id),
        (vec!["root-1", "root-2"], "root-2")
    );
    assert!(state.is_in_transition());
    assert_eq!(state.step(at(855), RULES), Action::Wait(Some(at(856))));
    assert_eq!(state.step(at(856), RULES), Action::Retire);

    state.retire(at(856), RULES);
    assert_eq!(names(&state), ["root-2"]);
    assert!(!state.is_in_transition());
    assert_eq!(state.step(at(856), RULES), Action::Wait(Some(at(1600))));
}

#[test]
fn a_request_is_followed_once_and_not_during_a_rotation() {
    let mut state = State::new(mk_signer(1, 0, 1000, &[]), 24 * HOUR);
    state.requested = Some("a".into());
    assert_eq!(state.step(at(1), RULES), Action::Announce);
    state.announce(mk_signer(2, 1, 1000, &[]), at(1));
    state.requested = Some("b".into());
    assert_eq!(state.step(at(2), RULES), Action::Wait(Some(at(27))));
    state.switch(at(27));
    assert_eq!(state.step(at(28), RULES), Action::Wait(Some(at(53))));
    state.retire(at(53), RULES);
    assert_eq!(
        state.step(at(53), RULES),
        Action::Announce,
        "now the second one"
    );
    state.announce(mk_signer(3, 53, 1000, &[]), at(53));
    state.switch(at(79));
    state.retire(at(105), RULES);
    assert_eq!(state.step(at(105), RULES), Action::Wait(Some(at(853))));
}

#[test]
fn what_runs_out_before_its_successor_is_known_is_followed_at_once() {
    let mut state = State::new(mk_signer(1, 0, 10, &[]), 24 * HOUR);
    assert_eq!(state.step(at(8), RULES), Action::Announce);
    state.announce(mk_signer(2, 8, 1000, &[]), at(8));
    assert_eq!(state.step(at(8), RULES), Action::Wait(Some(at(10))));
    assert_eq!(state.step(at(10), RULES), Action::Switch);
    state.switch(at(10));
    assert_eq!(
        state.step(at(10), RULES),
        Action::Retire,
        "an expired root is of no use"
    );
}

#[test]
fn roots_that_were_added_long_ago_may_sign_at_once() {
    let second = mk_root(2, at(1000));
    let mut state = State::new(mk_signer(1, 0, 1000, &[]), 24 * HOUR);
    state.announce(mk_signer(1, 0, 1000, std::slice::from_ref(&second)), at(0));
    assert_eq!(
        state.step(at(0), RULES),
        Action::Switch,
        "the same root signs"
    );
    state.switch(at(0));
    assert_eq!(names(&state), ["root-1", "root-2"]);

    state.announce(mk_signer(2, 0, 1000, &[]), at(10));
    assert_eq!(
        state.step(at(10), RULES),
        Action::Wait(Some(at(26))),
        "known since hour 0"
    );
    assert_eq!(state.step(at(26), RULES), Action::Switch);
}

#[test]
fn a_successor_that_is_taken_back_has_never_signed() {
    let first = mk_signer(1, 0, 1000, &[]);
    let mut state = State::new(first.clone(), 24 * HOUR);
    state.announce(mk_signer(2, 0, 1000, &[]), at(0));
    state.announce(first, at(5));
    assert_eq!(state.step(at(5), RULES), Action::Switch);
    state.switch(at(5));
    assert_eq!((&*state.signing.id, state.next.is_none()), ("root-1", true));
    state.retire(at(31), RULES);
    assert_eq!(names(&state), ["root-1"]);
}

#[test]
fn a_successor_that_runs_out_before_its_turn_is_given_up() {
    let mut state = State::new(mk_signer(1, 0, 1000, &[]), 24 * HOUR);
    state.announce(mk_signer(2, 0, 10, &[]), at(0));
    assert_eq!(state.step(at(9), RULES), Action::Wait(Some(at(10))));
    assert_eq!(state.step(at(10), RULES), Action::Withdraw);
    state.withdraw(at(10));
    assert_eq!(state.step(at(10), RULES), Action::Retire);
    state.retire(at(10), RULES);
    assert_eq!(state, State::new(mk_signer(1, 0, 1000, &[]), 24 * HOUR));
}

#[test]
fn a_root_that_another_hand_left_out_is_trusted_for_as_long_as_it_may_be_in_use() {
    let former = State::new(mk_signer(1, 0, 1000, &[]), 24 * HOUR);
    let mut state = State::new(mk_signer(2, 0, 1000, &[]), 24 * HOUR);
    state.remember(&former, at(5), RULES);
    assert_eq!(names(&state), ["root-2", "root-1"]);
    state.remember(&former, at(6), RULES);
    assert_eq!(names(&state), ["root-2", "root-1"]);
    assert_eq!(state.step(at(31), RULES), Action::Retire);
    let former = state.clone();
    state.retire(at(31), RULES);
    state.remember(&former, at(31), RULES);
    assert_eq!(
        names(&state),
        ["root-2"],
        "what was rightly forgotten stays so"
    );
}

/// A certificate in the hands of a workload.
#[derive(Debug)]
struct Leaf {
    anchors: Vec<String>,
    trusts: HashSet<String>,
    not_after: SystemTime,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    /// Hours pass, each with a look at the root.
    Pass(u32),
    /// A workload gets a certificate of so many hours, from a replica that may lag.
    Issue { ttl: u32, lag: u32 },
    /// A user wants another root.
    Request,
    /// The owner of plug-in files brings a new authority, with or without the present roots.
    Replace { keeping: bool },
    /// And takes it back.
    Return,
}

/// The mesh: what the leader knows, what it knew hours ago, and all certificates.
struct Mesh {
    hour: u32,
    history: Vec<State>,
    former: Arc<Signer>,
    leaves: Vec<Leaf>,
    made: u32,
}

impl Mesh {
    fn new(life: u32) -> Self {
        let first = mk_signer(0, 0, life, &[]);
        Self {
            hour: 0,
            history: vec![State::new(first.clone(), 4 * HOUR)],
            former: first,
            leaves: Vec::new(),
            made: 0,
        }
    }

    fn now(&self) -> SystemTime {
        at(self.hour)
    }

    fn state(&mut self) -> &mut State {
        self.history.last_mut().unwrap()
    }

    fn mk_next(&mut self, others: &[Root]) -> Arc<Signer> {
        self.made += 1;
        mk_signer(self.made, self.hour, 60 + self.made % 200, others)
    }

    fn happens(&mut self, event: Event) {
        let now = self.now();
        match event {
            Event::Pass(hours) => (0..hours).for_each(|_| self.pass()),
            Event::Issue { ttl, lag } => self.issue(HOUR * ttl, lag),
            Event::Request => {
                self.made += 1;
                self.state().requested = Some(self.made.to_string());
            }
            Event::Replace { keeping } => {
                let present = self.state().signing.roots.clone();
                let next = self.mk_next(if keeping { &present } else { &[] });
                self.former = self.state().signing.clone();
                self.state().announce(next, now);
            }
            Event::Return => {
                let former = self.former.clone();
                if former.not_after > now {
                    self.state().announce(former, now);
                }
            }
        }
        self.look();
    }

    fn pass(&mut self) {
        let state = self.state().clone();
        self.history.push(state);
        self.hour += 1;
        self.look();
        self.verify();
    }

    fn look(&mut self) {
        let now = self.now();
        loop {
            match self.state().step(now, RULES) {
                Action::Announce => {
                    let next = self.mk_next(&[]);
                    self.state().announce(next, now);
                }
                Action::Switch => {
                    if self.state().signing.not_after <= now {
                        self.run_out();
                    }
                    self.state().switch(now);
                }
                Action::Withdraw => self.state().withdraw(now),
                Action::Retire => self.state().retire(now, RULES),
                Action::Wait(due) => {
                    assert!(
                        due.is_none_or(|due| due > now),
                        "it must not be due: {due:?}"
                    );
                    return;
                }
            }
        }
    }

    /// What signs has run out. Certificates of a still earlier one may be in use that do not know the
    /// next; better they are disbelieved than that there are no new ones.
    fn run_out(&mut self) {
        let signing = self.state().signing.id.clone();
        self.leaves.retain(|leaf| leaf.anchors.contains(&signing));
    }

    fn issue(&mut self, ttl: Duration, lag: u32) {
        let late = self.history.len().saturating_sub(1 + lag as usize);
        // A replica writes down a longer life before it grants it, and sees the state then.
        if ttl > self.history[late].longest {
            self.state().longest = self.state().longest.max(ttl);
        }
        let now = self.now();
        let state = if ttl > self.history[late].longest {
            self.history.last().unwrap()
        } else {
            &self.history[late]
        };
        let not_after = (now + ttl).min(state.signing.not_after);
        self.leaves.push(Leaf {
            anchors: state.signing.anchors.clone(),
            trusts: state.roots().map(|root| root.fingerprint.clone()).collect(),
            not_after,
        });
        self.verify();
    }

    fn verify(&mut self) {
        let now = self.now();
        self.leaves.retain(|leaf| now < leaf.not_after);
        for one in &self.leaves {
            for other in &self.leaves {
                let believed = one
                    .anchors
                    .iter()
                    .any(|anchor| other.trusts.contains(anchor));
                assert!(
                    believed,
                    "hour {}: {other:?} does not believe {one:?}",
                    self.hour
                );
            }
        }
    }
}

#[test]
fn a_mesh_that_asks_every_hour_and_a_replica_that_lags_come_through_a_rotation() {
    let mut mesh = Mesh::new(400);
    for hour in 0..60 {
        for lag in 0..=LAG {
            mesh.issue(12 * HOUR, lag);
        }
        if hour == 20 {
            mesh.happens(Event::Request);
        }
        mesh.pass();
    }
    assert_eq!(names(mesh.state()), ["root-2"]);
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (1..12u32).prop_map(Event::Pass),
        // The longest life often: it is the one that counts.
        8 => (prop_oneof![2 => Just(12), 1 => 1..=12u32], 0..=LAG)
            .prop_map(|(ttl, lag)| Event::Issue { ttl, lag }),
        1 => Just(Event::Request),
        1 => any::<bool>().prop_map(|keeping| Event::Replace { keeping }),
        1 => Just(Event::Return),
    ];
    prop::collection::vec(event, 1..120)
}

proptest! {
    #[test]
    fn no_valid_certificate_is_ever_disbelieved(events in events(), life in 40..400u32) {
        let mut mesh = Mesh::new(life);
        for event in events {
            mesh.happens(event);
        }
    }

    #[test]
    fn every_rotation_ends_with_one_root(events in events()) {
        let mut mesh = Mesh::new(400);
        for event in events {
            mesh.happens(event);
        }
        mesh.state().requested = None;
        // Long enough for all waits, too short for a root to grow old.
        let mut waits = 0;
        while mesh.state().is_in_transition() {
            mesh.pass();
            waits += 1;
            assert!(waits < 400, "{:?}", mesh.state());
        }
        let state = mesh.state();
        let trusted: HashSet<_> = state.roots().map(|root| &root.fingerprint).collect();
        let wanted: HashSet<_> = state.signing.roots.iter().map(|root| &root.fingerprint).collect();
        prop_assert_eq!(trusted, wanted);
    }
}

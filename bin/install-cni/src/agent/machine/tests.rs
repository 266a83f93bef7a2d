use proptest::{prelude::*, sample::Index};

use super::*;

mod world;

use self::world::{Act, Fate, World};
use super::standing::TELLING;

const HERE: NetNsId = NetNsId { dev: 1, ino: 10 };
const ELSEWHERE: NetNsId = NetNsId { dev: 1, ino: 11 };

fn mk_enrolment(dns_capture: bool, last: u8) -> Enrolment {
    Enrolment {
        options: Options {
            dns_capture,
            ..Options::default()
        },
        info: PodInfo {
            name: "pod".into(),
            namespace: "demo".into(),
            service_account: "default".into(),
        },
        addresses: BTreeSet::from([IpAddr::from([10, 0, 0, last])]),
    }
}

fn in_mesh() -> Desired {
    Desired::InMesh(Arc::new(mk_enrolment(true, 1)))
}

fn serving(desired: Desired) -> Machine {
    Machine::new(desired, true, 0)
}

fn cause(refused: bool) -> Cause {
    Cause {
        reason: "Test",
        message: "it does not work".into(),
        refused,
    }
}

/// Carries out what the machine names as if all went well, and says what that was.
fn go(machine: &mut Machine, netns: NetNsId, held: &Verdict) -> Vec<&'static str> {
    let mut steps = Vec::new();
    while let Some(action) = machine.next() {
        let outcome = match &action {
            Action::Find | Action::Recheck(_) => Outcome::Found(netns),
            Action::Verify(..) => Outcome::Holds(held.clone()),
            _ => Outcome::Done,
        };
        steps.push(match &action {
            Action::Find => "find",
            Action::Recheck(_) => "recheck",
            Action::Verify(..) => "verify",
            Action::Apply(..) => "apply",
            Action::Strip(_) => "strip",
            Action::Tell(..) => "tell",
            Action::Untell => "untell",
            Action::Admit(_) => "admit",
            Action::Dismiss(_) => "dismiss",
        });
        machine.done(&action, Ok(outcome));
        assert!(steps.len() < 30, "it goes in circles: {steps:?}");
    }
    steps
}

fn fail(machine: &mut Machine, refused: bool) -> Step {
    let action = machine.next().expect("there is something to do");
    machine.done(&action, Err(cause(refused)));
    action.step()
}

#[test]
fn a_pod_enters_in_order_and_leaves_in_the_opposite_one() {
    let mut machine = serving(in_mesh());
    let steps = go(&mut machine, HERE, &Verdict::Absent);
    assert_eq!(steps, ["find", "verify", "apply", "tell", "admit"]);
    assert_eq!(
        (machine.phase(), machine.report()),
        (Phase::Enrolled, Report::Enabled)
    );
    assert!(machine.is_enrolled_in(HERE) && !machine.is_enrolled_in(ELSEWHERE));

    machine.want(Desired::Outside(Strip::Known));
    assert_eq!(
        (machine.phase(), machine.report()),
        (Phase::Leaving, Report::Leave)
    );
    let steps = go(&mut machine, HERE, &Verdict::Absent);
    assert_eq!(steps, ["dismiss", "strip", "untell"]);
    assert_eq!(
        (machine.phase(), machine.report()),
        (Phase::Outside, Report::Clear)
    );
}

#[test]
fn what_is_right_already_is_not_touched() {
    let mut machine = serving(in_mesh());
    machine.probes_seen(BTreeSet::from([IpAddr::from([10, 0, 0, 1])]));
    assert_eq!(
        go(&mut machine, HERE, &Verdict::Same),
        ["find", "verify", "tell"]
    );
    machine.doubt();
    assert_eq!(machine.phase(), Phase::Enrolled, "a look is no loss");
    assert_eq!(
        go(&mut machine, HERE, &Verdict::Same),
        ["recheck", "verify"]
    );
}

#[test]
fn before_the_first_pass_is_over_nothing_is_told() {
    let mut machine = Machine::new(in_mesh(), false, 0);
    assert_eq!(go(&mut machine, HERE, &Verdict::Same), ["find", "verify"]);
    assert!(machine.is_surveyed());
    assert_eq!(machine.introduce(), Introduction::Serve(HERE));
    assert_eq!(go(&mut machine, HERE, &Verdict::Same), ["tell", "admit"]);
}

#[test]
fn a_pod_whose_namespace_is_not_found_is_kept() {
    let mut machine = Machine::new(in_mesh(), false, 0);
    machine.probes_seen(BTreeSet::from([IpAddr::from([10, 0, 0, 1])]));
    assert_eq!(fail(&mut machine, false), Step::Namespace);
    assert_eq!(machine.introduce(), Introduction::Keep);
    assert_eq!(
        machine.next(),
        Some(Action::Find),
        "nothing of it is given up"
    );
    let steps = go(&mut machine, HERE, &Verdict::Same);
    assert_eq!(steps, ["find", "verify", "tell"]);
}

#[test]
fn a_pod_that_keeps_rules_against_our_will_keeps_its_ztunnel() {
    let mut machine = Machine::new(Desired::Outside(Strip::Search), false, 0);
    for outcome in [Outcome::Found(HERE), Outcome::Holds(Verdict::Same)] {
        let action = machine.next().unwrap();
        machine.done(&action, Ok(outcome));
    }
    assert_eq!(machine.next(), Some(Action::Strip(HERE)));
    // The pass ended before that was done.
    assert_eq!(machine.introduce(), Introduction::Serve(HERE));
    assert_eq!(go(&mut machine, HERE, &Verdict::Same), ["strip", "untell"]);
}

#[test]
fn a_pod_outside_whose_namespace_nobody_knows_is_left_alone() {
    let mut machine = serving(Desired::Outside(Strip::Known));
    assert_eq!(go(&mut machine, HERE, &Verdict::Absent), [""; 0]);
    let mut machine = serving(Desired::Outside(Strip::Search));
    machine.done(&Action::Find, Ok(Outcome::Gone));
    assert_eq!((machine.next(), machine.phase()), (None, Phase::Outside));
}

#[test]
fn options_are_put_in_force_while_the_pod_runs() {
    let mut machine = serving(in_mesh());
    go(&mut machine, HERE, &Verdict::Absent);
    machine.want(Desired::InMesh(Arc::new(mk_enrolment(false, 1))));
    assert_eq!(go(&mut machine, HERE, &Verdict::Same), ["apply"]);
}

#[test]
fn an_address_that_is_not_the_pods_any_more_goes_first() {
    let mut machine = serving(in_mesh());
    go(&mut machine, HERE, &Verdict::Absent);
    machine.want(Desired::InMesh(Arc::new(mk_enrolment(false, 2))));
    assert_eq!(
        go(&mut machine, HERE, &Verdict::Same),
        ["dismiss", "apply", "admit"]
    );
}

#[test]
fn another_namespace_is_enrolled_anew() {
    let mut machine = serving(in_mesh());
    go(&mut machine, HERE, &Verdict::Absent);
    machine.doubt();
    let action = machine.next().unwrap();
    let notice = machine.done(&action, Ok(Outcome::Found(ELSEWHERE)));
    assert_eq!(notice, Some(Notice::Moved));
    assert_ne!(machine.phase(), Phase::Enrolled);
    let steps = go(&mut machine, ELSEWHERE, &Verdict::Absent);
    assert_eq!(steps, ["verify", "apply", "tell"]);
    assert!(machine.is_enrolled_in(ELSEWHERE));
}

#[test]
fn with_a_namespace_goes_what_belongs_to_it() {
    let mut machine = serving(in_mesh());
    go(&mut machine, HERE, &Verdict::Absent);
    machine.doubt();
    let action = machine.next().unwrap();
    machine.done(&action, Ok(Outcome::Gone));
    let steps = go(&mut machine, ELSEWHERE, &Verdict::Absent);
    assert_eq!(
        steps,
        [
            "dismiss", "untell", "find", "verify", "apply", "tell", "admit"
        ]
    );

    machine.detached();
    let steps = go(&mut machine, HERE, &Verdict::Absent);
    assert_eq!(steps, ["dismiss", "untell"], "and it is not searched for");
    assert_eq!(machine.phase(), Phase::Waiting);
}

#[test]
fn somebody_who_changes_rules_is_noticed() {
    let mut machine = serving(in_mesh());
    go(&mut machine, HERE, &Verdict::Absent);
    machine.doubt();
    let mut notices = Vec::new();
    while let Some(action) = machine.next() {
        let outcome = match &action {
            Action::Recheck(_) => Outcome::Found(HERE),
            Action::Verify(..) => Outcome::Holds(Verdict::Absent),
            _ => Outcome::Done,
        };
        notices.extend(machine.done(&action, Ok(outcome)));
    }
    assert_eq!(notices, [Notice::Tampered]);
}

#[test]
fn what_the_runtime_says_meanwhile_counts_for_more_than_what_was_found() {
    let mut machine = serving(in_mesh());
    machine.attached(ELSEWHERE);
    machine.done(&Action::Find, Ok(Outcome::Found(HERE)));
    assert_eq!(machine.netns(), Some(ELSEWHERE));
    machine.done(&Action::Apply(HERE, Options::default()), Ok(Outcome::Done));
    assert!(matches!(machine.next(), Some(Action::Verify(ELSEWHERE, _))));
}

#[test]
fn a_new_ztunnel_is_asked_to_confirm() {
    let mut machine = serving(in_mesh());
    go(&mut machine, HERE, &Verdict::Absent);
    machine.proxies_changed(1);
    assert_eq!(machine.phase(), Phase::Enrolled);
    fail(&mut machine, false);
    assert_eq!(
        machine.phase(),
        Phase::Enrolled,
        "one that is away serves it again by its list"
    );
    fail(&mut machine, true);
    assert_eq!(
        machine.phase(),
        Phase::Entering(Step::Ztunnel),
        "one that refuses does not"
    );
    assert_eq!(go(&mut machine, HERE, &Verdict::Same), ["tell"]);
}

#[test]
fn the_annotation_says_pending_when_only_ztunnel_is_missing() {
    let mut machine = serving(in_mesh());
    machine.attached(HERE);
    for action in [1, 2] {
        let next = machine.next().unwrap();
        let outcome = if action == 1 {
            Outcome::Holds(Verdict::Absent)
        } else {
            Outcome::Done
        };
        machine.done(&next, Ok(outcome));
    }
    for _ in 0..TELLING {
        assert_eq!(
            machine.report(),
            Report::Leave,
            "a moment's trouble is not told"
        );
        fail(&mut machine, false);
    }
    assert_eq!(machine.report(), Report::Pending);
    go(&mut machine, HERE, &Verdict::Same);
    assert_eq!(machine.report(), Report::Enabled);
}

#[test]
fn the_annotation_does_not_say_enabled_of_a_pod_without_rules() {
    let mut machine = serving(in_mesh());
    for _ in 0..TELLING {
        assert_eq!(machine.report(), Report::Leave);
        fail(&mut machine, false);
    }
    assert_eq!(machine.report(), Report::Clear);
}

#[test]
fn waits_double_from_five_milliseconds_to_five_seconds_and_then_are_fifteen() {
    let mut machine = serving(in_mesh());
    let mut waits = Vec::new();
    for _ in 0..14 {
        fail(&mut machine, false);
        waits.push(machine.wait().unwrap().as_millis());
    }
    assert_eq!(
        waits,
        [
            5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5000, 15000, 15000, 15000
        ]
    );
}

#[test]
fn a_failure_is_counted_until_its_step_is_behind() {
    let mut machine = serving(in_mesh());
    machine.attached(HERE);
    for attempts in 1..4 {
        // Looking at the namespace again and finding it is no progress.
        while machine
            .next()
            .is_some_and(|action| action.step() == Step::Namespace)
        {
            let action = machine.next().unwrap();
            machine.done(&action, Ok(Outcome::Found(HERE)));
        }
        fail(&mut machine, false);
        assert_eq!(
            machine.failure().map(|f| (f.step, f.attempts)),
            Some((Step::Rules, attempts))
        );
    }
    go(&mut machine, HERE, &Verdict::Same);
    assert_eq!(machine.failure(), None);
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let fate = prop_oneof![
        6 => Just(Fate::Works),
        1 => Just(Fate::FailsBefore),
        1 => Just(Fate::FailsAfter),
        1 => Just(Fate::Crashes),
    ];
    let act = prop_oneof![
        12 => fate.prop_map(Act::Step),
        2 => any::<Index>().prop_map(|index| Act::Want(index.index(6))),
        1 => (0..3_u64).prop_map(Act::Attach),
        1 => (0..3_u64).prop_map(Act::Restart),
        1 => Just(Act::Detach),
        1 => Just(Act::Tamper),
        1 => Just(Act::Doubt),
        1 => Just(Act::Audit),
        1 => any::<bool>().prop_map(Act::Ztunnel),
        1 => Just(Act::Crash),
    ];
    prop::collection::vec(act, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn whatever_fails_and_crashes_a_pod_comes_to_where_it_belongs(acts in acts()) {
        let mut world = World::new();
        for act in acts {
            world.act(act);
        }
        world.recover();
        world.converges_within(24);
    }
}

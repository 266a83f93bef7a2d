use proptest::prelude::*;

use super::*;

impl Identified for u64 {
    fn id(&self) -> NetNsId {
        NetNsId { dev: 4, ino: *self }
    }
}

fn mk_pod() -> PodInfo {
    PodInfo {
        name: "details".into(),
        namespace: "bookinfo".into(),
        service_account: "default".into(),
    }
}

fn add(uid: &str) -> Request {
    Request::Add {
        uid: uid.into(),
        pod: mk_pod(),
    }
}

fn keep(uid: &str) -> Request {
    Request::Keep { uid: uid.into() }
}

fn delete(uid: &str) -> Request {
    Request::Delete { uid: uid.into() }
}

fn mk_start(uid: &str, netns: u64) -> Start<u64> {
    Start {
        uid: uid.into(),
        pod: mk_pod(),
        netns,
    }
}

fn starts(uid: &str, netns: u64) -> Plan<u64> {
    Plan {
        start: Some(mk_start(uid, netns)),
        ..Plan::default()
    }
}

fn stops(uids: &[&str]) -> Plan<u64> {
    Plan {
        stop: uids.iter().map(|uid| Arc::from(*uid)).collect(),
        ..Plan::default()
    }
}

fn refuses(refusal: Refusal) -> Plan<u64> {
    Plan {
        refusal: Some(refusal),
        ..Plan::default()
    }
}

/// Carries a request out as the client does, with this result of starting.
fn carry_out(machine: &mut Machine<u64>, request: Request, namespace: Namespace<u64>, ok: bool) {
    let plan = machine.received(request, namespace).unwrap();
    if let Some(start) = plan.start {
        machine.settled(&start.uid, start.netns.id(), ok);
    }
}

/// In a new snapshot, with `running` running in namespace 1 (and not named yet) and `pending` pending.
fn mk_in_snapshot() -> Machine<u64> {
    let mut machine = Machine::default();
    machine.connected();
    carry_out(&mut machine, add("running"), Namespace::Usable(1), true);
    machine.disconnected();
    machine.connected();
    carry_out(&mut machine, add("pending"), Namespace::Usable(2), false);
    machine
}

fn mk_live() -> Machine<u64> {
    let mut machine = mk_in_snapshot();
    carry_out(&mut machine, keep("running"), Namespace::Missing, true);
    carry_out(
        &mut machine,
        Request::SnapshotSent,
        Namespace::Missing,
        true,
    );
    machine
}

const NONE: Namespace<u64> = Namespace::Missing;

#[test]
fn every_message_before_the_snapshot_is_complete() {
    let unusable = || Refusal::Unusable {
        uid: "new".into(),
        reason: "a file".into(),
    };
    let lost = |uid: &str| Refusal::Lost { uid: uid.into() };
    let replaced = Plan {
        stop: vec!["running".into()],
        ..starts("running", 9)
    };
    let not_running = Refusal::NotRunning { uid: "new".into() };
    let stray = |name| Err(Violation::UnexpectedDescriptor(name));
    let cases = [
        (add("new"), Namespace::Usable(3), Ok(starts("new", 3))),
        (add("running"), Namespace::Usable(1), Ok(Plan::default())),
        (add("running"), Namespace::Usable(9), Ok(replaced)),
        (
            add("pending"),
            Namespace::Usable(2),
            Ok(starts("pending", 2)),
        ),
        (
            add("new"),
            Namespace::Unusable("a file".into()),
            Ok(refuses(unusable())),
        ),
        (add("new"), Namespace::Lost, Ok(refuses(lost("new")))),
        (
            add("running"),
            Namespace::Lost,
            Ok(refuses(lost("running"))),
        ),
        (add("new"), NONE, Err(Violation::MissingDescriptor)),
        (keep("running"), NONE, Ok(Plan::default())),
        (keep("pending"), NONE, Ok(Plan::default())),
        (keep("new"), NONE, Ok(refuses(not_running))),
        (keep("running"), Namespace::Usable(1), stray("KeepWorkload")),
        (delete("running"), NONE, Ok(Plan::default())),
        (delete("pending"), NONE, Ok(Plan::default())),
        (delete("new"), NONE, Ok(Plan::default())),
        (delete("new"), Namespace::Lost, stray("DelWorkload")),
        (Request::SnapshotSent, NONE, Ok(stops(&["running"]))),
        (
            Request::SnapshotSent,
            Namespace::Usable(1),
            stray("SnapshotSent"),
        ),
    ];
    for (request, namespace, expected) in cases {
        let text = format!("{request:?} with {namespace:?}");
        let planned = mk_in_snapshot().received(request, namespace);
        assert_eq!(planned, expected, "{text}");
    }
}

#[test]
fn every_message_after_the_snapshot() {
    let lost = Refusal::Lost { uid: "new".into() };
    let replaced = Plan {
        stop: vec!["running".into()],
        ..starts("running", 9)
    };
    let cases = [
        (add("new"), Namespace::Usable(3), Ok(starts("new", 3))),
        (add("running"), Namespace::Usable(1), Ok(Plan::default())),
        (add("running"), Namespace::Usable(9), Ok(replaced)),
        (
            add("pending"),
            Namespace::Usable(7),
            Ok(starts("pending", 7)),
        ),
        (add("new"), Namespace::Lost, Ok(refuses(lost))),
        (add("new"), NONE, Err(Violation::MissingDescriptor)),
        (keep("running"), NONE, Err(Violation::KeepAfterSnapshot)),
        (delete("running"), NONE, Ok(stops(&["running"]))),
        (delete("pending"), NONE, Ok(Plan::default())),
        (delete("new"), NONE, Ok(Plan::default())),
        (Request::SnapshotSent, NONE, Err(Violation::SecondSnapshot)),
    ];
    for (request, namespace, expected) in cases {
        let text = format!("{request:?} with {namespace:?}");
        let planned = mk_live().received(request, namespace);
        assert_eq!(planned, expected, "{text}");
    }
}

#[test]
fn readiness_needs_the_snapshot_and_nothing_pending() {
    let mut machine = mk_in_snapshot();
    assert!(!machine.status().is_ready(), "no snapshot, one pending");
    let mut machine_live = mk_live();
    let expected = Status {
        synced: true,
        running: 1,
        pending: 1,
    };
    assert_eq!(machine_live.status(), expected);
    assert!(!machine_live.status().is_ready());
    assert_eq!(machine_live.retries(), [mk_start("pending", 2)]);
    machine_live.settled(&"pending".into(), 2.id(), true);
    assert!(machine_live.status().is_ready());
    machine_live.disconnected();
    assert!(
        !machine_live.status().is_ready(),
        "what it knows may be old"
    );
    assert_eq!(machine_live.status().running, 2, "what runs goes on");

    carry_out(&mut machine, delete("pending"), NONE, true);
    carry_out(&mut machine, Request::SnapshotSent, NONE, true);
    assert!(machine.status().is_ready());
}

#[test]
fn a_pod_deleted_during_the_snapshot_stops_with_it() {
    let mut machine = mk_in_snapshot();
    carry_out(&mut machine, keep("running"), NONE, true);
    assert_eq!(
        machine.received(delete("running"), NONE),
        Ok(Plan::default())
    );
    assert_eq!(
        machine.status().running,
        1,
        "not before the snapshot is complete"
    );
    let planned = machine.received(Request::SnapshotSent, NONE);
    assert_eq!(planned, Ok(stops(&["running"])));
    assert_eq!(machine.status().running, 0);
}

#[test]
fn what_is_pending_is_forgotten_when_the_conversation_starts_over() {
    let mut machine = mk_live();
    machine.disconnected();
    machine.connected();
    assert_eq!(machine.retries(), []);
    assert_eq!(machine.status().running, 1);
}

#[test]
fn a_namespace_lost_in_the_snapshot_keeps_what_runs_and_asks_again_for_what_does_not() {
    let mut machine = mk_in_snapshot();
    carry_out(&mut machine, add("running"), Namespace::Lost, true);
    carry_out(&mut machine, add("new"), Namespace::Lost, true);
    carry_out(&mut machine, delete("pending"), NONE, true);
    assert!(!machine.must_ask_again(), "not before all are named");
    let planned = machine.received(Request::SnapshotSent, NONE);
    assert_eq!(planned, Ok(Plan::default()), "nothing is stopped");
    assert!(machine.must_ask_again() && machine.has_unserved());
    assert!(!machine.status().is_ready());
    carry_out(&mut machine, add("new"), Namespace::Usable(5), true);
    assert!(!machine.must_ask_again());
    assert!(machine.status().is_ready());
}

#[test]
fn a_start_that_fails_does_not_bring_the_former_namespace_back() {
    let mut machine = mk_live();
    carry_out(&mut machine, add("running"), Namespace::Usable(9), false);
    assert_eq!(machine.status().running, 0);
    carry_out(&mut machine, delete("pending"), NONE, true);
    assert_eq!(machine.retries(), [mk_start("running", 9)]);
}

fn any_step() -> impl Strategy<Value = (u8, u8, u64, bool)> {
    (0..5_u8, 0..4_u8, 1..3_u64, any::<bool>())
}

proptest! {
    /// Whatever comes before, a snapshot decides what runs: exactly what it names.
    #[test]
    fn after_a_snapshot_exactly_what_it_names_runs(
        history in prop::collection::vec(any_step(), 0..40),
        snapshot in prop::collection::btree_map(0..4_u8, 1..3_u64, 0..4),
    ) {
        let mut machine = Machine::default();
        let mut running: HashMap<Arc<str>, NetNsId> = HashMap::new();
        machine.connected();
        let mut step = |machine: &mut Machine<u64>, request, namespace, ok| {
            let Ok(plan) = machine.received(request, namespace) else { return };
            for uid in plan.stop {
                assert!(running.remove(&uid).is_some(), "only what runs is stopped");
            }
            if let Some(start) = plan.start {
                if ok {
                    let former = running.insert(start.uid.clone(), start.netns.id());
                    assert_eq!(former, None, "nothing is started twice");
                }
                machine.settled(&start.uid, start.netns.id(), ok);
            }
        };
        for (kind, uid, netns, ok) in history {
            let uid = uid.to_string();
            match kind {
                0 => step(&mut machine, add(&uid), Namespace::Usable(netns), ok),
                1 => step(&mut machine, keep(&uid), NONE, ok),
                2 => step(&mut machine, delete(&uid), NONE, ok),
                3 => step(&mut machine, Request::SnapshotSent, NONE, ok),
                _ => {
                    machine.disconnected();
                    machine.connected();
                }
            }
        }
        machine.disconnected();
        machine.connected();
        for (uid, netns) in &snapshot {
            step(&mut machine, add(&uid.to_string()), Namespace::Usable(*netns), true);
        }
        step(&mut machine, Request::SnapshotSent, NONE, true);
        let expected: HashMap<Arc<str>, NetNsId> =
            snapshot.iter().map(|(uid, netns)| (uid.to_string().into(), netns.id())).collect();
        prop_assert_eq!(running, expected);
        prop_assert!(machine.status().is_ready());
    }
}

use super::*;
use mesh_core::workload::PodInfo;

type Pods = BTreeMap<Arc<str>, Entry<u32>>;

fn mk_info() -> PodInfo {
    PodInfo {
        name: "details".into(),
        namespace: "bookinfo".into(),
        service_account: "default".into(),
    }
}

fn mk_pods(pods: &[(&str, Option<u32>)]) -> Pods {
    let entry = |netns| Entry {
        info: mk_info(),
        netns,
    };
    pods.iter()
        .map(|(uid, netns)| (Arc::from(*uid), entry(*netns)))
        .collect()
}

fn add(uid: &str, netns: u32) -> Outgoing<u32> {
    let request = Request::Add {
        uid: uid.into(),
        pod: mk_info(),
    };
    let netns = Some(netns);
    Outgoing { request, netns }
}

fn alone(request: Request) -> Outgoing<u32> {
    Outgoing {
        request,
        netns: None,
    }
}

fn delete(uid: &str) -> Outgoing<u32> {
    alone(Request::Delete { uid: uid.into() })
}

/// What is sent next; nothing may become void.
fn next(session: &mut Session<u8>, now: Instant, pods: &Pods) -> Option<Outgoing<u32>> {
    session.next(now, pods, |reply, error| panic!("{reply}: {error}"))
}

fn ack(session: &mut Session<u8>) -> Answered<u8> {
    session.answered(Ack(Ok(()))).unwrap()
}

/// A session whose snapshot is complete.
fn mk_live(now: Instant) -> Session<u8> {
    let mut session = Session::new([]);
    let sent = next(&mut session, now, &Pods::new());
    assert_eq!(sent, Some(alone(Request::SnapshotSent)));
    ack(&mut session);
    session
}

#[test]
fn a_snapshot_names_each_pod_and_ends_one_request_at_a_time() {
    let now = Instant::now();
    let pods = mk_pods(&[("known", Some(7)), ("unknown", None)]);
    let mut session = Session::new(pods.keys().cloned());
    let keep = Request::Keep {
        uid: "unknown".into(),
    };
    for expected in [add("known", 7), alone(keep), alone(Request::SnapshotSent)] {
        let request = expected.request.clone();
        assert_eq!(next(&mut session, now, &pods), Some(expected));
        assert_eq!(
            next(&mut session, now, &pods),
            None,
            "not before the answer"
        );
        let answered = ack(&mut session);
        assert_eq!((answered.request, answered.reply), (request, None));
    }
    assert_eq!(next(&mut session, now, &pods), None);
}

#[test]
fn changes_overtake_the_snapshot_and_the_newest_of_a_pod_is_told_last() {
    let now = Instant::now();
    let mut pods = mk_pods(&[("a", Some(1)), ("b", Some(2)), ("c", Some(3))]);
    let mut session = Session::new(pods.keys().cloned());
    assert_eq!(next(&mut session, now, &pods), Some(add("a", 1)));
    // Meanwhile b is deleted, and c gets another namespace.
    pods.remove("b");
    session.push(Change::Delete("b".into()), 1);
    pods.get_mut("c").unwrap().netns = Some(30);
    session.push(Change::Add("c".into()), 2);
    assert!(!session.has_room());
    for expected in [
        delete("b"),
        add("c", 30),
        add("c", 30),
        alone(Request::SnapshotSent),
    ] {
        ack(&mut session);
        assert_eq!(next(&mut session, now, &pods), Some(expected));
    }
    assert!(session.has_room());
}

#[test]
fn adding_a_pod_that_is_gone_meanwhile_is_void() {
    let now = Instant::now();
    let mut session = mk_live(now);
    session.push(Change::Add("gone".into()), 9);
    let mut void = Vec::new();
    let sent = session.next(now, &Pods::new(), |reply, error| void.push((reply, error)));
    assert_eq!(sent, None);
    assert_eq!(void, [(9, Error::Deleted)]);
}

#[test]
fn a_late_answer_is_matched_to_its_own_request() {
    let mut now = Instant::now();
    let pods = mk_pods(&[("slow", Some(1)), ("quick", Some(2))]);
    let mut session = mk_live(now);
    session.push(Change::Add("slow".into()), 1);
    session.push(Change::Add("quick".into()), 2);
    assert_eq!(next(&mut session, now, &pods), Some(add("slow", 1)));
    assert_eq!(session.expire(now), Ok(None), "not yet");
    now += ACK_DEADLINE;
    let expired = session.expire(now).unwrap().unwrap();
    assert_eq!(
        (expired.request.uid().map(|uid| &**uid), expired.reply),
        (Some("slow"), Some(1))
    );
    assert_eq!(session.deadline(), None);
    assert_eq!(next(&mut session, now, &pods), Some(add("quick", 2)));

    let late = session.answered(Ack(Err("the slow one".into()))).unwrap();
    assert_eq!(late.request.uid().map(|uid| &**uid), Some("slow"));
    assert!(late.late && late.reply.is_none());
    let answered = ack(&mut session);
    assert_eq!(answered.request.uid().map(|uid| &**uid), Some("quick"));
    assert_eq!(
        (answered.result, answered.reply, answered.late),
        (Ok(()), Some(2), false)
    );
}

#[test]
fn an_answer_without_a_request_breaks_the_session() {
    let mut session = mk_live(Instant::now());
    assert_eq!(session.answered(Ack(Ok(()))), Err(Broken::Unsolicited));
}

#[test]
fn a_proxy_that_answers_nothing_is_given_up() {
    let mut now = Instant::now();
    let mut session = mk_live(now);
    for request in 1..=MOST_OVERDUE {
        session.push(Change::Delete("x".into()), 0);
        assert!(next(&mut session, now, &Pods::new()).is_some());
        now += ACK_DEADLINE;
        let expired = session.expire(now);
        assert_eq!(expired.is_err(), request == MOST_OVERDUE, "{request}");
    }
}

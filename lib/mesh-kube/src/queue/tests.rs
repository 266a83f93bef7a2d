//! The queue's promises, by hand and over random histories.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn mk_queue(burst: u32) -> (Queue<u8>, Instant) {
    let pace = Pace {
        burst,
        every: SECOND,
        backoff: Backoff::new(SECOND, SECOND * 8),
    };
    (Queue::new(pace), Instant::now())
}

#[test]
fn a_key_that_is_woken_twice_is_handed_out_once() {
    let (mut queue, now) = mk_queue(9);
    queue.wake(1, now);
    queue.wake(1, now);
    queue.wake(2, now + SECOND);
    assert_eq!(queue.depth(now), 1);
    assert_eq!(queue.next(now), Next::Key(1));
    assert_eq!(queue.next(now), Next::At(now + SECOND));
    queue.done(&1, Done::Settled, now);
    assert_eq!(queue.next(now), Next::At(now + SECOND));
}

#[test]
fn a_key_that_is_woken_while_somebody_works_on_it_comes_again_afterwards() {
    let (mut queue, now) = mk_queue(9);
    queue.wake(1, now);
    assert_eq!(queue.next(now), Next::Key(1));
    queue.wake(1, now);
    assert_eq!(queue.next(now), Next::Idle);
    queue.done(&1, Done::Gone, now);
    assert_eq!(queue.next(now), Next::Key(1));
}

#[test]
fn a_key_that_fails_waits_longer_each_time_and_not_when_it_is_woken() {
    let (mut queue, now) = mk_queue(9);
    let wait = |queue: &mut Queue<u8>| {
        queue.wake(1, now);
        assert_eq!(queue.next(now), Next::Key(1));
        queue.done(&1, Done::Failed, now);
        match queue.next(now) {
            Next::At(at) => at - now,
            other => panic!("{other:?}"),
        }
    };
    let waits: Vec<_> = (0..3).map(|_| wait(&mut queue)).collect();
    for (wait, longest) in waits.into_iter().zip([1, 2, 4]) {
        assert!(wait <= SECOND * longest && wait >= SECOND * longest / 2);
    }
    queue.wake(1, now);
    assert_eq!(queue.next(now), Next::Key(1));
    queue.done(&1, Done::Settled, now);
    assert!(wait(&mut queue) <= SECOND);
}

#[test]
fn a_key_asks_to_be_looked_at_again_and_is_woken_before() {
    let (mut queue, now) = mk_queue(9);
    queue.wake(1, now);
    assert_eq!(queue.next(now), Next::Key(1));
    queue.done(&1, Done::Again(SECOND * 30), now);
    assert_eq!(queue.next(now), Next::At(now + SECOND * 30));
    queue.wake(1, now + SECOND);
    assert_eq!(queue.next(now + SECOND), Next::Key(1));
    queue.done(&1, Done::Settled, now + SECOND);
    assert_eq!(queue.next(now + SECOND * 60), Next::Idle);
}

#[test]
fn a_key_that_is_woken_without_end_is_slowed_down_and_others_are_not() {
    let (mut queue, now) = mk_queue(3);
    for _ in 0..3 {
        queue.wake(1, now);
        assert_eq!(queue.next(now), Next::Key(1));
        queue.done(&1, Done::Settled, now);
    }
    queue.wake(1, now);
    queue.wake(2, now);
    assert_eq!(queue.next(now), Next::Key(2));
    assert_eq!(queue.next(now), Next::At(now + SECOND));
    assert_eq!(queue.next(now + SECOND), Next::Key(1));
    queue.done(&1, Done::Settled, now + SECOND);
    queue.wake(1, now + SECOND);
    assert_eq!(queue.next(now + SECOND), Next::At(now + SECOND * 2));
}

#[derive(Clone, Debug)]
enum Act {
    Wake(u8),
    Next,
    Done(u8, Done),
    Pass(u64),
}

fn act() -> impl Strategy<Value = Act> {
    let done = prop_oneof![
        Just(Done::Settled),
        Just(Done::Failed),
        Just(Done::Gone),
        Just(Done::Again(SECOND)),
        Just(Done::Stuck(SECOND)),
    ];
    prop_oneof![
        (0u8..4).prop_map(Act::Wake),
        Just(Act::Next),
        (0u8..4, done).prop_map(|(key, done)| Act::Done(key, done)),
        (0u64..3000).prop_map(Act::Pass),
    ]
}

proptest! {
    #[test]
    fn no_wake_is_lost_and_no_key_is_worked_on_twice_at_once(
        acts in prop::collection::vec(act(), 0..80),
    ) {
        let (mut queue, mut now) = mk_queue(3);
        let mut running = BTreeSet::new();
        let mut owed = BTreeMap::new();
        for act in acts {
            match act {
                Act::Wake(key) => {
                    queue.wake(key, now);
                    owed.insert(key, true);
                }
                Act::Next => if let Next::Key(key) = queue.next(now) {
                    prop_assert!(running.insert(key));
                    owed.remove(&key);
                },
                Act::Done(key, done) => if running.remove(&key) {
                    queue.done(&key, done, now);
                },
                Act::Pass(millis) => now += Duration::from_millis(millis),
            }
        }
        for key in running {
            queue.done(&key, Done::Settled, now);
        }
        now += SECOND * 100;
        while let Next::Key(key) = queue.next(now) {
            owed.remove(&key);
        }
        prop_assert!(owed.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_waits_gets_what_is_woken_or_becomes_due() {
    let shared = Shared::new(Pace::default());
    let waiting = tokio::spawn({
        let shared = shared.clone();
        async move { (shared.next().await, shared.next().await) }
    });
    tokio::task::yield_now().await;
    shared.wake([1]);
    tokio::task::yield_now().await;
    let begin = Instant::now();
    shared.done(&1, Done::Again(SECOND * 5));
    assert_eq!(waiting.await.unwrap(), (1, 1));
    assert_eq!(begin.elapsed(), SECOND * 5);
}

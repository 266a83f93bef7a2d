//! Order properties of a drain, under a paused clock.

use std::pin::pin;

use futures::FutureExt as _;
use tokio::time::{Instant, sleep};

use super::*;

const MINUTE: Duration = Duration::from_mins(1);

#[tokio::test(start_paused = true)]
async fn a_drain_ends_only_after_the_last_watch_is_dropped() {
    let (trigger, watch) = channel();
    let second = watch.clone();
    let mut drained = pin!(trigger.drain(Mode::Graceful));

    assert!(drained.as_mut().now_or_never().is_none());
    drop(watch);
    assert!(drained.as_mut().now_or_never().is_none());
    drop(second);
    assert!(drained.as_mut().now_or_never().is_some());
}

#[tokio::test(start_paused = true)]
async fn watches_hear_the_mode_and_those_made_later_hear_it_too() {
    for mode in [Mode::Graceful, Mode::Immediate] {
        let (trigger, watch) = channel();
        assert_eq!(watch.mode(), None);
        assert!(watch.signaled().now_or_never().is_none());

        let mut drained = pin!(trigger.drain(mode));
        assert!(drained.as_mut().now_or_never().is_none());
        assert_eq!(watch.signaled().now_or_never(), Some(mode));
        assert_eq!(watch.clone().signaled().now_or_never(), Some(mode));
        assert_eq!(watch.mode(), Some(mode));
        assert_eq!(
            watch.immediate().now_or_never().is_some(),
            mode == Mode::Immediate
        );
    }
}

#[tokio::test(start_paused = true)]
async fn work_that_finishes_in_time_is_not_forced() {
    let (trigger, watch) = channel();
    let work = async move {
        assert_eq!(watch.signaled().await, Mode::Graceful);
        tokio::select! {
            () = sleep(MINUTE / 2) => drop(watch),
            () = watch.immediate() => unreachable!("forced although in time"),
        }
    };
    let start = Instant::now();
    let (outcome, ()) = tokio::join!(trigger.drain_within(MINUTE), work);
    assert_eq!(outcome, Outcome::Finished);
    assert_eq!(start.elapsed(), MINUTE / 2);
}

#[tokio::test(start_paused = true)]
async fn work_that_does_not_finish_is_forced_at_the_limit() {
    let (trigger, watch) = channel();
    let work = async move {
        assert_eq!(watch.signaled().await, Mode::Graceful);
        watch.immediate().await;
        assert_eq!(watch.mode(), Some(Mode::Immediate));
    };
    let start = Instant::now();
    let (outcome, ()) = tokio::join!(trigger.drain_within(MINUTE), work);
    assert_eq!(outcome, Outcome::Forced);
    assert_eq!(start.elapsed(), MINUTE);
}

#[tokio::test(start_paused = true)]
async fn a_child_is_drained_alone_without_its_parent() {
    let (_parent, watch) = channel();
    let (child, child_watch) = watch.child();
    let work = async move { child_watch.signaled().await };

    let ((), mode) = tokio::join!(child.drain(Mode::Immediate), work);
    assert_eq!(mode, Mode::Immediate);
    assert_eq!(watch.mode(), None);
}

#[tokio::test(start_paused = true)]
async fn a_parent_drains_its_children_and_waits_for_them() {
    let (parent, watch) = channel();
    let (_child, child_watch) = watch.child();
    let (_grandchild, grandchild_watch) = child_watch.child();
    drop((watch, child_watch));

    let mut drained = pin!(parent.drain(Mode::Graceful));
    assert!(drained.as_mut().now_or_never().is_none());
    assert_eq!(
        grandchild_watch.signaled().now_or_never(),
        Some(Mode::Graceful)
    );
    drop(grandchild_watch);
    assert!(drained.as_mut().now_or_never().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_child_draining_gracefully_is_forced_by_its_parent() {
    let (parent, watch) = channel();
    let (child, child_watch) = watch.child();
    let mut drained = pin!(child.drain(Mode::Graceful));
    assert!(drained.as_mut().now_or_never().is_none());
    assert!(child_watch.immediate().now_or_never().is_none());

    let mut all = pin!(parent.drain(Mode::Immediate));
    assert!(all.as_mut().now_or_never().is_none());
    assert!(child_watch.immediate().now_or_never().is_some());
}

#[tokio::test(start_paused = true)]
async fn work_whose_owner_is_gone_stops_at_once() {
    let (trigger, watch) = channel();
    drop(trigger);
    assert_eq!(watch.signaled().now_or_never(), Some(Mode::Immediate));

    let (trigger, watch) = channel();
    let abandoned = tokio::time::timeout(MINUTE, trigger.drain(Mode::Graceful)).await;
    assert!(abandoned.is_err());
    assert_eq!(watch.mode(), Some(Mode::Immediate));
}

#[tokio::test]
async fn a_child_left_to_its_parent_has_the_time_that_the_parent_gives() {
    let (parent, watch) = channel();
    let (child, child_watch) = watch.child();
    drop(watch);
    let mut drained = pin!(parent.drain(Mode::Graceful));
    assert!(drained.as_mut().now_or_never().is_none());
    child.leave_to_parent();
    assert_eq!(child_watch.mode(), Some(Mode::Graceful));
    drop(child_watch);
    assert!(drained.as_mut().now_or_never().is_some());
}

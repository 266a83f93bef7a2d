use proptest::prelude::*;

use super::*;
use crate::fixture::mk_identity;

const DAY: Duration = Duration::from_secs(24 * 3600);

type Did = Vec<Action<u32, &'static str>>;

/// A schedule with the clock that drives it.
struct Simulation {
    schedule: Schedule<&'static str>,
    now: Instant,
}

fn mk_id(name: &str) -> Identity {
    mk_identity("ns", name)
}

fn tickets(actions: &Did) -> Vec<Ticket> {
    let ticket = |action: &Action<_, _>| match action {
        Action::Fetch(ticket) => Some(ticket.clone()),
        _ => None,
    };
    actions.iter().filter_map(ticket).collect()
}

fn names(actions: &Did) -> Vec<String> {
    let tickets = tickets(actions);
    let names = tickets
        .iter()
        .map(|t| t.identity.service_account().to_owned());
    names.collect()
}

impl Simulation {
    fn new(concurrency: usize) -> Self {
        Self {
            schedule: Schedule::new(concurrency, fastrand::Rng::with_seed(7)),
            now: Instant::now(),
        }
    }

    fn step(&mut self, event: Event<u32, &'static str>) -> Did {
        self.schedule.step(self.now, event)
    }

    fn want(&mut self, name: &str, priority: Priority) -> Did {
        self.step(Event::Wanted(mk_id(name), priority))
    }

    /// Wants in real time, and expects to be allowed to fetch at once.
    fn fetch(&mut self, name: &str) -> Ticket {
        let did = self.want(name, Priority::RealTime);
        let [ticket] = &tickets(&did)[..] else {
            panic!("{did:?}");
        };
        ticket.clone()
    }

    fn succeed(&mut self, ticket: Ticket, remaining: Duration) -> Did {
        self.step(Event::Fetched {
            ticket,
            certificate: 1,
            remaining,
        })
    }

    fn fail(&mut self, ticket: Ticket) -> Did {
        let error = "no";
        self.step(Event::Failed { ticket, error })
    }

    /// Goes to the next due time and says how long that took and what happened.
    fn sleep(&mut self) -> (Duration, Did) {
        let due = self.schedule.next_due().expect("something has to be due");
        let slept = due - self.now;
        self.now = due;
        (slept, self.step(Event::Elapsed))
    }
}

#[test]
fn all_who_want_an_identity_share_one_fetch() {
    let mut sim = Simulation::new(8);
    let ticket = sim.fetch("a");
    assert_eq!(sim.want("a", Priority::RealTime), []);
    assert_eq!(sim.want("a", Priority::Warm), []);
    let expires = sim.now + DAY;
    let published = Action::Publish {
        identity: mk_id("a"),
        certificate: 1,
        expires,
    };
    assert_eq!(sim.succeed(ticket, DAY), [published]);
    assert_eq!(sim.want("a", Priority::Warm), [], "it is there");
}

#[test]
fn a_certificate_is_renewed_at_half_its_life_or_a_little_before() {
    for seed in 0..50 {
        let mut sim = Simulation::new(8);
        sim.schedule.random = fastrand::Rng::with_seed(seed);
        let ticket = sim.fetch("a");
        sim.succeed(ticket, DAY);
        let (slept, did) = sim.sleep();
        assert!(
            slept <= DAY / 2 && slept >= (DAY / 2).mul_f64(0.9),
            "{slept:?}"
        );
        assert_eq!(names(&did), ["a"]);
    }
}

#[test]
fn a_certificate_about_to_expire_is_not_renewed_without_pause() {
    let mut sim = Simulation::new(8);
    let ticket = sim.fetch("a");
    sim.succeed(ticket, Duration::ZERO);
    assert_eq!(sim.sleep().0, RENEWAL_MIN);
}

#[test]
fn failures_back_off_exponentially_up_to_the_limit_and_success_resets_them() {
    let mut sim = Simulation::new(8);
    let mut ticket = sim.fetch("a");
    for failures in 1..=12 {
        sim.fail(ticket);
        let nominal = f64::from(1 << (failures - 1)).min(150.0);
        let (slept, did) = sim.sleep();
        let share = slept.as_secs_f64() / nominal;
        assert!((0.8..=1.2).contains(&share), "{failures}: {slept:?}");
        assert!(slept <= BACKOFF_MAX);
        ticket = tickets(&did).remove(0);
    }
    sim.succeed(ticket, DAY);
    let (_, did) = sim.sleep();
    sim.fail(tickets(&did).remove(0));
    assert!(sim.sleep().0 < Duration::from_secs(2));
}

#[test]
fn while_it_backs_off_a_demand_hears_the_last_error_and_starts_nothing() {
    let mut sim = Simulation::new(8);
    let ticket = sim.fetch("a");
    let retry = |sim: &Simulation| sim.schedule.next_due().unwrap();
    let did = sim.fail(ticket);
    let refusal = Action::Refuse {
        identity: mk_id("a"),
        error: "no",
        retry: retry(&sim),
    };
    assert_eq!(did, [refusal]);
    assert_eq!(sim.want("a", Priority::RealTime), did);
    assert_eq!(sim.want("a", Priority::Warm), []);
}

#[test]
fn a_failed_renewal_is_retried_no_later_than_expiry() {
    let mut sim = Simulation::new(8);
    let ticket = sim.fetch("a");
    sim.succeed(ticket, Duration::from_secs(600));
    let expires = sim.now + Duration::from_secs(600);
    let mut retries = Vec::new();
    while sim.now < expires {
        let (_, did) = sim.sleep();
        retries.push(sim.now);
        sim.fail(tickets(&did).remove(0));
    }
    assert!(retries.contains(&expires), "the end of life is a retry");
    assert!(sim.schedule.next_due().unwrap() > expires);
}

#[test]
fn the_more_urgent_goes_first() {
    let mut sim = Simulation::new(1);
    let renewing = sim.fetch("renewal");
    sim.succeed(renewing, DAY);
    let busy = sim.fetch("busy");
    sim.now = sim.schedule.next_due().unwrap();
    assert_eq!(sim.step(Event::Elapsed), []);
    for name in ["warm-1", "warm-2"] {
        assert_eq!(sim.want(name, Priority::Warm), []);
    }
    assert_eq!(sim.want("urgent", Priority::RealTime), []);
    // A demand lifts what was only warming.
    assert_eq!(sim.want("warm-2", Priority::RealTime), []);

    let mut order = Vec::new();
    let mut ticket = busy;
    while order.len() < 4 {
        let did = sim.succeed(ticket, DAY);
        order.extend(names(&did));
        ticket = tickets(&did).remove(0);
    }
    // The two real-time demands came at the same moment; either may be first.
    order[..2].sort();
    assert_eq!(order, ["urgent", "warm-2", "warm-1", "renewal"]);
}

#[test]
fn no_more_than_the_limit_run_at_a_time() {
    let mut sim = Simulation::new(3);
    let mut running = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        running.extend(tickets(&sim.want(name, Priority::Warm)));
    }
    assert_eq!(running.len(), 3);
    let did = sim.fail(running.remove(0));
    assert_eq!(names(&did), ["d"], "a free slot is used at once");
}

#[test]
fn what_is_forgotten_is_neither_published_nor_renewed() {
    let mut sim = Simulation::new(8);
    let ticket = sim.fetch("a");
    assert_eq!(sim.step(Event::Forgotten(mk_id("a"))), []);
    assert_eq!(sim.succeed(ticket, DAY), []);
    assert_eq!(sim.schedule.next_due(), None);
    assert_eq!(sim.schedule.in_flight, 0);
}

#[test]
fn a_fetch_from_before_it_was_forgotten_does_not_answer_a_later_demand() {
    let mut sim = Simulation::new(8);
    let old = sim.fetch("a");
    sim.step(Event::Forgotten(mk_id("a")));
    let new = sim.fetch("a");
    assert_ne!(old, new);
    assert_eq!(sim.fail(old), []);
    assert_eq!(sim.succeed(new, DAY).len(), 1);
}

#[test]
fn a_demand_despite_a_certificate_fetches_at_once() {
    // So it is when the system's clock says that it is over and ours does not.
    let mut sim = Simulation::new(8);
    let ticket = sim.fetch("a");
    sim.succeed(ticket, DAY);
    assert_eq!(names(&sim.want("a", Priority::RealTime)), ["a"]);
}

proptest! {
    #[test]
    fn whatever_happens_every_identity_stands_in_one_queue_and_the_limit_holds(
        script in prop::collection::vec((0..6_u8, 0..4_u8), 1..120),
    ) {
        let mut sim = Simulation::new(2);
        let mut running: Vec<Ticket> = Vec::new();
        for (what, who) in script {
            let name = who.to_string();
            let did = match what {
                0 => sim.want(&name, Priority::RealTime),
                1 => sim.want(&name, Priority::Warm),
                2 => sim.step(Event::Forgotten(mk_id(&name))),
                3 | 4 if running.is_empty() => continue,
                3 => sim.succeed(running.remove(0), Duration::from_secs(10)),
                4 => sim.fail(running.remove(0)),
                _ => {
                    sim.now += Duration::from_secs(3);
                    sim.step(Event::Elapsed)
                }
            };
            running.extend(tickets(&did));
            let schedule = &sim.schedule;
            prop_assert_eq!(schedule.in_flight, running.len());
            prop_assert!(schedule.in_flight <= 2);
            prop_assert!(schedule.ready.is_empty() || schedule.in_flight == 2);
            let fetching = schedule.entries.values();
            let fetching = fetching.filter(|e| matches!(e.state, State::Fetching { .. })).count();
            let queued = schedule.waiting.len() + schedule.ready.len() + fetching;
            prop_assert_eq!(queued, schedule.entries.len());
        }
    }
}

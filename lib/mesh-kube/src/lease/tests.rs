use std::{
    future::{Future, pending},
    sync::Arc,
};

use http::{Method, Request, Response};
use http_body_util::BodyExt;
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::LeaseSpec,
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{client::Body, core::Status};
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::{
    machine::{Machine, Step},
    *,
};

/// One Lease behind an API server, and what happens to the requests of one candidate.
#[derive(Clone, Default)]
struct Server {
    lease: Arc<Mutex<Option<Lease>>>,
    network: Arc<Mutex<Network>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Network {
    #[default]
    Works,
    /// Requests get lost.
    Swallows,
    /// Requests arrive, answers get lost.
    SwallowsAnswers,
    /// Requests are refused.
    Refuses,
}

struct Candidate {
    leads: watch::Receiver<bool>,
    network: Arc<Mutex<Network>>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), Error>>,
}

// === impl Server ===

impl Server {
    /// A candidate with a network of its own.
    fn candidate(&self, identity: &str) -> Candidate {
        let server = Self {
            lease: Arc::clone(&self.lease),
            network: Arc::default(),
        };
        let network = Arc::clone(&server.network);
        let service = tower::service_fn(move |request| server.clone().serve(request));
        let client = Client::new(service, "default");
        let (sender, leads) = watch::channel(false);
        let (stop, stopped) = oneshot::channel();
        let config = Config::new("mesh", "leader", identity);
        let stopped = async move { drop(stopped.await) };
        Candidate {
            leads,
            network,
            stop: Some(stop),
            task: tokio::spawn(run(client, config, sender, stopped)),
        }
    }

    async fn serve(self, request: Request<Body>) -> Result<Response<Body>, kube::Error> {
        let network = *self.network.lock();
        match network {
            Network::Swallows => return pending().await,
            Network::Refuses => {
                return Ok(answer(503, &Status::failure("away", "ServiceUnavailable")));
            }
            Network::Works | Network::SwallowsAnswers => {}
        }
        let response = self.answer(request).await;
        // The answer may get lost while it is under way, too.
        let network = *self.network.lock();
        match network {
            Network::Works | Network::Refuses => {}
            Network::Swallows | Network::SwallowsAnswers => return pending().await,
        }
        Ok(response)
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let method = request.method().clone();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let mut stored = self.lease.lock();
        let version = |lease: &Lease| lease.metadata.resource_version.clone();
        match (method, stored.as_ref()) {
            (Method::GET, Some(lease)) => return answer(200, lease),
            (Method::POST, Some(_)) => {
                return answer(409, &Status::failure("is there", "AlreadyExists"));
            }
            (Method::GET | Method::PUT, None) => {
                return answer(404, &Status::failure("is not there", "NotFound"));
            }
            _ => {}
        }
        let mut lease: Lease = serde_json::from_slice(&body).unwrap();
        let current = stored.as_ref().and_then(version);
        if version(&lease) != current {
            return answer(409, &Status::failure("has changed", "Conflict"));
        }
        let next = current.map_or(1, |version| version.parse::<u64>().unwrap() + 1);
        lease.metadata.resource_version = Some(next.to_string());
        *stored = Some(lease.clone());
        answer(200, &lease)
    }

    fn spec(&self) -> LeaseSpec {
        self.lease.lock().clone().unwrap().spec.unwrap()
    }

    fn holder(&self) -> String {
        self.spec().holder_identity.unwrap()
    }
}

fn answer(code: u16, content: &impl serde::Serialize) -> Response<Body> {
    let mut content = serde_json::to_value(content).unwrap();
    if code >= 400 {
        content["code"] = code.into();
    }
    let response = Response::builder().status(code);
    response
        .body(serde_json::to_vec(&content).unwrap().into())
        .unwrap()
}

// === impl Candidate ===

impl Candidate {
    fn leads(&self) -> bool {
        *self.leads.borrow()
    }

    async fn until(&mut self, leads: bool) -> Duration {
        let start = Instant::now();
        let change = self.leads.wait_for(|now| *now == leads);
        timeout(Duration::from_secs(60), change)
            .await
            .expect("within a minute")
            .unwrap();
        start.elapsed()
    }

    async fn stop(mut self) {
        drop(self.stop.take());
        self.task.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_candidate_leads_and_the_record_is_that_of_client_go() {
    let server = Server::default();
    let mut one = server.candidate("one");
    one.until(true).await;
    let spec = server.spec();
    let times = (spec.acquire_time.clone(), spec.renew_time.clone());
    assert!(times.0.is_some() && times.1.is_some());
    let expected = LeaseSpec {
        holder_identity: Some("one".into()),
        lease_duration_seconds: Some(15),
        lease_transitions: Some(0),
        acquire_time: times.0,
        renew_time: times.1,
        ..LeaseSpec::default()
    };
    assert_eq!(spec, expected);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_renews_stays_the_leader() {
    let server = Server::default();
    let mut one = server.candidate("one");
    one.until(true).await;
    let two = server.candidate("two");
    let acquired = server.spec().acquire_time;
    for _ in 0..600 {
        sleep(Duration::from_millis(100)).await;
        assert!(one.leads() && !two.leads());
    }
    let spec = server.spec();
    assert_eq!(
        (spec.acquire_time, spec.lease_transitions),
        (acquired, Some(0))
    );
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_server_hangs_stops_claiming_before_another_leads() {
    for network in [
        Network::Swallows,
        Network::SwallowsAnswers,
        Network::Refuses,
    ] {
        let server = Server::default();
        let mut one = server.candidate("one");
        one.until(true).await;
        let mut two = server.candidate("two");
        sleep(Duration::from_secs(30)).await;
        assert!(one.leads() && !two.leads());

        *one.network.lock() = network;
        let claimed = one.until(false).await;
        assert!(
            claimed <= Duration::from_secs(10),
            "{network:?}: {claimed:?}"
        );
        assert!(!two.leads(), "{network:?}");
        let vacant = two.until(true).await;
        assert!(vacant >= Duration::from_secs(3), "{network:?}: {vacant:?}");
        assert_eq!(server.spec().lease_transitions, Some(1));

        *one.network.lock() = Network::Works;
        for _ in 0..300 {
            sleep(Duration::from_millis(100)).await;
            assert!(two.leads() && !one.leads(), "{network:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_released_lease_is_taken_at_the_next_attempt() {
    let server = Server::default();
    let mut one = server.candidate("one");
    one.until(true).await;
    let mut two = server.candidate("two");
    sleep(Duration::from_secs(30)).await;
    let mut leads = one.leads.clone();
    one.stop().await;
    assert!(!*leads.borrow_and_update());
    assert_eq!((server.holder().as_str(), two.leads()), ("", false));
    let waited = two.until(true).await;
    // The retry period and its jitter.
    assert!(waited <= Duration::from_millis(4_400), "{waited:?}");
    assert_eq!(server.spec().lease_transitions, Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_released_although_a_renewal_was_under_way() {
    let server = Server::default();
    let mut one = server.candidate("one");
    one.until(true).await;
    *one.network.lock() = Network::SwallowsAnswers;
    let version = server
        .lease
        .lock()
        .clone()
        .unwrap()
        .metadata
        .resource_version;
    while server
        .lease
        .lock()
        .clone()
        .unwrap()
        .metadata
        .resource_version
        == version
    {
        sleep(Duration::from_millis(100)).await;
    }
    // The renewal is written, and its answer will never come.
    *one.network.lock() = Network::Works;
    one.stop().await;
    assert_eq!(server.holder(), "");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_gone_does_not_delay_the_end() {
    let server = Server::default();
    let mut one = server.candidate("one");
    one.until(true).await;
    *one.network.lock() = Network::Swallows;
    let start = Instant::now();
    one.stop().await;
    assert!(start.elapsed() <= Duration::from_secs(2));
    assert_eq!(server.holder(), "one");
}

#[tokio::test(start_paused = true)]
async fn a_holder_set_by_hand_ends_the_leader() {
    let server = Server::default();
    let mut one = server.candidate("one");
    one.until(true).await;
    {
        let mut stored = server.lease.lock();
        let lease = stored.as_mut().unwrap();
        lease.metadata.resource_version = Some("100".into());
        lease.spec.as_mut().unwrap().holder_identity = Some("admin".into());
    }
    let claimed = one.until(false).await;
    assert!(claimed <= Duration::from_secs(2), "{claimed:?}");
    assert_eq!(server.holder(), "admin");
}

#[tokio::test(start_paused = true)]
async fn a_note_on_the_object_does_not_end_the_leader() {
    let server = Server::default();
    let mut one = server.candidate("one");
    one.until(true).await;
    for version in [100, 200] {
        {
            let mut stored = server.lease.lock();
            stored.as_mut().unwrap().metadata.resource_version = Some(version.to_string());
        }
        sleep(Duration::from_secs(20)).await;
        assert!(one.leads());
    }
    *server.lease.lock() = None;
    sleep(Duration::from_secs(20)).await;
    assert!(one.leads());
    assert_eq!(server.holder(), "one");
}

#[tokio::test]
async fn times_with_which_two_could_lead_are_refused() {
    let client = Client::new(
        tower::service_fn(|_| pending::<Result<Response<Body>, kube::Error>>()),
        "default",
    );
    let good = Config::new("mesh", "leader", "one");
    let bad = [
        Config {
            renew_deadline: good.duration,
            ..good.clone()
        },
        Config {
            retry: good.renew_deadline,
            ..good.clone()
        },
        Config {
            retry: Duration::ZERO,
            ..good.clone()
        },
        Config {
            duration: Duration::from_millis(15_500),
            ..good.clone()
        },
        Config {
            identity: String::new(),
            ..good.clone()
        },
    ];
    for config in bad {
        let (leader, _) = watch::channel(false);
        let answer = run(client.clone(), config.clone(), leader, pending()).await;
        assert!(answer.is_err(), "{config:?}");
    }
}

#[test]
fn a_record_is_judged_by_how_long_it_was_seen_and_not_by_its_times() {
    let mut machine = Machine::new(Config::new("mesh", "leader", "one"));
    let start = Instant::now();
    let record = |renewed| Lease {
        metadata: ObjectMeta::default(),
        spec: Some(LeaseSpec {
            holder_identity: Some("two".into()),
            lease_duration_seconds: Some(30),
            renew_time: Some(MicroTime(Timestamp::from_second(renewed).unwrap())),
            ..LeaseSpec::default()
        }),
    };
    let mut step = |after, renewed| {
        let now = start + Duration::from_secs(after);
        matches!(
            machine.read(Some(record(renewed)), now, Timestamp::UNIX_EPOCH),
            Step::Replace(_)
        )
    };
    // Renewed long ago by the holder's clock, which may be wrong.
    assert!(!step(0, 1));
    assert!(!step(29, 1));
    assert!(!step(31, 2));
    assert!(!step(60, 2));
    assert!(step(61, 2));
}

/// What happens to whose network, and for how many tenths of a second.
fn mk_schedule() -> impl Strategy<Value = Vec<(usize, Network, u8)>> {
    let network = prop_oneof![
        Just(Network::Works),
        Just(Network::Swallows),
        Just(Network::SwallowsAnswers),
        Just(Network::Refuses),
    ];
    prop::collection::vec((0usize..3, network, 1u8..200), 1..25)
}

fn paused(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.unwrap().block_on(test);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn there_is_at_most_one_leader_whatever_the_network_does(schedule in mk_schedule()) {
        paused(async {
            let server = Server::default();
            let candidates = ["a", "b", "c"].map(|identity| server.candidate(identity));
            for (which, network, tenths) in schedule {
                *candidates[which].network.lock() = network;
                for _ in 0..tenths {
                    sleep(Duration::from_millis(100)).await;
                    let leaders = candidates.iter().filter(|one| one.leads()).count();
                    assert!(leaders <= 1, "{leaders} leaders");
                }
            }
            // And there is one again when the network works.
            for candidate in &candidates {
                *candidate.network.lock() = Network::Works;
            }
            sleep(Duration::from_secs(30)).await;
            assert_eq!(candidates.iter().filter(|one| one.leads()).count(), 1);
        });
    }
}

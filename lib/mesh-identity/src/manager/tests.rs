//! The manager with its loop, against an authority that does what the test says. The clock is paused:
//! it moves only when everybody waits.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::{sync::Semaphore, time::advance};

use super::*;
use crate::{
    ca,
    fixture::{Authority, Leaf, mk_identity},
    issuer::Issuer,
};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What the authority does with a request.
#[derive(Clone, Debug)]
enum Mood {
    Sign,
    Refuse,
    Ignore,
    Answer(Vec<String>),
}

#[derive(Debug)]
struct Moody {
    issuer: Issuer,
    mood: Mutex<Mood>,
    gate: Semaphore,
    asked: Mutex<Vec<Identity>>,
    busy: AtomicUsize,
    most_busy: AtomicUsize,
}

impl Moody {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            issuer: Issuer::self_signed("test", 10 * DAY).unwrap(),
            mood: Mutex::new(Mood::Sign),
            gate: Semaphore::new(1000),
            asked: Mutex::new(Vec::new()),
            busy: AtomicUsize::new(0),
            most_busy: AtomicUsize::new(0),
        })
    }

    fn set(&self, mood: Mood) {
        *self.mood.lock() = mood;
    }

    fn asked(&self) -> usize {
        self.asked.lock().len()
    }

    async fn answer(&self, identity: &Identity, request: &str) -> Result<Vec<String>, ca::Error> {
        self.asked.lock().push(identity.clone());
        let busy = self.busy.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_busy.fetch_max(busy, Ordering::Relaxed);
        self.gate.acquire().await.unwrap().forget();
        self.gate.add_permits(1);
        self.busy.fetch_sub(1, Ordering::Relaxed);
        let mood = self.mood.lock().clone();
        match mood {
            Mood::Sign => Ok(self.issuer.sign(request, identity, DAY).unwrap()),
            Mood::Refuse => Err(ca::Error::Refused {
                authority: "test".into(),
                reason: "moody".into(),
            }),
            Mood::Ignore => future::pending().await,
            Mood::Answer(answer) => Ok(answer),
        }
    }
}

impl CertificateAuthority for Moody {
    fn sign<'a>(
        &'a self,
        identity: &'a Identity,
        request: &'a str,
    ) -> BoxFuture<'a, Result<Vec<String>, ca::Error>> {
        Box::pin(self.answer(identity, request))
    }
}

fn mk_manager(authority: &Arc<Moody>) -> CertManager {
    let authority: Arc<Moody> = Arc::clone(authority);
    let (manager, worker) = CertManager::new(authority, Settings::default());
    drop(tokio::spawn(worker.run()));
    manager
}

/// Waits until nobody has anything to do without the clock moving on.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

fn reason(outcome: Result<Arc<WorkloadCertificate>, Error>) -> fetch::Error {
    match outcome {
        Err(Error::Unavailable { source, .. }) => source,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn demands_share_one_fetch_and_later_ones_need_none() {
    let authority = Moody::new();
    let manager = mk_manager(&authority);
    let id = mk_identity("a", "b");
    let (one, two) = tokio::join!(manager.certificate(&id), manager.certificate(&id));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert!(Arc::ptr_eq(&one, &two));
    assert_eq!(*one.identity(), id);
    let three = manager.certificate(&id).await.unwrap();
    assert!(Arc::ptr_eq(&one, &three));
    assert_eq!(authority.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_warmed_certificate_is_there_before_the_first_demand() {
    let authority = Moody::new();
    let manager = mk_manager(&authority);
    let id = mk_identity("a", "b");
    manager.warm(&id);
    settle().await;
    assert!(matches!(manager.dump()[0].state, State::Available));
    manager.certificate(&id).await.unwrap();
    assert_eq!(authority.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_replaced_by_half_of_its_life_with_a_new_key() {
    let authority = Moody::new();
    let manager = mk_manager(&authority);
    let id = mk_identity("a", "b");
    let first = manager.certificate(&id).await.unwrap();
    settle().await;
    advance(10 * HOUR).await;
    settle().await;
    let same = manager.certificate(&id).await.unwrap();
    assert!(Arc::ptr_eq(&first, &same), "too early to renew");
    advance(2 * HOUR).await;
    settle().await;
    let second = manager.certificate(&id).await.unwrap();
    assert_eq!(authority.asked(), 2);
    assert_ne!(first.serial(), second.serial());
    assert_ne!(public_key(&first), public_key(&second));
}

#[tokio::test(start_paused = true)]
async fn a_failing_renewal_keeps_a_valid_certificate_and_never_hands_out_an_expired_one() {
    let authority = Moody::new();
    let manager = mk_manager(&authority);
    let id = mk_identity("a", "b");
    let first = manager.certificate(&id).await.unwrap();
    settle().await;
    authority.set(Mood::Refuse);
    advance(12 * HOUR).await;
    settle().await;
    assert!(authority.asked() >= 2, "a renewal was tried");
    let kept = manager.certificate(&id).await.unwrap();
    assert!(Arc::ptr_eq(&first, &kept));
    assert!(matches!(manager.dump()[0].state, State::Available));

    advance(12 * HOUR).await;
    settle().await;
    let outcome = manager.certificate(&id).await;
    assert!(matches!(reason(outcome), fetch::Error::Authority(_)));
    assert!(matches!(
        manager.dump()[0].state,
        State::Unavailable(Some(_))
    ));

    authority.set(Mood::Sign);
    advance(Duration::from_secs(150)).await;
    settle().await;
    manager.certificate(&id).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn while_the_authority_fails_demands_hear_why_and_do_not_hammer_it() {
    let authority = Moody::new();
    authority.set(Mood::Refuse);
    let manager = mk_manager(&authority);
    let id = mk_identity("a", "b");
    for _ in 0..10 {
        let error = manager.certificate(&id).await.unwrap_err();
        let text = chain(&error);
        assert!(text.contains("spiffe://cluster.local/ns/a/sa/b"), "{text}");
        assert!(
            text.ends_with("the certificate authority test refuses: moody"),
            "{text}"
        );
    }
    assert_eq!(authority.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_silent_authority_does_not_hold_a_slot_for_ever() {
    let authority = Moody::new();
    authority.set(Mood::Ignore);
    let manager = mk_manager(&authority);
    let started = Instant::now();
    let outcome = manager.certificate(&mk_identity("a", "b")).await;
    assert!(matches!(reason(outcome), fetch::Error::Timeout(_)));
    assert_eq!(started.elapsed(), Settings::default().fetch_timeout);
}

#[tokio::test(start_paused = true)]
async fn at_most_eight_fetches_run_at_a_time() {
    let authority = Moody::new();
    authority.gate.forget_permits(1000);
    let manager = mk_manager(&authority);
    for n in 0..30 {
        manager.warm(&mk_identity("a", &format!("sa-{n}")));
    }
    settle().await;
    assert_eq!(authority.asked(), 8);
    authority.gate.add_permits(1000);
    settle().await;
    assert_eq!(authority.asked(), 30);
    assert_eq!(authority.most_busy.load(Ordering::Relaxed), 8);
}

#[tokio::test(start_paused = true)]
async fn a_demand_overtakes_the_warming_of_others() {
    let authority = Moody::new();
    authority.gate.forget_permits(1000);
    let manager = mk_manager(&authority);
    for n in 0..30 {
        manager.warm(&mk_identity("a", &format!("sa-{n}")));
    }
    settle().await;
    let urgent = mk_identity("a", "sa-29");
    let demand = manager.certificate(&urgent);
    let release = async {
        settle().await;
        // One of the eight ends, and the ninth fetch is the one that is demanded.
        authority.gate.add_permits(1000);
    };
    let (outcome, ()) = tokio::join!(demand, release);
    outcome.unwrap();
    assert_eq!(authority.asked.lock()[8], urgent);
}

#[tokio::test(start_paused = true)]
async fn what_is_forgotten_leaves_nothing_behind() {
    let authority = Moody::new();
    let manager = mk_manager(&authority);
    let id = mk_identity("a", "b");
    manager.certificate(&id).await.unwrap();
    manager.forget(&id);
    settle().await;
    assert!(manager.dump().is_empty());
    advance(30 * HOUR).await;
    settle().await;
    assert_eq!(authority.asked(), 1, "nothing is renewed");

    authority.set(Mood::Ignore);
    let demand = manager.certificate(&id);
    let forget = async {
        settle().await;
        manager.forget(&id);
    };
    let (outcome, ()) = tokio::join!(demand, forget);
    assert!(matches!(outcome, Err(Error::Forgotten(who)) if who == id));
    settle().await;
    assert!(manager.dump().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_gives_up_disturbs_nobody() {
    let authority = Moody::new();
    authority.gate.forget_permits(1000);
    let manager = mk_manager(&authority);
    let id = mk_identity("a", "b");
    let impatient = tokio::time::timeout(Duration::from_secs(1), manager.certificate(&id));
    assert!(impatient.await.is_err());
    authority.gate.add_permits(1000);
    manager.certificate(&id).await.unwrap();
    assert_eq!(authority.asked(), 1);
}

#[test]
fn either_clock_can_end_a_certificate() {
    let certificate = Authority::new().certify(&mk_identity("a", "b"), &tls::Settings::default());
    let (now, date) = (Instant::now(), SystemTime::now());
    let after = certificate.not_after() + Duration::from_secs(1);
    let expires = now + HOUR;
    let slot = Slot {
        current: Some(Current {
            certificate: Arc::new(certificate),
            expires,
        }),
        failure: None,
    };
    assert!(slot.valid_at(now, date).is_some());
    assert!(slot.valid_at(now, after).is_none(), "the machine slept");
    assert!(
        slot.valid_at(expires, date).is_none(),
        "the clock was set back"
    );
}

#[tokio::test]
async fn demands_that_were_given_up_do_not_pile_up() {
    let (_manager, mut worker) = CertManager::new(Moody::new(), Settings::default());
    let id = mk_identity("a", "b");
    for _ in 0..100 {
        let (waiter, _) = oneshot::channel();
        worker.on_command(Command::Certificate(id.clone(), waiter));
    }
    assert_eq!(worker.waiters[&id].len(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_a_worker_a_demand_fails_instead_of_waiting() {
    let (manager, worker) = CertManager::new(Moody::new(), Settings::default());
    drop(worker);
    let outcome = manager.certificate(&mk_identity("a", "b")).await;
    assert!(matches!(outcome, Err(Error::Stopped)));
}

#[tokio::test(start_paused = true)]
async fn the_worker_ends_with_the_last_handle() {
    let (manager, worker) = CertManager::new(Moody::new(), Settings::default());
    let running = tokio::spawn(worker.run());
    drop(manager);
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn bad_answers_are_told_apart_and_never_used() {
    let other = Authority::new();
    let id = mk_identity("a", "b");
    let leaf = other.sign(&Leaf::naming(&["spiffe://cluster.local/ns/a/sa/b"]));
    let somebody = other.sign(&Leaf::naming(&["spiffe://cluster.local/ns/a/sa/c"]));
    let answers = [
        (vec![], "at least a leaf and a root bundle"),
        (vec![leaf.pem.clone()], "at least a leaf and a root bundle"),
        (vec!["garbage".into(), other.pem()], "holds no certificate"),
        (
            vec![leaf.pem.clone(), "-----BEGIN CERTIFICATE-----\n!".into()],
            "not PEM",
        ),
        (
            vec![somebody.pem, other.pem()],
            "sa/c, which was not asked for",
        ),
        (vec![leaf.pem, other.pem()], "does not belong to the key"),
        (
            vec!["x".repeat(2 << 20), other.pem()],
            "larger than allowed",
        ),
    ];
    for (answer, expected) in answers {
        let authority = Moody::new();
        authority.set(Mood::Answer(answer));
        let manager = mk_manager(&authority);
        let error = manager.certificate(&id).await.unwrap_err();
        let text = chain(&error);
        assert!(text.contains(expected), "{text}");
    }
}

fn public_key(certificate: &WorkloadCertificate) -> Vec<u8> {
    let pem = &certificate.chain()[0].pem;
    let x509 = openssl::x509::X509::from_pem(pem.as_bytes()).unwrap();
    x509.public_key().unwrap().public_key_to_der().unwrap()
}

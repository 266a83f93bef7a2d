//! What is asked of the API server, and what is answered from memory; the clock is paused.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::join_all;
use serde_json::json;
use tokio::time::advance;

use super::{
    super::{review::tests::mk_status, token::tests::mk_token},
    *,
};

const ZTUNNEL: &str = "system:serviceaccount:istio-system:ztunnel";

/// An API server that counts what it is asked.
#[derive(Clone, Copy, Debug)]
enum Mood {
    Good,
    Bad,
    Away,
}

struct Server {
    mood: Mutex<Mood>,
    asked: AtomicUsize,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

impl Server {
    fn set(&self, mood: Mood) {
        *self.mood.lock() = mood;
    }

    fn asked(&self) -> usize {
        self.asked.swap(0, Ordering::SeqCst)
    }
}

impl Reviewer for Server {
    fn review<'a>(
        &'a self,
        _token: &'a str,
    ) -> BoxFuture<'a, Result<TokenReviewStatus, Unreachable>> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let at_once = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_at_once.fetch_max(at_once, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(10)).await;
            self.at_once.fetch_sub(1, Ordering::SeqCst);
            match *self.mood.lock() {
                Mood::Good => Ok(mk_status(ZTUNNEL)),
                Mood::Bad => Ok(TokenReviewStatus::default()),
                Mood::Away => Err(Unreachable("it is away".into())),
            }
        })
    }
}

fn mk_reviews(mood: Mood) -> (TokenReviews, Arc<Server>) {
    let server = Arc::new(Server {
        mood: Mutex::new(mood),
        asked: AtomicUsize::new(0),
        at_once: AtomicUsize::new(0),
        most_at_once: AtomicUsize::new(0),
    });
    let audiences = vec!["istio-ca".to_owned()];
    let reviews = TokenReviews::new(server.clone(), audiences, Metrics::default());
    (reviews, server)
}

fn mk_bearer(number: u32) -> Bearer {
    Bearer::parse(&mk_token(&json!({ "jti": number }))).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_good_token_is_reviewed_once_in_five_minutes() {
    let (reviews, server) = mk_reviews(Mood::Good);
    for _ in 0..100 {
        let subject = reviews.review(mk_bearer(1)).await.unwrap();
        assert_eq!(subject.service_account, "ztunnel");
    }
    assert_eq!(server.asked(), 1);
    reviews.review(mk_bearer(2)).await.unwrap();
    assert_eq!(server.asked(), 1, "another token is another matter");
    advance(FRESH).await;
    reviews.review(mk_bearer(1)).await.unwrap();
    assert_eq!(server.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn requests_that_come_together_share_a_review() {
    let (reviews, server) = mk_reviews(Mood::Good);
    let all = join_all((0..50).map(|_| reviews.review(mk_bearer(1)))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(server.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_review_that_everybody_gave_up_does_not_hold_up_the_next() {
    let (reviews, server) = mk_reviews(Mood::Good);
    let short = Duration::from_millis(1);
    let given_up = tokio::time::timeout(short, reviews.review(mk_bearer(1))).await;
    assert!(given_up.is_err());
    reviews.review(mk_bearer(1)).await.unwrap();
    assert_eq!(server.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn invented_tokens_do_not_flood_the_api_server() {
    let (reviews, server) = mk_reviews(Mood::Bad);
    let all = join_all((0..500).map(|number| reviews.review(mk_bearer(number)))).await;
    assert!(
        all.iter()
            .all(|one| matches!(one, Err(Error::Unauthenticated(_))))
    );
    assert_eq!(server.most_at_once.load(Ordering::SeqCst), MAX_REVIEWS);
    server.asked();
    let again = reviews.review(mk_bearer(7)).await;
    assert!(matches!(again, Err(Error::Unauthenticated(_))), "{again:?}");
    assert_eq!(server.asked(), 0, "it is still remembered");
    advance(BAD).await;
    server.set(Mood::Good);
    reviews.review(mk_bearer(7)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_api_server_does_not_stop_who_was_known() {
    let (reviews, server) = mk_reviews(Mood::Good);
    reviews.review(mk_bearer(1)).await.unwrap();
    server.set(Mood::Away);
    advance(FRESH).await;
    server.asked();
    reviews.review(mk_bearer(1)).await.unwrap();
    let stranger = reviews.review(mk_bearer(2)).await;
    assert!(
        matches!(stranger, Err(Error::Unavailable(_))),
        "{stranger:?}"
    );
    assert_eq!(server.asked(), 1, "it is not asked again at once");
    advance(AWAY).await;
    reviews.review(mk_bearer(1)).await.unwrap();
    assert_eq!(server.asked(), 1);
    advance(USABLE).await;
    let late = reviews.review(mk_bearer(1)).await;
    assert!(matches!(late, Err(Error::Unavailable(_))), "{late:?}");
    server.set(Mood::Good);
    advance(AWAY).await;
    reviews.review(mk_bearer(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_withdrawn_is_refused_at_its_next_review() {
    let (reviews, server) = mk_reviews(Mood::Good);
    reviews.review(mk_bearer(1)).await.unwrap();
    server.set(Mood::Bad);
    advance(FRESH).await;
    let withdrawn = reviews.review(mk_bearer(1)).await;
    assert!(
        matches!(withdrawn, Err(Error::Unauthenticated(_))),
        "{withdrawn:?}"
    );
    server.set(Mood::Away);
    advance(BAD).await;
    let withdrawn = reviews.review(mk_bearer(1)).await;
    assert!(
        withdrawn.is_err(),
        "what was refused does not come back in an outage"
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_is_not_believed_beyond_its_end() {
    let (reviews, server) = mk_reviews(Mood::Good);
    let end = SystemTime::now() + Duration::from_secs(60);
    let end = end
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let bearer = Bearer::parse(&mk_token(&json!({ "exp": end }))).unwrap();
    reviews.review(bearer.clone()).await.unwrap();
    advance(Duration::from_secs(61)).await;
    server.set(Mood::Away);
    let late = reviews.review(bearer).await;
    assert!(matches!(late, Err(Error::Unavailable(_))), "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn an_implausible_token_is_never_sent_to_the_api_server() {
    let (reviews, server) = mk_reviews(Mood::Good);
    for claims in [json!({"exp": 1}), json!({"aud": "other"})] {
        let bearer = Bearer::parse(&mk_token(&claims)).unwrap();
        let refused = reviews.review(bearer).await;
        assert!(
            matches!(refused, Err(Error::Unauthenticated(_))),
            "{refused:?}"
        );
    }
    assert_eq!(server.asked(), 0);
}

#[test]
fn memory_is_bounded_and_what_ends_first_goes_first() {
    let now = Instant::now();
    let mut entries = HashMap::new();
    for number in 0..5u32 {
        let until = now + Duration::from_secs(60 - u64::from(number));
        make_room(&mut entries, 3, now, |until| *until);
        entries.insert(Digest::of(&number.to_string()), until);
    }
    let mut left: Vec<_> = entries
        .values()
        .map(|until| (*until - now).as_secs())
        .collect();
    left.sort_unstable();
    assert_eq!(left, [56, 59, 60]);
    make_room(&mut entries, 3, now + Duration::from_secs(59), |until| {
        *until
    });
    assert_eq!(entries.len(), 1, "what is over is forgotten at once");
}

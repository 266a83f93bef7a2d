//! Conversations word by word, under a paused clock. `tests/api` has them with a server.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::ConfigMap};
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::*;

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// What the server does with one request.
enum Reply {
    Says(u16, String),
    /// The lines of a watch, each a frame, and whether the connection stays open after them.
    Streams(Vec<String>, bool),
    Hangs,
    Refuses,
}

#[derive(Clone, Default)]
struct Script {
    replies: Arc<Mutex<VecDeque<Reply>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

/// What the index was told, one text per batch.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Vec<String>>>>);

struct Watched {
    script: Script,
    log: Log,
    state: watch::Receiver<State>,
    _task: AbortOnDrop,
}

struct AbortOnDrop(tokio::task::JoinHandle<Infallible>);

// === impl Script ===

impl Script {
    async fn serve(self, request: Request<Body>) -> Result<Answer, std::io::Error> {
        let uri = request.uri().to_string();
        // The timeout of a watch is random.
        let uri = uri
            .split('&')
            .filter(|part| !part.starts_with("timeoutSeconds"));
        let uri = uri.collect::<Vec<_>>().join("&").replace("?&", "?");
        self.asked.lock().push(uri);
        let reply = self.replies.lock().pop_front();
        match reply {
            Some(Reply::Says(code, text)) => {
                let body = Full::from(text).boxed_unsync();
                Ok(Response::builder().status(code).body(body).unwrap())
            }
            Some(Reply::Streams(lines, stays)) => {
                let frames = lines
                    .into_iter()
                    .map(|line| Ok(Frame::data(Bytes::from(line))));
                let rest = stream::pending().take(usize::from(stays));
                let body = StreamBody::new(stream::iter(frames).chain(rest));
                Ok(Response::new(body.boxed_unsync()))
            }
            Some(Reply::Refuses) => Err(std::io::ErrorKind::ConnectionRefused.into()),
            Some(Reply::Hangs) | None => std::future::pending().await,
        }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().clone()
    }
}

// === impl Log ===

impl<K: Resource> Index<K> for Log {
    fn update(&mut self, events: Vec<Event<K>>) {
        let text = |event: &Event<K>| match event {
            Event::Apply(object) => format!("apply {}", ObjectKey::of(object).unwrap()),
            Event::Delete(key) => format!("delete {key}"),
            Event::Invalid(invalid) => format!("invalid {}: {}", invalid.key, invalid.reason),
        };
        self.0.lock().push(events.iter().map(text).collect());
    }
}

// === impl Watched ===

impl Watched {
    fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        Self::start_of::<ConfigMap>(replies)
    }

    fn start_of<K>(replies: impl IntoIterator<Item = Reply>) -> Self
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Send + 'static,
    {
        Self::start_with::<K>(replies, Lists::Stored)
    }

    fn start_with<K>(replies: impl IntoIterator<Item = Reply>, lists: Lists) -> Self
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Send + 'static,
    {
        let script = Script {
            replies: Arc::new(Mutex::new(replies.into_iter().collect())),
            ..Script::default()
        };
        let (server, log) = (script.clone(), Log::default());
        let service = tower::service_fn(move |request| server.clone().serve(request));
        let client = Client::new(service, "default");
        let (sender, state) = watch::channel(State::default());
        let options = Options {
            lists,
            page: 2,
            ..Options::default()
        };
        let api = Api::<K>::all(client);
        let task = tokio::spawn(run(api, options, Metrics::default(), sender, log.clone()));
        Self {
            script,
            log,
            state,
            _task: AbortOnDrop(task),
        }
    }

    /// Waits until the script has been played, and what its last reply leads to has happened.
    async fn played(&self) {
        let played = async {
            while !self.script.replies.lock().is_empty() {
                sleep(Duration::from_millis(10)).await;
            }
            sleep(Duration::from_millis(10)).await;
        };
        timeout(Duration::from_secs(3600), played)
            .await
            .expect("the script is played");
    }

    fn told(&self) -> Vec<String> {
        self.log.0.lock().concat()
    }

    fn trouble(&self) -> String {
        self.state
            .borrow()
            .trouble
            .as_deref()
            .unwrap_or_default()
            .to_owned()
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn mk_object(name: &str, version: u32) -> Value {
    json!({"metadata": {"namespace": "shop", "name": name, "resourceVersion": version.to_string()}})
}

fn page(names: &[&str], version: u32, next: Option<&str>) -> Reply {
    let items: Vec<_> = names.iter().map(|name| mk_object(name, 1)).collect();
    let metadata = json!({"resourceVersion": version.to_string(), "continue": next});
    Reply::Says(
        200,
        json!({"metadata": metadata, "items": items}).to_string(),
    )
}

fn refusal(code: u16, reason: &str, message: &str) -> Reply {
    Reply::Says(code, status(code, reason, message).to_string())
}

fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message})
}

fn event(r#type: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": r#type, "object": object}))
}

fn list(query: &str) -> String {
    format!("/api/v1/configmaps?{query}")
}

fn watching(version: u32) -> String {
    list(&format!(
        "watch=true&allowWatchBookmarks=true&resourceVersion={version}"
    ))
}

#[tokio::test(start_paused = true)]
async fn pages_are_told_as_they_come_and_the_watch_begins_where_the_list_ends() {
    let watched = Watched::start([page(&["a", "b"], 7, Some("t")), page(&["c"], 7, None)]);
    watched.played().await;
    assert_eq!(
        watched.told(),
        ["apply shop/a", "apply shop/b", "apply shop/c"]
    );
    assert_eq!(
        watched.script.asked(),
        [list("limit=2"), list("limit=2&continue=t"), watching(7)]
    );
    let synced = State {
        synced: true,
        ..State::default()
    };
    assert_eq!(*watched.state.borrow(), synced);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_breaks_goes_on_where_it_was() {
    let added = event("ADDED", &mk_object("a", 8));
    let bookmark = event("BOOKMARK", &json!({"metadata": {"resourceVersion": "9"}}));
    let mut cut = event("ADDED", &mk_object("b", 10));
    cut.truncate(40);
    let deleted = event("DELETED", &mk_object("a", 11));
    let overloaded = event("ERROR", &status(500, "InternalError", "etcd is slow"));
    let watched = Watched::start([
        page(&[], 7, None),
        Reply::Streams(vec![added, bookmark, cut], false),
        Reply::Streams(vec![deleted, overloaded], true),
        Reply::Refuses,
    ]);
    watched.played().await;
    assert_eq!(watched.told(), ["apply shop/a", "delete shop/a"]);
    assert_eq!(watched.trouble(), "watching configmaps: connection refused");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(
        watched.script.asked(),
        [
            list("limit=2"),
            watching(7),
            watching(9),
            watching(11),
            watching(11)
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_watch_is_asked_again_and_is_no_failure() {
    let watched = Watched::start([page(&[], 7, None), Reply::Streams(vec![], true)]);
    watched.played().await;
    sleep(SILENCE + Duration::from_secs(1)).await;
    assert_eq!(
        watched.script.asked(),
        [list("limit=2"), watching(7), watching(7)]
    );
    assert_eq!(watched.trouble(), "");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_is_noticed_and_asked_again() {
    let watched = Watched::start([Reply::Hangs, page(&["a"], 7, None)]);
    sleep(Duration::from_secs(61)).await;
    watched.played().await;
    assert_eq!(watched.told(), ["apply shop/a"]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ends_every_watch_at_once_is_asked_with_back_off() {
    let ends = (0..1000).map(|_| Reply::Streams(vec![], false));
    let watched = Watched::start(std::iter::once(page(&[], 7, None)).chain(ends));
    sleep(Duration::from_secs(300)).await;
    let asked = watched.script.asked().len();
    assert!(
        (10..40).contains(&asked),
        "{asked} requests in five minutes"
    );
    assert_eq!(
        watched.trouble(),
        "watching configmaps: the API server ends every watch at once"
    );
}

#[tokio::test(start_paused = true)]
async fn a_missing_permission_is_named_and_waited_for() {
    let message = "configmaps is forbidden: User \"u\" cannot list resource \"configmaps\"";
    let mut watched = Watched::start([refusal(403, "Forbidden", message), page(&["a"], 7, None)]);
    let troubled = watched
        .state
        .wait_for(|state| state.trouble.is_some())
        .await;
    let trouble = troubled.unwrap().trouble.clone().unwrap();
    assert_eq!(
        *trouble,
        format!(
            "listing configmaps: {message}; allow our service account to list and watch configmaps"
        )
    );
    let states = watched.state.clone();
    assert!(all_synced([&mut watched.state]).await);
    assert_eq!(states.borrow().trouble, None);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_outlives_its_version_is_repeated_in_larger_pages() {
    let watched = Watched::start([
        page(&["a", "b"], 7, Some("t")),
        refusal(410, "Expired", "too old"),
        page(&["b"], 9, None),
    ]);
    watched.played().await;
    assert_eq!(
        watched.told(),
        [
            "apply shop/a",
            "apply shop/b",
            "apply shop/b",
            "delete shop/a"
        ]
    );
    assert_eq!(watched.script.asked()[2], list("limit=8"));
    assert_eq!(watched.trouble(), "");
}

#[tokio::test(start_paused = true)]
async fn a_list_from_memory_costs_the_store_nothing_and_never_goes_back_in_time() {
    let gone = event("ERROR", &status(410, "Expired", "too old resource version"));
    let replies = [
        page(&["a"], 7, None),
        Reply::Streams(vec![event("ADDED", &mk_object("b", 8)), gone], false),
        refusal(429, "TooManyRequests", "try again"),
        page(&["b"], 9, None),
    ];
    let watched = Watched::start_with::<ConfigMap>(replies, Lists::Cached);
    watched.played().await;
    let told = [
        "apply shop/a",
        "apply shop/b",
        "apply shop/b",
        "delete shop/a",
    ];
    assert_eq!(watched.told(), told);
    assert_eq!(
        watched.script.asked(),
        [
            list("resourceVersion=0"),
            watching(7),
            list("resourceVersion=8"),
            list("resourceVersion=8"),
            watching(9)
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn where_memory_has_not_seen_what_we_know_the_store_is_asked() {
    let gone = || event("ERROR", &status(410, "Expired", "too old resource version"));
    let mut too_new = status(
        504,
        "Timeout",
        "Timeout: Too large resource version: 8, current: 3",
    );
    too_new["details"] = json!({"causes": [{
        "reason": "ResourceVersionTooLarge", "message": "Too large resource version",
    }]});
    for refused in [too_new, status(410, "Expired", "too old resource version")] {
        let replies = [
            page(&["a"], 7, None),
            Reply::Streams(vec![gone()], false),
            Reply::Says(
                u16::try_from(refused["code"].as_u64().unwrap()).unwrap(),
                refused.to_string(),
            ),
            page(&["b"], 3, None),
        ];
        let watched = Watched::start_with::<ConfigMap>(replies, Lists::Cached);
        watched.played().await;
        assert_eq!(
            watched.told(),
            ["apply shop/a", "apply shop/b", "delete shop/a"]
        );
        assert_eq!(watched.script.asked()[3..], [list("limit=2"), watching(3)]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_something_else_empties_nothing() {
    let page_of_a_proxy = || Reply::Says(200, "<html>captive</html>".into());
    let watched = Watched::start([
        page(&["a"], 7, None),
        Reply::Streams(vec!["<html>\n".into()], false),
        page_of_a_proxy(),
        // A load balancer without a backend; our kind is one that every API server knows.
        refusal(404, "NotFound", "no such page"),
    ]);
    watched.played().await;
    assert_eq!(watched.told(), ["apply shop/a"]);
    let state = watched.state.borrow().clone();
    assert!(state.synced && !state.absent);
    assert_eq!(watched.trouble(), "listing configmaps: no such page");
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_object_is_told_by_its_key_and_the_others_arrive() {
    let mut bad = mk_object("bad", 1);
    bad["data"] = json!({"key": 5});
    let items = json!([mk_object("a", 1), bad, mk_object("b", 1)]);
    let listed = json!({"metadata": {"resourceVersion": "7"}, "items": items});
    let lines = [
        event("MODIFIED", &bad).replace("\"1\"", "\"8\""),
        event("ADDED", &mk_object("c", 9)),
        event("DELETED", &bad).replace("\"1\"", "\"10\""),
    ];
    let watched = Watched::start([
        Reply::Says(200, listed.to_string()),
        Reply::Streams(vec![lines.concat()], true),
    ]);
    watched.played().await;
    let invalid = "invalid shop/bad: invalid type: integer `5`, expected a string";
    assert_eq!(
        watched.told(),
        [
            "apply shop/a",
            invalid,
            "apply shop/b",
            invalid,
            "apply shop/c",
            "delete shop/bad",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_there_at_once_is_told_at_once() {
    let lines: String = (0..1000)
        .map(|number| event("ADDED", &mk_object(&format!("n{number}"), 8)))
        .collect();
    let watched = Watched::start([page(&[], 7, None), Reply::Streams(vec![lines], true)]);
    watched.played().await;
    let sizes: Vec<_> = watched.log.0.lock().iter().map(Vec::len).collect();
    assert_eq!(sizes, [BATCH, 1000 - BATCH]);
}

#[tokio::test(start_paused = true)]
async fn waits_grow_while_the_server_is_away_up_to_half_a_minute() {
    let start = Instant::now();
    let away = (0..20).map(|_| Reply::Refuses);
    let watched = Watched::start(away);
    watched.played().await;
    let waited = start.elapsed();
    // Twenty waits of half a minute at most, halved at worst.
    assert!(
        waited > Duration::from_secs(150) && waited < Duration::from_secs(450),
        "{waited:?}"
    );
    assert!(!watched.state.borrow().synced);
}

/// The groups that a server knows, each with one version.
fn groups(versions: &[&str]) -> Reply {
    let group = |version: &&str| {
        let versions = json!([{"groupVersion": version, "version": "v1"}]);
        json!({"name": "g", "versions": versions})
    };
    let groups: Vec<_> = versions.iter().map(group).collect();
    Reply::Says(200, json!({"groups": groups}).to_string())
}

fn resources(names: &[&str]) -> Reply {
    let resource = |name: &&str| json!({"name": name, "kind": "K", "namespaced": true, "singularName": "", "verbs": []});
    let resources: Vec<_> = names.iter().map(resource).collect();
    let list = json!({"groupVersion": "coordination.k8s.io/v1", "resources": resources});
    Reply::Says(200, list.to_string())
}

fn not_found() -> Reply {
    refusal(
        404,
        "NotFound",
        "the server could not find the requested resource",
    )
}

#[tokio::test(start_paused = true)]
async fn a_kind_is_absent_only_if_the_server_says_that_it_does_not_know_it() {
    let ours = "coordination.k8s.io/v1";
    let cases = [
        (vec![groups(&["other/v1"])], true),
        (vec![groups(&[ours]), resources(&["other"])], true),
        (vec![groups(&[ours]), resources(&["leases"])], false),
        (vec![not_found()], false),
        (vec![Reply::Says(200, "<html>".into())], false),
        (vec![refusal(503, "ServiceUnavailable", "starting")], false),
    ];
    for (number, (answers, absent)) in cases.into_iter().enumerate() {
        let gone = event("ERROR", &status(404, "NotFound", "gone"));
        let start = [page(&["a"], 7, None), Reply::Streams(vec![gone], false)];
        let watched = Watched::start_of::<Lease>(start.into_iter().chain(answers));
        watched.played().await;
        let told = watched.told();
        assert_eq!(watched.state.borrow().absent, absent, "{number}");
        assert_eq!(
            told.contains(&"delete shop/a".to_owned()),
            absent,
            "{number}: {told:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_absent_kind_is_looked_for_every_few_seconds() {
    let start = Instant::now();
    let mut watched = Watched::start_of::<Lease>([
        not_found(),
        groups(&[]),
        not_found(),
        not_found(),
        page(&["a"], 7, None),
    ]);
    let absent = watched
        .state
        .wait_for(|state| state.synced)
        .await
        .unwrap()
        .clone();
    assert!(absent.absent && absent.trouble.is_none());
    watched.state.wait_for(|state| !state.absent).await.unwrap();
    assert_eq!(watched.told(), ["apply shop/a"]);
    assert_eq!(start.elapsed().as_secs(), 15);
}

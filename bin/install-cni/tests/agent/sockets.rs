//! The plugin's sockets against peers that are slow, wrong, many or not root.

use std::{
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use install_cni::{
    metrics::Metrics,
    parts::Attach,
    server::{self, LIMITS, Socket, lines, plugin},
};
use mesh_cni::protocol::{Added, Attachment, IstioAdd, MAX_BODY, Refusal, Valid};
use mesh_runtime::{
    http::Limits,
    life::{self, Life},
    log::Record,
};
use parking_lot::Mutex;
use prometheus_client::{encoding::text::encode, registry::Registry};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    sync::Semaphore,
    time::timeout,
};

const DEADLINE: Duration = Duration::from_secs(10);

/// Decides as told by the pod's name, and remembers what it was asked.
struct Played {
    asked: Mutex<Vec<String>>,
    gate: Semaphore,
}

/// Logged lines, as `level message labels`.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<String>>>);

struct Agent {
    dir: TempDir,
    played: Arc<Played>,
    logged: Logged,
    registry: Registry,
    life: Life,
}

impl Played {
    fn note(&self, what: &str, pod: &str) -> Result<(), Refusal> {
        self.asked.lock().push(format!("{what} {pod}"));
        match pod {
            "later" => Err(refusal("pod shop/later: no ztunnel yet", true)),
            "never" => Err(refusal("pod shop/never: not allowed", false)),
            _ => Ok(()),
        }
    }
}

fn refusal(message: &str, again: bool) -> Refusal {
    let message = message.to_owned();
    Refusal { message, again }
}

impl Attach for Played {
    async fn add(&self, pod: Attachment) -> Result<Added, Refusal> {
        if pod.pod_name == "slow" {
            drop(self.gate.acquire().await);
        }
        self.note("add", &pod.pod_name)?;
        let enrolled = pod.pod_name != "outside";
        Ok(Added { enrolled })
    }

    async fn istio_add(&self, pod: IstioAdd) -> Result<(), Refusal> {
        let ips: Vec<_> = pod.ips.iter().map(|ip| ip.address.ip.to_string()).collect();
        self.note(
            &format!("istio {} {}", pod.netns, ips.join(",")),
            &pod.pod_name,
        )
    }

    async fn check(&self, pod: Attachment) -> Result<(), Refusal> {
        self.note("check", &pod.pod_name)
    }

    async fn delete(&self, pod: Attachment) -> Result<(), Refusal> {
        self.note("del", &pod.container_id)
    }

    async fn collect(&self, valid: Valid) -> Result<(), Refusal> {
        self.note("gc", &valid.attachments.len().to_string())
    }

    fn status(&self) -> Result<(), Refusal> {
        self.note("status", "later")
    }
}

impl lines::Sink for Logged {
    fn write(&self, record: &Record<'_>) {
        let Record {
            level,
            message,
            fields,
            ..
        } = record;
        self.0.lock().push(format!("{level} {message} {fields:?}"));
    }
}

impl Agent {
    fn start(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let asked = Mutex::default();
        let gate = Semaphore::new(0);
        let played = Arc::new(Played { asked, gate });
        let logged = Logged::default();
        let (life, tasks) = life::begin(Duration::from_secs(1));
        let events = Socket::take(dir.path().join("pluginevent.sock")).unwrap();
        let routes = plugin::routes(&played, &metrics);
        server::serve("events", events, routes, limits, (&tasks, metrics.clone()));
        let log = Socket::take(dir.path().join("log.sock")).unwrap();
        let routes = lines::routes(logged.clone(), metrics.clone());
        server::serve("log", log, routes, limits, (&tasks, metrics));
        Self {
            dir,
            played,
            logged,
            registry,
            life,
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("pluginevent.sock")
    }

    async fn post(&self, path: &str, body: &str) -> (String, String) {
        post(&self.socket(), path, body).await
    }

    fn metric(&self, line: &str) -> bool {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        text.lines().any(|l| l == line)
    }
}

/// Sends bytes, and reads what comes until the end.
async fn send(socket: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    // The other side may have had enough before the end.
    stream.write_all(bytes).await.ok();
    let mut answer = Vec::new();
    let read = timeout(DEADLINE, stream.read_to_end(&mut answer));
    read.await.expect("an answer or the end in time").ok();
    String::from_utf8_lossy(&answer).into_owned()
}

pub(crate) async fn post(socket: &Path, path: &str, body: &str) -> (String, String) {
    let length = body.len();
    let request =
        format!("POST {path} HTTP/1.1\r\nHost: unix\r\nContent-Length: {length}\r\n\r\n{body}");
    let answer = send(socket, request.as_bytes()).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).unwrap_or_default();
    (status.to_owned(), body.to_owned())
}

fn pod(name: &str) -> String {
    serde_json::to_string(&Attachment {
        container_id: "4a3b".to_owned(),
        interface: "eth0".to_owned(),
        netns: "/var/run/netns/cni-1".to_owned(),
        pod_name: name.to_owned(),
        pod_namespace: "shop".to_owned(),
        ..Attachment::default()
    })
    .unwrap()
}

#[tokio::test]
async fn each_call_of_the_plugin_reaches_the_agent_and_its_verdict_the_plugin() {
    let agent = Agent::start(LIMITS);
    let ok = |body: &str| ("200".to_owned(), body.to_owned());
    assert_eq!(
        agent.post("/v1/add", &pod("web")).await,
        ok("{\"enrolled\":true}")
    );
    assert_eq!(
        agent.post("/v1/add", &pod("outside")).await,
        ok("{\"enrolled\":false}")
    );
    assert_eq!(agent.post("/v1/check", &pod("web")).await, ok(""));
    assert_eq!(agent.post("/v1/del", &pod("web")).await, ok(""));
    let valid = r#"{"attachments":[{"containerId":"4a3b","interface":"eth0"}]}"#;
    assert_eq!(agent.post("/v1/gc", valid).await, ok(""));
    for (path, body, status, again) in [
        ("/v1/add", pod("later"), "503", true),
        ("/v1/add", pod("never"), "500", false),
        ("/v1/check", pod("never"), "500", false),
        ("/v1/status", String::new(), "503", true),
        ("/v1/add", "{}".to_owned(), "400", false),
        ("/v1/del", "garbage".to_owned(), "400", false),
        (
            "/v1/gc",
            r#"{"attachments":[{"containerId":"..","interface":"x"}]}"#.to_owned(),
            "400",
            false,
        ),
    ] {
        let (got, answer) = agent.post(path, &body).await;
        let refusal: Refusal = serde_json::from_str(&answer).unwrap();
        assert_eq!(
            (got.as_str(), refusal.again),
            (status, again),
            "{path} {body}"
        );
    }
    assert_eq!(
        *agent.played.asked.lock(),
        [
            "add web",
            "add outside",
            "check web",
            "del 4a3b",
            "gc 1",
            "add later",
            "add never",
            "check never",
            "status later"
        ]
    );
    assert!(agent.metric("istio_cni_plugin_requests_total{response_code=\"200\"} 5"));
    assert!(agent.metric("lateen_cni_add_seconds_count{result=\"refused\"} 2"));
}

#[tokio::test]
async fn a_plugin_that_is_newer_is_understood() {
    let agent = Agent::start(LIMITS);
    let newer = |body: &str| body.replacen('{', "{\"news\":[1],", 1);
    let valid = r#"{"attachments":[{"containerId":"4a3b","interface":"eth0","news":1}]}"#;
    for (path, body) in [
        ("/v1/add", pod("web")),
        ("/v1/check", pod("web")),
        ("/v1/del", pod("web")),
        ("/v1/gc", valid.to_owned()),
    ] {
        assert_eq!(agent.post(path, &newer(&body)).await.0, "200", "{path}");
    }
    assert_eq!(agent.played.asked.lock().len(), 4);
}

#[tokio::test]
async fn istio_s_plugin_is_answered_as_its_own_agent_does() {
    let agent = Agent::start(LIMITS);
    let body = |name: &str, ips: &str| {
        format!(
            r#"{{"Netns":"/var/run/netns/a","PodName":"{name}","PodNamespace":"shop","IPs":{ips}}}"#
        )
    };
    let address = r#"[{"Interface":null,"Address":{"IP":"10.1.2.3","Mask":"//8AAA=="},"Gateway":"10.1.0.1"}]"#;
    assert_eq!(
        agent.post("/cmdadd", &body("web", address)).await,
        ("200".to_owned(), String::new())
    );
    assert_eq!(agent.post("/cmdadd", &body("web", "null")).await.0, "200");
    assert_eq!(agent.post("/cmdadd", "[").await.0, "400");
    let (status, text) = agent.post("/cmdadd", &body("never", "[]")).await;
    assert_eq!(
        (status.as_str(), text.as_str()),
        ("500", "pod shop/never: not allowed")
    );
    let asked = agent.played.asked.lock();
    assert_eq!(asked[0], "istio /var/run/netns/a 10.1.2.3 web");
}

#[tokio::test]
async fn garbage_gets_an_answer_or_the_end() {
    let agent = Agent::start(LIMITS);
    let socket = agent.socket();
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00"[..],
        b"POST\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
        b"POST /v1/add HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/add HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    ] {
        let answer = send(&socket, garbage).await;
        assert!(
            answer.contains(" 400 ") || answer.is_empty(),
            "{garbage:?}: {answer}"
        );
    }
    let long = "x".repeat(MAX_BODY + 1);
    assert_eq!(agent.post("/v1/add", &long).await.0, "413");
    let head = format!("POST /v1/add HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(9000));
    assert!(send(&socket, head.as_bytes()).await.contains(" 431 "));
    assert_eq!(agent.post("/nowhere", "").await.0, "404");
    assert_eq!(agent.post("/v1/add", &pod("web")).await.0, "200");
    assert_eq!(*agent.played.asked.lock(), ["add web"]);
}

#[tokio::test]
async fn a_slow_peer_is_cut_off_and_holds_up_nobody() {
    let limits = Limits {
        head_time: Duration::from_millis(200),
        body_time: Duration::from_millis(200),
        ..LIMITS
    };
    let agent = Agent::start(limits);
    let socket = agent.socket();
    let mut silent = UnixStream::connect(&socket).await.unwrap();
    let half = b"POST /v1/add HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{";
    let slow = send(&socket, half);
    let web = pod("web");
    let quick = agent.post("/v1/add", &web);
    let (slow, quick) = tokio::join!(slow, quick);
    assert_eq!(quick.0, "200");
    assert!(slow.contains(" 408 "), "{slow}");
    let mut end = [0];
    let read = timeout(DEADLINE, silent.read(&mut end)).await;
    assert!(matches!(read, Ok(Ok(0) | Err(_))), "{read:?}");
}

#[tokio::test]
async fn more_peers_than_there_is_room_for_wait_their_turn() {
    let limits = Limits {
        connections: 4,
        ..LIMITS
    };
    let agent = Agent::start(limits);
    let slow = pod("slow");
    let all = (0..32).map(|_| agent.post("/v1/add", &slow));
    let all = futures::future::join_all(all);
    agent.played.gate.add_permits(1);
    let answers = timeout(DEADLINE, all).await.unwrap();
    assert!(
        answers.iter().all(|(status, _)| status == "200"),
        "{answers:?}"
    );
}

#[tokio::test]
async fn only_root_may_speak() {
    let agent = Agent::start(LIMITS);
    let (dir, socket) = (agent.dir.path().to_owned(), agent.socket());
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let of = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(of(&socket), 0o600);
    mode(&dir, 0o755);
    let nobody = || {
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--max-time",
            "5",
            "--data",
            "{}",
            "--unix-socket",
        ]);
        curl.arg(&socket)
            .arg("http://unix/v1/status")
            .uid(65534)
            .gid(65534);
        tokio::task::spawn_blocking(move || curl.output().expect("curl runs"))
    };
    // curl's: it cannot connect.
    assert_eq!(nobody().await.unwrap().status.code(), Some(7));
    assert!(agent.metric("lateen_cni_refused_peers_total 0"));
    // Not even where somebody opens the file to all: the connection ends before anything is said.
    mode(&socket, 0o666);
    let refused = nobody().await.unwrap();
    assert!(
        !refused.status.success() && refused.stdout.is_empty(),
        "{refused:?}"
    );
    assert!(agent.metric("lateen_cni_refused_peers_total 1"));
    assert!(agent.played.asked.lock().is_empty());
    assert_eq!(agent.post("/v1/check", &pod("web")).await.0, "200");
}

#[tokio::test]
async fn a_new_agent_takes_over_and_the_old_one_leaves_it_alone() {
    let old = Agent::start(LIMITS);
    let socket = old.socket();
    let asks_new = || post(&socket, "/v1/check", r#"{"containerId":"a"}"#);
    let new = Socket::take(&socket).unwrap();
    let (life, tasks) = life::begin(Duration::from_secs(1));
    let played = Arc::new(Played {
        asked: Mutex::default(),
        gate: Semaphore::new(0),
    });
    let metrics = Metrics::default();
    let routes = plugin::routes(&played, &metrics);
    server::serve("events", new, routes, LIMITS, (&tasks, metrics));
    assert_eq!(post(&socket, "/v1/check", &pod("web")).await.0, "200");
    assert_eq!(*played.asked.lock(), ["check web"]);
    assert!(old.played.asked.lock().is_empty());
    old.life.stop().await;
    assert_eq!(asks_new().await.0, "400");
    drop(tasks);
    life.stop().await;
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_socket_that_nobody_listens_on_is_replaced_and_a_file_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run").join("x.sock");
    let first = Socket::take(&path).unwrap();
    // As a process leaves it that is killed.
    let kept = dir.path().join("kept");
    std::fs::hard_link(&path, &kept).unwrap();
    drop(first);
    assert!(!path.exists());
    std::fs::rename(&kept, &path).unwrap();
    let second = Socket::take(&path).unwrap();
    assert!(UnixStream::connect(&path).await.is_ok());
    drop(second);
    std::fs::write(&path, "mine").unwrap();
    let error = Socket::take(&path).unwrap_err();
    assert!(
        error.to_string().ends_with("it exists and is not a socket"),
        "{error}"
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    let names: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().collect();
    assert_eq!(names.len(), 1, "nothing of ours is left: {names:?}");
}

#[tokio::test]
async fn the_plugin_s_lines_are_logged_and_bounded() {
    let agent = Agent::start(LIMITS);
    let log = agent.dir.path().join("log.sock");
    let line = r#"{\"level\":\"warn\",\"time\":\"2025-01-23T05:07:25Z\",\"msg\":\"slow\",\"ns\":\"shop\"}"#;
    assert_eq!(post(&log, "/log", &format!("[\"{line}\"]")).await.0, "200");
    assert_eq!(*agent.logged.0.lock(), [r#"WARN slow [("ns", "shop")]"#]);
    assert_eq!(post(&log, "/log", "{}").await.0, "400");
    let many = vec!["x"; lines::MOST_LINES + 3];
    let many = serde_json::to_string(&many).unwrap();
    assert_eq!(post(&log, "/log", &many).await.0, "200");
    assert_eq!(agent.logged.0.lock().len(), 1 + lines::MOST_LINES);
    assert!(agent.metric("lateen_cni_plugin_log_lines_total{outcome=\"refused\"} 4"));
}

#[test]
fn the_saved_corpus_of_log_bodies_is_read() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/log_body");
    let mut count = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        server::fuzz::log_body(&std::fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count >= 17);
}

//! Agent and proxy against each other, and each against a neighbour that misbehaves, over real sockets.
//!
//! The clock is paused: it moves only when everybody waits, so that deadlines of seconds take none. No
//! test here may start a process: until it executes its program it holds copies of all sockets, and
//! those that a test closes would seem open.
#![expect(
    clippy::unwrap_used,
    reason = "what a test needs is there or the test fails"
)]

use std::{
    fs::File,
    io::pipe,
    os::fd::{AsFd as _, BorrowedFd},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use mesh_core::workload::PodInfo;
use mesh_net::{
    netns::{NetNs, NetNsId},
    seqpacket::{Listener, Passed, Socket},
};
use mesh_zds::{
    agent::{self, Agent, Pod, Server},
    codec::{self, Ack, MAX_MESSAGE, Request},
    proxy::{Client, Status, WorkloadManager},
};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

/// Longer than any of this takes on the paused clock.
const DEADLINE: Duration = Duration::from_secs(120);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Call {
    Add(Arc<str>, PodInfo, NetNsId),
    Delete(Arc<str>),
}

/// Writes down what it is asked, and fails or waits when told.
#[derive(Clone, Default)]
struct Manager {
    calls: Arc<Mutex<Vec<Call>>>,
    failing: Arc<Mutex<Option<&'static str>>>,
    slow: Arc<Mutex<Option<Duration>>>,
    changed: Arc<Notify>,
}

#[derive(Debug, thiserror::Error)]
#[error("bind [::]:15001")]
struct CannotBind(#[source] Reason);

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Reason(&'static str);

impl WorkloadManager for Manager {
    type Error = CannotBind;

    async fn add(
        &mut self,
        uid: &Arc<str>,
        pod: &PodInfo,
        netns: Arc<NetNs>,
    ) -> Result<(), CannotBind> {
        let slow = *self.slow.lock();
        if let Some(slow) = slow {
            sleep(slow).await;
        }
        let call = Call::Add(uid.clone(), pod.clone(), netns.id());
        self.calls.lock().push(call);
        self.changed.notify_waiters();
        match *self.failing.lock() {
            Some(reason) => Err(CannotBind(Reason(reason))),
            None => Ok(()),
        }
    }

    async fn delete(&mut self, uid: &Arc<str>) {
        self.calls.lock().push(Call::Delete(uid.clone()));
        self.changed.notify_waiters();
    }
}

impl Manager {
    fn take(&self) -> Vec<Call> {
        std::mem::take(&mut self.calls.lock())
    }
}

/// A running proxy, stopped when dropped.
struct Proxy {
    manager: Manager,
    status: watch::Receiver<Status>,
    task: JoinHandle<()>,
}

impl Proxy {
    fn start(path: PathBuf) -> Self {
        let manager = Manager::default();
        let mut client = Client::new(path, manager.clone());
        let status = client.status();
        let task = tokio::spawn(async move { match client.run().await {} });
        Self {
            manager,
            status,
            task,
        }
    }

    async fn until(&mut self, condition: impl FnMut(&Status) -> bool) {
        let waited = timeout(DEADLINE, self.status.wait_for(condition)).await;
        waited.expect("the status is reached").unwrap();
    }

    async fn until_ready(&mut self) {
        self.until(|status| status.is_ready()).await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A running agent, stopped when dropped.
struct Node {
    folder: TempDir,
    agent: Agent,
    server: JoinHandle<()>,
}

impl Node {
    fn start(agent: Agent) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Self::serve(&folder, &agent);
        Self {
            folder,
            agent,
            server,
        }
    }

    fn serve(folder: &TempDir, agent: &Agent) -> JoinHandle<()> {
        let server = Server::bind(folder.path().join("s"), agent.clone()).unwrap();
        tokio::spawn(async move { match server.run().await {} })
    }

    /// Stops the agent and starts another in its place that knows what `agent` knows.
    async fn restart(&mut self, agent: Agent) {
        self.server.abort();
        drop((&mut self.server).await);
        self.server = Self::serve(&self.folder, &agent);
        self.agent = agent;
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    async fn until_synced(&self, proxies: usize) {
        let mut synced = self.agent.synced();
        let waited = timeout(DEADLINE, synced.wait_for(|n| *n == proxies)).await;
        waited.expect("the proxies are told all").unwrap();
    }

    /// A connection that the test speaks through as a proxy.
    async fn connect(&self) -> Socket {
        let socket = Socket::connect(self.path()).unwrap();
        socket.send(&codec::encode_hello(), None).await.unwrap();
        socket
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn mk_pod(uid: &str) -> Pod {
    Pod {
        uid: uid.into(),
        info: PodInfo {
            name: format!("name-of-{uid}").into(),
            namespace: "bookinfo".into(),
            service_account: "details".into(),
        },
    }
}

fn here() -> Arc<NetNs> {
    Arc::new(NetNs::current().unwrap())
}

fn added(uid: &str, netns: &NetNs) -> Call {
    Call::Add(uid.into(), mk_pod(uid).info, netns.id())
}

fn deleted(uid: &str) -> Call {
    Call::Delete(uid.into())
}

async fn request(socket: &Socket) -> Option<(Request, bool)> {
    let mut buffer = [0; MAX_MESSAGE];
    let received = timeout(DEADLINE, socket.recv(&mut buffer)).await.unwrap();
    let received = received.unwrap()?;
    let request = Request::decode(&buffer[..received.len]).unwrap();
    Some((request, matches!(received.passed, Passed::Descriptor(_))))
}

async fn ack(socket: &Socket, result: Result<(), &str>) {
    let ack = Ack(result.map_err(str::to_owned));
    socket.send(&ack.encode(), None).await.unwrap();
}

async fn answer(socket: &Socket) -> Option<Ack> {
    let mut buffer = [0; MAX_MESSAGE];
    let received = timeout(DEADLINE, socket.recv(&mut buffer)).await.unwrap();
    let received = received.unwrap()?;
    Some(Ack::decode(&buffer[..received.len]).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_proxy_serves_the_snapshot_and_then_what_changes() {
    let node = Node::start(Agent::new());
    let known = mk_pod("known");
    node.agent.restore([(known, Some(here()))]);
    let mut proxy = Proxy::start(node.path());
    proxy.until_ready().await;
    node.until_synced(1).await;
    assert_eq!(proxy.manager.take(), [added("known", &here())]);

    let pod = mk_pod("new");
    node.agent.add(pod.clone(), here()).await.unwrap();
    assert_eq!(proxy.manager.take(), [added("new", &here())]);
    node.agent.add(pod, here()).await.unwrap();
    assert_eq!(proxy.manager.take(), [], "the same again is no change");
    assert_eq!(node.agent.delete(&"new".into()).await, []);
    assert_eq!(node.agent.delete(&"new".into()).await, []);
    assert_eq!(proxy.manager.take(), [deleted("new")]);
    assert_eq!(proxy.status.borrow().running, 1);
}

#[tokio::test(start_paused = true)]
async fn a_pod_added_without_a_proxy_is_told_to_the_first_that_connects() {
    let node = Node::start(Agent::new());
    let result = node.agent.add(mk_pod("early"), here()).await;
    assert_eq!(result, Err(agent::Error::NoProxy));
    let mut proxy = Proxy::start(node.path());
    proxy.until_ready().await;
    assert_eq!(proxy.manager.take(), [added("early", &here())]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_start_is_told_blocks_readiness_and_is_tried_again_every_five_seconds() {
    let node = Node::start(Agent::new());
    let mut proxy = Proxy::start(node.path());
    proxy.until_ready().await;
    *proxy.manager.failing.lock() = Some("address in use");
    let refused = agent::Error::Refused("bind [::]:15001: address in use".into());
    let result = node.agent.add(mk_pod("p"), here()).await;
    assert_eq!(result, Err(refused));
    proxy.until(|status| status.pending == 1).await;
    assert!(!proxy.status.borrow().is_ready());

    let tries = Instant::now();
    let manager = proxy.manager.clone();
    for _ in 0..3 {
        timeout(DEADLINE, manager.changed.notified()).await.unwrap();
    }
    let took = tries.elapsed();
    assert!(
        took > Duration::from_secs(10) && took < Duration::from_secs(16),
        "{took:?}"
    );
    *proxy.manager.failing.lock() = None;
    proxy.until_ready().await;
    assert_eq!(proxy.status.borrow().running, 1);
}

#[tokio::test(start_paused = true)]
async fn proxies_survive_the_agents_restart_and_keep_what_it_keeps() {
    let mut node = Node::start(Agent::new());
    let mut proxy = Proxy::start(node.path());
    proxy.until_ready().await;
    for uid in ["kept", "known", "gone"] {
        node.agent.add(mk_pod(uid), here()).await.unwrap();
    }
    proxy.manager.take();
    let mut unready = proxy.status.clone();
    let disconnected = tokio::spawn(async move {
        unready
            .wait_for(|status| !status.synced)
            .await
            .unwrap()
            .running
    });
    let agent = Agent::new();
    agent.restore([(mk_pod("kept"), None), (mk_pod("known"), Some(here()))]);
    node.restart(agent).await;
    assert_eq!(disconnected.await.unwrap(), 3, "not ready, but serving");
    proxy.until_ready().await;
    assert_eq!(proxy.manager.take(), [deleted("gone")]);
    assert_eq!(proxy.status.borrow().running, 2);
}

#[tokio::test(start_paused = true)]
async fn with_two_proxies_the_newest_is_given_pods_and_both_are_told_of_the_end() {
    let node = Node::start(Agent::new());
    let mut old = Proxy::start(node.path());
    old.until_ready().await;
    node.agent.add(mk_pod("first"), here()).await.unwrap();
    let mut new = Proxy::start(node.path());
    new.until_ready().await;
    node.until_synced(2).await;
    assert_eq!(old.manager.take(), [added("first", &here())]);
    assert_eq!(
        new.manager.take(),
        [added("first", &here())],
        "the snapshot"
    );

    node.agent.add(mk_pod("second"), here()).await.unwrap();
    assert_eq!(old.manager.take(), []);
    assert_eq!(new.manager.take(), [added("second", &here())]);
    assert_eq!(node.agent.delete(&"first".into()).await, []);
    assert_eq!(old.manager.take(), [deleted("first")]);
    assert_eq!(new.manager.take(), [deleted("first")]);

    drop(new);
    node.until_synced(1).await;
    node.agent.add(mk_pod("third"), here()).await.unwrap();
    assert_eq!(old.manager.take(), [added("third", &here())]);
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_does_not_count_for_the_next_request() {
    let node = Node::start(Agent::new());
    let socket = node.connect().await;
    assert_eq!(request(&socket).await, Some((Request::SnapshotSent, false)));
    ack(&socket, Ok(())).await;
    node.until_synced(1).await;

    let first = node.agent.add(mk_pod("slow"), here()).await;
    assert_eq!(first, Err(agent::Error::TimedOut));
    let agent = node.agent.clone();
    let second = tokio::spawn(async move { agent.add(mk_pod("quick"), here()).await });
    for uid in ["slow", "quick"] {
        let (request, with_descriptor) = request(&socket).await.unwrap();
        assert_eq!(
            (request.uid().map(|uid| &**uid), with_descriptor),
            (Some(uid), true)
        );
    }
    // The first answer is that to the slow one, and must not be taken for the quick one's.
    ack(&socket, Ok(())).await;
    ack(&socket, Err("no")).await;
    let refused = Err(agent::Error::Refused("no".into()));
    assert_eq!(second.await.unwrap(), refused);
}

#[tokio::test(start_paused = true)]
async fn a_slow_proxy_is_tolerated() {
    let node = Node::start(Agent::new());
    let mut proxy = Proxy::start(node.path());
    proxy.until_ready().await;
    *proxy.manager.slow.lock() = Some(Duration::from_secs(7));
    let result = node.agent.add(mk_pod("slow"), here()).await;
    assert_eq!(result, Err(agent::Error::TimedOut));
    proxy.until(|status| status.running == 1).await;
    *proxy.manager.slow.lock() = None;
    node.agent.add(mk_pod("quick"), here()).await.unwrap();
    node.until_synced(1).await;
    let calls = [added("slow", &here()), added("quick", &here())];
    assert_eq!(proxy.manager.take(), calls, "the connection was kept");
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_goes_away_fails_its_requests_at_once() {
    let node = Node::start(Agent::new());
    let socket = node.connect().await;
    request(&socket).await.unwrap();
    ack(&socket, Ok(())).await;
    node.until_synced(1).await;
    let agent = node.agent.clone();
    let adding = tokio::spawn(async move { agent.add(mk_pod("p"), here()).await });
    request(&socket).await.unwrap();
    let before = Instant::now();
    drop(socket);
    assert_eq!(adding.await.unwrap(), Err(agent::Error::Disconnected));
    assert_eq!(before.elapsed(), Duration::ZERO);
    assert_eq!(node.agent.delete(&"p".into()).await, []);
}

#[tokio::test(start_paused = true)]
async fn when_the_newest_proxy_goes_away_the_one_before_it_takes_over() {
    let node = Node::start(Agent::new());
    let mut old = Proxy::start(node.path());
    old.until_ready().await;
    let socket = node.connect().await;
    request(&socket).await.unwrap();
    ack(&socket, Ok(())).await;
    node.until_synced(2).await;
    let agent = node.agent.clone();
    let adding = tokio::spawn(async move { agent.add(mk_pod("p"), here()).await });
    request(&socket).await.unwrap();
    drop(socket);
    assert_eq!(adding.await.unwrap(), Ok(()));
    assert_eq!(old.manager.take(), [added("p", &here())]);
}

#[tokio::test(start_paused = true)]
async fn a_misbehaving_proxy_is_disconnected_and_others_go_on() {
    let node = Node::start(Agent::new());
    let mut good = Proxy::start(node.path());
    good.until_ready().await;
    let null = File::open("/dev/null").unwrap();
    let hello = codec::encode_hello();
    let bad: [(&str, Vec<u8>, Option<BorrowedFd<'_>>); 5] = [
        ("garbage", b"\xff\xff\xff".to_vec(), None),
        ("another version", b"\x08\x09".to_vec(), None),
        ("too long", vec![0x20; MAX_MESSAGE + 1], None),
        ("a descriptor", hello.clone(), Some(null.as_fd())),
        ("an answer before the question", Ack(Ok(())).encode(), None),
    ];
    for (name, bytes, fd) in bad {
        let socket = Socket::connect(node.path()).unwrap();
        socket.send(&bytes, fd).await.unwrap();
        assert_eq!(request(&socket).await, None, "{name}");
    }
    // Silence instead of a hello.
    let socket = Socket::connect(node.path()).unwrap();
    assert_eq!(request(&socket).await, None);
    // One answer too many.
    let socket = node.connect().await;
    request(&socket).await.unwrap();
    ack(&socket, Ok(())).await;
    ack(&socket, Ok(())).await;
    assert_eq!(request(&socket).await, None);

    node.until_synced(1).await;
    node.agent.add(mk_pod("p"), here()).await.unwrap();
    assert_eq!(good.manager.take(), [added("p", &here())]);
}

/// An agent that the test speaks for.
struct FakeAgent {
    _folder: TempDir,
    listener: Listener,
}

impl FakeAgent {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = Listener::bind(folder.path().join("s")).unwrap();
        Self {
            _folder: folder,
            listener,
        }
    }

    /// The next conversation, after its hello.
    async fn accept(&self) -> Socket {
        let accepted = timeout(DEADLINE, self.listener.accept()).await.unwrap();
        let (socket, _peer) = accepted.unwrap();
        let mut buffer = [0; MAX_MESSAGE];
        let received = socket.recv(&mut buffer).await.unwrap().unwrap();
        codec::decode_hello(&buffer[..received.len]).unwrap();
        socket
    }
}

async fn ask(socket: &Socket, request: Request, fd: Option<BorrowedFd<'_>>) -> Option<Ack> {
    let bytes = request.encode().unwrap();
    socket.send(&bytes, fd).await.unwrap();
    answer(socket).await
}

fn add(uid: &str) -> Request {
    let Pod { uid, info: pod } = mk_pod(uid);
    Request::Add { uid, pod }
}

const OK: Option<Ack> = Some(Ack(Ok(())));

fn refusal(text: &str) -> Ack {
    Ack(Err(text.into()))
}

#[tokio::test(start_paused = true)]
async fn a_breach_of_the_protocol_ends_the_conversation_and_nothing_else() {
    let agent = FakeAgent::start();
    let mut proxy = Proxy::start(agent.listener.path().to_owned());
    let netns = here();
    let fd = Some(netns.as_fd());
    let keep = Request::Keep {
        uid: "running".into(),
    };
    let keep_bytes = keep.encode().unwrap();
    let add_bytes = add("other").encode().unwrap();
    let breaches: [(Vec<u8>, Option<BorrowedFd<'_>>, &str); 7] = [
        (
            b"\xff".to_vec(),
            None,
            "a WorkloadRequest cannot be decoded: ",
        ),
        (
            b"\x4a\x00".to_vec(),
            None,
            "a WorkloadRequest holds no payload that is known here",
        ),
        (
            vec![0x20; MAX_MESSAGE + 1],
            None,
            "the message is longer than 1024 bytes",
        ),
        (add_bytes, None, "AddWorkload without a file descriptor"),
        (
            keep_bytes.clone(),
            fd,
            "KeepWorkload with a file descriptor",
        ),
        (keep_bytes, None, "KeepWorkload after SnapshotSent"),
        (
            Request::SnapshotSent.encode().unwrap(),
            None,
            "a second SnapshotSent",
        ),
    ];
    for (bytes, fd, reason) in breaches {
        let socket = agent.accept().await;
        assert_eq!(ask(&socket, add("running"), Some(netns.as_fd())).await, OK);
        assert_eq!(ask(&socket, Request::SnapshotSent, None).await, OK);
        socket.send(&bytes, fd).await.unwrap();
        let Some(Ack(Err(error))) = answer(&socket).await else {
            panic!("{reason}: accepted");
        };
        assert!(error.starts_with(reason), "{error}, not {reason}");
        assert_eq!(
            answer(&socket).await,
            None,
            "{reason}: the conversation is over"
        );
        proxy.until(|status| !status.synced).await;
        assert_eq!(proxy.status.borrow().running, 1, "{reason}");
    }
    let started_once = [added("running", &netns)];
    assert_eq!(proxy.manager.take(), started_once);
}

#[tokio::test(start_paused = true)]
async fn a_descriptor_that_is_no_namespace_is_refused_and_the_conversation_goes_on() {
    let agent = FakeAgent::start();
    let proxy = Proxy::start(agent.listener.path().to_owned());
    let socket = agent.accept().await;
    let (read, _write) = pipe().unwrap();
    let reason = "the network namespace of pod p cannot be used: \
                  the descriptor is not of a network namespace";
    let refused = Some(refusal(reason));
    assert_eq!(ask(&socket, add("p"), Some(read.as_fd())).await, refused);
    let keep = Request::Keep { uid: "q".into() };
    let reason = "pod q is not served here, and its network namespace was not sent";
    assert_eq!(ask(&socket, keep, None).await, Some(refusal(reason)));
    assert_eq!(ask(&socket, add("p"), Some(here().as_fd())).await, OK);
    assert_eq!(proxy.manager.take(), [added("p", &here())]);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_falls_over_after_each_snapshot_is_given_time() {
    let agent = FakeAgent::start();
    let mut proxy = Proxy::start(agent.listener.path().to_owned());
    let before = Instant::now();
    for _ in 0..20 {
        let socket = agent.accept().await;
        assert_eq!(ask(&socket, Request::SnapshotSent, None).await, OK);
        proxy.until(|status| status.synced).await;
        drop(socket);
        proxy.until(|status| !status.synced).await;
    }
    let took = before.elapsed();
    assert!(took >= Duration::from_secs(60), "{took:?}");
    // One that has worked for a while is asked again at once.
    let socket = agent.accept().await;
    assert_eq!(ask(&socket, Request::SnapshotSent, None).await, OK);
    sleep(Duration::from_secs(60)).await;
    drop(socket);
    let before = Instant::now();
    drop(agent.accept().await);
    let took = before.elapsed();
    assert!(took < Duration::from_millis(50), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_proxy_without_an_agent_tries_again_at_growing_intervals() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let mut proxy = Proxy::start(path.clone());
    sleep(Duration::from_mins(1)).await;
    let before = Instant::now();
    let server = Server::bind(&path, Agent::new()).unwrap();
    let server = tokio::spawn(async move { match server.run().await {} });
    proxy.until_ready().await;
    let waited = before.elapsed();
    let longest = Duration::from_secs(18);
    assert!(waited <= longest, "{waited:?}");
    server.abort();
}

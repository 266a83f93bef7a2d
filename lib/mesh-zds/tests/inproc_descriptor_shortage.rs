//! Both ends while the process has no room for more open files. One test, because the limit is that of
//! the process.
#![expect(
    clippy::unwrap_used,
    reason = "what a test needs is there or the test fails"
)]

use std::{convert::Infallible, fs::File, os::fd::AsFd as _, sync::Arc, time::Duration};

use mesh_core::workload::PodInfo;
use mesh_net::{
    netns::NetNs,
    seqpacket::{Listener, Socket},
};
use mesh_zds::{
    agent::{Agent, Error, Pod, Server},
    codec::{self, Ack},
    proxy::{Client, Status, WorkloadManager},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{sync::watch, time::timeout};

/// Longer than any of this takes on the paused clock.
const DEADLINE: Duration = Duration::from_mins(5);

struct Manager;

impl WorkloadManager for Manager {
    type Error = Infallible;

    async fn add(
        &mut self,
        _uid: &Arc<str>,
        _pod: &PodInfo,
        _netns: Arc<NetNs>,
    ) -> Result<(), Infallible> {
        Ok(())
    }

    async fn delete(&mut self, _uid: &Arc<str>) {}
}

fn mk_pod(uid: &str) -> Pod {
    Pod {
        uid: uid.into(),
        info: PodInfo {
            name: uid.into(),
            namespace: "bookinfo".into(),
            service_account: "default".into(),
        },
    }
}

/// Takes all descriptors there are.
fn exhaust() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

async fn until(status: &mut watch::Receiver<Status>, condition: impl Fn(&Status) -> bool) {
    let waited = timeout(DEADLINE, status.wait_for(|status| condition(status))).await;
    waited.expect("the status is reached").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_full_descriptor_table_is_named_and_what_runs_goes_on() {
    let limit = getrlimit(Resource::Nofile);
    let low = Rlimit {
        current: Some(256),
        ..limit
    };
    setrlimit(Resource::Nofile, low).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let agent = Agent::new();
    let server = Server::bind(&path, agent.clone()).unwrap();
    let server = tokio::spawn(async move { server.run().await });
    let mut client = Client::new(&path, Manager);
    let mut status = client.status();
    let client = tokio::spawn(async move { client.run().await });
    let netns = Arc::new(NetNs::current().unwrap());
    until(&mut status, |status| status.is_ready()).await;
    agent.add(mk_pod("before"), netns.clone()).await.unwrap();

    // The proxy cannot take the namespace, says so, and serves what it serves.
    let all = exhaust();
    assert!(all.len() > 10, "{} descriptors taken", all.len());
    let refused = agent.add(mk_pod("lost"), netns.clone()).await;
    let text = "the network namespace of pod lost was lost: too many open files";
    assert_eq!(refused, Err(Error::Refused(text.into())));
    assert_eq!(status.borrow().running, 1);

    // The agent cannot accept another proxy, and goes on with this one.
    drop(all);
    let late = Socket::connect(&path).unwrap();
    let all = exhaust();
    late.send(&codec::encode_hello(), None).await.unwrap();
    let mut buffer = [0; codec::MAX_MESSAGE];
    let told = timeout(Duration::from_secs(30), late.recv(&mut buffer)).await;
    told.expect_err("it is not accepted");
    assert_eq!(agent.delete(&"before".into()).await, []);
    assert_eq!(*agent.synced().borrow(), 1);

    // When there is room again, everything is made good: the late one is told the snapshot.
    drop(all);
    let told = timeout(DEADLINE, late.recv(&mut buffer)).await.unwrap();
    let told = told.unwrap().unwrap();
    let request = codec::Request::decode(&buffer[..told.len]).unwrap();
    assert_eq!(request.uid().map(|uid| &**uid), Some("lost"));
    drop(late);

    // A pod whose namespace is lost in a snapshot is asked for again, and what runs goes on.
    agent.add(mk_pod("running"), netns.clone()).await.unwrap();
    server.abort();
    drop(server.await);
    let listener = Listener::bind(&path).unwrap();
    let socket = accept(&listener).await;
    let all = exhaust();
    let Ack(lost) = ask(&socket, "running", &netns).await;
    assert!(lost.is_err());
    let Ack(lost) = ask(&socket, "again", &netns).await;
    assert!(lost.is_err());
    let snapshot_sent = codec::Request::SnapshotSent.encode().unwrap();
    socket.send(&snapshot_sent, None).await.unwrap();
    assert_eq!(answer(&socket).await, Ack(Ok(())));
    until(&mut status, |status| status.synced).await;
    assert_eq!((status.borrow().running, status.borrow().pending), (1, 1));
    drop(all);
    let socket = accept(&listener).await;
    assert_eq!(ask(&socket, "running", &netns).await, Ack(Ok(())));
    assert_eq!(ask(&socket, "again", &netns).await, Ack(Ok(())));
    socket.send(&snapshot_sent, None).await.unwrap();
    assert_eq!(answer(&socket).await, Ack(Ok(())));
    until(&mut status, |status| {
        status.is_ready() && status.running == 2
    })
    .await;
    client.abort();
}

/// The next conversation of the proxy, after its hello.
async fn accept(listener: &Listener) -> Socket {
    let accepted = timeout(DEADLINE, listener.accept()).await.unwrap();
    let (socket, _peer) = accepted.unwrap();
    let mut buffer = [0; codec::MAX_MESSAGE];
    let received = socket.recv(&mut buffer).await.unwrap().unwrap();
    codec::decode_hello(&buffer[..received.len]).unwrap();
    socket
}

async fn ask(socket: &Socket, uid: &str, netns: &NetNs) -> Ack {
    let Pod { uid, info: pod } = mk_pod(uid);
    let request = codec::Request::Add { uid, pod }.encode().unwrap();
    let sent = socket.send(&request, Some(netns.as_fd())).await;
    sent.unwrap();
    answer(socket).await
}

async fn answer(socket: &Socket) -> Ack {
    let mut buffer = [0; codec::MAX_MESSAGE];
    let received = timeout(DEADLINE, socket.recv(&mut buffer)).await.unwrap();
    let received = received.unwrap().expect("an answer");
    Ack::decode(&buffer[..received.len]).unwrap()
}

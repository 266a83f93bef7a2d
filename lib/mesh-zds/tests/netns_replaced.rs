//! A pod that gets another sandbox: the same UID, another network namespace.
#![expect(
    clippy::unwrap_used,
    reason = "what a test needs is there or the test fails"
)]

use std::{convert::Infallible, sync::Arc, time::Duration};

use mesh_core::workload::PodInfo;
use mesh_net::netns::{NetNs, NetNsId};
use mesh_zds::{
    agent::{Agent, Pod, Server},
    proxy::{Client, WorkloadManager},
};
use testkit_net::Namespace;
use tokio::{sync::mpsc, time::timeout};

#[derive(Debug, PartialEq, Eq)]
enum Call {
    Add(NetNsId),
    Delete,
}

struct Manager(mpsc::UnboundedSender<Call>);

impl WorkloadManager for Manager {
    type Error = Infallible;

    async fn add(
        &mut self,
        _uid: &Arc<str>,
        _pod: &PodInfo,
        netns: Arc<NetNs>,
    ) -> Result<(), Infallible> {
        self.0.send(Call::Add(netns.id())).unwrap();
        Ok(())
    }

    async fn delete(&mut self, _uid: &Arc<str>) {
        self.0.send(Call::Delete).unwrap();
    }
}

#[tokio::test]
async fn a_pod_in_a_new_namespace_is_served_there_and_no_longer_in_the_old_one() {
    let (old, new) = (
        Namespace::new("old").unwrap(),
        Namespace::new("new").unwrap(),
    );
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::new();
    let server = Server::bind(folder.path().join("s"), agent.clone()).unwrap();
    let (calls, mut called) = mpsc::unbounded_channel();
    let mut client = Client::new(server.path(), Manager(calls));
    let mut synced = agent.synced();
    let conversation = async {
        synced.wait_for(|proxies| *proxies == 1).await.unwrap();
        for namespace in [&old, &new, &new] {
            let pod = Pod {
                uid: "uid".into(),
                info: PodInfo {
                    name: "details".into(),
                    namespace: "bookinfo".into(),
                    service_account: "default".into(),
                },
            };
            agent.add(pod, namespace.handle().clone()).await.unwrap();
        }
    };
    let both = async {
        tokio::select! {
            _ = server.run() => {}
            _ = client.run() => {}
            () = conversation => {}
        }
    };
    timeout(Duration::from_secs(20), both).await.unwrap();
    let calls: Vec<Call> = std::iter::from_fn(|| called.try_recv().ok()).collect();
    let (old, new) = (old.handle().id(), new.handle().id());
    assert_eq!(calls, [Call::Add(old), Call::Delete, Call::Add(new)]);
}

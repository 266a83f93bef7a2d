//! A ztunnel that can be told to refuse pods and not to answer.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use install_cni::parts::PodUid;
use mesh_core::workload::PodInfo;
use mesh_net::netns::{NetNs, NetNsId};
use mesh_zds::proxy::{Client as Proxy, WorkloadManager};
use parking_lot::Mutex;
use tokio::{sync::watch, task::JoinHandle, time::timeout};

use crate::{node::DEADLINE, pod_net::Net};

/// A ztunnel that only takes notes.
pub(crate) struct Ztunnel {
    pub(crate) served: watch::Receiver<BTreeMap<PodUid, NetNsId>>,
    synced: watch::Receiver<mesh_zds::proxy::Status>,
    refuses: Arc<Mutex<bool>>,
    /// Whether it answers.
    answers: watch::Sender<bool>,
    /// How often it was asked to serve a pod.
    asked: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

struct Notes {
    served: watch::Sender<BTreeMap<PodUid, NetNsId>>,
    refuses: Arc<Mutex<bool>>,
    answers: watch::Receiver<bool>,
    asked: watch::Sender<usize>,
}

#[derive(Debug, thiserror::Error)]
#[error("no room")]
pub(crate) struct NoRoom;

// === impl Ztunnel ===

impl Ztunnel {
    pub(crate) fn start(socket: PathBuf, refuses: bool) -> Self {
        let (sender, served) = watch::channel(BTreeMap::new());
        let refuses = Arc::new(Mutex::new(refuses));
        let answers = watch::Sender::new(true);
        let (asking, asked) = watch::channel(0);
        let notes = Notes {
            served: sender,
            refuses: refuses.clone(),
            answers: answers.subscribe(),
            asked: asking,
        };
        let mut proxy = Proxy::new(socket, notes);
        let synced = proxy.status();
        let task = tokio::spawn(async move { match proxy.run().await {} });
        Self {
            served,
            synced,
            refuses,
            answers,
            asked,
            task,
        }
    }

    /// From now on it serves no pod that is new, or does again.
    pub(crate) fn refuse(&self, refuses: bool) {
        *self.refuses.lock() = refuses;
    }

    /// From now on it takes its time, or answers again.
    pub(crate) fn answer(&self, answers: bool) {
        self.answers.send_replace(answers);
    }

    /// Waits until it has been asked to serve a pod.
    pub(crate) async fn is_asked(&mut self) {
        let waited = timeout(DEADLINE, self.asked.wait_for(|asked| *asked > 0)).await;
        drop(waited.expect("ztunnel is asked").unwrap());
    }

    /// Waits until it knows all pods.
    pub(crate) async fn synced(&self) {
        let mut synced = self.synced.clone();
        let waited = timeout(DEADLINE, synced.wait_for(|status| status.synced)).await;
        drop(waited.expect("ztunnel is told of all pods").unwrap());
    }

    /// Waits until it serves the pod with this network, or does not serve it.
    pub(crate) async fn serves(&mut self, uid: &PodUid, net: Option<&Net>) {
        let wanted = net.map(Net::id);
        let waited = self
            .served
            .wait_for(|served| served.get(uid).copied() == wanted);
        let waited = timeout(DEADLINE, waited).await.map(|found| found.is_ok());
        assert_eq!(waited, Ok(true), "it serves {:?}", *self.served.borrow());
    }

    /// Ends it, as a signal would.
    pub(crate) async fn kill(mut self) {
        self.task.abort();
        drop((&mut self.task).await);
    }
}

impl Drop for Ztunnel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl WorkloadManager for Notes {
    type Error = NoRoom;

    async fn add(
        &mut self,
        uid: &Arc<str>,
        _pod: &PodInfo,
        netns: Arc<NetNs>,
    ) -> Result<(), NoRoom> {
        self.asked.send_modify(|asked| *asked += 1);
        drop(self.answers.wait_for(|answers| *answers).await);
        if *self.refuses.lock() {
            return Err(NoRoom);
        }
        let id = netns.id();
        self.served.send_modify(|served| {
            served.insert(uid.clone(), id);
        });
        Ok(())
    }

    async fn delete(&mut self, uid: &Arc<str>) {
        self.served.send_modify(|served| {
            served.remove(uid);
        });
    }
}

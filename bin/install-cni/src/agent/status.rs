//! The annotation that says whether a pod is in the mesh: a report to people, never memory.
//!
//! It is written only when it differs from what the API server shows, as a merge patch of the pod's
//! status. Enrolment does not wait for it.

use std::sync::Arc;

use kube::{
    Api, Client, Resource as _,
    api::{Patch, PatchParams},
};
use mesh_core::workload::PodInfo;
use mesh_kube::{
    Backoff,
    error::{Explained, Fault},
    queue::{Done, Pace, Shared as Queue},
};
use parking_lot::Mutex;
use serde_json::json;

use super::{
    machine::Report,
    pods::{
        self, PodObject,
        annotations::{REDIRECTION, Shown},
    },
    registry::Registry,
};
use crate::parts::PodUid;

/// Writes annotations.
#[derive(Clone)]
pub(crate) struct Writer {
    client: Client,
    registry: Arc<Mutex<Registry>>,
    queue: Queue<PodUid>,
}

/// Whom the API server shows as the one who writes the annotation.
const MANAGER: &str = "lateen-install-cni";

/// Annotations that are written at the same time.
const WRITERS: usize = 4;

/// What is to be written.
struct Due {
    info: PodInfo,
    value: Shown,
}

// === impl Writer ===

impl Writer {
    pub(crate) fn new(client: Client, registry: Arc<Mutex<Registry>>) -> Self {
        let pace = Pace {
            backoff: Backoff::default(),
            ..Pace::default()
        };
        Self {
            client,
            registry,
            queue: Queue::new(pace),
        }
    }

    /// These pods may have to be written.
    pub(crate) fn wake(&self, pods: impl IntoIterator<Item = PodUid>) {
        self.queue.wake(pods);
    }

    /// Writes, for ever.
    pub(crate) async fn run(self) {
        let writers = (0..WRITERS).map(|_| async {
            loop {
                let uid = self.queue.next().await;
                let done = self.write(&uid).await;
                self.queue.done(&uid, done);
            }
        });
        futures::future::join_all(writers.map(Box::pin)).await;
    }

    /// Whether the pod's annotation is not what it should be.
    pub(crate) fn is_due(&self, uid: &str) -> bool {
        self.due(uid).is_some()
    }

    async fn write(&self, uid: &PodUid) -> Done {
        let Some(due) = self.due(uid) else {
            return Done::Gone;
        };
        match self.patch(uid, &due).await {
            Ok(version) => {
                tracing::debug!(pod = %name(&due.info), value = ?due.value, "annotated");
                if let Some(entry) = self.registry.lock().entry_mut(uid) {
                    entry.shown = (due.value, version.max(entry.shown.1));
                    entry.tell();
                }
                Done::Settled
            }
            Err(error) => match Fault::of(&error) {
                // It is gone, or another of its name is there.
                Fault::Missing | Fault::Conflict => Done::Settled,
                _ => {
                    let (pod, error) = (name(&due.info), Explained(&error));
                    tracing::warn!(%pod, %error, "cannot annotate a pod; will try again");
                    Done::Failed
                }
            },
        }
    }

    /// What has to be written of a pod, if anything.
    fn due(&self, uid: &str) -> Option<Due> {
        let registry = self.registry.lock();
        let (entry, _exists) = (registry.entry(uid)?, registry.index().pod(uid)?);
        let value = match entry.machine.report() {
            Report::Leave => return None,
            Report::Clear => Shown::Nothing,
            Report::Pending => Shown::Pending,
            Report::Enabled => Shown::Enabled,
        };
        let info = entry.info.clone();
        (value != entry.shown.0).then_some(Due { info, value })
    }

    async fn patch(&self, uid: &PodUid, due: &Due) -> Result<u64, kube::Error> {
        let api = Api::<PodObject>::namespaced(self.client.clone(), &due.info.namespace);
        // The UID makes it a conflict for another pod of the same name.
        let patch = json!({"metadata": {
            "uid": &**uid,
            "annotations": {REDIRECTION: due.value.value()},
        }});
        let params = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patched = api
            .patch_status(&due.info.name, &params, &Patch::Merge(patch))
            .await?;
        Ok(pods::version(patched.meta().resource_version.as_deref()))
    }
}

fn name(info: &PodInfo) -> String {
    format!("{}/{}", info.namespace, info.name)
}

//! Writes conditions and allocated addresses into the status of objects, as the leader only.
//!
//! The index says what should be there; what is there already is not written again. While this replica
//! does not lead, nothing is kept: a new leader asks the index to say everything once more.

use std::{collections::HashMap, time::Duration};

use futures::{StreamExt as _, future::BoxFuture, stream};
use jiff::Timestamp;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject},
};
use mesh_index::{
    Key, Kind,
    output::{self, StatusUpdate},
};
use mesh_kube::{
    apply::{self, Manager},
    condition::{self, Condition},
    error::{Explained, Fault},
};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, watch},
    time,
};

use crate::{metrics::Metrics, world::World};

/// Writes what arrives while this replica leads.
pub(crate) struct Writer {
    pub(crate) client: Client,
    pub(crate) world: World,
    pub(crate) updates: mpsc::UnboundedReceiver<Vec<StatusUpdate>>,
    pub(crate) leads: watch::Receiver<bool>,
    pub(crate) metrics: Metrics,
}

/// What is to be written, the latest for each object and reporter. Bounded by the number of objects.
type Pending = HashMap<Id, StatusUpdate>;

/// Who says something about which object.
type Id = (Kind, Key, &'static str);

/// Why a status is not written.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The object cannot be read.
    #[error("reading the object")]
    Read(#[source] kube::Error),
    /// The status cannot be written.
    #[error("writing the status")]
    Write(#[source] apply::Error),
    /// The kind has no status of ours: a defect.
    #[error("objects of this kind have no conditions of ours")]
    Kind,
}

/// Writes at a time. The API server has other clients too.
const CONCURRENCY: usize = 8;

/// How long to wait before what failed is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Most characters of a condition's message.
const MAX_MESSAGE: usize = 8 * 1024;

// === impl Writer ===

impl Writer {
    /// Runs until the index's end of the channel is gone.
    pub(crate) async fn run(mut self) {
        let mut pending = Pending::new();
        loop {
            if !self.wait(&mut pending).await {
                return;
            }
            if *self.leads.borrow() {
                self.write(&mut pending).await;
            }
        }
    }

    /// Waits for something to write. Says whether there will ever be something.
    async fn wait(&mut self, pending: &mut Pending) -> bool {
        let retry = async {
            if pending.is_empty() {
                std::future::pending::<()>().await;
            } else {
                time::sleep(RETRY).await;
            }
        };
        tokio::select! {
            changed = self.leads.changed() => {
                // Whoever led before knows better what is written: start afresh.
                pending.clear();
                if changed.is_ok() && *self.leads.borrow_and_update() {
                    self.world.resend_statuses();
                }
                changed.is_ok()
            }
            updates = self.updates.recv() => {
                let alive = updates.is_some();
                if *self.leads.borrow() {
                    remember(pending, updates.into_iter().flatten());
                }
                alive
            }
            () = retry => true,
        }
    }

    /// Writes all that is pending; what fails for a reason that may pass stays.
    async fn write(&mut self, pending: &mut Pending) {
        while let Ok(updates) = self.updates.try_recv() {
            remember(pending, updates);
        }
        let attempts = std::mem::take(pending).into_iter();
        let attempts = attempts.map(|(id, update)| self.attempt(id, update));
        let attempts: Vec<_> = attempts.collect();
        let mut attempts = stream::iter(attempts).buffer_unordered(CONCURRENCY);
        while let Some(failed) = attempts.next().await {
            pending.extend(failed);
        }
    }

    /// Writes one status while we lead, and gives it back if it is worth another attempt.
    fn attempt(
        &self,
        id: Id,
        update: StatusUpdate,
    ) -> BoxFuture<'static, Option<(Id, StatusUpdate)>> {
        let (client, metrics, leads) = (
            self.client.clone(),
            self.metrics.clone(),
            self.leads.clone(),
        );
        Box::pin(async move {
            if !*leads.borrow() {
                return None;
            }
            let outcome = write(&client, &update).await;
            report(&update, &outcome, &metrics).then_some((id, update))
        })
    }
}

fn remember(pending: &mut Pending, updates: impl IntoIterator<Item = StatusUpdate>) {
    for update in updates {
        let id = (update.kind, update.key.clone(), update.reporter);
        pending.insert(id, update);
    }
}

/// Counts and logs the outcome; says whether to try again.
fn report(update: &StatusUpdate, outcome: &Result<bool, Error>, metrics: &Metrics) -> bool {
    let error = match outcome {
        Ok(written) => {
            metrics.status(if *written { "written" } else { "unchanged" });
            return false;
        }
        Err(error) => error,
    };
    let fault = match error {
        Error::Read(error) => Fault::of(error),
        Error::Write(error) => error.fault(),
        Error::Kind => Fault::Protocol,
    };
    if fault == Fault::Missing {
        // It went away meanwhile, and its status with it.
        metrics.status("gone");
        return false;
    }
    metrics.status("failed");
    tracing::warn!(
        kind = %update.kind,
        object = %update.key,
        error = %Explained(error),
        "cannot write a status"
    );
    fault.is_retryable() || fault == Fault::Denied
}

/// Makes the object's status hold what this reporter has to say. Says whether anything was written.
async fn write(client: &Client, update: &StatusUpdate) -> Result<bool, Error> {
    let resource = resource(update.kind).ok_or(Error::Kind)?;
    let namespace = &update.key.namespace;
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource);
    let live = api.get(&update.key.name).await.map_err(Error::Read)?;
    let wanted = wanted(update, &resource, &live);
    let manager = Manager::reporter(update.reporter);
    let applied = apply::apply_over(&api, &wanted, &manager, live).await;
    Ok(applied.map_err(Error::Write)?.changed)
}

fn wanted(update: &StatusUpdate, resource: &ApiResource, live: &DynamicObject) -> Value {
    let known = live.data.pointer("/status/conditions").cloned();
    let known: Vec<Condition> = known
        .and_then(|known| serde_json::from_value(known).ok())
        .unwrap_or_default();
    let desired = update.conditions.iter();
    let desired = desired.map(|c| to_condition(c, update)).collect();
    let conditions = condition::merge(&known, desired, Timestamp::now());
    let mut status = serde_json::Map::new();
    if !conditions.is_empty() {
        status.insert("conditions".to_owned(), json!(conditions));
    }
    if !update.addresses.is_empty() {
        status.insert("addresses".to_owned(), json!(update.addresses));
    }
    json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": { "name": &*update.key.name, "namespace": &*update.key.namespace },
        "status": status,
    })
}

fn to_condition(condition: &output::Condition, update: &StatusUpdate) -> Condition {
    Condition {
        type_: condition.kind.to_owned(),
        status: if condition.status { "True" } else { "False" }.to_owned(),
        reason: condition.reason.to_owned(),
        message: condition.message.chars().take(MAX_MESSAGE).collect(),
        observed_generation: (update.generation > 0).then_some(update.generation),
        ..Condition::default()
    }
}

fn resource(kind: Kind) -> Option<ApiResource> {
    use mesh_api::{networking, security};
    Some(match kind {
        Kind::Service => ApiResource::erase::<k8s_openapi::api::core::v1::Service>(&()),
        Kind::ServiceEntry => ApiResource::erase::<networking::ServiceEntry>(&()),
        Kind::WorkloadEntry => ApiResource::erase::<networking::WorkloadEntry>(&()),
        Kind::AuthorizationPolicy => ApiResource::erase::<security::AuthorizationPolicy>(&()),
        Kind::PeerAuthentication => ApiResource::erase::<security::PeerAuthentication>(&()),
        _ => return None,
    })
}

/// Tells the metrics who leads, for ever.
pub(crate) async fn observe(
    mut leads: watch::Receiver<bool>,
    lock: &'static str,
    metrics: Metrics,
) {
    loop {
        let now = *leads.borrow_and_update();
        metrics.leads(lock, now);
        tracing::info!(lock, leader = now, "leadership");
        if leads.changed().await.is_err() {
            return;
        }
    }
}

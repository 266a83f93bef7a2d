//! Writes conditions and allocated addresses into the status of objects, as the leader only.
//!
//! The index says what should be there; what is there already is not written again. While this replica
//! does not lead, nothing is kept: a new leader asks the index to say everything once more.

use std::time::Duration;

use futures::{StreamExt as _, future::OptionFuture, stream::FuturesUnordered};
use jiff::Timestamp;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject},
};
use mesh_index::{
    Kind,
    output::{self, StatusUpdate},
};
use mesh_kube::{
    apply::{self, Manager},
    condition::{self, Condition},
    error::{Explained, Fault},
};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{sleep_until, timeout},
};

use crate::{metrics::Metrics, world::World};

mod outbox;

use outbox::Id;
pub(crate) use outbox::Outbox;

/// Writes what arrives while this replica leads.
pub(crate) struct Writer {
    pub(crate) client: Client,
    pub(crate) world: World,
    pub(crate) outbox: Outbox,
    pub(crate) metrics: Metrics,
}

/// Why a status is not written.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The object cannot be read.
    #[error("reading the object")]
    Read(#[source] kube::Error),
    /// The status cannot be written.
    #[error("writing the status")]
    Write(#[source] apply::Error),
    /// The API server hangs. Whether it has written is found out by the next attempt.
    #[error("waiting for the API server, which does not answer within {0:?}")]
    Silent(Duration),
    /// The kind has no status of ours: a defect.
    #[error("objects of this kind have no conditions of ours")]
    Kind,
}

/// Writes at a time. The API server has other clients too.
const CONCURRENCY: usize = 8;

/// How long one status may take. One that hangs holds up the others.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Most characters of a condition's message.
const MAX_MESSAGE: usize = 8 * 1024;

// === impl Writer ===

impl Writer {
    /// Runs for as long as somebody says who leads.
    pub(crate) async fn run(self, mut leads: watch::Receiver<bool>) {
        while leads.wait_for(|leads| *leads).await.is_ok() {
            let mut lost = leads.clone();
            // Whoever led before knows better what is written: start afresh.
            self.outbox.open();
            self.world.resend_statuses();
            tokio::select! {
                _ = lost.wait_for(|leads| !leads) => {}
                () = self.lead() => {}
            }
            self.outbox.close();
        }
    }

    /// Writes whatever is put into the outbox, for ever.
    async fn lead(&self) {
        let mut writes = FuturesUnordered::new();
        loop {
            while writes.len() < CONCURRENCY
                && let Some((id, update)) = self.outbox.take()
            {
                writes.push(self.attempt(id, update));
            }
            // Not while there is no room: what is due would be due at once, and again.
            let room = writes.len() < CONCURRENCY;
            let retry = room.then(|| self.outbox.retry()).flatten();
            let retry = OptionFuture::from(retry.map(sleep_until));
            tokio::select! {
                Some((id, failed)) = writes.next() => self.outbox.done(id, failed),
                () = self.outbox.news() => {}
                Some(()) = retry => {}
            }
        }
    }

    /// Writes one status, and gives it back if it is worth another attempt.
    async fn attempt(&self, id: Id, update: StatusUpdate) -> (Id, Option<StatusUpdate>) {
        let outcome = timeout(TIMEOUT, write(&self.client, &update)).await;
        let outcome = outcome.unwrap_or(Err(Error::Silent(TIMEOUT)));
        let again = report(&update, &outcome, &self.metrics);
        (id, again.then_some(update))
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
        Error::Silent(_) => Fault::Unavailable,
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

#[cfg(test)]
mod tests;

//! Keeps what is known of the cluster up to date.

use std::{convert::Infallible, sync::Arc, time::Duration};

use kube::{Api, Client, Resource};
use mesh_api::openshift::{APIServer, CLUSTER, Network};
use mesh_kube::{
    Backoff,
    error::Explained,
    watch::{self, Event, Index, Metrics, Options, State},
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::{Notify, watch as channel},
    time::sleep,
};
use tracing::{info, warn};

use super::{Detected, read::Reader};

/// How long until everything is read again. Versions, nodes and other meshes change rarely and are read in
/// a few requests.
const AGAIN: Duration = Duration::from_secs(600);

/// Detects now, when the cluster's network or TLS settings change, and every ten minutes. `None` until the
/// API server has answered for the first time; what was known stays while it does not answer.
///
/// The program spawns this, and drops it to end it. No change makes the program start anew.
pub async fn run(
    reader: Reader,
    metrics: Metrics,
    detected: channel::Sender<Option<Arc<Detected>>>,
) -> Infallible {
    let changed = Arc::new(Notify::new());
    let network = follow::<Network>(reader.client(), metrics.clone(), changed.clone());
    let tls = follow::<APIServer>(reader.client(), metrics, changed.clone());
    tokio::select! {
        never = network => never,
        never = tls => never,
        never = detect(&reader, &changed, &detected) => never,
    }
}

async fn detect(
    reader: &Reader,
    changed: &Notify,
    detected: &channel::Sender<Option<Arc<Detected>>>,
) -> Infallible {
    let mut backoff = Backoff::default();
    loop {
        let wait = match reader.read().await {
            Ok(facts) => {
                backoff.succeeded();
                publish(Detected::from_facts(&facts), detected);
                AGAIN
            }
            Err(error) => {
                warn!(error = %Explained(&error), "cannot tell what kind of cluster this is");
                backoff.failed()
            }
        };
        tokio::select! {
            () = sleep(wait) => {}
            () = changed.notified() => {}
        }
    }
}

/// Tells, and logs, what is new.
fn publish(found: Detected, detected: &channel::Sender<Option<Arc<Detected>>>) {
    detected.send_if_modified(|known| {
        if known.as_deref() == Some(&found) {
            return false;
        }
        info!(platform = %found, "detected the cluster");
        for finding in &found.findings {
            let before = known.iter().flat_map(|known| &known.findings);
            if !before.into_iter().any(|known| known == finding) {
                warn!(reason = finding.reason.as_str(), "{finding}");
            }
        }
        *known = Some(Arc::new(found));
        true
    });
}

/// Tells when the one object of the kind changes.
async fn follow<K>(client: Client, metrics: Metrics, changed: Arc<Notify>) -> Infallible
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug + Send + 'static,
{
    let options = Options {
        fields: Some(format!("metadata.name={CLUSTER}")),
        // Nobody turns a Kubernetes into an OpenShift.
        absent: AGAIN,
        ..Options::default()
    };
    let (state, _) = channel::channel(State::default());
    watch::run(
        Api::<K>::all(client),
        options,
        metrics,
        state,
        Changes(changed),
    )
    .await
}

/// Passes on that something has changed, whatever it is.
struct Changes(Arc<Notify>);

impl<K> Index<K> for Changes {
    fn update(&mut self, _: Vec<Event<K>>) {
        self.0.notify_one();
    }
}

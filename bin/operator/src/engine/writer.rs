//! Requests to the API server, none of which is made or waited for unless this replica leads.

use std::{fmt::Debug, future::Future, time::Duration};

use jiff::Timestamp;
use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, Preconditions, PropagationPolicy},
};
use mesh_kube::{
    apply::{self, Manager},
    error::{Explained, Fault},
    finalizer,
    owned::{Owner, Step},
};
use serde_json::{Value, json};
use tokio::{sync::watch as news, time::timeout};

use super::{
    failure::Failure,
    plan::{Doomed, Wanted},
};
use crate::{
    key::ObjectRef,
    metrics::{Metrics, Verb},
    names::{MANAGED_BY, MANAGED_BY_SAIL, MANAGER, SAIL},
    store::Store,
    watches::resource,
    world::{Custom, Live},
};

/// Writes.
pub(crate) struct Writer {
    pub(crate) client: Client,
    pub(crate) leads: news::Receiver<bool>,
    pub(crate) metrics: Metrics,
}

/// Longest time for one request.
const ANSWER: Duration = Duration::from_secs(30);

// === impl Writer ===

impl Writer {
    /// Has an object that is wanted exist, unless it is somebody else's. Says whether that took a write.
    pub(super) async fn make(&self, wanted: &Wanted, store: &Store) -> Result<bool, Failure> {
        let step = if wanted.known {
            wanted.step.clone()
        } else {
            self.found(wanted).await?
        };
        match step {
            Step::Keep | Step::Ignore | Step::Wait => Ok(false),
            Step::Foreign(owner) if will_be_collected(wanted, &owner) => Ok(false),
            Step::Foreign(owner) => Err(Failure::Taken {
                object: wanted.object.clone(),
                owner: format!("{} {}", owner.kind, owner.name),
            }),
            Step::Apply => {
                let body = self.apply(&wanted.object, &wanted.body).await?;
                store.learn(wanted.object.clone(), Live { body }, Timestamp::now());
                Ok(true)
            }
        }
    }

    /// What is to be done about an object that no watch tells of.
    async fn found(&self, wanted: &Wanted) -> Result<Step, Failure> {
        let api = self.api(&wanted.object);
        let live = self
            .send("reading", &wanted.object, api.get_opt(&wanted.object.name))
            .await?;
        let Some(live) = live else {
            return Ok(Step::Apply);
        };
        let live = serde_json::to_value(live).unwrap_or_default();
        let step = Wanted::step(&wanted.body, Some(&live));
        if matches!(step, Step::Foreign(_)) || Owner::of(&live).is_some() || is_ours(&live) {
            return Ok(step);
        }
        Err(Failure::Taken {
            object: wanted.object.clone(),
            owner: keeper(&live),
        })
    }

    async fn apply(&self, object: &ObjectRef, body: &Value) -> Result<Value, Failure> {
        let (api, manager) = (self.api(object), Manager::owner(MANAGER));
        let sent = apply::send(&api, body, &manager);
        let sent = self.led(sent).await?;
        self.metrics
            .wrote(Verb::Apply, object.kind.kind, sent.is_ok());
        let live = sent.map_err(|error| Failure::Request {
            doing: "applying",
            object: object.to_string(),
            fault: error.fault(),
            said: cause(&error),
        })?;
        tracing::info!(%object, "applied");
        Ok(serde_json::to_value(live).unwrap_or_default())
    }

    /// Deletes an object; one that is gone already is as good. Workloads go with their pods first.
    pub(super) async fn delete(&self, doomed: &Doomed) -> Result<(), Failure> {
        let object = &doomed.object;
        let api = self.api(object);
        let policy = if object.is_workload() {
            PropagationPolicy::Foreground
        } else {
            PropagationPolicy::Background
        };
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(doomed.uid.clone()),
                resource_version: None,
            }),
            propagation_policy: Some(policy),
            ..DeleteParams::default()
        };
        let sent = self
            .send("deleting", object, api.delete(&object.name, &params))
            .await;
        // A conflict may be a later object of the same name, of which the watch tells until the next attempt.
        let gone = matches!(
            &sent,
            Err(Failure::Request {
                fault: Fault::Missing,
                ..
            })
        );
        self.metrics
            .wrote(Verb::Delete, object.kind.kind, sent.is_ok() || gone);
        match sent {
            Ok(_) => {
                tracing::info!(%object, "deleted");
                Ok(())
            }
            Err(_) if gone => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Puts our finalizer on a resource. Returns it as it then is.
    pub(super) async fn mark<K: Custom>(&self, of: &K, mark: &str) -> Result<K, Failure> {
        let api = Api::<K>::all(self.client.clone());
        let marked = finalizer::ensure(&api, of.clone(), mark);
        let marked = self.send("marking", &name_of(of), marked).await;
        let kind = K::MANAGED.kind().kind;
        self.metrics.wrote(Verb::Patch, kind, marked.is_ok());
        marked
    }

    /// Takes our finalizer off a resource.
    pub(super) async fn unmark<K: Custom>(&self, of: &K, mark: &str) -> Result<(), Failure> {
        let api = Api::<K>::all(self.client.clone());
        let unmarked = finalizer::remove(&api, of, mark);
        let unmarked = self.send("releasing", &name_of(of), unmarked).await;
        let kind = K::MANAGED.kind().kind;
        self.metrics.wrote(Verb::Patch, kind, unmarked.is_ok());
        unmarked
    }

    /// Has the resource show this status. Says whether that took a write.
    pub(super) async fn report<K: Custom>(
        &self,
        of: &K,
        status: &K::Status,
    ) -> Result<bool, Failure> {
        let kind = K::MANAGED.kind();
        let wanted = json!({
            "apiVersion": kind.api_version(),
            "kind": kind.kind,
            "metadata": {"name": of.meta().name, "uid": of.meta().uid},
            "status": status,
        });
        let manager = Manager::reporter(MANAGER);
        let live = serde_json::to_value(of).unwrap_or_default();
        if apply::holds(&wanted, &live, &manager) {
            return Ok(false);
        }
        let api = Api::<K>::all(self.client.clone());
        let sent = self.led(apply::send(&api, &wanted, &manager)).await?;
        self.metrics.wrote(Verb::Status, kind.kind, sent.is_ok());
        match sent {
            Ok(_) => Ok(true),
            // It is gone, and its status with it.
            Err(error) if error.fault() == Fault::Missing => Ok(false),
            Err(error) => Err(Failure::Request {
                doing: "writing the status of",
                object: name_of(of).to_string(),
                fault: error.fault(),
                said: cause(&error),
            }),
        }
    }

    fn api(&self, object: &ObjectRef) -> Api<DynamicObject> {
        let (client, names) = (self.client.clone(), resource(object.kind));
        match &object.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &names),
            None => Api::all_with(client, &names),
        }
    }

    async fn send<T>(
        &self,
        doing: &'static str,
        object: &ObjectRef,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Failure> {
        let failed = |fault, said| Failure::Request {
            doing,
            object: object.to_string(),
            fault,
            said,
        };
        match self.led(timeout(ANSWER, request)).await? {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(failed(Fault::of(&error), said(&error))),
            Err(_elapsed) => {
                let said = format!("no answer of the API server within {ANSWER:?}");
                Err(failed(Fault::Unavailable, said))
            }
        }
    }

    /// Waits for an answer for as long as this replica leads.
    async fn led<T>(&self, request: impl Future<Output = T>) -> Result<T, Failure> {
        let mut leads = self.leads.clone();
        tokio::select! {
            biased;
            _ = leads.wait_for(|leads| !leads) => Err(Failure::NotLeading),
            answer = request => Ok(answer),
        }
    }
}

/// What is behind an error that says again what was applied.
fn cause(error: &apply::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), said)
}

fn said(error: &(dyn std::error::Error + 'static)) -> String {
    Explained(error).to_string()
}

fn name_of<K: Custom>(resource: &K) -> ObjectRef {
    let name = resource.meta().name.clone().unwrap_or_default();
    ObjectRef::global(K::MANAGED.kind(), name)
}

/// Whether the owner is an earlier one of the same name, with which the object goes.
fn will_be_collected(wanted: &Wanted, owner: &Owner) -> bool {
    let Some(ours) = Owner::of(&wanted.body) else {
        return false;
    };
    ours.kind == owner.kind && ours.name == owner.name && ours.api_version == owner.api_version
}

/// Whether we or Sail have made the object.
fn is_ours(live: &Value) -> bool {
    let labels = live.pointer("/metadata/labels");
    let is = |name: &str, value: &str| {
        labels
            .and_then(|labels| labels.get(name))
            .is_some_and(|found| found == value)
    };
    is(MANAGED_BY, MANAGER) || is(MANAGED_BY_SAIL, SAIL)
}

/// Whose an object is that has no controller.
fn keeper(live: &Value) -> String {
    let annotations = live.pointer("/metadata/annotations");
    let release = annotations.and_then(|a| a.get("meta.helm.sh/release-name")?.as_str());
    match release {
        Some(release) => format!("the Helm release {release}"),
        None => "somebody who has not named a controlling owner".to_owned(),
    }
}

// === impl ObjectRef ===

impl ObjectRef {
    /// Whether pods come of it.
    pub(crate) fn is_workload(&self) -> bool {
        self.kind.group == "apps"
    }
}

impl Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use kube::client::Body;
    use mesh_render::object::CONFIG_MAP;
    use prometheus_client::registry::Registry;
    use tokio::sync::mpsc;

    use super::*;
    use crate::store::Store;

    /// A writer for a server that never answers, and the requests that reach it.
    fn mk_writer(leads: news::Receiver<bool>) -> (Writer, mpsc::UnboundedReceiver<String>) {
        let (sent, requests) = mpsc::unbounded_channel();
        let service = tower::service_fn(move |request: Request<Body>| {
            let known = sent.send(request.uri().path().to_owned());
            async move {
                known?;
                std::future::pending::<()>().await;
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(Response::new(Body::empty()))
            }
        });
        let store = Store::new(mesh_kube::queue::Pace::default());
        let writer = Writer {
            client: Client::new(service, "default"),
            leads,
            metrics: Metrics::register(&mut Registry::default(), &store),
        };
        (writer, requests)
    }

    #[tokio::test]
    async fn a_leader_that_is_deposed_in_the_middle_of_a_request_asks_for_nothing_more() {
        let (leads, receiver) = news::channel(true);
        let (writer, mut requests) = mk_writer(receiver);
        let doomed = Doomed {
            object: ObjectRef::namespaced(CONFIG_MAP, "shop", "x"),
            uid: "u".to_owned(),
        };
        let deposed = async {
            assert!(requests.recv().await.is_some());
            leads.send_replace(false);
        };
        let (ended, ()) = tokio::join!(writer.delete(&doomed), deposed);
        assert_eq!(ended, Err(Failure::NotLeading));
        assert_eq!(writer.delete(&doomed).await, Err(Failure::NotLeading));
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}});
        let applied = writer.apply(&doomed.object, &body).await;
        assert_eq!(applied, Err(Failure::NotLeading));
        assert!(requests.try_recv().is_err());
    }
}

//! The plugin's calls: what a runtime does waits for what the agent does, and no longer than it may.

use std::{future::Future, net::IpAddr, time::Duration};

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use mesh_cni::{
    enrolment::Belongs,
    protocol::{Added, Attachment, IstioAdd, Refusal, Valid},
};
use mesh_kube::{
    error::{Explained, Fault},
    watch::ObjectKey,
};
use mesh_net::netns::NetNsId;
use mesh_redirect::Verdict;
use mesh_runtime::error::chain;
use tokio::{
    task::spawn_blocking,
    time::{Instant, timeout, timeout_at},
};

use super::{
    driver::Shared,
    handle::Handle,
    machine::Desired,
    netns::{self, Located, sandbox::Sandbox},
    pods::{self, PodObject, Reason},
    proxies::Proxies,
    registry::{Found, Progress},
};
use crate::parts::{Attach, PodUid, Probes, Rules};

/// What is known of a pod that the plugin asks for.
enum Asked {
    /// It belongs in the mesh.
    InMesh(PodUid),
    /// It does not.
    Outside(PodUid, Reason),
    /// The API server does not answer; by what is known of its namespace it does not.
    Passes,
}

/// Longest time for a question to the API server.
const ANSWER: Duration = Duration::from_secs(5);

/// Longest time that a pod's end waits until its addresses are given up.
const FAREWELL: Duration = Duration::from_secs(2);

/// Sandboxes that Istio's plugin told of, which does not name them: their namespace does.
const ISTIO_SANDBOX: &str = "istio.";

/// The interface that Istio's plugin is about.
const ISTIO_INTERFACE: &str = "eth0";

impl<K: Rules + Probes, Z: Proxies> Attach for Handle<K, Z> {
    async fn add(&self, pod: Attachment) -> Result<Added, Refusal> {
        self.add_within(pod, self.shared.patience.add).await
    }

    async fn istio_add(&self, pod: IstioAdd) -> Result<(), Refusal> {
        let patience = self.shared.patience.istio_add;
        let sandbox = pod.netns.replace('/', "-");
        let name = format!("{}/{}", pod.pod_namespace, pod.pod_name);
        let attachment = Attachment {
            network: String::new(),
            container_id: format!("{ISTIO_SANDBOX}{sandbox}"),
            interface: ISTIO_INTERFACE.to_owned(),
            netns: pod.netns,
            pod_name: pod.pod_name,
            pod_namespace: pod.pod_namespace,
            pod_uid: String::new(),
            addresses: pod.ips.iter().map(|ip| ip.address.ip).collect(),
        };
        if self.add_within(attachment, patience).await?.enrolled {
            return Ok(());
        }
        Err(never(format!("pod {name} does not belong in the mesh")))
    }

    async fn check(&self, pod: Attachment) -> Result<(), Refusal> {
        let (key, name) = (key_of(&pod), name_of(&pod));
        match self.shared.ask(&key, &pod.pod_uid).await? {
            Asked::InMesh(uid) => self.shared.check(&uid, &name).await,
            Asked::Outside(..) | Asked::Passes => Ok(()),
        }
    }

    async fn delete(&self, pod: Attachment) -> Result<(), Refusal> {
        let concerned = self.shared.leave(&pod);
        for uid in concerned {
            self.shared.farewell(&uid).await;
        }
        Ok(())
    }

    async fn collect(&self, valid: Valid) -> Result<(), Refusal> {
        let unaccounted = self.shared.registry.lock().unaccounted(&valid);
        for sandbox in unaccounted {
            // A namespace that is there is still somebody's, whatever a runtime forgot to name.
            if self.shared.host.identify(&sandbox.netns) != Some(sandbox.netns_id()) {
                self.shared.vanished(&sandbox.key());
            }
        }
        Ok(())
    }

    fn status(&self) -> Result<(), Refusal> {
        match self.shared.trouble() {
            None => Ok(()),
            Some(trouble) => {
                let node = &self.shared.node;
                Err(again(format!(
                    "node {node} cannot take pods into the mesh: {trouble}"
                )))
            }
        }
    }
}

impl<K: Rules + Probes, Z: Proxies> Handle<K, Z> {
    async fn add_within(&self, pod: Attachment, patience: Duration) -> Result<Added, Refusal> {
        let deadline = Instant::now() + patience;
        let (key, name) = (key_of(&pod), name_of(&pod));
        let located = self.shared.learn(&pod).await;
        let netns = located.as_ref().ok().map(|located| located.netns.id());
        let another = {
            let registry = self.shared.registry.lock();
            registry.may_be_another(&key, &pod.pod_uid, netns)
        };
        let asked = if another {
            self.shared.ask_server(&key, &pod.pod_uid).await?
        } else {
            self.shared.ask(&key, &pod.pod_uid).await?
        };
        let asked = match asked {
            Asked::Outside(uid, Reason::NotSelected) => self.shared.stays_outside(&key, uid).await,
            asked => asked,
        };
        let uid = match asked {
            Asked::InMesh(uid) => uid,
            Asked::Outside(_, Reason::Ended | Reason::Gone) => {
                return Err(again(format!("pod {name} has ended")));
            }
            Asked::Outside(uid, _) => {
                self.shared.assign(&pod, &uid, located.as_ref().ok());
                return Ok(Added { enrolled: false });
            }
            Asked::Passes => return Ok(Added { enrolled: false }),
        };
        self.shared.assign(&pod, &uid, located.as_ref().ok());
        let located = located.map_err(|error| {
            let error = chain(&error);
            again(format!(
                "pod {name} cannot be brought into the mesh: {error}"
            ))
        })?;
        let netns = located.netns.id();
        self.shared.registry.lock().settle_in(&uid, located);
        self.shared.wake([uid.clone()]);
        let limit = (deadline, patience);
        self.shared.enrolled(&uid, &name, netns, limit).await
    }
}

impl<K: Rules + Probes, Z: Proxies> Shared<K, Z> {
    /// Takes note of what the runtime says of a pod, whether it belongs in the mesh or not: it may one day.
    async fn learn(&self, pod: &Attachment) -> Result<Located, Unlearned> {
        let (host, path) = (self.host.clone(), pod.netns.clone());
        let opened = spawn_blocking(move || host.open(&path)).await;
        let located = opened.map_err(|_panicked| Unlearned::Interrupted)??;
        // Without a UID the note could be taken for one of a pod that had the name before.
        if !pod.pod_uid.is_empty() {
            self.note(pod, &pod.pod_uid, &located);
        }
        Ok(located)
    }

    /// The runtime did not say which pod it is about: notes which one it was found to be, so that the note
    /// is not taken for one of the next pod of that name.
    fn assign(&self, pod: &Attachment, uid: &PodUid, located: Option<&Located>) {
        if let Some(located) = located.filter(|_| pod.pod_uid.is_empty()) {
            self.note(pod, uid, located);
        }
    }

    fn note(&self, pod: &Attachment, uid: &str, located: &Located) {
        let id = located.netns.id();
        let sandbox = Sandbox {
            network: pod.network.clone(),
            container_id: pod.container_id.clone(),
            interface: pod.interface.clone(),
            netns: pod.netns.clone(),
            dev: id.dev,
            ino: id.ino,
            pod_uid: uid.to_owned(),
            pod_name: pod.pod_name.clone(),
            pod_namespace: pod.pod_namespace.clone(),
            addresses: pod.addresses.iter().map(IpAddr::to_canonical).collect(),
        };
        if let Err(error) = self.store.save(&sandbox) {
            // The pod can do without; an agent that starts has to search for it.
            tracing::warn!(error = %chain(&error), "cannot note a sandbox");
        }
        let concerned = self.registry.lock().attached(&sandbox);
        self.wake(concerned);
    }

    /// Whether a pod belongs in the mesh: by what the watches told, otherwise by what the API server
    /// answers now, otherwise by what is known of its namespace. In doubt the pod does not start.
    async fn ask(&self, key: &ObjectKey, runtime_uid: &str) -> Result<Asked, Refusal> {
        let found = self.registry.lock().find(key, runtime_uid);
        match decided(found) {
            Some(asked) => Ok(asked),
            None => self.ask_server(key, runtime_uid).await,
        }
    }

    /// The same, where what the watches told is not enough.
    async fn ask_server(&self, key: &ObjectKey, runtime_uid: &str) -> Result<Asked, Refusal> {
        let answered = self.inquire(key).await;
        let found = self.registry.lock().find(key, runtime_uid);
        // Without an answer only the UID tells that it is not one before it.
        if let Some(asked) = decided(found).filter(|_| answered.is_ok() || !runtime_uid.is_empty())
        {
            return Ok(asked);
        }
        match answered {
            Ok(()) => Err(again(format!(
                "pod {key} is not the one with UID {runtime_uid} any more, or its namespace is gone"
            ))),
            Err(unanswered) => self.without_answer(key, &unanswered),
        }
    }

    fn without_answer(&self, key: &ObjectKey, unanswered: &Unanswered) -> Result<Asked, Refusal> {
        if matches!(unanswered, Unanswered::Missing) {
            return Err(again(format!("pod {key} does not exist in the API server")));
        }
        match self.registry.lock().index().judge_stranger(&key.namespace) {
            Belongs::No => Ok(Asked::Passes),
            Belongs::Yes | Belongs::Perhaps => Err(again(format!(
                "whether pod {key} belongs in the mesh is not known, and the API server does not say: \
                 {unanswered}"
            ))),
        }
    }

    /// Asks about the namespace of a pod that is to start outside of the mesh: it may have been given a label of
    /// which the watch has not told, as it does not for a while after the API server was away. Where there is no
    /// answer, what the watches told holds.
    async fn stays_outside(&self, key: &ObjectKey, uid: PodUid) -> Asked {
        let hinges = {
            let registry = self.registry.lock();
            let index = registry.index();
            index
                .pod(&uid)
                .is_some_and(|pod| index.hinges_on_namespace(pod))
        };
        if hinges && let Err(unanswered) = self.inquire_namespace(&key.namespace).await {
            tracing::debug!(pod = %key, %unanswered, "outside of the mesh by what the watches told");
        }
        let found = self.registry.lock().find(key, &uid);
        decided(found).unwrap_or(Asked::Outside(uid, Reason::NotSelected))
    }

    async fn inquire_namespace(&self, name: &str) -> Result<(), Unanswered> {
        let api = Api::<Namespace>::all(self.client.clone());
        let metadata = answer(api.get_metadata(name)).await?.metadata;
        let version = pods::version(metadata.resource_version.as_deref());
        let told = pods::Namespace::asked(metadata.labels.unwrap_or_default(), version);
        let (concerned, news) = {
            let mut registry = self.registry.lock();
            let before = registry.index().generation();
            let concerned = registry.apply_namespace(name.to_owned(), told);
            (concerned, registry.index().generation() != before)
        };
        if news {
            self.namespaces_changed();
        }
        self.wake(concerned);
        Ok(())
    }

    /// Asks the API server for a pod, and for its namespace if that is not known.
    async fn inquire(&self, key: &ObjectKey) -> Result<(), Unanswered> {
        if !self.registry.lock().index().knows_namespace(&key.namespace) {
            self.inquire_namespace(&key.namespace).await?;
        }
        let api = Api::<PodObject>::namespaced(self.client.clone(), &key.namespace);
        let object = answer(api.get(&key.name)).await?;
        if let Some(pod) = object.into_pod() {
            let concerned = self.registry.lock().answer_pod(pod, Instant::now());
            self.wake(concerned);
        }
        Ok(())
    }

    /// Asks again for the pods that were asked for long ago and that the watch still does not show. While there
    /// is no answer they stay: an API server that is away takes no pod out of the mesh.
    pub(super) async fn confirm_asked(&self) {
        let (now, long) = (Instant::now(), self.patience.confirm);
        let overdue = self.registry.lock().unconfirmed(now, long);
        for (uid, key) in overdue {
            match self.inquire(&key).await {
                Ok(()) => self.registry.lock().postpone(&uid, Instant::now()),
                Err(Unanswered::Missing) => {
                    let gone = self.registry.lock().forget(&uid);
                    self.wake(gone);
                }
                Err(Unanswered::Failed(_) | Unanswered::Silent) => break,
            }
        }
    }

    /// Waits until a pod is in the mesh.
    async fn enrolled(
        &self,
        uid: &PodUid,
        name: &str,
        netns: NetNsId,
        (deadline, waited): (Instant, Duration),
    ) -> Result<Added, Refusal> {
        let followed = self.registry.lock().follow(uid);
        let gone = || again(format!("pod {name} was deleted meanwhile"));
        let mut news = followed.ok_or_else(gone)?;
        loop {
            let progress = self.registry.lock().progress(uid, netns);
            let failure = match progress {
                Progress::Enrolled => return Ok(Added { enrolled: true }),
                Progress::Left => return self.left(uid, gone()),
                Progress::Entering(failure) => failure,
            };
            match timeout_at(deadline, news.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_ended)) => return self.left(uid, gone()),
                Err(_elapsed) => {
                    let why = failure.map_or_else(
                        || "the agent has not looked at all pods of the node yet".to_owned(),
                        |(step, cause)| {
                            let (attempt, remedy) = (step.attempt(), step.remedy());
                            format!("{attempt}: {}; {remedy}", cause.message)
                        },
                    );
                    return Err(again(format!(
                        "pod {name} is not in the mesh after {waited:?}: {why}"
                    )));
                }
            }
        }
    }

    /// A pod that belonged in the mesh when it was asked for does not any more.
    fn left(&self, uid: &PodUid, gone: Refusal) -> Result<Added, Refusal> {
        let registry = self.registry.lock();
        match registry.entry(uid).and_then(|entry| entry.reason) {
            None | Some(Reason::Gone | Reason::Ended) => Err(gone),
            Some(_) => Ok(Added { enrolled: false }),
        }
    }

    /// Whether the kernel holds what a pod in the mesh should have.
    async fn check(&self, uid: &PodUid, name: &str) -> Result<(), Refusal> {
        let state = {
            let registry = self.registry.lock();
            let entry = registry.entry(uid);
            entry.and_then(|entry| match entry.machine.desired() {
                Desired::InMesh(enrolment) => Some((entry.located.clone(), enrolment.clone())),
                Desired::Outside(_) => None,
            })
        };
        let not = |why: &str| again(format!("pod {name} is not in the mesh: {why}"));
        let Some((located, enrolment)) = state else {
            return Err(not("the agent has not looked at it yet"));
        };
        let located = located.ok_or_else(|| not("its network namespace is not known"))?;
        let verdict = self.kernel.verify(&located.netns, &enrolment.options).await;
        match verdict.map_err(|error| not(&chain(&error).to_string()))? {
            Verdict::Same => {}
            Verdict::Absent => return Err(not("its network namespace holds no redirection rules")),
            Verdict::Differs(differences) => {
                let first = differences.first().map(ToString::to_string);
                return Err(not(&format!(
                    "its rules were changed: {}",
                    first.unwrap_or_default()
                )));
            }
        }
        let set = self.kernel.list().await;
        let set = set.map_err(|error| not(&chain(&error).to_string()))?;
        let admitted = |address| set.get(address) == Some(uid);
        match enrolment
            .addresses
            .iter()
            .find(|address| !admitted(address))
        {
            Some(address) => Err(not(&format!("probes may not reach {address}"))),
            None => Ok(()),
        }
    }

    /// A pod's interface goes. Says whom that concerns.
    fn leave(&self, pod: &Attachment) -> Vec<PodUid> {
        let mut interfaces = vec![(pod.container_id.clone(), pod.interface.clone())];
        let mut concerned = Vec::new();
        if !pod.netns.is_empty() {
            // Istio's plugin told of it by another name.
            let known = self.registry.lock().interfaces_at(&pod.netns, &key_of(pod));
            let theirs = |(sandbox, _): &(String, String)| sandbox.starts_with(ISTIO_SANDBOX);
            interfaces.extend(known.into_iter().filter(theirs));
        }
        for interface in interfaces {
            concerned.extend(self.forget(&interface));
        }
        concerned
    }

    /// Waits a moment until a pod has given up its addresses: the next pod may get them at once.
    async fn farewell(&self, uid: &PodUid) {
        let Some(mut news) = self.registry.lock().follow(uid) else {
            return;
        };
        let over = || {
            let registry = self.registry.lock();
            registry
                .entry(uid)
                .is_none_or(|entry| entry.machine.next().is_none())
        };
        let given_up = async {
            while !over() {
                if news.changed().await.is_err() {
                    break;
                }
            }
        };
        if timeout(FAREWELL, given_up).await.is_err() {
            tracing::warn!(pod = %uid, "a pod has ended and is still known to ztunnel or the probe set");
        }
    }
}

/// Why nothing could be learned of a pod's namespace.
#[derive(Debug, thiserror::Error)]
enum Unlearned {
    /// See there.
    #[error(transparent)]
    Namespace(#[from] netns::Error),
    /// A defect of ours, which the log shows.
    #[error("opening the network namespace was interrupted")]
    Interrupted,
}

/// Why the API server has not told of a pod.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    /// There is none of this name.
    #[error("it does not exist")]
    Missing,
    /// It cannot be reached, or refuses.
    #[error("{0}")]
    Failed(String),
    /// It does not answer within 5 s.
    #[error("it does not answer within {ANSWER:?}")]
    Silent,
}

async fn answer<T>(asked: impl Future<Output = kube::Result<T>>) -> Result<T, Unanswered> {
    match timeout(ANSWER, asked).await {
        Ok(Ok(object)) => Ok(object),
        Ok(Err(error)) if Fault::of(&error) == Fault::Missing => Err(Unanswered::Missing),
        Ok(Err(error)) => Err(Unanswered::Failed(Explained(&error).to_string())),
        Err(_elapsed) => Err(Unanswered::Silent),
    }
}

fn decided(found: Found) -> Option<Asked> {
    match found {
        Found::InMesh(uid) => Some(Asked::InMesh(uid)),
        Found::Outside(uid, reason) => Some(Asked::Outside(uid, reason)),
        Found::Unknown => None,
    }
}

fn key_of(pod: &Attachment) -> ObjectKey {
    ObjectKey {
        namespace: pod.pod_namespace.clone(),
        name: pod.pod_name.clone(),
    }
}

fn name_of(pod: &Attachment) -> String {
    format!("{}/{}", pod.pod_namespace, pod.pod_name)
}

/// Not now.
fn again(message: String) -> Refusal {
    Refusal {
        message,
        again: true,
    }
}

/// Not at all.
fn never(message: String) -> Refusal {
    Refusal {
        message,
        again: false,
    }
}

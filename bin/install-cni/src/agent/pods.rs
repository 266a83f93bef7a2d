//! The pods of the node and the namespaces of the cluster, and what follows from them: pure.
//!
//! Of a pod is kept what decides whether and how it is in the mesh, of a namespace the labels that a
//! selector looks at. A change wakes the pods that it concerns and no others.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use mesh_cni::enrolment::{Belongs, Candidate, Labels, Policy, Snapshot};
use mesh_core::workload::PodInfo;
use mesh_kube::watch::ObjectKey;
use mesh_redirect::Options;
use serde::Serialize;

use self::annotations::Annotations;
use crate::parts::PodUid;

pub(crate) mod annotations;
mod object;

pub(crate) use self::object::{NamespaceObject, PodObject, version};

/// A pod, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pod {
    /// The API server's name for it, for ever.
    pub(crate) uid: PodUid,
    /// The kubelet's own, of a static pod: the runtime and the control groups have it.
    pub(crate) static_uid: Option<PodUid>,
    /// Who it is.
    pub(crate) info: PodInfo,
    /// Its labels.
    pub(crate) labels: Labels,
    /// What its annotations say.
    pub(crate) annotations: Annotations,
    /// Whether it has the node's network.
    pub(crate) host_network: bool,
    /// Whether its containers have ended for good.
    pub(crate) ended: bool,
    /// Whether it is being deleted.
    pub(crate) deleting: bool,
    /// Its addresses.
    pub(crate) addresses: BTreeSet<IpAddr>,
    /// Which version of the object this is, where that can be compared; 0 if not.
    pub(crate) version: u64,
}

/// What the API server holds.
#[derive(Debug)]
pub(crate) struct Index {
    policy: Policy,
    options: Options,
    system_namespace: String,
    keys: BTreeSet<String>,
    pods: BTreeMap<PodUid, Pod>,
    names: BTreeMap<ObjectKey, PodUid>,
    namespaces: BTreeMap<String, Namespace>,
    /// Changes of namespaces that matter.
    generation: u64,
}

/// What the API server says of a namespace, as far as it matters.
#[derive(Debug)]
pub(crate) struct Namespace {
    labels: Labels,
    /// Which version of the object this is, where that can be compared; 0 if not.
    version: u64,
    /// Whether it was asked for: the watch may tell of an older one still.
    asked: bool,
}

/// Whether a pod belongs in the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It does, with these rules.
    InMesh(Options),
    /// It does not.
    Outside(Reason),
    /// Its namespace is not known yet: nothing is changed.
    Undecided,
}

/// Why a pod is not in the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Reason {
    /// It has the node's network.
    HostNetwork,
    /// It has succeeded or failed.
    Ended,
    /// It is a ztunnel.
    Ztunnel,
    /// Its namespace is excluded.
    ExcludedNamespace,
    /// It has a sidecar.
    Sidecar,
    /// No selector matches.
    NotSelected,
    /// It is not in the API any more.
    Gone,
    /// The mesh leaves the node.
    Withdrawn,
}

/// Pods that something concerns.
pub(crate) type Concerned = BTreeSet<PodUid>;

/// The label by which ztunnel's pods are known, and its value.
const APP: (&str, &str) = ("app", "ztunnel");

/// The label with which a pod or a namespace takes part, and the value that keeps a pod out.
const DATAPLANE_MODE: (&str, &str) = ("istio.io/dataplane-mode", "none");

// === impl Index ===

impl Index {
    /// Nothing is known yet but how to decide.
    pub(crate) fn new(policy: Policy, options: Options, system_namespace: String) -> Self {
        let keys = policy.namespace_keys();
        let keys = keys.into_iter().map(str::to_owned).collect();
        Self {
            policy,
            options,
            system_namespace,
            keys,
            pods: BTreeMap::new(),
            names: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            generation: 0,
        }
    }

    /// The pod exists in this form.
    pub(crate) fn apply_pod(&mut self, pod: Pod) -> Concerned {
        let mut concerned = Concerned::new();
        let before = self.names.insert(pod.key(), pod.uid.clone());
        // Another of the same name: a StatefulSet's, whose predecessor's end we did not hear of.
        if let Some(predecessor) = before.filter(|before| *before != pod.uid) {
            self.pods.remove(&predecessor);
            concerned.insert(predecessor);
        }
        if self.pods.get(&pod.uid) != Some(&pod) {
            concerned.insert(pod.uid.clone());
            self.pods.insert(pod.uid.clone(), pod);
        }
        concerned
    }

    /// No pod of this name exists.
    pub(crate) fn delete_pod(&mut self, key: &ObjectKey) -> Concerned {
        let uid = self.names.remove(key);
        if let Some(uid) = &uid {
            self.pods.remove(uid);
        }
        Concerned::from_iter(uid)
    }

    /// The namespace exists, like this.
    pub(crate) fn apply_namespace(&mut self, name: String, mut told: Namespace) -> Concerned {
        told.labels.retain(|key, _| self.keys.contains(key));
        let held = self.namespaces.get(&name);
        if held.is_some_and(|held| held.knows_better_than(&told)) {
            return Concerned::new();
        }
        let same = held.is_some_and(|held| held.labels == told.labels);
        let concerned = if same {
            Concerned::new()
        } else {
            self.generation += 1;
            self.pods_in(&name)
        };
        self.namespaces.insert(name, told);
        concerned
    }

    /// The namespace is gone. What is left of its pods is not decided any more; they go, too.
    pub(crate) fn delete_namespace(&mut self, name: &str) {
        if self.namespaces.remove(name).is_some() {
            self.generation += 1;
        }
    }

    /// Another number means another [`snapshot`](Self::snapshot).
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    fn pods_in(&self, namespace: &str) -> Concerned {
        let pods = self.pods.values();
        let pods = pods.filter(|pod| &*pod.info.namespace == namespace);
        pods.map(|pod| pod.uid.clone()).collect()
    }

    /// A pod.
    pub(crate) fn pod(&self, uid: &str) -> Option<&Pod> {
        self.pods.get(uid)
    }

    /// The pod of this name, if the runtime's UID for it, when it tells one, is that pod's.
    pub(crate) fn pod_named(&self, key: &ObjectKey, runtime_uid: &str) -> Option<&Pod> {
        let pod = self.pods.get(self.names.get(key)?)?;
        pod.is(runtime_uid).then_some(pod)
    }

    /// All pods.
    pub(crate) fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values()
    }

    /// Whether the namespace is known.
    pub(crate) fn knows_namespace(&self, name: &str) -> bool {
        self.namespaces.contains_key(name)
    }

    /// Whether the pod belongs in the mesh.
    pub(crate) fn judge(&self, pod: &Pod) -> Verdict {
        if let Some(reason) = self.never(pod) {
            return Verdict::Outside(reason);
        }
        match self.policy.belongs(&self.candidate(pod)) {
            Belongs::Yes => Verdict::InMesh(pod.annotations.options(&self.options)),
            Belongs::No => Verdict::Outside(Reason::NotSelected),
            Belongs::Perhaps => Verdict::Undecided,
        }
    }

    /// Whether a pod of which nothing is known but its namespace could belong in the mesh.
    pub(crate) fn judge_stranger(&self, namespace: &str) -> Belongs {
        self.policy.belongs(&Candidate {
            namespace,
            namespace_labels: self.labels_of(namespace),
            labels: None,
            host_network: false,
            sidecar: false,
        })
    }

    /// Whether other labels of its namespace would bring this pod into the mesh, which is not in it.
    pub(crate) fn hinges_on_namespace(&self, pod: &Pod) -> bool {
        let unlabelled = Candidate {
            namespace_labels: None,
            ..self.candidate(pod)
        };
        self.never(pod).is_none() && self.policy.belongs(&unlabelled) == Belongs::Perhaps
    }

    fn labels_of(&self, namespace: &str) -> Option<&Labels> {
        Some(&self.namespaces.get(namespace)?.labels)
    }

    fn candidate<'a>(&'a self, pod: &'a Pod) -> Candidate<'a> {
        let namespace = &*pod.info.namespace;
        Candidate {
            namespace,
            namespace_labels: self.labels_of(namespace),
            labels: Some(&pod.labels),
            host_network: pod.host_network,
            sidecar: pod.annotations.sidecar,
        }
    }

    /// What keeps a pod out, whatever the selectors say.
    fn never(&self, pod: &Pod) -> Option<Reason> {
        let excluded = &self.policy.excluded_namespaces;
        let reasons = [
            (pod.host_network, Reason::HostNetwork),
            (pod.ended, Reason::Ended),
            (self.is_ztunnel(pod), Reason::Ztunnel),
            (
                excluded.contains(&*pod.info.namespace),
                Reason::ExcludedNamespace,
            ),
            (pod.annotations.sidecar, Reason::Sidecar),
        ];
        let holds = reasons.into_iter().find(|(holds, _)| *holds);
        holds.map(|(_, reason)| reason)
    }

    /// A ztunnel in the mesh would wait for itself.
    fn is_ztunnel(&self, pod: &Pod) -> bool {
        let has = |(key, value): (&str, &str)| pod.labels.get(key).is_some_and(|v| v == value);
        has(APP) && (*pod.info.namespace == *self.system_namespace || has(DATAPLANE_MODE))
    }

    /// What the plugin decides by while it cannot reach us.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let namespaces = self.namespaces.iter();
        let namespaces = namespaces.map(|(name, held)| (name.clone(), held.labels.clone()));
        Snapshot {
            policy: self.policy.clone(),
            namespaces: namespaces.collect(),
        }
    }
}

// === impl Namespace ===

impl Namespace {
    /// As the watch tells of it.
    pub(crate) fn watched(labels: Labels, version: u64) -> Self {
        Self {
            labels,
            version,
            asked: false,
        }
    }

    /// As the API server answers to a question about it.
    pub(crate) fn asked(labels: Labels, version: u64) -> Self {
        Self {
            labels,
            version,
            asked: true,
        }
    }

    /// Whether this is later than what has just been told. What the watch tells is later than all that it told
    /// before.
    fn knows_better_than(&self, told: &Self) -> bool {
        if told.asked {
            self.version >= told.version
        } else {
            self.asked && self.version > told.version
        }
    }
}

// === impl Pod ===

impl Pod {
    /// Its name.
    pub(crate) fn key(&self) -> ObjectKey {
        ObjectKey {
            namespace: self.info.namespace.to_string(),
            name: self.info.name.to_string(),
        }
    }

    /// Whether a runtime means this pod by that UID. Some do not tell one.
    pub(crate) fn is(&self, runtime_uid: &str) -> bool {
        let own = self.static_uid.as_ref().unwrap_or(&self.uid);
        runtime_uid.is_empty() || runtime_uid == &*self.uid || runtime_uid == &**own
    }

    /// The UIDs that its control groups may have.
    pub(crate) fn runtime_uids(&self) -> Vec<String> {
        let own = self.static_uid.iter().chain([&self.uid]);
        own.map(ToString::to_string).collect()
    }
}

#[cfg(test)]
mod tests;

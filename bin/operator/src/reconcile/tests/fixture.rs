//! A cluster without an API server: what reconcilers answer is carried out on the world they look at.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use mesh_api::sail::{
    Istio, IstioCNI, IstioRevision, IstioRevisionTag, ZTunnel, condition::StatusCondition,
};
use mesh_render::{Object, object::DAEMON_SET};
use serde_json::{Value, json};

use crate::{
    key::{Managed, ObjectRef},
    outcome::{Finalize, Outcome, Prune, Reconciler, Status as _},
    reconcile::reconcilers,
    world::{Custom, Defaults, Live, Namespace, View, World},
};

/// How often resources are looked at before a test is told that there is no end to it.
const ROUNDS: usize = 20;

pub(super) struct Cluster {
    pub(super) world: World,
    pub(super) now: Timestamp,
    /// Every change of a workload's version, in order.
    pub(super) changes: Vec<String>,
    uids: u32,
    /// How often something has changed.
    writes: usize,
}

impl Cluster {
    /// With the namespaces of the walkthrough.
    pub(super) fn new() -> Self {
        let mut cluster = Self {
            world: World {
                platform: Some(Arc::default()),
                ..World::default()
            },
            now: Timestamp::from_second(1_000_000_000).unwrap(),
            changes: Vec::new(),
            uids: 0,
            writes: 0,
        };
        for name in ["istio-system", "istio-cni", "ztunnel"] {
            cluster.namespace(name, &[("istio-discovery", "enabled")]);
        }
        cluster
    }

    pub(super) fn namespace(&mut self, name: &str, labels: &[(&str, &str)]) {
        let labels = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let labels: BTreeMap<_, _> = labels.collect();
        let meta = ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(labels.clone()),
            ..ObjectMeta::default()
        };
        self.world.usage.apply_namespace(&meta);
        let namespace = Namespace {
            labels,
            ..Namespace::default()
        };
        self.world.namespaces.insert(name.to_owned(), namespace);
    }

    /// A pod with these labels and annotations.
    pub(super) fn pod(&mut self, namespace: &str, name: &str, annotations: &[(&str, &str)]) {
        let pairs = annotations
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let meta = ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            annotations: Some(pairs.collect()),
            ..ObjectMeta::default()
        };
        self.world.usage.apply_pod(&meta);
    }

    /// Creates the resource, or changes its spec.
    pub(super) fn apply<K: Custom>(&mut self, name: &str, spec: Value) {
        let old = K::table(&self.world)
            .get(name)
            .map(|old| serde_json::to_value(&**old).unwrap());
        self.uids += 1;
        let mut body = old.unwrap_or_else(|| {
            let kind = K::MANAGED.kind();
            json!({"apiVersion": kind.api_version(), "kind": kind.kind, "metadata": {
                "name": name, "uid": format!("uid-{}", self.uids), "generation": 0,
                "creationTimestamp": self.now.to_string(),
            }})
        });
        if body["spec"] != spec {
            body["spec"] = spec;
            let generation = body["metadata"]["generation"].as_i64().unwrap();
            body["metadata"]["generation"] = (generation + 1).into();
        }
        self.put::<K>(body);
    }

    fn put<K: Custom>(&mut self, body: Value) {
        let resource: K = serde_json::from_value(body.clone()).unwrap();
        let name = resource.meta().name.clone().unwrap();
        let old = K::table(&self.world)
            .get(&name)
            .map(|old| serde_json::to_value(&**old).unwrap());
        self.writes += usize::from(old != Some(body));
        K::table_mut(&mut self.world).insert(name, Arc::new(resource));
    }

    pub(super) fn delete<K: Custom>(&mut self, name: &str) {
        self.edit::<K>(name, |meta| {
            meta.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        });
    }

    pub(super) fn edit<K: Custom>(&mut self, name: &str, edit: impl FnOnce(&mut ObjectMeta)) {
        let mut resource = (*K::table(&self.world)[name]).clone();
        edit(resource.meta_mut());
        K::table_mut(&mut self.world).insert(name.to_owned(), Arc::new(resource));
    }

    pub(super) fn get<K: Custom>(&self, name: &str) -> &K {
        &K::table(&self.world)[name]
    }

    pub(super) fn status<K: Custom>(&self, name: &str) -> K::Status {
        self.get::<K>(name).status().cloned().unwrap_or_default()
    }

    /// `status/reason: message` of a condition.
    pub(super) fn condition<K: Custom>(&self, name: &str, type_: &str) -> String {
        let status = self.status::<K>(name);
        let found = status
            .conditions()
            .iter()
            .find(|known| known.type_ == type_);
        found.map_or_else(
            || "none".to_owned(),
            |found| {
                let message = (!found.message.is_empty()).then(|| format!(": {}", found.message));
                format!(
                    "{}/{}{}",
                    found.status,
                    found.reason,
                    message.unwrap_or_default()
                )
            },
        )
    }

    pub(super) fn state<K: Custom>(&self, name: &str) -> String {
        serde_json::to_value(self.status::<K>(name)).unwrap()["state"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    pub(super) fn reconcile<K: Custom>(
        &self,
        name: &str,
        reconciler: &Reconciler<K>,
    ) -> Outcome<K::Status> {
        let defaults = Defaults::default();
        let view = View::new(&self.world, &defaults, self.now);
        (reconciler.reconcile)(&view, self.get::<K>(name))
    }

    pub(super) fn finalize<K: Custom>(
        &self,
        name: &str,
        reconciler: &Reconciler<K>,
    ) -> Finalize<K::Status> {
        let defaults = Defaults::default();
        let view = View::new(&self.world, &defaults, self.now);
        reconciler.finalize.unwrap()(&view, self.get::<K>(name))
    }

    /// Reconciles everything until nothing changes any more.
    pub(super) fn settle(&mut self) {
        let all = reconcilers();
        for _ in 0..ROUNDS {
            let before = self.writes;
            self.all(&all.istio);
            self.all(&all.revision);
            self.all(&all.tag);
            self.all(&all.cni);
            self.all(&all.ztunnel);
            if self.writes == before {
                return;
            }
        }
        panic!("no end to it: {:?}", self.changes);
    }

    /// Until nothing changes although every workload is rolled out again and again.
    pub(super) fn run(&mut self) {
        for _ in 0..ROUNDS {
            let before = self.writes;
            self.settle();
            self.roll_out();
            if self.writes == before {
                return;
            }
        }
        panic!("no end to it: {:?}", self.changes);
    }

    fn all<K: Custom>(&mut self, reconciler: &Reconciler<K>) {
        let names = K::table(&self.world).keys().cloned().collect::<Vec<_>>();
        for name in names {
            if self.get::<K>(&name).meta().deletion_timestamp.is_none() {
                let outcome = self.reconcile(&name, reconciler);
                self.carry_out::<K>(&name, outcome);
            }
        }
    }

    fn carry_out<K: Custom>(&mut self, name: &str, outcome: Outcome<K::Status>) {
        let meta = self.get::<K>(name).meta().clone();
        let wanted = outcome.apply.iter().map(ObjectRef::of).collect::<Vec<_>>();
        for object in outcome.apply {
            self.write(object, &meta);
        }
        let owned = self.world.owned.of_owner(meta.uid.as_deref().unwrap());
        let owned = owned.map(|(object, _)| object.clone()).collect::<Vec<_>>();
        let doomed = match outcome.prune {
            Prune::Keep => Vec::new(),
            Prune::Only(doomed) => doomed,
            Prune::Owned => owned
                .into_iter()
                .filter(|object| !wanted.contains(object))
                .collect(),
        };
        for object in doomed {
            self.writes += 1;
            self.world.owned.remove(&object);
            if Managed::of(object.kind) == Some(Managed::IstioRevision) {
                self.world.revisions.remove(&object.name);
            }
        }
        let mut status = outcome.status;
        self.stamp::<K>(name, status.conditions_mut(), meta.generation);
        status.set_observed_generation(meta.generation);
        let mut body = serde_json::to_value(self.get::<K>(name)).unwrap();
        body["status"] = serde_json::to_value(status).unwrap();
        self.put::<K>(body);
    }

    fn stamp<K: Custom>(
        &self,
        name: &str,
        conditions: &mut [StatusCondition],
        generation: Option<i64>,
    ) {
        let old = self.status::<K>(name);
        for condition in conditions {
            let mut same = old
                .conditions()
                .iter()
                .filter(|old| old.type_ == condition.type_ && old.status == condition.status);
            let since = same.next().and_then(|old| old.last_transition_time.clone());
            condition.last_transition_time = Some(since.unwrap_or_else(|| self.now.to_string()));
            condition.observed_generation = generation;
        }
    }

    fn write(&mut self, object: Object, owner: &ObjectMeta) {
        let reference = ObjectRef::of(&object);
        let owners = json!([{"apiVersion": "sailoperator.io/v1", "kind": "K", "name": owner.name,
            "uid": owner.uid, "controller": true}]);
        if Managed::of(object.kind) == Some(Managed::IstioRevision) {
            self.apply::<IstioRevision>(&object.name, object.body["spec"].clone());
            let owners = serde_json::from_value(owners).unwrap();
            self.edit::<IstioRevision>(&object.name, |meta| meta.owner_references = owners);
            return;
        }
        let mut body = object.body;
        body["metadata"]["ownerReferences"] = owners;
        let old = self
            .world
            .owned
            .get(&reference)
            .map(|live| live.body.clone());
        let generation = old
            .as_ref()
            .map_or(0, |old| old["metadata"]["generation"].as_i64().unwrap());
        let status = old
            .as_ref()
            .map(|old| old["status"].clone())
            .unwrap_or_default();
        body["metadata"]["generation"] = generation.into();
        body["status"] = status;
        // What the autoscaler has set stays.
        if let Some(replicas) = old.as_ref().and_then(|old| old["spec"].get("replicas")) {
            body["spec"]["replicas"] = replicas.clone();
        }
        if old.as_ref() == Some(&body) {
            return;
        }
        body["metadata"]["generation"] = (generation + 1).into();
        let version =
            |body: &Value| body["metadata"]["labels"]["app.kubernetes.io/version"].clone();
        if body["kind"] == "Deployment" || body["kind"] == "DaemonSet" {
            let (from, to) = (old.as_ref().map(version), version(&body));
            if from.as_ref() != Some(&to) {
                self.changes
                    .push(format!("{} {}", reference.name, to.as_str().unwrap()));
            }
        }
        self.writes += 1;
        self.world.owned.insert(reference, Live { body });
    }

    /// Every workload gets all its pods.
    pub(super) fn roll_out(&mut self) {
        for name in ["istiod", "istio-cni-node", "ztunnel"] {
            self.roll_out_of(name, 3, 3);
        }
    }

    /// The workloads whose name begins with this one have as many pods of the newest rollout, of which so
    /// many are ready.
    pub(super) fn roll_out_of(&mut self, prefix: &str, updated: u64, ready: u64) {
        let found = self.workloads(prefix);
        for (reference, mut body) in found {
            let before = body.clone();
            let generation = body["metadata"]["generation"].clone();
            body["status"] = if reference.kind == DAEMON_SET {
                json!({"observedGeneration": generation, "desiredNumberScheduled": 3, "currentNumberScheduled": 3,
                    "updatedNumberScheduled": updated, "numberReady": ready})
            } else {
                body["spec"]["replicas"] = 3.into();
                json!({"observedGeneration": generation, "replicas": 3, "updatedReplicas": updated,
                    "readyReplicas": ready})
            };
            self.writes += usize::from(body != before);
            self.world.owned.insert(reference, Live { body });
        }
    }

    fn workloads(&self, prefix: &str) -> Vec<(ObjectRef, Value)> {
        let owners = self.uids();
        let all = owners.iter().flat_map(|uid| self.world.owned.of_owner(uid));
        let workload = |body: &Value| body["kind"] == "Deployment" || body["kind"] == "DaemonSet";
        let all =
            all.filter(|(object, live)| object.name.starts_with(prefix) && workload(&live.body));
        all.map(|(object, live)| (object.clone(), live.body.clone()))
            .collect()
    }

    fn uids(&self) -> Vec<String> {
        (0..=self.uids).map(|uid| format!("uid-{uid}")).collect()
    }

    /// `name version` of every workload.
    pub(super) fn running(&self) -> Vec<String> {
        let all = self.workloads("");
        let all = all.iter().map(|(object, body)| {
            let version = body["metadata"]["labels"]["app.kubernetes.io/version"]
                .as_str()
                .unwrap();
            format!("{} {version}", object.name)
        });
        let mut all = all.collect::<Vec<_>>();
        all.sort();
        all
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now = self.now.checked_add(time).unwrap();
    }

    pub(super) fn mesh(&mut self, version: &str) {
        self.apply::<Istio>(
            "default",
            json!({"version": version, "namespace": "istio-system", "profile": "ambient"}),
        );
        self.nodes(version);
    }

    pub(super) fn nodes(&mut self, version: &str) {
        self.apply::<IstioCNI>(
            "default",
            json!({"version": version, "namespace": "istio-cni", "profile": "ambient"}),
        );
        self.apply::<ZTunnel>(
            "default",
            json!({"version": version, "namespace": "ztunnel"}),
        );
    }

    pub(super) fn tag(&mut self, name: &str, kind: &str, target: &str) {
        self.apply::<IstioRevisionTag>(name, json!({"targetRef": {"kind": kind, "name": target}}));
    }
}

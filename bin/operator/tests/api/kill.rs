//! A process that is killed after any of its writes leaves nothing behind that the next one does not
//! bring to the same end: through an installation, an upgrade and a removal.

use std::collections::BTreeMap;

use mesh_api::sail::{Istio, IstioCNI, IstioRevision};
use serde_json::{Value, json};

use super::{
    cluster::{Cluster, Operator, Start},
    rollouts::Rollouts,
    toys::reconcilers,
};

/// The contents of a cluster at the ends of the acts.
#[derive(Debug)]
struct Ends {
    installed: BTreeMap<String, Value>,
    upgraded: BTreeMap<String, Value>,
    removed: BTreeMap<String, Value>,
}

/// An operator that is started again when it is killed.
struct Immortal<'a> {
    cluster: &'a Cluster,
    current: Operator,
    writes: usize,
}

impl<'a> Immortal<'a> {
    async fn start(cluster: &'a Cluster, limit: usize) -> Self {
        let start = Start {
            limit,
            ..Start::of(reconcilers())
        };
        Self {
            cluster,
            current: cluster.operator_with(start).await,
            writes: 0,
        }
    }

    /// Does something that comes to its end in the life of one operator or of two.
    async fn through(&mut self, act: impl Future<Output = ()>) {
        let mut act = Box::pin(act);
        tokio::select! {
            () = &mut act => return,
            () = self.current.killed() => {}
        }
        self.writes += self.current.requests.writes();
        let next = self.cluster.operator(reconcilers()).await;
        std::mem::replace(&mut self.current, next)
            .running
            .stop()
            .await;
        act.await;
    }
}

const ISTIO: &str = "default";

async fn install(cluster: &Cluster) {
    let spec = json!({"version": "v1.30.2", "namespace": "istio-system"});
    let istio = json!({"metadata": {"name": ISTIO}, "spec": spec});
    cluster.create::<Istio>(istio).await;
    let spec = json!({"version": "v1.30.2", "namespace": "istio-cni"});
    let cni = json!({"metadata": {"name": "default"}, "spec": spec});
    cluster.create::<IstioCNI>(cni).await;
    are_healthy(cluster).await;
}

async fn upgrade(cluster: &Cluster) {
    let spec = json!({"spec": {"version": "v1.30.3"}});
    cluster.patch::<Istio>(None, ISTIO, spec.clone()).await;
    cluster.patch::<IstioCNI>(None, "default", spec).await;
    are_healthy(cluster).await;
}

async fn are_healthy(cluster: &Cluster) {
    let version = cluster.get::<Istio>(None, ISTIO).unwrap()["spec"]["version"].clone();
    let follows = |revision: Option<&Value>| {
        revision.is_some_and(|revision| revision["spec"]["version"] == version)
    };
    cluster.until::<IstioRevision>(None, ISTIO, follows).await;
    cluster.until_state::<IstioRevision>(ISTIO, "Healthy").await;
    cluster.until_state::<Istio>(ISTIO, "Healthy").await;
    cluster.until_state::<IstioCNI>("default", "Healthy").await;
}

async fn remove(cluster: &Cluster) {
    cluster.delete::<Istio>(None, ISTIO).await;
    cluster.delete::<IstioCNI>(None, "default").await;
    cluster.until_gone::<IstioRevision>(None, ISTIO).await;
    cluster.until_gone::<IstioCNI>(None, "default").await;
}

/// The whole life of a mesh, with an operator that is killed after so many writes. Says how many it took.
async fn live(cluster: &Cluster, limit: usize) -> (Ends, usize) {
    let before = cluster.contents();
    let mut operator = Immortal::start(cluster, limit).await;
    operator.through(install(cluster)).await;
    let installed = cluster.contents();
    operator.through(upgrade(cluster)).await;
    let upgraded = cluster.contents();
    operator.through(remove(cluster)).await;
    let removed = cluster.contents();
    same(&removed, &before, "the mesh was removed");
    let writes = operator.writes + operator.current.requests.writes();
    operator.current.running.stop().await;
    let ends = Ends {
        installed,
        upgraded,
        removed,
    };
    (ends, writes)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_is_killed_after_any_write_goes_on_to_the_same_end() {
    // What is removed leaves nothing behind, so that one cluster serves for all lives.
    let cluster = Cluster::start().await;
    let _rollouts = Rollouts::of(&cluster);
    let (expected, writes) = live(&cluster, usize::MAX).await;
    assert!(writes > 20, "{writes}");
    for limit in 0..=writes {
        let (ends, _) = live(&cluster, limit).await;
        let killed = |act: &str| format!("{act}, killed after {limit} writes");
        same(&ends.installed, &expected.installed, &killed("installed"));
        same(&ends.upgraded, &expected.upgraded, &killed("upgraded"));
        same(&ends.removed, &expected.removed, &killed("removed"));
    }
}

/// Fails with what differs alone.
fn same(found: &BTreeMap<String, Value>, expected: &BTreeMap<String, Value>, when: &str) {
    let names = found.keys().chain(expected.keys());
    let differ = |name: &&String| found.get(*name) != expected.get(*name);
    if let Some(name) = names.into_iter().find(differ) {
        let (found, expected) = (found.get(name), expected.get(name));
        panic!("{when}: {name} is {found:#?} and not {expected:#?}");
    }
}

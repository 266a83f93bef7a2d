//! Processes that are killed after their writes leave nothing behind that the next one does not bring to
//! the same end: through an installation, an upgrade and a removal of a whole mesh.

use std::collections::BTreeMap;

use kube::Client;
use mesh_api::sail::{Istio, IstioCNI, IstioRevision, ZTunnel};
use operator::reconcile::reconcilers;
use serde_json::{Value, json};

use super::{
    cluster::{Cluster, Operator, Start},
    rollouts::Rollouts,
};

/// The contents of a cluster at the ends of the acts.
#[derive(Debug)]
struct Ends {
    installed: BTreeMap<String, Value>,
    upgraded: BTreeMap<String, Value>,
    removed: BTreeMap<String, Value>,
}

/// An operator that is started again whenever it is killed.
struct Immortal<'a> {
    cluster: &'a Cluster,
    /// With the operator's rights alone.
    client: &'a Client,
    /// How many writes each process lives for.
    writes: usize,
    current: Operator,
    deaths: usize,
}

impl<'a> Immortal<'a> {
    async fn start(cluster: &'a Cluster, client: &'a Client, writes: usize) -> Self {
        Self {
            cluster,
            client,
            writes,
            current: start(cluster, client, writes).await,
            deaths: 0,
        }
    }

    /// Does something that comes to its end through the work of as many processes as it takes.
    async fn through(&mut self, act: impl Future<Output = ()>) {
        let mut act = Box::pin(act);
        loop {
            tokio::select! {
                () = &mut act => return,
                () = self.current.killed() => {}
            }
            self.deaths += 1;
            let next = start(self.cluster, self.client, self.writes).await;
            let dead = std::mem::replace(&mut self.current, next);
            dead.running.life.stop().await;
        }
    }
}

async fn start(cluster: &Cluster, client: &Client, limit: usize) -> Operator {
    let start = Start {
        limit,
        client: Some(client.clone()),
        ..Start::of(reconcilers())
    };
    cluster.operator_with(start).await
}

const ISTIO: &str = "default";

pub(crate) async fn install(cluster: &Cluster) {
    let spec = json!({"version": "v1.30.2", "namespace": "istio-system", "profile": "ambient"});
    let istio = json!({"metadata": {"name": ISTIO}, "spec": spec});
    cluster.create::<Istio>(istio).await;
    let spec = json!({"version": "v1.30.2", "namespace": "istio-cni", "profile": "ambient"});
    let cni = json!({"metadata": {"name": "default"}, "spec": spec});
    cluster.create::<IstioCNI>(cni).await;
    let spec = json!({"version": "v1.30.2", "namespace": "ztunnel"});
    let ztunnel = json!({"metadata": {"name": "default"}, "spec": spec});
    cluster.create::<ZTunnel>(ztunnel).await;
    are_healthy(cluster).await;
}

async fn upgrade(cluster: &Cluster) {
    let spec = json!({"spec": {"version": "v1.30.3"}});
    cluster.patch::<Istio>(None, ISTIO, spec.clone()).await;
    cluster
        .patch::<IstioCNI>(None, "default", spec.clone())
        .await;
    cluster.patch::<ZTunnel>(None, "default", spec).await;
    are_healthy(cluster).await;
}

/// Waits until all are healthy at the same time, in the version that was asked for.
async fn are_healthy(cluster: &Cluster) {
    let version = cluster.get::<Istio>(None, ISTIO).unwrap()["spec"]["version"].clone();
    let follows = |revision: Option<&Value>| {
        revision.is_some_and(|revision| revision["spec"]["version"] == version)
    };
    cluster.until::<IstioRevision>(None, ISTIO, follows).await;
    loop {
        let healthy = [
            cluster.until_state::<IstioRevision>(ISTIO, "Healthy").await,
            cluster.until_state::<Istio>(ISTIO, "Healthy").await,
            cluster.until_state::<IstioCNI>("default", "Healthy").await,
            cluster.until_state::<ZTunnel>("default", "Healthy").await,
        ];
        let now = [
            cluster.get::<IstioRevision>(None, ISTIO),
            cluster.get::<Istio>(None, ISTIO),
            cluster.get::<IstioCNI>(None, "default"),
            cluster.get::<ZTunnel>(None, "default"),
        ];
        // Nothing has changed between the first look and the last.
        if now == healthy.map(Some) {
            return;
        }
    }
}

async fn remove(cluster: &Cluster) {
    cluster.delete::<Istio>(None, ISTIO).await;
    cluster.delete::<IstioCNI>(None, "default").await;
    cluster.delete::<ZTunnel>(None, "default").await;
    cluster.until_gone::<IstioRevision>(None, ISTIO).await;
    cluster.until_gone::<IstioCNI>(None, "default").await;
    cluster.until_gone::<ZTunnel>(None, "default").await;
}

/// The whole life of a mesh, with processes that live for so many writes. Says how many died.
async fn live(cluster: &Cluster, client: &Client, writes: usize) -> (Ends, usize) {
    let before = cluster.contents();
    let mut operator = Immortal::start(cluster, client, writes).await;
    operator.through(install(cluster)).await;
    let installed = cluster.contents();
    operator.through(upgrade(cluster)).await;
    let upgraded = cluster.contents();
    operator.through(remove(cluster)).await;
    let removed = cluster.contents();
    same(&removed, &before, "the mesh was removed");
    operator.current.running.life.stop().await;
    let ends = Ends {
        installed,
        upgraded,
        removed,
    };
    (ends, operator.deaths)
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_that_are_killed_after_every_write_bring_a_mesh_to_the_same_end() {
    // What is removed leaves nothing behind, so that one cluster serves for all lives.
    let cluster = Cluster::start().await;
    let _rollouts = Rollouts::of(&cluster);
    let client = cluster.restricted().await;
    let (expected, deaths) = live(&cluster, &client, usize::MAX).await;
    assert_eq!(deaths, 0);
    for writes in [1, 4] {
        let (ends, deaths) = live(&cluster, &client, writes).await;
        assert!(deaths > 15, "{deaths}");
        let killed = |act: &str| format!("{act}, by processes of {writes} writes");
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

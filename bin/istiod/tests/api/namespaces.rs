//! The ConfigMap of roots in every namespace.

use std::{collections::BTreeMap, sync::Arc};

use istiod::ca::namespaces::{Controller, NAME};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use mesh_identity::issuer::{Issuer, Root, RootKind};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::fixture::{Cluster, DAY};

/// A controller that leads, under a root that the test replaces.
struct Telling {
    cluster: Cluster,
    issuers: watch::Sender<Arc<Issuer>>,
    leader: watch::Sender<bool>,
    scope: watch::Sender<u64>,
    wide: Arc<std::sync::atomic::AtomicBool>,
}

fn mk_issuer() -> Arc<Issuer> {
    let root = Root::generate(RootKind::EcP256, "cluster.local", 10 * DAY).unwrap();
    let issuer = Issuer::from_pem(mesh_identity::issuer::Material {
        certificate: &root.certificate,
        key: &root.key,
        chain: "",
        roots: &root.certificate,
    });
    Arc::new(issuer.unwrap())
}

impl Telling {
    async fn start() -> Self {
        let cluster = Cluster::start().await;
        let telling = Self {
            issuers: watch::Sender::new(mk_issuer()),
            leader: watch::Sender::new(false),
            scope: watch::Sender::new(0),
            wide: Arc::default(),
            cluster,
        };
        let wide = telling.wide.clone();
        let scope = move |name: &str, _: &BTreeMap<String, String>| {
            name != "outside" || wide.load(std::sync::atomic::Ordering::SeqCst)
        };
        let controller = Controller::new(
            telling.cluster.client.clone(),
            telling.issuers.subscribe(),
            Arc::new(scope),
            telling.scope.subscribe(),
            mesh_kube::watch::Metrics::default(),
        );
        drop(tokio::spawn(controller.run(telling.leader.subscribe())));
        telling
    }

    fn maps(&self, namespace: &str) -> Api<ConfigMap> {
        Api::namespaced(self.cluster.client.clone(), namespace)
    }

    async fn map(&self, namespace: &str) -> Option<ConfigMap> {
        self.maps(namespace).get_opt(NAME).await.unwrap()
    }

    /// Waits until a namespace is told of the roots of now.
    async fn told(&self, namespace: &str) -> ConfigMap {
        let roots = self.issuers.borrow().roots().to_owned();
        let right = |map: &Value| map["data"]["root-cert.pem"] == *roots;
        let map = self.cluster.until::<ConfigMap>(namespace, NAME, right);
        let map: ConfigMap = serde_json::from_value((*map.await).clone()).unwrap();
        let labels = map.metadata.labels.clone().unwrap();
        assert_eq!(labels["istio.io/config"], "true");
        map
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_namespace_of_the_mesh_is_told_and_new_ones_too() {
    let telling = Telling::start().await;
    for name in ["shop", "outside", "kube-public", "kube-system"] {
        let api = Api::<Namespace>::all(telling.cluster.client.clone());
        if api.get_opt(name).await.unwrap().is_none() {
            telling.cluster.add_namespace(name).await;
        }
    }
    telling.leader.send_replace(true);
    for name in ["shop", "istio-system", "kube-system"] {
        telling.told(name).await;
    }
    telling.cluster.add_namespace("later").await;
    telling.told("later").await;
    for name in ["outside", "kube-public"] {
        assert!(telling.map(name).await.is_none(), "{name}");
    }
    telling
        .wide
        .store(true, std::sync::atomic::Ordering::SeqCst);
    telling.scope.send_modify(|count| *count += 1);
    telling.told("outside").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_and_deletions_are_repaired_and_what_is_right_is_not_written() {
    let telling = Telling::start().await;
    telling.cluster.add_namespace("shop").await;
    telling.cluster.add_namespace("quiet").await;
    telling.leader.send_replace(true);
    telling.told("shop").await;
    let quiet = telling.told("quiet").await;

    let params = PatchParams::default();
    let patch = json!({"data": {"root-cert.pem": "forged", "extra": "kept"}});
    let maps = telling.maps("shop");
    maps.patch(NAME, &params, &Patch::Merge(patch))
        .await
        .unwrap();
    let repaired = telling.told("shop").await;
    assert_eq!(repaired.data.unwrap()["extra"], "kept");

    maps.delete(NAME, &DeleteParams::default()).await.unwrap();
    telling.told("shop").await;
    // All of this has passed through the same queue: had the other been due, it would have been written.
    let unwritten = telling.map("quiet").await.unwrap();
    assert_eq!(
        unwritten.metadata.resource_version,
        quiet.metadata.resource_version
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn other_roots_are_told_to_all() {
    let telling = Telling::start().await;
    telling.cluster.add_namespace("shop").await;
    telling.leader.send_replace(true);
    telling.told("shop").await;
    telling.issuers.send_replace(mk_issuer());
    telling.told("shop").await;
    telling.told("istio-system").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_api_server_delays_what_is_told() {
    let telling = Telling::start().await;
    telling.cluster.add_namespace("shop").await;
    telling.leader.send_replace(true);
    telling.told("shop").await;
    telling.cluster.server.stop().await;
    telling.issuers.send_replace(mk_issuer());
    telling.cluster.server.start_again().await.unwrap();
    telling.told("shop").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_roots_of_a_rotation_arrive_in_the_namespaces() {
    let cluster = Cluster::start().await;
    let (authority, leader) = cluster.replica(true).await;
    let scope = |_: &str, _: &BTreeMap<String, String>| true;
    let (_scope, scope_changes) = watch::channel(0);
    let controller = Controller::new(
        cluster.client.clone(),
        authority.changes(),
        Arc::new(scope),
        scope_changes,
        mesh_kube::watch::Metrics::default(),
    );
    drop(tokio::spawn(controller.run(leader.subscribe())));
    cluster.request_rotation().await;
    let both = |map: &Value| {
        let roots = map["data"]["root-cert.pem"].as_str();
        roots.is_some_and(|roots| roots.matches("BEGIN").count() == 2)
    };
    cluster.until::<ConfigMap>("default", NAME, both).await;
}

//! The root in its Secret: made once, followed by all, replaced without a gap.

use futures::future::join_all;
use istiod::ca::{keeper::MARGIN, secret};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::api::DeleteParams;
use mesh_core::identity::Identity;
use mesh_identity::{issuer::Issuer, key::PrivateKey};
use serde_json::json;
use tokio::sync::watch;

use super::fixture::{Cluster, DAY, SYSTEM, eventually, openssl_believes, roots, until};

impl Cluster {
    async fn secret(&self) -> Secret {
        self.secrets().get(secret::NAME).await.unwrap()
    }
}

fn mk_leaf(issuer: &Issuer) -> Vec<String> {
    let identity = Identity::try_new("cluster.local", "shop", "cart").unwrap();
    let key = PrivateKey::generate().unwrap();
    let request = key.certificate_request(&identity).unwrap();
    issuer.sign(&request, &identity, DAY).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_start_at_once_agree_on_one_root() {
    let cluster = Cluster::start().await;
    let replicas = join_all((0..6).map(|_| cluster.open())).await;
    let secret = cluster.secret().await;
    assert_eq!(secret.type_.as_deref(), Some("istio.io/ca-root"));
    let certificate = &secret.data.unwrap()["ca-cert.pem"];
    for replica in replicas {
        let (authority, _keeper) = replica.unwrap();
        assert_eq!(authority.current().get().roots().as_bytes(), certificate.0);
    }
}

/// Waits until both sign with the same authority and give along so many roots.
async fn both(count: usize, replicas: &mut [watch::Receiver<std::sync::Arc<Issuer>>]) {
    for replica in replicas {
        let what = format!("{count} roots");
        until(&what, replica, |issuer| roots(issuer) == count).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_on_request_passes_through_its_steps_on_every_replica() {
    let cluster = Cluster::start().await;
    let (leading, _lead) = cluster.replica(true).await;
    let (following, _follow) = cluster.replica(false).await;
    let mut replicas = [leading.changes(), following.changes()];
    let old = mk_leaf(&leading.current().get());
    let old_roots = leading.current().get().roots().to_owned();

    cluster.request_rotation().await;
    both(2, &mut replicas).await;
    // Announced: what is signed is believed by those who know only the old root, and its holders know both.
    let announced = mk_leaf(&following.current().get());
    let both_roots = following.current().get().roots().to_owned();
    assert!(openssl_believes(&announced[..1], &old_roots));
    assert!(
        cluster
            .secret()
            .await
            .data
            .unwrap()
            .contains_key("next-key.pem")
    );

    cluster.pass(DAY + MARGIN);
    let switched = |issuer: &std::sync::Arc<Issuer>| {
        let leaf = mk_leaf(issuer);
        !openssl_believes(&leaf[..1], &old_roots)
    };
    for replica in &mut replicas {
        until("the new root signs", replica, switched).await;
    }
    let new = mk_leaf(&following.current().get());
    assert!(openssl_believes(&new[..1], &both_roots));
    assert!(openssl_believes(
        &old[..1],
        following.current().get().roots()
    ));

    cluster.pass(DAY + MARGIN);
    both(1, &mut replicas).await;
    assert!(openssl_believes(&new[..1], leading.current().get().roots()));
    assert!(!openssl_believes(
        &old[..1],
        leading.current().get().roots()
    ));

    // Istio's istiod finds in it what it reads: a certificate with its key, and nothing of the past.
    let secret = cluster.secret().await;
    let data = secret.data.unwrap();
    let keys: Vec<_> = data.keys().map(String::as_str).collect();
    assert_eq!(keys, ["ca-cert.pem", "ca-key.pem", "root-cert.pem"]);
    assert_eq!(data["ca-cert.pem"], data["root-cert.pem"]);
    let annotations = secret.metadata.annotations.unwrap();
    assert_eq!(annotations[secret::ROTATED], "now");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_deleted_comes_back_with_the_same_root() {
    let cluster = Cluster::start().await;
    let (authority, _leader) = cluster.replica(true).await;
    let before = cluster.secret().await;
    let params = DeleteParams::default();
    cluster
        .secrets()
        .delete(secret::NAME, &params)
        .await
        .unwrap();
    cluster
        .until::<Secret>(SYSTEM, secret::NAME, |_| true)
        .await;
    let after = cluster.secret().await;
    assert!(after.data == before.data, "the same root");
    assert_eq!(roots(&authority.current().get()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_secret_leaves_the_last_good_root_in_force() {
    let cluster = Cluster::start().await;
    let (authority, _leader) = cluster.replica(true).await;
    let good = cluster.secret().await;
    let patch = json!({"data": {"ca-key.pem": ByteString(b"broken".to_vec())}});
    cluster.patch_secret(patch).await;
    let error = cluster.open().await.unwrap_err();
    let told = format!("{}", mesh_kube::error::Explained(&error));
    assert!(told.contains("ca-key.pem"), "{told}");
    mk_leaf(&authority.current().get());

    // Once it is repaired it is followed again.
    let patch = json!({"data": good.data});
    cluster.patch_secret(patch).await;
    cluster.request_rotation().await;
    let mut changes = authority.changes();
    until("it is followed", &mut changes, |issuer| roots(issuer) == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_another_hand_puts_there_signs_and_the_former_stays_trusted() {
    let cluster = Cluster::start().await;
    let (authority, _leader) = cluster.replica(true).await;
    let old = mk_leaf(&authority.current().get());
    let other = mesh_identity::issuer::Root::generate(
        mesh_identity::issuer::RootKind::Rsa(2048),
        "by hand",
        100 * DAY,
    );
    let other = other.unwrap();
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    let patch = json!({"data": {
        "ca-cert.pem": bytes(&other.certificate),
        "ca-key.pem": bytes(&other.key),
        "root-cert.pem": null,
    }});
    cluster.patch_secret(patch).await;
    let mut changes = authority.changes();
    until("both are trusted", &mut changes, |issuer| {
        roots(issuer) == 2
    })
    .await;
    assert!(openssl_believes(
        &mk_leaf(&authority.current().get())[..1],
        &other.certificate
    ));
    assert!(openssl_believes(
        &old[..1],
        authority.current().get().roots()
    ));
    // A replica that starts now learns it from the Secret.
    let ask = || async { cluster.open().await.unwrap().0.current().get() };
    eventually("the Secret has both", ask, |issuer| roots(issuer) == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_longer_life_is_written_down_before_it_is_granted() {
    let cluster = Cluster::start().await;
    let (authority, _keeper) = cluster.open().await.unwrap();
    let written = || async {
        let annotations = cluster.secret().await.metadata.annotations.unwrap();
        annotations[secret::LONGEST].clone()
    };
    authority.reserve(DAY).await.unwrap();
    assert_eq!(written().await, "86400");
    authority.reserve(3 * DAY).await.unwrap();
    assert_eq!(written().await, (4 * 86_400).to_string());
    // What is never granted is not written down.
    authority.reserve(91 * DAY).await.unwrap();
    assert_eq!(written().await, (4 * 86_400).to_string());

    // Replicas that do so at once do not lose each other's.
    let (other, _keeper) = cluster.open().await.unwrap();
    let (one, two) = tokio::join!(authority.reserve(6 * DAY), other.reserve(12 * DAY));
    one.unwrap();
    two.unwrap();
    assert_eq!(written().await, (16 * 86_400).to_string());

    cluster.server.stop().await;
    authority.reserve(DAY).await.unwrap();
    let refused = authority.reserve(60 * DAY).await;
    assert!(refused.is_err(), "it cannot be written down");
}

#[tokio::test(flavor = "multi_thread")]
async fn plug_in_files_go_before_the_secret() {
    let cluster = Cluster::start().await;
    let root = mesh_identity::issuer::Root::generate(
        mesh_identity::issuer::RootKind::EcP256,
        "plug-in",
        100 * DAY,
    );
    let root = root.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    put("ca-cert.pem", &root.certificate);
    put("ca-key.pem", &root.key);
    let mut settings = cluster.settings();
    settings.files = folder.path().to_owned();
    let open = |settings| {
        let watches = mesh_kube::watch::Metrics::default();
        let metrics = istiod::ca::Metrics::default();
        istiod::ca::Authority::open(settings, cluster.client.clone(), metrics, watches)
    };
    // Half a set is an error, not a reason to make up a root.
    assert!(open(settings.clone()).await.is_err());
    put("root-cert.pem", &root.certificate);
    let (authority, _keeper) = open(settings).await.unwrap();
    assert_eq!(authority.current().get().roots(), root.certificate);
    assert!(
        cluster
            .secrets()
            .get_opt(secret::NAME)
            .await
            .unwrap()
            .is_none()
    );
}

//! Marks that keep an object until we have cleaned up.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, ResourceExt, api::DeleteParams};
use mesh_kube::{error::Fault, finalizer};

use super::support::{create_config_map, start};

const OURS: &str = "test.example/ours";

#[tokio::test]
async fn a_finalizer_keeps_the_object_until_it_is_removed() {
    let (_server, client) = start().await;
    let created = create_config_map(&client, "x").await;
    let api = Api::<ConfigMap>::namespaced(client, "default");
    let marked = finalizer::ensure(&api, created, OURS).await.unwrap();
    assert_eq!(marked.finalizers(), [OURS]);
    let again = finalizer::ensure(&api, marked.clone(), OURS).await.unwrap();
    assert_eq!(again.resource_version(), marked.resource_version());

    api.delete("x", &DeleteParams::default()).await.unwrap();
    let dying = api.get("x").await.unwrap();
    assert!(dying.metadata.deletion_timestamp.is_some());
    // Not marked anew while it is being deleted.
    let other = finalizer::ensure(&api, dying.clone(), "test.example/other")
        .await
        .unwrap();
    assert_eq!(other.finalizers(), [OURS]);
    finalizer::remove(&api, &dying, OURS).await.unwrap();
    assert!(api.get_opt("x").await.unwrap().is_none());
    // Somebody else was faster: that is what we wanted.
    finalizer::remove(&api, &dying, OURS).await.unwrap();
}

#[tokio::test]
async fn a_finalizer_is_not_written_over_a_change_that_we_have_not_seen() {
    let (_server, client) = start().await;
    let created = create_config_map(&client, "x").await;
    let api = Api::<ConfigMap>::namespaced(client, "default");
    finalizer::ensure(&api, created.clone(), "test.example/theirs")
        .await
        .unwrap();
    let stale = finalizer::ensure(&api, created, OURS).await.unwrap_err();
    assert_eq!(Fault::of(&stale), Fault::Conflict);
    let live = api.get("x").await.unwrap();
    assert_eq!(live.finalizers(), ["test.example/theirs"]);
}

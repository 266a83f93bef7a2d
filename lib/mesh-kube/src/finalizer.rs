//! Finalizers: a mark on an object that keeps it until we have cleaned up.
//!
//! Both functions write only when something changes and only to the version of the object that the
//! caller has seen: a stale one is answered with a conflict, which [`Fault`](crate::error::Fault) names,
//! and the caller looks again.

use std::fmt::Debug;

use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::json;

/// Marks `object` with `finalizer`, before anything is made that has to be cleaned up. Returns the
/// object as it now is. An object that is being deleted gets no new finalizer, as the API server would
/// refuse it.
pub async fn ensure<K>(api: &Api<K>, object: K, finalizer: &str) -> Result<K, kube::Error>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let present = object.finalizers().iter().any(|name| name == finalizer);
    if present || object.meta().deletion_timestamp.is_some() {
        return Ok(object);
    }
    let mut finalizers = object.finalizers().to_vec();
    finalizers.push(finalizer.to_owned());
    replace(api, &object, &finalizers).await
}

/// Takes the mark away, after everything is cleaned up. The object may be gone then, which is well.
pub async fn remove<K>(api: &Api<K>, object: &K, finalizer: &str) -> Result<(), kube::Error>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let mut finalizers = object.finalizers().to_vec();
    finalizers.retain(|name| name != finalizer);
    if finalizers.len() == object.finalizers().len() {
        return Ok(());
    }
    match replace(api, object, &finalizers).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        answer => answer.map(drop),
    }
}

/// Writes the list to the version of the object that we know.
async fn replace<K>(api: &Api<K>, object: &K, finalizers: &[String]) -> Result<K, kube::Error>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    // With a version in it, a merge patch is refused if the object has changed since.
    let patch = json!({"metadata": {
        "resourceVersion": object.resource_version(),
        "uid": object.uid(),
        "finalizers": finalizers,
    }});
    let name = object.name_any();
    api.patch(&name, &PatchParams::default(), &Patch::Merge(patch))
        .await
}

//! Writes one ConfigMap, and only if it is not right.

use std::time::Duration;

use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, Client, api::PostParams};
use mesh_kube::error::Fault;
use tokio::time::timeout;

use super::{
    NAME,
    plan::{KEY, LABEL, Task, is_right},
};

/// Why a namespace is not told. All are tried anew.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The API server refuses, or is away. A permission may be missing.
    #[error("writing ConfigMap {NAME}")]
    Api(#[source] kube::Error),
    /// It does not answer.
    #[error("writing ConfigMap {NAME}: no answer within {TIMEOUT:?}")]
    Silent,
    /// Somebody else writes it all the time.
    #[error("writing ConfigMap {NAME}: somebody else keeps changing it")]
    Contended,
}

/// How long all of it may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often a write is tried when somebody else was faster.
const ATTEMPTS: usize = 4;

/// Makes the ConfigMap of a namespace right. One that is gone with its namespace is right too.
pub(super) async fn write(client: &Client, task: &Task) -> Result<(), Error> {
    let api = Api::<ConfigMap>::namespaced(client.clone(), &task.namespace);
    let written = timeout(TIMEOUT, attempt(&api, task)).await;
    written.unwrap_or(Err(Error::Silent))
}

async fn attempt(api: &Api<ConfigMap>, task: &Task) -> Result<(), Error> {
    let mut exists = task.exists;
    let params = PostParams::default();
    for _ in 0..ATTEMPTS {
        let written = if exists {
            let Some(mut map) = api.get_opt(NAME).await.map_err(Error::Api)? else {
                exists = false;
                continue;
            };
            if is_right(&map, &task.roots) {
                return Ok(());
            }
            correct(&mut map, task);
            api.replace(NAME, &params, &map).await
        } else {
            let mut map = ConfigMap::default();
            correct(&mut map, task);
            api.create(&params, &map).await
        };
        let Err(error) = written else {
            return Ok(());
        };
        match Fault::of(&error) {
            Fault::Conflict | Fault::Exists => exists = true,
            Fault::Missing if exists => exists = false,
            // The namespace is gone.
            Fault::Missing => return Ok(()),
            _ if is_terminating(&error) => return Ok(()),
            _ => return Err(Error::Api(error)),
        }
    }
    Err(Error::Contended)
}

/// Leaves what others have put there, but for a `binaryData` of our key, which could not stand beside it.
fn correct(map: &mut ConfigMap, task: &Task) {
    map.metadata = ObjectMeta {
        name: Some(NAME.into()),
        namespace: Some(task.namespace.clone()),
        ..std::mem::take(&mut map.metadata)
    };
    let labels = map.metadata.labels.get_or_insert_default();
    labels.insert(LABEL.0.into(), LABEL.1.into());
    let data = map.data.get_or_insert_default();
    data.insert(KEY.into(), task.roots.to_string());
    if let Some(binary) = &mut map.binary_data {
        binary.remove(KEY);
    }
}

/// Whether the namespace is being deleted: the API server forbids to make anything in it, and says why.
fn is_terminating(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else {
        return false;
    };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes
        .into_iter()
        .any(|cause| cause.reason == "NamespaceTerminating")
}

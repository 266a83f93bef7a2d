//! Reading and writing the objects of the cluster.

use std::fmt;

use anyhow::Context as _;
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{
    Api, Client, Resource,
    api::{
        ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams,
    },
    runtime::wait::await_condition,
};
use serde::Deserialize as _;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::node::PATIENCE;

/// Life of a token, in seconds: what a DaemonSet of Istio asks for.
const TOKEN_LIFE: i64 = 43_200;

/// What istiod expects as the audience of a proxy's token.
const AUDIENCE: &str = "istio-ca";

/// Parts of the cluster, to the API server.
const KUBELET: &str = "kubelet";

/// The objects of the cluster, through a client.
pub(crate) struct Objects {
    client: Client,
}

// === impl Objects ===

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Objects").finish_non_exhaustive()
    }
}

impl Objects {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    fn api(&self, namespace: &str, resource: &ApiResource) -> Api<DynamicObject> {
        if namespace.is_empty() {
            Api::all_with(self.client.clone(), resource)
        } else {
            Api::namespaced_with(self.client.clone(), namespace, resource)
        }
    }

    /// Where an object belongs, by what it says of itself.
    fn api_of(&self, object: &Value) -> anyhow::Result<(Api<DynamicObject>, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (group, version) = match object["apiVersion"].as_str() {
            Some(both) => both.split_once('/').unwrap_or(("", both)),
            None => anyhow::bail!("an object has no apiVersion: {object}"),
        };
        let kind = GroupVersionKind::gvk(group, version, &text(&object["kind"]));
        let metadata = &object["metadata"];
        let api = self.api(&text(&metadata["namespace"]), &ApiResource::from_gvk(&kind));
        Ok((api, text(&metadata["name"])))
    }

    pub(crate) async fn apply(&self, manager: &str, text: &str) -> anyhow::Result<()> {
        for document in serde_yaml_ng::Deserializer::from_str(text) {
            let object = Value::deserialize(document).context("read an object's YAML")?;
            self.put(manager, object).await?;
        }
        Ok(())
    }

    pub(crate) async fn put(&self, manager: &str, object: Value) -> anyhow::Result<DynamicObject> {
        let (api, name) = self.api_of(&object)?;
        let params = PatchParams::apply(manager);
        let applied = api.patch(&name, &params, &Patch::Apply(&object)).await;
        applied.with_context(|| format!("apply {} {name}", object["kind"]))
    }

    pub(crate) async fn merge<K: Resource<DynamicType = ()>>(
        &self,
        namespace: &str,
        name: &str,
        patch: Value,
    ) -> anyhow::Result<()> {
        let api = self.api(namespace, &ApiResource::erase::<K>(&()));
        let params = PatchParams::default();
        let merged = api.patch(name, &params, &Patch::Merge(patch)).await;
        merged.with_context(|| format!("change {} {name}", K::kind(&())))?;
        Ok(())
    }

    pub(crate) async fn delete<K: Resource<DynamicType = ()>>(
        &self,
        namespace: &str,
        name: &str,
    ) -> anyhow::Result<()> {
        let api = self.api(namespace, &ApiResource::erase::<K>(&()));
        let deleted = api.delete(name, &DeleteParams::default()).await;
        deleted.with_context(|| format!("delete {} {name}", K::kind(&())))?;
        Ok(())
    }

    /// Writes an object without its status.
    pub(crate) async fn create(&self, object: &Value) -> anyhow::Result<DynamicObject> {
        let mut spec = object.clone();
        if let Some(fields) = spec.as_object_mut() {
            fields.remove("status");
        }
        self.put(KUBELET, spec).await
    }

    /// Writes the status of an object.
    pub(crate) async fn report(&self, object: &Value) -> anyhow::Result<()> {
        let (api, name) = self.api_of(object)?;
        let patch = Patch::Merge(json!({"status": object["status"]}));
        let reported = api
            .patch_status(&name, &PatchParams::default(), &patch)
            .await;
        reported.with_context(|| format!("report on {} {name}", object["kind"]))?;
        Ok(())
    }

    /// A token of a service account of the mesh, as the kubelet requests it for a pod.
    pub(crate) async fn token(
        &self,
        (namespace, account): (&str, &str),
        pod: Option<&str>,
        uid: Option<String>,
    ) -> anyhow::Result<String> {
        let bound_object_ref = pod.map(|pod| BoundObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(pod.to_owned()),
            uid,
        });
        // Without a pod it is for the API server itself.
        let audiences = pod.map(|_| AUDIENCE.to_owned()).into_iter().collect();
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences,
                expiration_seconds: Some(TOKEN_LIFE),
                bound_object_ref,
            },
            ..TokenRequest::default()
        };
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let params = PostParams::default();
        let issued = accounts.create_token_request(account, &params, &request);
        let issued = issued
            .await
            .with_context(|| format!("request a token of {account}"))?;
        Ok(issued
            .status
            .context("a token request has no answer")?
            .token)
    }

    pub(crate) async fn until<K: Resource<DynamicType = ()>>(
        &self,
        namespace: &str,
        name: &str,
        condition: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let api = self.api(namespace, &ApiResource::erase::<K>(&()));
        let value = |object: &DynamicObject| serde_json::to_value(object).unwrap_or_default();
        let holds = |object: Option<&DynamicObject>| object.is_some_and(|it| condition(&value(it)));
        let waited = timeout(PATIENCE, await_condition(api, name, holds)).await;
        let what = || format!("wait for {} {name}", K::kind(&()));
        let found = waited.with_context(what)?.with_context(what)?;
        Ok(found.as_ref().map(value).unwrap_or_default())
    }
}

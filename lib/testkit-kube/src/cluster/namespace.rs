//! Namespaces: what each one has from the start, and how one goes with all that is in it.

use serde_json::{Value, json};

use super::{Cluster, builtin, delete::DeleteOptions};
use crate::{auth, meta, store::GroupResource};

/// Where namespaces are kept.
pub(super) const NAMESPACES: GroupResource = GroupResource::new("", "namespaces");

/// The finalizer in the spec that waits for the content.
const CONTENT: &str = "kubernetes";
/// Namespaces that exist from the start.
const SYSTEM: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];
/// Where each namespace finds the certificate authority of the API server.
const ROOT_CA: &str = "kube-root-ca.crt";

impl Cluster {
    /// Makes what exists from the start.
    pub(super) fn bootstrap(&self) {
        for name in SYSTEM {
            let mut namespace = json!({
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": name},
            });
            builtin::begin(&NAMESPACES, &mut namespace);
            builtin::complete(&NAMESPACES, &mut namespace);
            self.store.put(&NAMESPACES, namespace);
            self.furnish(name);
        }
        for object in auth::bootstrap() {
            let kind = object["kind"].as_str().unwrap_or_default();
            let group = "rbac.authorization.k8s.io";
            let resources = self.registry.all();
            let resource = resources
                .iter()
                .find(|it| it.kind.group == group && it.kind.kind == kind);
            if let Some(resource) = resource {
                self.store.put(&resource.storage, object);
            }
        }
    }

    /// Puts into a namespace what every one has, where it is missing.
    pub(super) fn furnish(&self, namespace: &str) {
        if self
            .store
            .get(&builtin::ACCOUNTS, namespace, "default")
            .is_none()
        {
            let account = json!({
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": {"name": "default", "namespace": namespace},
            });
            self.store.put(&builtin::ACCOUNTS, account);
        }
        if self
            .store
            .get(&builtin::CONFIG_MAPS, namespace, ROOT_CA)
            .is_none()
        {
            let pem = self.authority.ca_pem();
            let map = json!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": ROOT_CA, "namespace": namespace},
                "data": {"ca.crt": pem},
            });
            self.store.put(&builtin::CONFIG_MAPS, map);
        }
    }

    /// Deletes everything in a namespace that is on its way out, and the namespace when nothing is left.
    pub(super) fn drain(&self, namespace: &str) {
        for storage in self.store.resources(Some(namespace)) {
            for object in self.store.list(&storage, Some(namespace)) {
                self.begin_deletion(&storage, &object, &DeleteOptions::default());
            }
        }
        self.finalize(namespace);
    }

    /// An object has left its namespace: the last one takes it along, and some have to come back.
    pub(super) fn after_departure(&self, storage: &GroupResource, last: &Value) {
        let namespace = meta::text(last, "namespace");
        let Some(object) = self.store.get(&NAMESPACES, "", namespace) else {
            return;
        };
        if meta::is_deleting(&object) {
            self.finalize(namespace);
        } else if [builtin::ACCOUNTS, builtin::CONFIG_MAPS].contains(storage) {
            self.furnish(namespace);
        }
    }

    /// Lets an empty namespace go.
    fn finalize(&self, namespace: &str) {
        let Some(live) = self.store.get(&NAMESPACES, "", namespace) else {
            return;
        };
        let waits = meta::is_deleting(&live) && is_held(&NAMESPACES, &live);
        if !waits || !self.store.resources(Some(namespace)).is_empty() {
            return;
        }
        let mut object = Value::clone(&live);
        if let Some(finalizers) = object["spec"]["finalizers"].as_array_mut() {
            finalizers.retain(|it| it != CONTENT);
        }
        if super::delete::may_go(&NAMESPACES, &object) {
            self.erase(&NAMESPACES, "", namespace);
        } else {
            self.store.put(&NAMESPACES, object);
        }
    }
}

/// Whether a namespace still has finalizers in its spec.
pub(super) fn is_held(storage: &GroupResource, object: &Value) -> bool {
    let finalizers = object["spec"]["finalizers"].as_array();
    *storage == NAMESPACES && finalizers.is_some_and(|finalizers| !finalizers.is_empty())
}

/// A new namespace.
pub(super) fn begin(namespace: &mut Value) {
    namespace["status"] = json!({"phase": "Active"});
    let finalizers = namespace["spec"]["finalizers"].as_array();
    let mut finalizers = finalizers.cloned().unwrap_or_default();
    if !finalizers.iter().any(|it| it == CONTENT) {
        finalizers.push(CONTENT.into());
    }
    if !namespace["spec"].is_object() {
        namespace["spec"] = json!({});
    }
    namespace["spec"]["finalizers"] = finalizers.into();
}

/// Every namespace is labelled with its name.
pub(super) fn complete(namespace: &mut Value) {
    let name = meta::text(namespace, "name").to_owned();
    namespace["metadata"]["labels"]["kubernetes.io/metadata.name"] = name.into();
}

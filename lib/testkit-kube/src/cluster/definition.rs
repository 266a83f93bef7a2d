//! CustomResourceDefinitions: objects that bring resources with them.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Cluster, delete::DeleteOptions};
use crate::{
    meta,
    registry::{self, Definition},
    schema::{Cause, Reason},
    store::{GroupResource, timestamp},
};

/// Where CRDs are kept.
pub(super) const DEFINITIONS: GroupResource =
    GroupResource::new("apiextensions.k8s.io", "customresourcedefinitions");

/// Held by a CRD while there are objects of its kind.
const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

impl Cluster {
    /// Accepts a CRD's names and serves what it defines.
    pub(super) fn establish(&self, crd: &Arc<Value>) {
        let Ok(definition) = Definition::parse(crd) else {
            // It was validated before it was stored; one that was seeded past that stays unserved.
            return;
        };
        let taken = self.taken_name(&definition);
        let mut object = Value::clone(crd);
        set_status(&mut object, taken.as_deref());
        let mut finalizers = meta::finalizers(&object);
        if !finalizers.iter().any(|it| it == CLEANUP) {
            finalizers.push(CLEANUP.to_owned());
            meta::set_finalizers(&mut object, finalizers);
        }
        if object != **crd {
            self.store.put(&DEFINITIONS, object);
        }
        if taken.is_none() {
            self.registry.define(&definition);
        }
    }

    /// Deletes all objects that a CRD defines, and the CRD when none holds out.
    pub(super) fn delete_instances(&self, crd: &Value) {
        let storage = instances(crd);
        for object in self.store.list(&storage, None) {
            self.begin_deletion(&storage, &object, &DeleteOptions::default());
        }
        self.after_instance(&storage);
    }

    /// An object of a kind has gone; the last one may let its CRD go.
    pub(super) fn after_instance(&self, storage: &GroupResource) {
        let name = format!("{}.{}", storage.resource, storage.group);
        let crd = self.store.get(&DEFINITIONS, "", &name);
        let Some(crd) = crd.filter(|crd| meta::is_deleting(crd)) else {
            return;
        };
        if self.store.is_empty(storage, None) {
            self.drop_finalizer(&DEFINITIONS, &crd, CLEANUP);
        }
    }

    /// A name of the CRD that another resource of its group has.
    fn taken_name(&self, definition: &Definition) -> Option<String> {
        let storage = definition.storage();
        let resource = definition.resources.first()?;
        let all = self.registry.all();
        let mut others = all
            .iter()
            .filter(|it| it.kind.group == resource.kind.group && it.storage != storage);
        others.find_map(|other| {
            let mut names = resource
                .short_names
                .iter()
                .chain([&resource.singular, &resource.plural]);
            let taken = |name: &&String| {
                [&other.singular, &other.plural].contains(name) || other.short_names.contains(name)
            };
            let same_kind = (other.kind.kind == resource.kind.kind).then_some(&resource.kind.kind);
            same_kind.or_else(|| names.find(taken)).cloned()
        })
    }
}

/// Where a CRD's objects are kept.
pub(super) fn instances(crd: &Value) -> GroupResource {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    GroupResource::named(
        &text(&crd["spec"]["group"]),
        &text(&crd["spec"]["names"]["plural"]),
    )
}

/// Fills in the names that follow from others.
pub(super) fn complete(crd: &mut Value) {
    let kind = crd["spec"]["names"]["kind"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let names = &mut crd["spec"]["names"];
    if names.is_object() {
        if names["singular"].as_str().is_none_or(str::is_empty) {
            names["singular"] = kind.to_lowercase().into();
        }
        if names["listKind"].as_str().is_none_or(str::is_empty) {
            names["listKind"] = format!("{kind}List").into();
        }
    }
    if crd["spec"].is_object() && crd["spec"]["conversion"].is_null() {
        crd["spec"]["conversion"] = json!({"strategy": "None"});
    }
}

/// What is wrong with a CRD.
pub(super) fn validate(crd: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = validate_names(crd);
    causes.extend(validate_versions(crd));
    let spec = &crd["spec"];
    if spec["conversion"]["strategy"] != "None" {
        causes.push(meta::cause(
            "spec.conversion.strategy",
            Reason::NotSupported,
            "Unsupported value: the embedded API server converts with strategy None only",
        ));
    }
    for field in ["group", "scope"] {
        if old.is_some_and(|old| old["spec"][field] != spec[field]) {
            let message = format!("Invalid value: {}: field is immutable", spec[field]);
            causes.push(meta::cause(
                &format!("spec.{field}"),
                Reason::Invalid,
                &message,
            ));
        }
    }
    if causes.is_empty()
        && let Err(error) = Definition::parse(crd)
    {
        let registry::Error::Schema { source, .. } = &error;
        let message = format!("Invalid value: {source}");
        causes.push(meta::cause(&error.to_string(), Reason::Invalid, &message));
    }
    causes
}

fn validate_names(crd: &Value) -> Vec<Cause> {
    let spec = &crd["spec"];
    let mut causes = Vec::new();
    for (field, value) in [
        ("spec.group", &spec["group"]),
        ("spec.names.plural", &spec["names"]["plural"]),
        ("spec.names.kind", &spec["names"]["kind"]),
        ("spec.scope", &spec["scope"]),
    ] {
        if value.as_str().is_none_or(str::is_empty) {
            causes.push(meta::cause(field, Reason::Required, "Required value"));
        }
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = meta::text(crd, "name");
    if name
        != format!(
            "{}.{}",
            text(&spec["names"]["plural"]),
            text(&spec["group"])
        )
    {
        let message =
            format!("Invalid value: {name:?}: must be spec.names.plural+\".\"+spec.group");
        causes.push(meta::cause("metadata.name", Reason::Invalid, &message));
    }
    let scope = text(&spec["scope"]);
    if !matches!(&*scope, "" | "Namespaced" | "Cluster") {
        let message =
            format!("Unsupported value: {scope:?}: supported values: \"Cluster\", \"Namespaced\"");
        causes.push(meta::cause("spec.scope", Reason::NotSupported, &message));
    }
    causes
}

fn validate_versions(crd: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let versions = crd["spec"]["versions"].as_array();
    let versions = versions.map(Vec::as_slice).unwrap_or_default();
    let stored = versions.iter().filter(|it| it["storage"] == true);
    if stored.count() != 1 {
        let message = "Invalid value: must have exactly one version marked as storage version";
        causes.push(meta::cause("spec.versions", Reason::Invalid, message));
    }
    for (index, version) in versions.iter().enumerate() {
        let field = format!("spec.versions[{index}]");
        let mut before = versions.iter().take(index);
        if before.any(|it| it["name"] == version["name"]) {
            let message = format!("Duplicate value: {}", version["name"]);
            causes.push(meta::cause(
                &format!("{field}.name"),
                Reason::Duplicate,
                &message,
            ));
        }
        if !version["schema"]["openAPIV3Schema"].is_object() {
            causes.push(meta::cause(
                &format!("{field}.schema.openAPIV3Schema"),
                Reason::Required,
                "Required value: schemas are required",
            ));
        }
    }
    causes
}

/// Notes which names are accepted, and that the CRD is served.
fn set_status(crd: &mut Value, taken: Option<&str>) {
    let storage_version = crd["spec"]["versions"].as_array().into_iter().flatten();
    let storage_version = storage_version
        .filter(|version| version["storage"] == true)
        .find_map(|version| version["name"].as_str().map(str::to_owned));
    let mut stored: Vec<Value> = crd["status"]["storedVersions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    if let Some(version) = storage_version
        && !stored.iter().any(|it| *it == version)
    {
        stored.push(version.into());
    }
    let mut conditions = match taken {
        None => vec![
            condition("NamesAccepted", "True", "NoConflicts", "no conflicts found"),
            condition(
                "Established",
                "True",
                "InitialNamesAccepted",
                "the initial names have been accepted",
            ),
        ],
        Some(name) => vec![
            condition(
                "NamesAccepted",
                "False",
                "Conflict",
                &format!("{name:?} is already in use"),
            ),
            condition(
                "Established",
                "False",
                "NotAccepted",
                "not all names are accepted",
            ),
        ],
    };
    let before = crd["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    for condition in &mut conditions {
        let same =
            |it: &&Value| it["type"] == condition["type"] && it["status"] == condition["status"];
        if let Some(before) = before.iter().find(same) {
            condition["lastTransitionTime"] = before["lastTransitionTime"].clone();
        }
    }
    let accepted = taken.is_none();
    crd["status"] = json!({
        "acceptedNames": if accepted { crd["spec"]["names"].clone() } else { json!({"kind": "", "plural": ""}) },
        "conditions": conditions,
        "storedVersions": stored,
    });
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": kind,
        "status": status,
        "lastTransitionTime": timestamp(Timestamp::now()),
        "reason": reason,
        "message": message,
    })
}

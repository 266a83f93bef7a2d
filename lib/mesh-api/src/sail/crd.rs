//! The CRDs of the operator's resources.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition, CustomResourceDefinitionVersion,
    JSON, JSONSchemaProps, ValidationRule,
};
use kube_core::CustomResourceExt as _;
use serde_json::{Value, json};

use super::{Istio, IstioCNI, IstioRevision, IstioRevisionTag, ZTunnel, version::default_version};
use crate::crd::{plain, root_schema, visit};

/// The CRDs of the operator's resources, each with all versions that are served; the first is the stored one.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![istio(), revision(), tag(), cni(), ztunnel()]
}

fn istio() -> CustomResourceDefinition {
    let spec = json!({
        "version": default_version(),
        "namespace": "istio-system",
        "updateStrategy": { "type": "InPlace" },
    });
    let mut crd = finish(Istio::crd(), Some(&spec), &[]);
    for root in schemas(&mut crd) {
        set_default(root, &["spec", "updateStrategy", "type"], json!("InPlace"));
    }
    crd
}

fn revision() -> CustomResourceDefinition {
    let rule = rule(
        "self.metadata.name == 'default' ? (!has(self.spec.values) || !has(self.spec.values.revision) || \
         self.spec.values.revision == '') : (has(self.spec.values) && has(self.spec.values.revision) && \
         self.spec.values.revision == self.metadata.name)",
        "spec.values.revision must match metadata.name or be empty when the name is 'default'",
    );
    finish(IstioRevision::crd(), None, &[rule])
}

fn tag() -> CustomResourceDefinition {
    finish(IstioRevisionTag::crd(), None, &[])
}

fn cni() -> CustomResourceDefinition {
    let spec = json!({ "version": default_version(), "namespace": "istio-cni" });
    finish(IstioCNI::crd(), Some(&spec), &[only_default()])
}

/// Objects are stored in v1, which keeps the profile of those that were written in v1alpha1.
fn ztunnel() -> CustomResourceDefinition {
    let spec = json!({ "version": default_version(), "namespace": "ztunnel" });
    let mut crd = finish(ZTunnel::crd(), Some(&spec), &[only_default()]);
    let older = crd.spec.versions.first().map(in_v1alpha1);
    crd.spec.versions.extend(older);
    crd
}

/// The same, as the version that had a profile.
fn in_v1alpha1(v1: &CustomResourceDefinitionVersion) -> CustomResourceDefinitionVersion {
    let mut version = v1.clone();
    "v1alpha1".clone_into(&mut version.name);
    version.storage = false;
    version.deprecated = Some(true);
    let columns = version.additional_printer_columns.get_or_insert_default();
    columns.retain(|column| column.name != "Revision");
    columns.insert(1, profile_column());
    if let Some(root) = root_schema(&mut version) {
        set_default(root, &["spec", "profile"], json!("ambient"));
        if let Some(JSON(spec)) = at(root, &["spec"]).and_then(|spec| spec.default.as_mut()) {
            spec["profile"] = json!("ambient");
        }
    }
    version
}

fn profile_column() -> CustomResourceColumnDefinition {
    CustomResourceColumnDefinition {
        name: "Profile".to_owned(),
        type_: "string".to_owned(),
        json_path: ".spec.profile".to_owned(),
        description: Some("The collection of values to begin with.".to_owned()),
        priority: Some(1),
        format: None,
    }
}

/// There is one network of nodes, so there is one of it.
fn only_default() -> ValidationRule {
    rule(
        "self.metadata.name == 'default'",
        "metadata.name must be 'default'",
    )
}

fn rule(rule: &str, message: &str) -> ValidationRule {
    ValidationRule {
        rule: rule.to_owned(),
        message: Some(message.to_owned()),
        ..ValidationRule::default()
    }
}

/// Makes a schema what Kubernetes takes. With a default the spec can be left out, in whole or in part.
fn finish(
    mut crd: CustomResourceDefinition,
    spec: Option<&Value>,
    rules: &[ValidationRule],
) -> CustomResourceDefinition {
    for root in schemas(&mut crd) {
        visit(root, &mut plain);
        if let Some(values) = at(root, &["spec", "values"]) {
            visit(values, &mut keep_unknown);
        }
        if let Some(spec) = spec {
            default_spec(root, spec);
        }
        root.x_kubernetes_validations = (!rules.is_empty()).then(|| rules.to_vec());
    }
    crd
}

/// Gives the spec a default, and each of its fields that the default has.
fn default_spec(root: &mut JSONSchemaProps, default: &Value) {
    root.required = None;
    set_default(root, &["spec"], default.clone());
    for (field, value) in default.as_object().into_iter().flatten() {
        set_default(root, &["spec", field], value.clone());
    }
}

fn set_default(root: &mut JSONSchemaProps, path: &[&str], default: Value) {
    if let Some(schema) = at(root, path) {
        schema.default = Some(JSON(default));
    }
}

/// A value that is not known is kept, so that it can be reported.
fn keep_unknown(schema: &mut JSONSchemaProps) {
    if schema.properties.is_some() {
        schema.x_kubernetes_preserve_unknown_fields = Some(true);
    }
}

fn schemas(crd: &mut CustomResourceDefinition) -> impl Iterator<Item = &mut JSONSchemaProps> {
    crd.spec.versions.iter_mut().filter_map(root_schema)
}

fn at<'a>(root: &'a mut JSONSchemaProps, path: &[&str]) -> Option<&'a mut JSONSchemaProps> {
    path.iter().try_fold(root, |schema, name| {
        schema.properties.as_mut()?.get_mut(*name)
    })
}

#[cfg(test)]
mod tests;

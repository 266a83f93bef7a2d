//! The CRDs of the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion, JSON, JSONSchemaProps,
    JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube_core::CustomResourceExt as _;

use crate::{
    gateway::{Gateway, GatewayClass},
    networking::{ServiceEntry, WorkloadEntry},
    security::{AuthorizationPolicy, PeerAuthentication},
};

/// The CRDs that a mesh installs, each with all versions that Istio serves; the first is the stored one.
pub fn crds() -> Vec<CustomResourceDefinition> {
    let networking = ["v1beta1", "v1alpha3"];
    let security = ["v1beta1"];
    vec![
        optional_spec(finish(AuthorizationPolicy::crd(), &security)),
        optional_spec(finish(PeerAuthentication::crd(), &security)),
        finish(ServiceEntry::crd(), &networking),
        finish(WorkloadEntry::crd(), &networking),
    ]
}

/// CRDs of the Gateway API for places without it, such as tests: they hold what the mesh reads, and
/// keep whatever else an object says. A cluster installs the Gateway API's own.
pub fn gateway_stand_ins() -> Vec<CustomResourceDefinition> {
    [Gateway::crd(), GatewayClass::crd()]
        .into_iter()
        .map(|crd| approved(stand_in(finish(crd, &["v1beta1"]))))
        .collect()
}

/// Adds the other versions, all of the same schema, and makes the schema what Kubernetes takes.
fn finish(mut crd: CustomResourceDefinition, other_versions: &[&str]) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        if let Some(schema) = root_schema(version) {
            visit(schema, &mut plain);
        }
    }
    if let Some(stored) = crd.spec.versions.first().cloned() {
        for name in other_versions {
            let mut version = stored.clone();
            (*name).clone_into(&mut version.name);
            version.storage = false;
            crd.spec.versions.push(version);
        }
    }
    crd
}

/// Istio takes a policy without a spec for one with an empty spec: an AuthorizationPolicy that allows
/// nothing. The default makes it one also for objects that are stored already.
fn optional_spec(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for root in crd.spec.versions.iter_mut().filter_map(root_schema) {
        root.required = None;
        let spec = root.properties.as_mut().and_then(|p| p.get_mut("spec"));
        if let Some(spec) = spec {
            spec.default = Some(JSON(serde_json::json!({})));
        }
    }
    crd
}

/// Lets every object keep what its schema does not know.
pub(crate) fn stand_in(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let keep = &mut |schema: &mut JSONSchemaProps| {
        if schema.properties.is_some() {
            schema.x_kubernetes_preserve_unknown_fields = Some(true);
        }
    };
    for version in &mut crd.spec.versions {
        let schema = root_schema(version).and_then(|root| root.properties.as_mut());
        for (_, part) in schema.into_iter().flatten() {
            visit(part, keep);
        }
    }
    crd
}

/// Kubernetes wants a word on who approved a CRD of one of its own groups.
fn approved(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    crd.metadata.annotations.get_or_insert_default().insert(
        "api-approved.kubernetes.io".to_owned(),
        "unapproved, stands in for the Gateway API".to_owned(),
    );
    crd
}

pub(crate) fn root_schema(
    version: &mut CustomResourceDefinitionVersion,
) -> Option<&mut JSONSchemaProps> {
    version.schema.as_mut()?.open_api_v3_schema.as_mut()
}

/// Istio's fields are absent rather than null and have no defaults; `uint32` and the like are no formats
/// of OpenAPI.
pub(crate) fn plain(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    schema.default = None;
    schema.title = None;
    if schema
        .format
        .as_deref()
        .is_some_and(|f| f.starts_with("uint"))
    {
        schema.format = Some("int64".to_owned());
    }
}

/// Calls `change` for a schema and all schemas in it.
pub(crate) fn visit(schema: &mut JSONSchemaProps, change: &mut impl FnMut(&mut JSONSchemaProps)) {
    change(schema);
    for (_, property) in schema.properties.iter_mut().flatten() {
        visit(property, change);
    }
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(item)) => visit(item, change),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => {
            for item in items {
                visit(item, change);
            }
        }
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(value)) = &mut schema.additional_properties {
        visit(value, change);
    }
}

#[cfg(test)]
mod tests;

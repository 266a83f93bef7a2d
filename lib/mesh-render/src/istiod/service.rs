//! How the control plane is reached.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use mesh_api::control_plane::{MONITORING_PORT, SECURE_PORT};

use super::Plan;
use crate::object::{self, Object};

/// The Service of the revision.
pub(super) fn service(plan: &Plan<'_>) -> Object {
    let mut metadata = plan.installation.meta(&plan.name());
    plan.label(&mut metadata);
    let labels = metadata.labels.get_or_insert_default();
    labels.insert("app".to_owned(), "istiod".to_owned());
    labels.insert("istio".to_owned(), "pilot".to_owned());
    let annotations = plan.values.pilot.service_annotations.clone();
    metadata.annotations = Some(annotations).filter(|texts| !texts.is_empty());
    named(plan, metadata)
}

/// The Service of a tag: the same pods under another name.
pub(super) fn tag(plan: &Plan<'_>, tag: &str) -> Object {
    let name = format!("istiod-revision-tag-{tag}");
    let mut metadata = plan.installation.meta(&name);
    plan.label(&mut metadata);
    let labels = metadata.labels.get_or_insert_default();
    labels.insert("app".to_owned(), "istiod".to_owned());
    labels.insert("istio.io/tag".to_owned(), tag.to_owned());
    named(plan, metadata)
}

fn named(plan: &Plan<'_>, metadata: ObjectMeta) -> Object {
    let (pilot, global) = (&plan.values.pilot, &plan.values.global);
    let families = if pilot.ip_families.is_empty() {
        &global.ip_families
    } else {
        &pilot.ip_families
    };
    let policy = pilot
        .ip_family_policy
        .as_ref()
        .or(global.ip_family_policy.as_ref());
    let service = Service {
        metadata,
        spec: Some(ServiceSpec {
            ip_families: Some(families.clone()).filter(|families| !families.is_empty()),
            ip_family_policy: policy.cloned().filter(|policy| !policy.is_empty()),
            ports: Some(ports(plan)),
            selector: Some(plan.service_selector()),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    };
    Object::new(object::SERVICE, &service)
}

fn ports(plan: &Plan<'_>) -> Vec<ServicePort> {
    let mut ports = vec![
        ("https-dns", SECURE_PORT, None),
        ("http-monitoring", MONITORING_PORT, None),
    ];
    if plan.is_istio() {
        ports.extend([
            ("grpc-xds", 15010, None),
            ("https-webhook", 443, Some(15017)),
        ]);
    }
    let port = |(name, number, target): (&str, u16, Option<i32>)| ServicePort {
        name: Some(name.to_owned()),
        port: number.into(),
        protocol: Some("TCP".to_owned()),
        target_port: target.map(IntOrString::Int),
        ..ServicePort::default()
    };
    ports.into_iter().map(port).collect()
}

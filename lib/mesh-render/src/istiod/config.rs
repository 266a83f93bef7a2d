//! The control plane's ConfigMaps.

use k8s_openapi::api::core::v1::ConfigMap;
use mesh_api::{
    control_plane::MESH_CONFIG_MAP,
    mesh_config::{self, Warning},
    sail::Values,
};
use serde_json::{Map, Value, json};

use super::Plan;
use crate::{
    Error, Note, layers,
    meta::Texts,
    object::{self, Object},
    yaml,
};

/// The mesh configuration, the values for those who look for them, and what Istio's control plane reads
/// beside them.
pub(super) fn config_maps(plan: &mut Plan<'_>, user: &Values) -> Result<Vec<Object>, Error> {
    let mesh = mesh_config(plan)?;
    let mut maps = Vec::new();
    if plan.values.pilot.config_map != Some(false) {
        let networks = json!({"networks": plan.values.global.mesh_networks});
        let data = [("mesh", mesh), ("meshNetworks", yaml::text(&networks))];
        maps.push(config_map(plan, MESH_CONFIG_MAP, data));
    }
    let values = [
        ("merged-values", pretty(&plan.merged)),
        ("original-values", pretty(user)),
    ];
    maps.push(config_map(plan, "values", values));
    if plan.is_istio() {
        maps.extend(istios(plan));
    }
    Ok(maps)
}

/// The mesh configuration as text: the user's over ours. It has been read as the control plane will read it.
fn mesh_config(plan: &mut Plan<'_>) -> Result<String, Error> {
    let service = plan.name();
    let namespace = plan.installation.namespace.clone();
    let mut config = json!({
        "defaultConfig": {"discoveryAddress": format!("{service}.{namespace}.svc:15012")},
        "defaultProviders": {"metrics": ["prometheus"]},
        "enablePrometheusMerge": true,
        "rootNamespace": namespace,
        "trustDomain": "cluster.local",
    });
    if let Some(id) = &plan.values.global.mesh_id {
        config["defaultConfig"]["meshId"] = json!(id);
    }
    layers::merge(&mut config, Value::Object(plan.values.mesh_config.clone()));
    let text = yaml::text(&config);
    let parsed = mesh_config::parse(&text).map_err(refusal)?;
    plan.notes.extend(parsed.warnings.into_iter().map(note));
    Ok(text)
}

fn refusal(error: mesh_config::Error) -> Error {
    match error {
        mesh_config::Error::Field { path, problem } => Error::Value {
            path: format!("meshConfig.{path}"),
            problem: problem.to_string(),
        },
        other => Error::Value {
            path: "meshConfig".to_owned(),
            problem: other.to_string(),
        },
    }
}

fn note(warning: Warning) -> Note {
    match warning {
        Warning::Unknown(path) => Note::Unknown(format!("meshConfig.{path}")),
        Warning::Bundle(path) => Note::WithoutEffect {
            path: format!("meshConfig.{path}"),
            why: "roots are not fetched: give the certificates as `pem`",
        },
    }
}

/// Roots for keys of JSON Web Tokens, and settings of gateways by their class.
fn istios(plan: &Plan<'_>) -> Vec<Object> {
    let mut maps = Vec::new();
    let root = plan.values.pilot.jwks_resolver_extra_root_ca.as_deref();
    if let Some(root) = root.filter(|root| !root.is_empty()) {
        let data = [("extra.pem", root.to_owned())];
        maps.push(config_map(plan, super::deployment::JWKS_CONFIG_MAP, data));
    }
    let classes = plan.at("/gatewayClasses").and_then(Value::as_object);
    for (class, settings) in classes.into_iter().flatten() {
        maps.push(gateway_class(plan, class, settings));
    }
    maps
}

fn gateway_class(plan: &Plan<'_>, class: &str, settings: &Value) -> Object {
    let empty = Map::new();
    let settings = settings.as_object().unwrap_or(&empty).iter();
    let data = settings.map(|(key, value)| (key.clone(), yaml::text(value)));
    let name = format!("istio-{}-gatewayclass-{class}", plan.revision());
    let mut metadata = plan.installation.meta(&name);
    let label = "gateway.istio.io/defaults-for-class".to_owned();
    metadata
        .labels
        .get_or_insert_default()
        .insert(label, class.to_owned());
    let map = ConfigMap {
        metadata,
        data: Some(data.collect()),
        ..ConfigMap::default()
    };
    Object::new(object::CONFIG_MAP, &map)
}

fn config_map<const N: usize>(plan: &Plan<'_>, name: &str, data: [(&str, String); N]) -> Object {
    let data: Texts = data
        .into_iter()
        .map(|(key, text)| (key.to_owned(), text))
        .collect();
    let mut metadata = plan.installation.meta(&plan.installation.suffixed(name));
    plan.label(&mut metadata);
    let map = ConfigMap {
        metadata,
        data: Some(data),
        ..ConfigMap::default()
    };
    Object::new(object::CONFIG_MAP, &map)
}

/// Values as JSON for people, in an order that does not depend on how they were built.
fn pretty(values: &Values) -> String {
    format!("{:#}", yaml::sorted(&Value::Object(values.clone())))
}

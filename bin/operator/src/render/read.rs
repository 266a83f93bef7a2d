//! Resources from text: as the API server would take them, with the defaults that it would fill in.

use mesh_api::sail::{GROUP, Values, version};
use serde::{Deserialize as _, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{Error, MAX_SIZE, Place, Resource};

/// A kind, the namespace that is filled in, and whether there can be but one, named `default`.
struct Known {
    kind: &'static str,
    namespace: Option<&'static str>,
    only_one: bool,
    decode: fn(&Place, Value, &mut Vec<String>) -> Result<Resource, Error>,
}

const KNOWN: &[Known] = &[
    Known {
        kind: "Istio",
        namespace: Some("istio-system"),
        only_one: false,
        decode: |place, body, notes| decode(place, body, notes).map(Resource::Istio),
    },
    Known {
        kind: "IstioRevision",
        namespace: None,
        only_one: false,
        decode: |place, body, notes| decode(place, body, notes).map(Resource::Revision),
    },
    Known {
        kind: "IstioRevisionTag",
        namespace: None,
        only_one: false,
        decode: |place, body, notes| decode(place, body, notes).map(Resource::Tag),
    },
    Known {
        kind: "IstioCNI",
        namespace: Some("istio-cni"),
        only_one: true,
        decode: |place, body, notes| decode(place, body, notes).map(Resource::Cni),
    },
    Known {
        kind: "ZTunnel",
        namespace: Some("ztunnel"),
        only_one: true,
        decode: |place, body, notes| decode(place, body, notes).map(Resource::Ztunnel),
    },
];

/// The resources of all documents. Fields that nobody knows are noted.
pub(super) fn resources(
    text: &str,
    notes: &mut Vec<String>,
) -> Result<Vec<(Place, Resource)>, Error> {
    if text.len() > MAX_SIZE {
        return Err(Error::TooLarge(text.len()));
    }
    let mut resources = Vec::new();
    let documents = serde_yaml_ng::Deserializer::from_str(text);
    for (at, document) in documents.enumerate() {
        let number = at + 1;
        let body = Value::deserialize(document);
        let body = body.map_err(|source| Error::Yaml { number, source })?;
        if !body.is_null() {
            resources.push(resource(number, body, notes)?);
        }
    }
    Ok(resources)
}

fn resource(
    number: usize,
    mut body: Value,
    notes: &mut Vec<String>,
) -> Result<(Place, Resource), Error> {
    let known = known(number, &body)?;
    let name = body.pointer("/metadata/name").and_then(Value::as_str);
    let place = Place {
        number,
        kind: known.kind,
        name: name.unwrap_or_default().to_owned(),
    };
    if place.name.is_empty() {
        return Err(place.field("metadata.name", "is missing: name the resource"));
    }
    if known.only_one && place.name != "default" {
        return Err(place.field(
            "metadata.name",
            "must be `default`: there is one for the cluster",
        ));
    }
    fill_in(known, &place, &mut body)?;
    check(&place, &body)?;
    let resource = (known.decode)(&place, body, notes)?;
    Ok((place, resource))
}

fn known(number: usize, body: &Value) -> Result<&'static Known, Error> {
    let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default();
    let (version, kind) = (text("apiVersion"), text("kind"));
    let served = |known: &&Known| {
        let newest = version == format!("{GROUP}/v1");
        let older = known.kind == "ZTunnel" && version == format!("{GROUP}/v1alpha1");
        known.kind == kind && (newest || older)
    };
    KNOWN.iter().find(served).ok_or_else(|| {
        let kind = match (kind, version) {
            ("", _) => "no kind".to_owned(),
            (kind, "") => format!("kind {kind} and no apiVersion"),
            (kind, version) => format!("kind {kind} of {version}"),
        };
        Error::Kind { number, kind }
    })
}

/// What the API server fills in where nothing is said.
fn fill_in(known: &Known, place: &Place, body: &mut Value) -> Result<(), Error> {
    let Some(namespace) = known.namespace else {
        return Ok(());
    };
    let wrong = || place.field("spec", "must be an object");
    let body = body.as_object_mut().ok_or_else(wrong)?;
    let spec = body.entry("spec").or_insert_with(|| json!({}));
    let spec = spec.as_object_mut().ok_or_else(wrong)?;
    let version = version::default_version();
    spec.entry("version").or_insert_with(|| json!(version));
    spec.entry("namespace").or_insert_with(|| json!(namespace));
    Ok(())
}

/// The rules of the CRDs that concern more than one field.
fn check(place: &Place, body: &Value) -> Result<(), Error> {
    let none = Values::new();
    let values = body
        .pointer("/spec/values")
        .and_then(Value::as_object)
        .unwrap_or(&none);
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let namespace = text(body.pointer("/spec/namespace"));
    let istio = text(
        values
            .get("global")
            .and_then(|global| global.get("istioNamespace")),
    );
    let of_control_plane = ["Istio", "IstioRevision"].contains(&place.kind);
    if of_control_plane && !istio.is_empty() && istio != namespace {
        let problem = format!("must be spec.namespace, `{namespace}`");
        return Err(place.field("spec.values.global.istioNamespace", problem));
    }
    if place.kind == "IstioRevision" {
        let revision = text(values.get("revision"));
        let wanted = if place.name == "default" {
            ""
        } else {
            &place.name
        };
        if revision != wanted {
            let problem = format!(
                "must be `{wanted}`, as the resource is named {}",
                place.name
            );
            return Err(place.field("spec.values.revision", problem));
        }
        if namespace.is_empty() {
            return Err(place.field("spec.namespace", "is missing: say where it is installed"));
        }
    }
    Ok(())
}

fn decode<T: DeserializeOwned>(
    place: &Place,
    body: Value,
    notes: &mut Vec<String>,
) -> Result<T, Error> {
    let mut ignore = |path: serde_ignored::Path<'_>| {
        let path = path.to_string();
        if !["apiVersion", "kind"].contains(&path.as_str()) {
            notes.push(format!("{place}: {path} is not known and has no effect"));
        }
    };
    let source = serde_ignored::Deserializer::new(body, &mut ignore);
    serde_path_to_error::deserialize(source)
        .map_err(|error| place.field(&error.path().to_string(), error.inner().to_string()))
}

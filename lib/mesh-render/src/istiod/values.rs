//! What the control plane says itself, and whose it is.

use mesh_api::sail::{
    Values,
    values::{Component, IstioValues},
    version,
};
use serde_json::{Value, json};

use crate::{
    Distribution, Error, Note, Settings,
    decode::{Decoded, decode},
    image::{Image, Wanted},
    layers::Layers,
};

/// The values in force and the image that they lead to.
pub(super) struct Chosen {
    pub(super) values: IstioValues,
    pub(super) merged: Values,
    pub(super) image: Image,
    pub(super) notes: Vec<Note>,
}

/// Paths that a revision has by its nature; nobody needs to be told that the operator sets them.
const OPERATORS: &[&str] = &["profile", "revision", "revisionTags", "defaultRevision"];

/// Paths that have an effect in Istio's control plane, though none in this distribution's.
const ISTIOS: &[&str] = &[
    "meshConfig",
    "gatewayClasses",
    "telemetry",
    "pilot.traceSampling",
    "pilot.jwksResolverExtraRootCA",
    "global.istiod.enableAnalysis",
    "global.sts",
];

/// Reads the values. Whose image they ask for decides on some defaults, and these do not decide on the image.
pub(super) fn choose(user: &Values, settings: &Settings) -> Result<Chosen, Error> {
    let read = |distribution| {
        let layers = Layers {
            component: Component::Istio,
            defaults: defaults(distribution, settings),
            profile: user
                .get("profile")
                .and_then(Value::as_str)
                .unwrap_or_default(),
            inherited: None,
            user,
        };
        let merged = layers.merged(settings)?;
        let decoded = decode::<IstioValues>(Component::Istio, merged.clone(), user)?;
        Ok::<_, Error>((merged, decoded))
    };
    let (mut merged, mut decoded) = read(Distribution::Lateen)?;
    let image = image(&decoded.values, settings)?;
    if image.distribution == Distribution::Istio {
        (merged, decoded) = read(Distribution::Istio)?;
    }
    let Decoded { values, mut notes } = decoded;
    notes.retain(|note| matters(note, image.distribution));
    let variant = values.pilot.variant.is_some() || stands(user, "global", "variant");
    if variant && image.distribution == Distribution::Lateen {
        let own = values.pilot.variant.is_some();
        let path = if own {
            "pilot.variant"
        } else {
            "global.variant"
        };
        notes.push(Note::WithoutEffect {
            path: path.to_owned(),
            why: "the images of this distribution have no variants",
        });
    }
    Ok(Chosen {
        values,
        merged,
        image,
        notes,
    })
}

fn matters(note: &Note, distribution: Distribution) -> bool {
    let at = |entry: &&&str| {
        let rest = note.path().strip_prefix(**entry);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let own = OPERATORS.iter().any(|entry| at(&entry));
    let istios = distribution == Distribution::Istio
        && matches!(note, Note::WithoutEffect { .. })
        && ISTIOS.iter().any(|entry| at(&entry));
    !own && !istios
}

fn stands(values: &Values, group: &str, key: &str) -> bool {
    values
        .get(group)
        .is_some_and(|group| group.get(key).is_some())
}

fn image(values: &IstioValues, settings: &Settings) -> Result<Image, Error> {
    let (pilot, global) = (&values.pilot, &values.global);
    let wanted = Wanted {
        image: pilot.image.as_deref(),
        hub: pilot.hub.as_deref().or(global.hub.as_deref()),
        tag: pilot.tag.as_deref().or(global.tag.as_deref()),
        variant: pilot.variant.as_deref().or(global.variant.as_deref()),
        distribution: global.distribution.as_deref(),
    };
    let name = &version::images().istiod;
    Image::choose(wanted, &settings.images.istiod, name, &settings.release)
}

/// What the control plane says itself. Requests are what a small mesh needs; Istio's are those of its chart.
fn defaults(distribution: Distribution, settings: &Settings) -> Value {
    let requests = match distribution {
        Distribution::Lateen => json!({"cpu": "100m", "memory": "256Mi"}),
        Distribution::Istio => json!({"cpu": "500m", "memory": "2048Mi"}),
    };
    let mut defaults = json!({
        "global": {"defaultPodDisruptionBudget": {"enabled": true}},
        "pilot": {
            "autoscaleEnabled": true,
            "autoscaleMin": 1,
            "autoscaleMax": 5,
            "configMap": true,
            "cpu": {"targetAverageUtilization": 80},
            "keepaliveMaxServerConnectionAge": "30m",
            "pdb": {"minAvailable": 1},
            "resources": {"requests": requests},
            "rollingMaxSurge": "100%",
            "rollingMaxUnavailable": "25%",
            "seccompProfile": {"type": "RuntimeDefault"},
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "traceSampling": 1.0,
        },
    });
    if distribution == Distribution::Istio {
        crate::layers::merge(&mut defaults, crypto(settings));
    }
    defaults
}

/// What the cluster demands of TLS, in terms of Istio's control plane. This distribution's links the
/// cluster's OpenSSL and offers what that allows.
fn crypto(settings: &Settings) -> Value {
    let mut layer = json!({});
    if settings.platform.fips {
        let policy = json!({"pilot": {"env": {"COMPLIANCE_POLICY": "fips-140-2"}}});
        crate::layers::merge(&mut layer, policy);
    }
    if let Some(tls) = &settings.platform.tls {
        let mut section = json!({"minProtocolVersion": tls.min_version});
        if tls.min_version != "TLSV1_3" && !tls.ciphers.is_empty() {
            section["cipherSuites"] = json!(tls.ciphers);
        }
        let sections = json!({"meshConfig": {"tlsDefaults": section.clone(), "meshMTLS": section}});
        crate::layers::merge(&mut layer, sections);
    }
    layer
}

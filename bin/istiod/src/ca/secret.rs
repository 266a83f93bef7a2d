//! The Secret in which the replicas share a self-signed authority.
//!
//! `ca-cert.pem` and `ca-key.pem` are what signs now, as in Istio, whose istiod can take the Secret over
//! at any moment and ignores the rest: `root-cert.pem` holds all roots that workloads are to trust,
//! `next-cert.pem` and `next-key.pem` what signs next, and annotations say since when.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, SystemTime},
};

use k8s_openapi::{
    ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::{Deserialize, Serialize};

use super::{
    material::{self, Pem, Root, Signer, bundle, timestamp},
    rotation::{State, Trusted},
};

/// The Secret's name.
pub const NAME: &str = mesh_api::control_plane::ROOT_SECRET;
/// Its type.
const TYPE: &str = "istio.io/ca-root";

const CERTIFICATE: &str = "ca-cert.pem";
const KEY: &str = "ca-key.pem";
const ROOTS: &str = "root-cert.pem";
const NEXT_CERTIFICATE: &str = "next-cert.pem";
const NEXT_KEY: &str = "next-key.pem";

/// Whoever gives this annotation another value has the root replaced.
pub const ROTATE: &str = "mesh.lateen.io/rotate";
/// The value that was followed last. Ours.
pub const ROTATED: &str = "mesh.lateen.io/rotated";
/// The longest life in seconds of any certificate that may exist. Ours; who knows better may lower it.
pub const LONGEST: &str = "mesh.lateen.io/longest-certificate-ttl";
/// When each root came and went. Ours.
pub const ROOT_DATES: &str = "mesh.lateen.io/ca-roots";

/// An entry of [`ROOT_DATES`].
#[derive(Debug, Serialize, Deserialize)]
struct Dates {
    sha256: String,
    added: jiff::Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dropped: Option<jiff::Timestamp>,
}

/// Why a Secret holds no authority. Whoever wrote it is at fault; restoring it, or deleting it while
/// istiod runs, helps.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key is missing or empty.
    #[error("Secret {NAME} has no {0}")]
    Missing(&'static str),
    /// A value is not text.
    #[error("{0} of Secret {NAME} is not text")]
    NotText(&'static str),
    /// What signs cannot.
    #[error("{CERTIFICATE} and {KEY} of Secret {NAME} cannot be used")]
    Signing(#[source] material::Error),
    /// What is to sign next cannot.
    #[error("{NEXT_CERTIFICATE} and {NEXT_KEY} of Secret {NAME} cannot be used")]
    Next(#[source] material::Error),
    /// The bundle cannot be read.
    #[error("{ROOTS} of Secret {NAME} cannot be used")]
    Roots(#[source] material::Error),
    /// An annotation is not what we wrote.
    #[error("annotation {name} of Secret {NAME} cannot be read: {reason}")]
    Annotation {
        /// Which one.
        name: &'static str,
        /// What is wrong.
        reason: String,
    },
}

/// Writes the state into a Secret, `base` or a new one; what else is in it stays.
pub fn encode(state: &State, namespace: &str, base: Option<&Secret>) -> Secret {
    let mut secret = base.cloned().unwrap_or_else(|| Secret {
        metadata: ObjectMeta {
            name: Some(NAME.into()),
            namespace: Some(namespace.into()),
            ..ObjectMeta::default()
        },
        type_: Some(TYPE.into()),
        ..Secret::default()
    });
    let data = secret.data.get_or_insert_default();
    let mut put = |key: &str, text: Option<&str>| match text {
        Some(text) => drop(data.insert(key.into(), ByteString(text.as_bytes().to_vec()))),
        None => drop(data.remove(key)),
    };
    let next = state.next.as_ref().map(|next| &next.pem);
    put(CERTIFICATE, Some(&state.signing.pem.certificate));
    put(KEY, Some(&state.signing.pem.key));
    put(ROOTS, Some(&bundle(state.roots())));
    put(NEXT_CERTIFICATE, next.map(|pem| pem.certificate.as_str()));
    put(NEXT_KEY, next.map(|pem| pem.key.as_str()));
    let annotations = secret.metadata.annotations.get_or_insert_default();
    annotations.insert(LONGEST.into(), state.longest.as_secs().to_string());
    annotations.insert(ROOT_DATES.into(), encode_dates(&state.trusted));
    if let Some(followed) = &state.followed {
        annotations.insert(ROTATED.into(), followed.clone());
    }
    secret
}

/// Reads the state. `unknown` is taken for the longest life where the Secret, made by Istio, does not
/// say.
pub fn decode(secret: &Secret, unknown: Duration, now: SystemTime) -> Result<State, Error> {
    let text = |key| text(secret, key);
    let certificate = text(CERTIFICATE)?.ok_or(Error::Missing(CERTIFICATE))?;
    let key = text(KEY)?.ok_or(Error::Missing(KEY))?;
    let signing = self_signed(certificate, key, now).map_err(Error::Signing)?;
    let next = match (text(NEXT_CERTIFICATE)?, text(NEXT_KEY)?) {
        (None, None) => None,
        (Some(certificate), Some(key)) => {
            Some(self_signed(certificate, key, now).map_err(Error::Next)?)
        }
        (Some(_), None) => return Err(Error::Missing(NEXT_KEY)),
        (None, Some(_)) => return Err(Error::Missing(NEXT_CERTIFICATE)),
    };
    let bundled = Root::all_in("root certificates", text(ROOTS)?.unwrap_or_default());
    let bundled = bundled.map_err(Error::Roots)?;
    let mut state = State::new(Arc::new(signing), longest(secret, unknown)?);
    let wanted = state.signing.roots.iter();
    let wanted = wanted.chain(next.iter().flat_map(|next| &next.roots));
    state.trusted = dated(bundled.iter().chain(wanted), &dates(secret)?);
    state.next = next.map(Arc::new);
    state.requested = annotation(secret, ROTATE).map(str::to_owned);
    state.followed = annotation(secret, ROTATED).map(str::to_owned);
    Ok(state)
}

/// These roots, each once and in their order, with the dates that are known. A root without dates was
/// put there by hand, and is taken as everybody's since ever.
fn dated<'a>(
    roots: impl Iterator<Item = &'a Root>,
    dates: &HashMap<String, Dates>,
) -> Vec<Trusted> {
    let mut trusted: Vec<Trusted> = Vec::new();
    for root in roots {
        if trusted
            .iter()
            .any(|t| t.root.fingerprint == root.fingerprint)
        {
            continue;
        }
        let dates = dates.get(&root.fingerprint);
        trusted.push(Trusted {
            root: root.clone(),
            added: dates.map_or(SystemTime::UNIX_EPOCH, |dates| dates.added.into()),
            dropped: dates.and_then(|dates| dates.dropped).map(SystemTime::from),
        });
    }
    trusted
}

fn self_signed(certificate: &str, key: &str, now: SystemTime) -> Result<Signer, material::Error> {
    let pem = Pem {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        chain: String::new(),
        roots: certificate.to_owned(),
    };
    Signer::try_new(pem, now)
}

/// A value as text; an empty one is as good as none, and Istio writes some.
fn text<'a>(secret: &'a Secret, key: &'static str) -> Result<Option<&'a str>, Error> {
    let bytes = secret.data.as_ref().and_then(|data| data.get(key));
    let text = bytes.map(|bytes| std::str::from_utf8(&bytes.0));
    let text = text.transpose().map_err(|_not_utf8| Error::NotText(key))?;
    Ok(text.filter(|text| !text.trim().is_empty()))
}

fn annotation<'a>(secret: &'a Secret, name: &str) -> Option<&'a str> {
    let annotations: &BTreeMap<_, _> = secret.metadata.annotations.as_ref()?;
    annotations.get(name).map(String::as_str)
}

fn longest(secret: &Secret, unknown: Duration) -> Result<Duration, Error> {
    let Some(text) = annotation(secret, LONGEST) else {
        return Ok(unknown);
    };
    let seconds = text.trim().parse().map(Duration::from_secs);
    seconds.map_err(|error| Error::Annotation {
        name: LONGEST,
        reason: format!("`{text}` is not a number of seconds: {error}"),
    })
}

fn dates(secret: &Secret) -> Result<HashMap<String, Dates>, Error> {
    let text = annotation(secret, ROOT_DATES).unwrap_or("[]");
    let dates = serde_json::from_str::<Vec<Dates>>(text);
    let dates = dates.map_err(|error| Error::Annotation {
        name: ROOT_DATES,
        reason: error.to_string(),
    })?;
    Ok(dates.into_iter().map(|d| (d.sha256.clone(), d)).collect())
}

fn encode_dates(trusted: &[Trusted]) -> String {
    let dates = trusted.iter().map(|trusted| Dates {
        sha256: trusted.root.fingerprint.clone(),
        added: timestamp(trusted.added),
        dropped: trusted.dropped.map(timestamp),
    });
    let dates: Vec<_> = dates.collect();
    // Texts and dates are always representable.
    serde_json::to_string(&dates).unwrap_or_default()
}

#[cfg(test)]
mod tests;

//! Decoding of lists and watch events, where one bad object must not spoil the others.
//!
//! A page or an event is decoded straight into its type; only when that fails is it decoded piece by
//! piece, to find which objects are bad.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, ObjectMeta};
use kube::{Resource, core::Status};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{Event, Invalid, Malformed, ObjectKey};

/// One page of a list.
#[derive(Debug)]
pub(super) struct Page<K> {
    pub(super) events: Vec<Told<K>>,
    /// The version of the collection.
    pub(super) version: String,
    /// Where the next page begins, if there is one.
    pub(super) next: Option<String>,
}

/// An event with the key it is about.
#[derive(Debug)]
pub(super) struct Told<K> {
    pub(super) key: ObjectKey,
    pub(super) event: Event<K>,
}

/// One line of a watch.
#[derive(Debug)]
pub(super) enum Line<K> {
    Object { told: Told<K>, version: String },
    Bookmark { version: String },
    Error(Box<Status>),
}

#[derive(Deserialize)]
struct RawPage<K> {
    metadata: ListMeta,
    // Go writes an empty list as null here and there.
    items: Option<Vec<K>>,
}

#[derive(Deserialize)]
struct RawLine<K> {
    r#type: String,
    object: K,
}

#[derive(Deserialize)]
struct Envelope {
    metadata: ObjectMeta,
}

/// Decodes a page of a list.
pub(super) fn page<K>(text: &str) -> Result<Page<K>, Malformed>
where
    K: Resource + DeserializeOwned,
{
    let straight = serde_json::from_str::<RawPage<K>>(text);
    let (metadata, events) = if let Ok(RawPage { metadata, items }) = straight {
        let items = items.unwrap_or_default().into_iter();
        (metadata, items.map(good).collect::<Result<_, _>>()?)
    } else {
        let raw: RawPage<Value> = serde_json::from_str(text).map_err(Malformed::Form)?;
        let items = raw.items.unwrap_or_default().into_iter();
        let events = items.map(|item| either(item).map(|(told, _)| told));
        (raw.metadata, events.collect::<Result<_, _>>()?)
    };
    let present = |text: &String| !text.is_empty();
    let version = metadata.resource_version.filter(present);
    Ok(Page {
        events,
        version: version.ok_or(Malformed::Metadata("list's metadata.resourceVersion"))?,
        next: metadata.continue_.filter(present),
    })
}

/// Decodes a line of a watch. `None` is a line that was cut off in the middle, as the last one is when
/// the connection ends.
pub(super) fn line<K>(text: &str) -> Result<Option<Line<K>>, Malformed>
where
    K: Resource + DeserializeOwned,
{
    match serde_json::from_str::<RawLine<K>>(text) {
        Ok(RawLine { r#type, object }) if is_change(&r#type) => {
            let version = version_of(object.meta())?;
            let told = by_type(&r#type, good(object)?);
            Ok(Some(Line::Object { told, version }))
        }
        Err(error) if error.is_eof() => Ok(None),
        // A bookmark or an error, whose object is not one of the kind, or a bad object.
        _ => piecewise(text).map(Some),
    }
}

fn piecewise<K>(text: &str) -> Result<Line<K>, Malformed>
where
    K: Resource + DeserializeOwned,
{
    let RawLine { r#type, object } =
        serde_json::from_str::<RawLine<Value>>(text).map_err(Malformed::Form)?;
    match r#type.as_str() {
        "ERROR" => {
            let status = serde_json::from_value(object).map_err(Malformed::Form)?;
            Ok(Line::Error(Box::new(status)))
        }
        "BOOKMARK" => {
            let Envelope { metadata } = serde_json::from_value(object).map_err(Malformed::Form)?;
            let version = version_of(&metadata)?;
            Ok(Line::Bookmark { version })
        }
        change if is_change(change) => {
            let (told, version) = either(object)?;
            let told = by_type(change, told);
            Ok(Line::Object {
                told,
                version: version?,
            })
        }
        other => Err(Malformed::Type(other.chars().take(40).collect())),
    }
}

fn is_change(r#type: &str) -> bool {
    matches!(r#type, "ADDED" | "MODIFIED" | "DELETED")
}

/// What a change of this type means for the index. An object that is deleted need not be readable.
fn by_type<K>(r#type: &str, told: Told<K>) -> Told<K> {
    if r#type != "DELETED" {
        return told;
    }
    let event = Event::Delete(told.key.clone());
    Told { event, ..told }
}

fn good<K: Resource>(object: K) -> Result<Told<K>, Malformed> {
    let key = ObjectKey::of(&object).ok_or(Malformed::Metadata("metadata.name"))?;
    let event = Event::Apply(object);
    Ok(Told { key, event })
}

/// An object that may be bad, with its version.
fn either<K>(item: Value) -> Result<(Told<K>, Result<String, Malformed>), Malformed>
where
    K: Resource + DeserializeOwned,
{
    let metadata = item.get("metadata").cloned().unwrap_or_default();
    let metadata: ObjectMeta = serde_json::from_value(metadata).map_err(Malformed::Form)?;
    let version = version_of(&metadata);
    let told = match serde_json::from_value::<K>(item) {
        Ok(object) => good(object)?,
        Err(error) => {
            let key = ObjectKey {
                namespace: metadata.namespace.unwrap_or_default(),
                name: metadata.name.ok_or(Malformed::Metadata("metadata.name"))?,
            };
            let reason = error.to_string();
            let event = Event::Invalid(Invalid {
                key: key.clone(),
                reason,
            });
            Told { key, event }
        }
    };
    Ok((told, version))
}

fn version_of(metadata: &ObjectMeta) -> Result<String, Malformed> {
    let version = metadata.resource_version.clone();
    let present = version.filter(|version| !version.is_empty());
    present.ok_or(Malformed::Metadata("metadata.resourceVersion"))
}

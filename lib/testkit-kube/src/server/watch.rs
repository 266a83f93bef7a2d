//! Watch: a stream of what happens to the objects that are selected.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::stream;
use http::Response;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{
    sync::watch::Receiver,
    time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until},
};

use super::{
    Shared,
    handler::Asked,
    read,
    request::{Form, Location},
    respond::{self, Body},
};
use crate::{
    convert,
    registry::Resource,
    selector::Selector,
    status::Status,
    store::{Change, Event, Query as Range},
    table::Table,
};

/// Events that are written at once.
const BATCH: usize = 128;
/// How long a watch lasts that does not say, in seconds: between this and twice as much.
const DEFAULT_TIMEOUT: u64 = 1800;

/// A watch at work.
struct Watch {
    shared: Arc<Shared>,
    resource: Arc<Resource>,
    selector: Selector,
    show: Show,
    /// What was there when it began and has not been told.
    initial: VecDeque<Arc<Value>>,
    /// Whether to say when that is told.
    marks_initial: bool,
    /// Everything up to here has been told.
    position: u64,
    changed: Receiver<u64>,
    disconnect: Receiver<u64>,
    removals: Receiver<u64>,
    bookmark: Receiver<u64>,
    bookmarks: Option<Interval>,
    end: Instant,
    /// Whether the last word has been said.
    ended: bool,
}

/// How objects are written.
enum Show {
    Object,
    Metadata(&'static str),
    Table(Box<Table>),
}

/// What a watch waits for.
enum Next {
    Changes,
    Removal,
    Bookmark,
    End,
    Disconnect,
}

/// Starts a watch. Once it has been allowed, faults are told in the stream.
pub(super) fn start(
    shared: &Arc<Shared>,
    resource: Arc<Resource>,
    at: &Location,
    asked: &Asked,
) -> Result<Response<Body>, Status> {
    let query = &asked.query;
    let form = Form::negotiate(&asked.headers)?;
    let mut selector = selector(&resource, at, asked)?;
    selector.namespace = (!at.namespace.is_empty()).then(|| at.namespace.clone());
    let version = read::version(&resource, query)?;
    let seconds = query
        .number("timeoutSeconds")?
        .filter(|&seconds| seconds > 0);
    let seconds = seconds.unwrap_or_else(|| fastrand::u64(DEFAULT_TIMEOUT..2 * DEFAULT_TIMEOUT));
    let streams_initial = query.flag("sendInitialEvents");
    if streams_initial && let Some(version) = version {
        read::not_older(shared, version)?;
    }
    let from_now = query.text("sendInitialEvents") == "false" && version.unwrap_or_default() == 0;
    let wants_bookmarks = query.flag("allowWatchBookmarks");
    let every = shared.options.bookmark_interval;
    let mut watch = Watch {
        changed: shared.cluster.store.subscribe(&resource.storage),
        disconnect: shared.disconnect.subscribe(),
        removals: shared.cluster.registry.removals(),
        bookmark: shared.bookmark.subscribe(),
        bookmarks: wants_bookmarks.then(|| {
            let mut bookmarks = interval_at(Instant::now() + every, every);
            bookmarks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            bookmarks
        }),
        end: Instant::now() + Duration::from_secs(seconds),
        show: match form {
            Form::Object | Form::Aggregated(_) => Show::Object,
            Form::Metadata(version) => Show::Metadata(version),
            Form::Table(version) => Show::Table(Box::new(Table::of(
                &resource,
                read::include(query)?,
                version,
            ))),
        },
        shared: shared.clone(),
        resource,
        selector,
        initial: VecDeque::new(),
        marks_initial: streams_initial && wants_bookmarks,
        position: version.unwrap_or_default(),
        ended: false,
    };
    if from_now {
        watch.position = shared.cluster.store.resource_version();
    } else if streams_initial || watch.position == 0 {
        watch.begin_with_present()?;
    }
    let pieces = stream::unfold(watch, async |mut watch| {
        let piece = watch.next().await?;
        Some((piece, watch))
    });
    Ok(respond::stream("application/json", pieces))
}

/// The selectors; a watch of one object is one of the collection that selects its name.
fn selector(resource: &Resource, at: &Location, asked: &Asked) -> Result<Selector, Status> {
    let query = &asked.query;
    if at.name.is_empty() {
        return read::selector(resource, query);
    }
    let fields = [
        query.text("fieldSelector"),
        &format!("metadata.name={}", at.name),
    ]
    .join(",");
    Selector::parse(
        resource,
        query.text("labelSelector"),
        fields.trim_start_matches(','),
    )
    .map_err(|error| Status::bad_request(error.to_string()))
}

// === impl Watch ===

impl Watch {
    fn begin_with_present(&mut self) -> Result<(), Status> {
        let range = Range {
            namespace: self.selector.namespace.as_deref(),
            ..Range::default()
        };
        let keep = |object: &Value| self.selector.matches(object);
        let page = self
            .shared
            .cluster
            .store
            .page(&self.resource.storage, range, &keep);
        let page = page.map_err(|error| read::refused(&error))?;
        self.position = page.resource_version;
        self.initial = page.items.into();
        Ok(())
    }

    /// The next piece of the stream, `None` at its end.
    async fn next(&mut self) -> Option<Bytes> {
        let mut piece = Vec::new();
        while piece.is_empty() {
            if self.ended {
                return None;
            }
            if self.tell_initial(&mut piece) || self.tell_changes(&mut piece) {
                continue;
            }
            match self.wait().await {
                Next::Changes => {}
                // The objects of a CRD go before it does, so all has been told.
                Next::Removal => self.ended = !self.is_served(),
                Next::Bookmark => self.tell_bookmark(false, &mut piece),
                Next::Disconnect => self.ended = true,
                Next::End => {
                    self.ended = true;
                    if self.bookmarks.is_some() {
                        self.tell_bookmark(false, &mut piece);
                    }
                }
            }
        }
        Some(piece.into())
    }

    async fn wait(&mut self) -> Next {
        let wants_bookmarks = self.bookmarks.is_some();
        let tick = async {
            match &mut self.bookmarks {
                Some(bookmarks) => drop(bookmarks.tick().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = self.disconnect.changed() => Next::Disconnect,
            _ = self.changed.changed() => Next::Changes,
            _ = self.removals.changed() => Next::Removal,
            _ = self.bookmark.changed(), if wants_bookmarks => Next::Bookmark,
            () = tick => Next::Bookmark,
            () = sleep_until(self.end) => Next::End,
        }
    }

    fn is_served(&self) -> bool {
        let kind = &self.resource.kind;
        let registry = &self.shared.cluster.registry;
        let found = registry.find(&kind.group, &kind.version, &self.resource.plural);
        found.is_some()
    }

    /// Writes some of what was there at the beginning. Says whether there was anything left to say.
    fn tell_initial(&mut self, piece: &mut Vec<u8>) -> bool {
        if self.initial.is_empty() && !self.marks_initial {
            return false;
        }
        for _ in 0..BATCH {
            let Some(object) = self.initial.pop_front() else {
                break;
            };
            self.write("ADDED", &object, piece);
        }
        if self.initial.is_empty() && self.marks_initial {
            self.marks_initial = false;
            self.tell_bookmark(true, piece);
        }
        true
    }

    /// Writes some of what has changed. Says whether there may be more.
    fn tell_changes(&mut self, piece: &mut Vec<u8>) -> bool {
        // Seen before looking, so that a change in between wakes us again.
        self.changed.mark_unchanged();
        let store = &self.shared.cluster.store;
        match store.events_after(&self.resource.storage, self.position, BATCH) {
            Ok((events, present)) => {
                let more = events.len() == BATCH;
                for event in &events {
                    if let Some((kind, object)) = told(&self.selector, event) {
                        self.write(kind, &object, piece);
                    }
                }
                self.position = match events.last() {
                    Some(last) if more => last.resource_version,
                    _ => present.max(self.position),
                };
                more || !piece.is_empty()
            }
            Err(error) => {
                let status = read::refused(&error).to_value();
                write_line(piece, &json!({"type": "ERROR", "object": status}));
                self.ended = true;
                true
            }
        }
    }

    fn tell_bookmark(&mut self, ends_initial: bool, piece: &mut Vec<u8>) {
        let mut metadata = json!({"resourceVersion": self.position.to_string()});
        if ends_initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match &mut self.show {
            Show::Object => json!({
                "kind": self.resource.kind.kind,
                "apiVersion": self.resource.api_version(),
                "metadata": metadata,
            }),
            Show::Metadata(version) => read::metadata_of(&json!({"metadata": metadata}), version),
            Show::Table(table) => {
                let mut shown = table.event(None, Timestamp::now());
                shown["metadata"] = metadata;
                shown
            }
        };
        write_line(piece, &json!({"type": "BOOKMARK", "object": object}));
    }

    fn write(&mut self, kind: &str, object: &Arc<Value>, piece: &mut Vec<u8>) {
        let object = convert::present(&self.resource, object);
        match &mut self.show {
            Show::Object => {
                piece.extend_from_slice(b"{\"type\":\"");
                piece.extend_from_slice(kind.as_bytes());
                piece.extend_from_slice(b"\",\"object\":");
                // Writing a `Value` to memory cannot fail.
                let _written = serde_json::to_writer(&mut *piece, &*object);
                piece.extend_from_slice(b"}\n");
            }
            Show::Metadata(version) => {
                let object = read::metadata_of(&object, version);
                write_line(piece, &json!({"type": kind, "object": object}));
            }
            Show::Table(table) => {
                let object = table.event(Some(&object), Timestamp::now());
                write_line(piece, &json!({"type": kind, "object": object}));
            }
        }
    }
}

fn write_line(piece: &mut Vec<u8>, event: &Value) {
    piece.extend_from_slice(event.to_string().as_bytes());
    piece.push(b'\n');
}

/// What a watcher is told of an event: an object that comes into the selection is new to it, and one that
/// leaves it is gone.
fn told(selector: &Selector, event: &Event) -> Option<(&'static str, Arc<Value>)> {
    if selector
        .namespace
        .as_ref()
        .is_some_and(|only| **only != *event.key.namespace)
    {
        return None;
    }
    let before = event
        .previous
        .as_ref()
        .filter(|previous| selector.matches(previous));
    let now = event.change != Change::Deleted && selector.matches(&event.object);
    match (before, now) {
        (None, false) => None,
        (None, true) => Some(("ADDED", event.object.clone())),
        (Some(_), true) => Some(("MODIFIED", event.object.clone())),
        (Some(_), false) if event.change == Change::Deleted => {
            Some(("DELETED", event.object.clone()))
        }
        (Some(before), false) => {
            let mut last = Value::clone(before);
            last["metadata"]["resourceVersion"] = event.resource_version.to_string().into();
            Some(("DELETED", Arc::new(last)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        registry::Registry,
        store::{GroupResource, Store},
    };

    const PODS: GroupResource = GroupResource::new("", "pods");

    #[test]
    fn a_selection_is_entered_and_left() {
        let store = Store::default();
        let pod = |app: &str| json!({"metadata": {"namespace": "a", "name": "p", "labels": {"app": app}}});
        for app in ["other", "web", "web", "other", "web"] {
            store.put(&PODS, pod(app));
        }
        store.remove(&PODS, "a", "p");
        let pods = Registry::default().find("", "v1", "pods").unwrap();
        let selector = Selector::parse(&pods, "app=web", "").unwrap();
        let (events, _) = store.events_after(&PODS, 0, 100).unwrap();
        let told: Vec<_> = events
            .iter()
            .filter_map(|event| told(&selector, event))
            .map(|(kind, object)| (kind, object["metadata"]["resourceVersion"].clone()))
            .collect();
        let expected = [
            ("ADDED", "2"),
            ("MODIFIED", "3"),
            ("DELETED", "4"),
            ("ADDED", "5"),
            ("DELETED", "6"),
        ];
        assert_eq!(told, expected.map(|(kind, version)| (kind, json!(version))));
    }
}

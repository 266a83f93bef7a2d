//! Which notes have become which Event, as a pure table.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use tokio::time::Instant;

use super::{Note, Reporter, SERIES, Severity};

#[derive(Debug)]
pub(super) struct Ledger {
    reporter: Reporter,
    entries: HashMap<Identity, Entry>,
}

/// What makes two notes the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Identity {
    regarding: [String; 4],
    severity: Severity,
    reason: String,
    message: String,
}

#[derive(Debug)]
struct Entry {
    event: Event,
    /// How often it was noted since the last write.
    unwritten: bool,
    written: Instant,
}

/// What has to be written now.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Write {
    /// A new Event.
    Create(Box<Event>),
    /// A new count of one that was written before.
    Update(Box<Event>),
}

/// Notes that are remembered. Beyond it the one that was written longest ago is forgotten, and begins a
/// new Event if it is noted again.
const LIMIT: usize = 1024;

/// A note that is silent for so many series is over.
const IDLE: u32 = 10;

/// Longest message that the API server takes.
const MESSAGE: usize = 1024;

// === impl Ledger ===

impl Ledger {
    pub(super) fn new(reporter: Reporter) -> Self {
        Self {
            reporter,
            entries: HashMap::new(),
        }
    }

    /// Takes a note. A new one is written at once, a repeated one when its time has come.
    pub(super) fn note(&mut self, note: Note, now: Instant, clock: Timestamp) -> Option<Write> {
        let note = Note {
            message: cut(note.message),
            ..note
        };
        let identity = Identity::of(&note);
        if let Some(entry) = self.entries.get_mut(&identity) {
            entry.event.count = entry.event.count.map(|count| count.saturating_add(1));
            entry.event.last_timestamp = Some(Time(clock));
            entry.unwritten = true;
            return entry.write(now);
        }
        self.make_room();
        let event = self.event(note, clock);
        let entry = Entry {
            event: event.clone(),
            unwritten: false,
            written: now,
        };
        self.entries.insert(identity, entry);
        Some(Write::Create(Box::new(event)))
    }

    /// Counts whose time to be written has come, and forgets notes that are over.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Write> {
        self.entries
            .retain(|_, entry| entry.unwritten || now < entry.written + SERIES * IDLE);
        let entries = self.entries.values_mut();
        entries.filter_map(|entry| entry.write(now)).collect()
    }

    /// Everything that is not written yet, whenever its time is.
    pub(super) fn rest(&mut self) -> Vec<Write> {
        let entries = self.entries.values_mut().filter(|entry| entry.unwritten);
        let rest = entries.map(|entry| {
            entry.unwritten = false;
            Write::Update(Box::new(entry.event.clone()))
        });
        rest.collect()
    }

    fn make_room(&mut self) {
        if self.entries.len() < LIMIT {
            return;
        }
        let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.written);
        if let Some(identity) = oldest.map(|(identity, _)| identity.clone()) {
            self.entries.remove(&identity);
        }
    }

    fn event(&self, note: Note, clock: Timestamp) -> Event {
        let namespace = note.regarding.namespace.clone();
        let namespace = namespace.filter(|namespace| !namespace.is_empty());
        Event {
            metadata: ObjectMeta {
                // Events about objects of the cluster live here.
                namespace: Some(namespace.unwrap_or_else(|| "default".to_owned())),
                name: Some(name_for(&note.regarding)),
                ..ObjectMeta::default()
            },
            involved_object: note.regarding,
            type_: Some(note.severity.to_string()),
            reason: Some(note.reason),
            action: Some(note.action),
            message: Some(note.message),
            count: Some(1),
            first_timestamp: Some(Time(clock)),
            last_timestamp: Some(Time(clock)),
            source: Some(EventSource {
                component: Some(self.reporter.controller.clone()),
                ..EventSource::default()
            }),
            reporting_component: Some(self.reporter.controller.clone()),
            reporting_instance: Some(self.reporter.instance.clone()),
            ..Event::default()
        }
    }
}

// === impl Entry ===

impl Entry {
    fn write(&mut self, now: Instant) -> Option<Write> {
        if !self.unwritten || now < self.written + SERIES {
            return None;
        }
        self.unwritten = false;
        self.written = now;
        Some(Write::Update(Box::new(self.event.clone())))
    }
}

// === impl Identity ===

impl Identity {
    fn of(note: &Note) -> Self {
        let object = &note.regarding;
        let regarding = [&object.kind, &object.namespace, &object.name, &object.uid];
        Self {
            regarding: regarding.map(|text| text.clone().unwrap_or_default()),
            severity: note.severity,
            reason: note.reason.clone(),
            message: note.message.clone(),
        }
    }
}

/// A name that is free, and shows what it is about.
fn name_for(object: &ObjectReference) -> String {
    let allowed = |c: char| match c.to_ascii_lowercase() {
        c @ ('a'..='z' | '0'..='9' | '.' | '-') => c,
        _ => '-',
    };
    let name = object.name.as_deref().unwrap_or_default();
    // 253 characters are allowed.
    let name: String = name.chars().map(allowed).take(230).collect();
    let name = name.trim_matches(['.', '-']);
    let name = if name.is_empty() { "event" } else { name };
    format!("{name}.{:016x}", fastrand::u64(..))
}

fn cut(mut message: String) -> String {
    message.truncate(message.floor_char_boundary(MESSAGE));
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_note(message: &str) -> Note {
        Note {
            regarding: ObjectReference {
                kind: Some("Pod".into()),
                namespace: Some("shop".into()),
                name: Some("web".into()),
                ..ObjectReference::default()
            },
            severity: Severity::Warning,
            reason: "NotEnrolled".into(),
            action: "Enrol".into(),
            message: message.into(),
        }
    }

    fn mk_ledger() -> Ledger {
        Ledger::new(Reporter {
            controller: "istiod".into(),
            instance: "istiod-0".into(),
        })
    }

    fn count(write: &Write) -> (&'static str, Option<i32>) {
        match write {
            Write::Create(event) => ("create", event.count),
            Write::Update(event) => ("update", event.count),
        }
    }

    #[test]
    fn a_repeated_note_is_one_event_whose_count_is_written_once_a_series() {
        let (mut ledger, start) = (mk_ledger(), Instant::now());
        let mut note = |text: &str, after| {
            let write = ledger.note(mk_note(text), start + after, Timestamp::UNIX_EPOCH);
            write.as_ref().map(count)
        };
        assert_eq!(
            note("a", std::time::Duration::ZERO),
            Some(("create", Some(1)))
        );
        assert_eq!(note("a", SERIES / 2), None);
        assert_eq!(note("b", SERIES / 2), Some(("create", Some(1))));
        assert_eq!(note("a", SERIES), Some(("update", Some(3))));
        assert_eq!(note("a", SERIES), None);
        let due = ledger.due(start + SERIES * 2);
        assert_eq!(
            due.iter().map(count).collect::<Vec<_>>(),
            [("update", Some(4))]
        );
        assert_eq!(ledger.due(start + SERIES * 3), []);
    }

    #[test]
    fn a_note_that_was_over_begins_a_new_event() {
        let (mut ledger, start) = (mk_ledger(), Instant::now());
        ledger.note(mk_note("a"), start, Timestamp::UNIX_EPOCH);
        let later = start + SERIES * IDLE;
        ledger.due(later);
        let write = ledger.note(mk_note("a"), later, Timestamp::UNIX_EPOCH);
        assert_eq!(write.as_ref().map(count), Some(("create", Some(1))));
    }

    #[test]
    fn the_ledger_is_bounded() {
        let (mut ledger, start) = (mk_ledger(), Instant::now());
        for number in 0..LIMIT + 10 {
            ledger.note(mk_note(&number.to_string()), start, Timestamp::UNIX_EPOCH);
        }
        assert_eq!(ledger.entries.len(), LIMIT);
    }

    #[test]
    fn an_event_is_acceptable_whatever_it_is_about() {
        let mut note = mk_note(&"é".repeat(2000));
        note.regarding.namespace = None;
        note.regarding.name = Some("System:Node_1".into());
        let write = mk_ledger().note(note, Instant::now(), Timestamp::UNIX_EPOCH);
        let Some(Write::Create(event)) = write else {
            panic!("{write:?}");
        };
        assert_eq!(event.metadata.namespace.as_deref(), Some("default"));
        assert!(event.metadata.name.unwrap().starts_with("system-node-1."));
        assert_eq!(event.message.unwrap().len(), MESSAGE);
    }
}

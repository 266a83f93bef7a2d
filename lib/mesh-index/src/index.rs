//! The index itself: three verbs in, one out.

use serde::Serialize;

use crate::{
    object::{Key, Kind, Object},
    output::Output,
    settings::Settings,
};

/// All that is known of the cluster, reduced to what discovery needs, and what has been said about it.
#[derive(Debug)]
pub struct Index {
    settings: Settings,
}

/// A summary for people.
#[derive(Clone, Debug, Serialize)]
pub struct Dump {}

// === impl Index ===

impl Index {
    /// An empty index.
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// Takes in an object that is new or has changed. One that says nothing new for discovery costs its
    /// reduction and nothing else.
    pub fn apply(&mut self, object: Object) {
        drop(object);
    }

    /// Forgets an object.
    pub fn delete(&mut self, kind: Kind, key: &Key) {
        let _: (Kind, &Key) = (kind, key);
    }

    /// Takes in all objects of a kind: those that are known and not among them are gone. Objects of
    /// another kind are passed over.
    pub fn reset(&mut self, kind: Kind, objects: Vec<Object>) {
        for object in objects.into_iter().filter(|object| object.kind() == kind) {
            self.apply(object);
        }
    }

    /// Replaces the settings. What they touch is looked at again.
    pub fn configure(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// What differs from the last call. Costs what was touched in between.
    pub fn drain(&mut self) -> Output {
        Output::default()
    }

    /// Lets the next `drain` say every status again, as a new leader needs it.
    pub fn resend_statuses(&mut self) {}

    /// A summary of what is known, for people.
    pub fn dump(&self) -> Dump {
        Dump {}
    }
}

//! The changes of one resource that are remembered, and the past that they lead back to.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, VecDeque},
    iter::Peekable,
    sync::Arc,
};

use serde_json::Value;

use super::{Error, Key, Objects};

/// One change of one object.
#[derive(Debug, Clone)]
pub struct Event {
    /// The number of the change.
    pub resource_version: u64,
    /// Whose change.
    pub key: Key,
    /// What happened.
    pub change: Change,
    /// The object after it; for a removal its last state with the version of the removal.
    pub object: Arc<Value>,
    /// The object before it.
    pub previous: Option<Arc<Value>>,
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Added,
    /// It is another.
    Modified,
    /// It is gone.
    Deleted,
}

/// A bounded row of events, oldest first.
#[derive(Debug)]
pub(super) struct History {
    events: VecDeque<Event>,
    remembered: usize,
    /// Events up to this version are not known any more.
    forgotten: u64,
}

/// What to put in place of the present to see the past: `None` where nothing was.
pub(super) type Undo = BTreeMap<Key, Option<Arc<Value>>>;

// === impl History ===

impl History {
    pub(super) fn new(remembered: usize, forgotten: u64) -> Self {
        Self {
            events: VecDeque::new(),
            remembered,
            forgotten,
        }
    }

    pub(super) fn push(&mut self, event: Event) {
        self.events.push_back(event);
        if self.events.len() > self.remembered
            && let Some(oldest) = self.events.pop_front()
        {
            self.forgotten = oldest.resource_version;
        }
    }

    pub(super) fn forget(&mut self, version: u64) {
        self.events.clear();
        self.forgotten = version;
    }

    pub(super) fn after(&self, version: u64, limit: usize) -> Result<Vec<Event>, Error> {
        let start = self.position(version)?;
        Ok(self.events.range(start..).take(limit).cloned().collect())
    }

    pub(super) fn undo(&self, version: u64) -> Result<Undo, Error> {
        let start = self.position(version)?;
        let mut undo = Undo::new();
        for event in self.events.range(start..) {
            // The first change after the moment knows what was there at the moment.
            undo.entry(event.key.clone())
                .or_insert_with(|| event.previous.clone());
        }
        Ok(undo)
    }

    /// Where the events after a version start.
    fn position(&self, version: u64) -> Result<usize, Error> {
        if version < self.forgotten {
            return Err(Error::Expired {
                asked: version,
                oldest: self.forgotten,
            });
        }
        Ok(self
            .events
            .partition_point(|event| event.resource_version <= version))
    }
}

/// An object and where it is.
type Item<'a> = (&'a Arc<str>, &'a Arc<str>, &'a Arc<Value>);

/// The objects of a moment in order, after a key.
pub(super) fn at<'a>(
    objects: &'a Objects,
    undo: &'a Undo,
    after: Option<&'a Key>,
) -> impl Iterator<Item = Item<'a>> {
    let present = objects
        .range::<Arc<str>, _>(from(after.map(|key| &key.namespace)))
        .flat_map(|(namespace, names)| {
            names
                .iter()
                .map(move |(name, object)| (namespace, name, object))
        })
        .filter(move |(namespace, name, _)| is_after(namespace, name, after))
        .peekable();
    let past = undo
        .iter()
        .filter(move |(key, _)| is_after(&key.namespace, &key.name, after))
        .peekable();
    Merge { present, past }
}

fn from(start: Option<&Arc<str>>) -> (std::ops::Bound<&Arc<str>>, std::ops::Bound<&Arc<str>>) {
    use std::ops::Bound::{Included, Unbounded};
    (start.map_or(Unbounded, Included), Unbounded)
}

fn is_after(namespace: &Arc<str>, name: &Arc<str>, after: Option<&Key>) -> bool {
    after.is_none_or(|after| (namespace, name) > (&after.namespace, &after.name))
}

/// The present with the past laid over it.
struct Merge<P: Iterator, U: Iterator> {
    present: Peekable<P>,
    past: Peekable<U>,
}

impl<'a, P, U> Iterator for Merge<P, U>
where
    P: Iterator<Item = Item<'a>>,
    U: Iterator<Item = (&'a Key, &'a Option<Arc<Value>>)>,
{
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        loop {
            let order = match (self.present.peek(), self.past.peek()) {
                (_, None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((namespace, name, _)), Some((key, _))) => {
                    (*namespace, *name).cmp(&(&key.namespace, &key.name))
                }
            };
            match order {
                Ordering::Less => return self.present.next(),
                Ordering::Equal => drop(self.present.next()),
                Ordering::Greater => {}
            }
            if let (key, Some(object)) = self.past.next()? {
                return Some((&key.namespace, &key.name, object));
            }
        }
    }
}

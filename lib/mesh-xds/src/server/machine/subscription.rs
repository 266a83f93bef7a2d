//! What one client asked for and knows, of one type.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use super::{
    super::{
        Mode, Response,
        catalog::{Entry, Published, Reach, Table, Version},
        held::{Held, Index},
    },
    selection::Selection,
};

/// One type on one stream.
#[derive(Debug)]
pub(super) struct Subscription {
    scope: Scope,
    node: Option<Arc<str>>,
    /// Change up to which the client has been told; nothing before the first response.
    told: Option<u64>,
    /// What the client held when it connected, until the first response.
    held: Held,
    /// Change up to which the client was told everything, until it is told what it need not keep.
    narrowed: Option<u64>,
    /// Names that are sent even if they did not change.
    due: BTreeSet<Arc<str>>,
    /// Names of which the client is told after all addresses.
    postponed: BTreeSet<Arc<str>>,
    /// Whether a response is due even if it is empty.
    owed: bool,
    /// Nonce of the response on its way.
    outstanding: Option<String>,
}

#[derive(Debug)]
enum Scope {
    /// Everything, and names that the client asked for besides.
    Everything(HashSet<Arc<str>>),
    /// Names, and what they bring.
    Selected(Selection),
}

/// How much of a type may be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All.
    Whole,
    /// What is new or changed, and not what takes force from a policy that the client knows.
    Strengthening,
}

/// A response in the making.
pub(super) struct Answer<'a> {
    pub(super) response: Response,
    pub(super) table: &'a Table,
    /// What the client holds, if this is the first response.
    pub(super) held: Index<'a>,
}

/// The name that stands for all names.
const WILDCARD: &str = "*";

// === impl Subscription ===

impl Subscription {
    pub(super) fn new(node: Option<Arc<str>>) -> Self {
        Self {
            scope: Scope::Selected(Selection::new(node.clone())),
            node,
            told: None,
            held: Held::default(),
            narrowed: None,
            due: BTreeSet::new(),
            postponed: BTreeSet::new(),
            owed: false,
            outstanding: None,
        }
    }

    /// The nonce, if it is that of the response on its way, which thereby has arrived. Other nonces
    /// are of another stream or of a client that is confused; they acknowledge nothing.
    pub(super) fn acknowledge(&mut self, nonce: &str) -> Option<String> {
        self.outstanding.take_if(|outstanding| outstanding == nonce)
    }

    pub(super) fn hear(
        &mut self,
        first: bool,
        subscribe: Vec<String>,
        unsubscribe: Vec<String>,
        held: Held,
    ) {
        self.owed |= first || !subscribe.is_empty();
        if first && subscribe.is_empty() {
            self.widen();
        }
        self.subscribe(subscribe);
        self.unsubscribe(unsubscribe);
        if first {
            if let Scope::Selected(_) = self.scope {
                self.due
                    .extend(held.iter().map(|(name, _)| Arc::from(name)));
            }
            self.held = held;
        }
    }

    fn subscribe(&mut self, names: Vec<String>) {
        for name in names {
            if name == WILDCARD {
                self.widen();
                continue;
            }
            let name: Arc<str> = name.into();
            match &mut self.scope {
                Scope::Selected(_) => drop(self.due.insert(name)),
                Scope::Everything(besides) => {
                    // Once told, a name that is asked for is sent, known to the client or not.
                    // Before, what the client holds decides.
                    if self.told.is_some() {
                        self.due.insert(name.clone());
                    }
                    besides.insert(name);
                }
            }
        }
    }

    fn unsubscribe(&mut self, names: Vec<String>) {
        let crossed = self.is_waiting();
        for name in names {
            if name == WILDCARD {
                self.narrow();
                continue;
            }
            let name: Arc<str> = name.into();
            self.due.remove(&name);
            match &mut self.scope {
                Scope::Selected(selection) => selection.drop_name(name, crossed),
                // Still of interest as one of all: the client, which may have dropped it, is told again.
                Scope::Everything(besides) => {
                    if besides.remove(&name) {
                        self.due.insert(name);
                    }
                }
            }
        }
    }

    /// From names to everything: all is told from the beginning, to a client that holds what it got.
    fn widen(&mut self) {
        let Scope::Selected(selection) = &mut self.scope else {
            return;
        };
        let (names, held) = std::mem::replace(selection, Selection::new(None)).into_parts();
        // Aliases among them are not told any more: the client learns that from their removal.
        for name in held {
            self.held.push(&name, None);
        }
        let due = std::mem::take(&mut self.due);
        self.scope = Scope::Everything(names.into_iter().chain(due).collect());
        self.told = None;
    }

    /// From everything to names: what they bring is told from the beginning, and all else removed.
    fn narrow(&mut self) {
        let Scope::Everything(besides) = &mut self.scope else {
            return;
        };
        self.due = std::mem::take(besides).into_iter().collect();
        self.postponed.clear();
        self.narrowed = self.told.take().or(self.narrowed);
        let mut selection = Selection::new(self.node.clone());
        let held = std::mem::take(&mut self.held);
        selection.adopt(held.iter().map(|(name, _)| name.into()));
        self.scope = Scope::Selected(selection);
    }

    /// What the client is to be told now; nothing if that can no longer be found out.
    pub(super) fn tell(&mut self, type_url: &str, table: &Table, part: Part) -> Option<Response> {
        let held = std::mem::take(&mut self.held);
        let mut answer = Answer::new(type_url, table, held.index());
        match &mut self.scope {
            Scope::Selected(selection) => {
                if let Some(told) = self.narrowed.take() {
                    selection.adopt(table.names().chain(table.since(told)?).cloned());
                }
                selection.tell(&mut answer, std::mem::take(&mut self.due), self.told)?;
            }
            Scope::Everything(_) => self.tell_everything(&mut answer, part)?,
        }
        self.told = Some(table.latest());
        Some(answer.response)
    }

    fn tell_everything(&mut self, answer: &mut Answer<'_>, part: Part) -> Option<()> {
        let table = answer.table;
        let due = std::mem::take(&mut self.due);
        let mut names: HashSet<Arc<str>> = HashSet::new();
        if let Some(told) = self.told {
            names.extend(table.since(told)?.cloned());
        }
        if let Some(narrowed) = self.narrowed.take() {
            // Back again before that was told: what was removed meanwhile is not known yet.
            names.extend(table.since(narrowed)?.cloned());
        }
        match (self.told, part) {
            (Some(_), _) => {}
            (None, Part::Strengthening) => {
                names.extend(table.names().cloned());
                names.extend(answer.held.keys().map(|name| Arc::from(*name)));
            }
            // Nothing is postponed, and the whole mesh need not be looked up name by name.
            (None, Part::Whole) => {
                names.retain(|name| table.get(name).is_none());
                names.extend(answer.put_all(&due));
            }
        }
        match part {
            Part::Whole => names.extend(std::mem::take(&mut self.postponed)),
            Part::Strengthening => {
                // Of what is postponed already the client has an older state than that of `told`.
                let postponed = &self.postponed;
                let weaker =
                    |name: &Arc<str>| weakens(answer, name, self.told, postponed.contains(name));
                let weaker: HashSet<_> = names.extract_if(weaker).collect();
                self.postponed.retain(|name| !names.contains(name));
                self.postponed.extend(weaker);
            }
        }
        names.retain(|name| !due.contains(name));
        for name in names {
            answer.update(&name);
        }
        for name in due {
            answer.name_anew(&name);
        }
        Some(())
    }

    /// Whether an empty response is due, which it then no longer is.
    pub(super) fn take_owed(&mut self) -> bool {
        std::mem::take(&mut self.owed)
    }

    /// A response goes to the client.
    pub(super) fn sent(&mut self, response: &Response) {
        self.owed = false;
        self.outstanding = Some(response.nonce.clone());
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.outstanding.is_some()
    }

    pub(super) fn is_told(&self, latest: u64) -> bool {
        self.told == Some(latest)
    }

    pub(super) fn names(&self) -> usize {
        match &self.scope {
            Scope::Everything(besides) => besides.len(),
            Scope::Selected(selection) => selection.names() + self.due.len(),
        }
    }

    pub(super) fn mode(&self) -> Mode {
        match &self.scope {
            Scope::Everything(_) => Mode::Everything,
            Scope::Selected(_) => Mode::Names(self.names()),
        }
    }

    pub(super) fn backlog(&self, table: &Table) -> usize {
        let changed = match (&self.scope, self.told) {
            (_, Some(told)) => usize::try_from(table.latest() - told).unwrap_or(usize::MAX),
            (Scope::Everything(_), None) => usize::MAX,
            (Scope::Selected(_), None) => 0,
        };
        changed.min(table.len()) + self.due.len()
    }
}

/// Whether what is now true of a policy takes force from what the client knows of it.
fn weakens(answer: &Answer<'_>, name: &Arc<str>, told: Option<u64>, postponed: bool) -> bool {
    let entry = answer.table.get(name);
    if entry.is_some_and(|entry| !entry.by_name_only()) {
        return false;
    }
    let Some(told) = told else {
        // How the client knows it is not known here: perhaps with more force.
        let held = answer.held.get(&**name);
        let version = entry.map(Entry::version);
        return held.is_some_and(|held| held.is_none() || *held != version);
    };
    let known = answer.table.reach_at(name, told);
    match entry {
        Some(_) => postponed || known == Reach::Everywhere,
        None => postponed || known != Reach::Nowhere,
    }
}

// === impl Answer ===

impl<'a> Answer<'a> {
    fn new(type_url: &str, table: &'a Table, held: Index<'a>) -> Self {
        Self {
            response: Response::new(type_url),
            table,
            held,
        }
    }

    /// Speaks of a resource: its content, its absence, or nothing if the client holds this version.
    fn update(&mut self, name: &Arc<str>) {
        match self.table.get(name) {
            Some(entry) => self.put(&entry.published),
            None => self.remove(name),
        }
    }

    /// Speaks of what a name stands for. An alias is removed as such, lest a client waits for it: one
    /// that takes everything finds it among the aliases.
    fn name_anew(&mut self, name: &Arc<str>) {
        match self.table.find(name) {
            Some((own, entry)) => {
                self.put(&entry.published);
                if own != name {
                    self.remove(name);
                }
            }
            None => self.remove(name),
        }
    }

    /// Brings everything that the client does not hold, but what is due. The names that it holds and nobody
    /// publishes come back: mostly there is none, which is seen at once.
    fn put_all(&mut self, due: &BTreeSet<Arc<str>>) -> Vec<Arc<str>> {
        let mut known = 0;
        for published in self.table.published() {
            let held = self.held.get(&*published.name);
            known += usize::from(held.is_some());
            if held != Some(&Some(published.version)) && !due.contains(&published.name) {
                self.response.resources.push(Arc::clone(published));
            }
        }
        if known == self.held.len() {
            return Vec::new();
        }
        let held = self
            .held
            .keys()
            .filter(|name| self.table.get(name).is_none());
        held.map(|name| Arc::from(*name)).collect()
    }

    pub(super) fn put(&mut self, published: &Arc<Published>) {
        if !self.holds(&published.name, published.version) {
            self.response.resources.push(Arc::clone(published));
        }
    }

    pub(super) fn put_alias(&mut self, alias: &Arc<str>, entry: &Entry) {
        if !self.holds(alias, entry.version()) {
            let aliased = (alias.clone(), entry.published.clone());
            self.response.aliased.push(aliased);
        }
    }

    pub(super) fn remove(&mut self, name: &Arc<str>) {
        self.response.removed.push(name.clone());
    }

    fn holds(&self, name: &str, version: Version) -> bool {
        let held = self.held.get(name);
        held.is_some_and(|held| *held == Some(version))
    }
}

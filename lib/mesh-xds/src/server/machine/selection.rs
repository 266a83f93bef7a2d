//! The names that a client asked for, and what follows from them.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use super::{
    super::{
        Group,
        catalog::{Entry, Table},
    },
    subscription::Answer,
};

/// What a client that asks for names is told of.
///
/// A change concerns it if the resource is asked for, has an alias that is asked for, or is in a group
/// of something that is. Each is a look into a table: the cost of a change does not grow with what was
/// asked for, except when a name comes to stand for another resource, which then brings its members.
#[derive(Debug)]
pub(super) struct Selection {
    node: Option<Arc<str>>,
    /// What each name that was asked for stands for; itself if nothing is found.
    asked: HashMap<Arc<str>, Arc<str>>,
    /// The names that were asked for, by what they stand for.
    selected: HashMap<Arc<str>, Vec<Arc<str>>>,
    /// Resources that the client was sent and not told to forget, by their own names.
    sent: HashSet<Arc<str>>,
    /// Names that were dropped, until what follows has been looked at.
    dropped: Vec<Dropped>,
}

/// A name that the client no longer wants.
#[derive(Debug)]
struct Dropped {
    name: Arc<str>,
    target: Arc<str>,
    /// Whether a response was on its way that may bring it again.
    crossed: bool,
}

/// What the next response has to look at.
#[derive(Default)]
struct Review {
    /// Resources that may have changed, or may have become or ceased to be of interest.
    resources: HashSet<Arc<str>>,
    /// Those among them that are sent even if the client knows them.
    anew: HashSet<Arc<str>>,
    /// Names that came to stand for something else.
    names: BTreeSet<Arc<str>>,
    /// Names that were dropped while a response was on its way.
    crossed: BTreeSet<Arc<str>>,
}

// === impl Selection ===

impl Selection {
    pub(super) fn new(node: Option<Arc<str>>) -> Self {
        Self {
            node,
            asked: HashMap::new(),
            selected: HashMap::new(),
            sent: HashSet::new(),
            dropped: Vec::new(),
        }
    }

    /// The names that were asked for, and all names that the client may hold something under.
    pub(super) fn into_parts(self) -> (HashSet<Arc<str>>, HashSet<Arc<str>>) {
        let asked: HashSet<_> = self.asked.into_keys().collect();
        let dropped = self.dropped.into_iter().map(|dropped| dropped.name);
        let held = self
            .sent
            .into_iter()
            .chain(asked.iter().cloned())
            .chain(dropped)
            .collect();
        (asked, held)
    }

    /// The client holds these resources already.
    pub(super) fn adopt(&mut self, names: impl Iterator<Item = Arc<str>>) {
        self.sent.extend(names);
    }

    pub(super) fn names(&self) -> usize {
        self.asked.len()
    }

    /// The client no longer wants a name, and has dropped what it knew under it. If a response crossed
    /// this request, the client may get it once more, and is then told that it is gone.
    pub(super) fn drop_name(&mut self, name: Arc<str>, crossed: bool) {
        // Even if it was not asked for: it may have come along with something else.
        let target = self.asked.remove(&name).unwrap_or_else(|| name.clone());
        self.deselect(&name, &target);
        self.sent.remove(&name);
        self.dropped.push(Dropped {
            name,
            target,
            crossed,
        });
    }

    /// Answers `due` names, and tells what changed of everything after `told`. Nothing if that can no
    /// longer be found out.
    pub(super) fn tell(
        &mut self,
        answer: &mut Answer<'_>,
        due: BTreeSet<Arc<str>>,
        told: Option<u64>,
    ) -> Option<()> {
        let table = answer.table;
        let mut review = Review::default();
        if let Some(told) = told {
            for name in table.since(told)? {
                self.changed(name, table, &mut review);
            }
        } else {
            review.resources.extend(self.sent.iter().cloned());
            if let Some(node) = self.node.clone() {
                review.members(&Group::Node(node), table);
            }
        }
        for dropped in std::mem::take(&mut self.dropped) {
            review.resource_with_members(&dropped.target, table);
            if dropped.crossed {
                review.crossed.insert(dropped.name);
            }
        }
        for name in due {
            let target = self.find(&name, table, &mut review);
            review.anew.insert(target);
            review.names.insert(name);
        }
        self.report(answer, &review, told);
        Some(())
    }

    /// A resource changed, and with it perhaps what names stand for.
    fn changed(&mut self, name: &Arc<str>, table: &Table, review: &mut Review) {
        let mut concerned = self.selected.get(name).cloned().unwrap_or_default();
        let entry = table.get(name);
        let aliases = entry.into_iter().flat_map(|entry| entry.aliases().iter());
        let asked = aliases.filter(|alias| self.asked.contains_key(*alias));
        concerned.extend(asked.cloned());
        if self.asked.contains_key(name) {
            concerned.push(name.clone());
        }
        for name in concerned {
            self.find(&name, table, review);
        }
        review.resources.insert(name.clone());
    }

    /// Finds out what a name stands for now, and notes what follows if that is something else.
    fn find(&mut self, name: &Arc<str>, table: &Table, review: &mut Review) -> Arc<str> {
        let found = table.find(name).map_or(name, |(own, _)| own).clone();
        let before = self.asked.insert(name.clone(), found.clone());
        if before.as_ref() == Some(&found) {
            return found;
        }
        if let Some(before) = before {
            self.deselect(name, &before);
            review.resource_with_members(&before, table);
        }
        let names = self.selected.entry(found.clone()).or_default();
        names.push(name.clone());
        review.resource_with_members(&found, table);
        review.names.insert(name.clone());
        found
    }

    fn deselect(&mut self, name: &Arc<str>, target: &Arc<str>) {
        if let Some(names) = self.selected.get_mut(target) {
            names.retain(|other| other != name);
            if names.is_empty() {
                self.selected.remove(target);
            }
        }
    }

    fn report(&mut self, answer: &mut Answer<'_>, review: &Review, told: Option<u64>) {
        let table = answer.table;
        let mut names = review.names.clone();
        let mut removed = HashSet::new();
        for name in review.resources.union(&review.anew) {
            let wanted = table.get(name).filter(|entry| self.wants(name, entry));
            let Some(entry) = wanted else {
                if self.sent.remove(name) {
                    answer.remove(name);
                    removed.insert(name);
                }
                continue;
            };
            let known = !self.sent.insert(name.clone());
            let changed = told.is_none_or(|told| entry.number > told);
            if !known || changed || review.anew.contains(name) {
                answer.put(&entry.published);
                names.extend(self.selected.get(name).into_iter().flatten().cloned());
            }
        }
        let crossed = review.crossed.difference(&names);
        for name in crossed.filter(|name| !self.sent.contains(*name)) {
            answer.remove(name);
            removed.insert(name);
        }
        for name in &names {
            let Some(target) = self.asked.get(name) else {
                continue;
            };
            match table.get(target) {
                Some(entry) if target != name => answer.put_alias(name, entry),
                Some(_) => {}
                None if removed.contains(name) => {}
                None => answer.remove(name),
            }
        }
    }

    fn wants(&self, name: &Arc<str>, entry: &Entry) -> bool {
        self.selected.contains_key(name)
            || entry.groups.iter().any(|group| match group {
                Group::Of(service) => self.selected.contains_key(service),
                Group::Node(node) => self.node.as_ref() == Some(node),
            })
    }
}

// === impl Review ===

impl Review {
    fn resource_with_members(&mut self, name: &Arc<str>, table: &Table) {
        self.resources.insert(name.clone());
        self.members(&Group::Of(name.clone()), table);
    }

    fn members(&mut self, group: &Group, table: &Table) {
        self.resources.extend(table.members(group).cloned());
    }
}

//! Which resource answers to an alias, and which ones a group brings.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::super::{Group, Precedence};

/// The aliases and groups of one type's resources. Adding or removing a resource costs as much as it
/// has aliases and groups.
#[derive(Debug, Default)]
pub(super) struct Links {
    aliases: HashMap<Arc<str>, Claims>,
    groups: HashMap<Group, HashSet<Arc<str>>>,
    claims: u64,
}

/// Resources with the same alias. Mostly there is one, for which nothing is allocated.
#[derive(Debug)]
struct Claims {
    best: Claim,
    others: Vec<Claim>,
}

#[derive(Clone, Debug)]
struct Claim {
    name: Arc<str>,
    precedence: Precedence,
    /// Grows with time.
    number: u64,
}

// === impl Links ===

impl Links {
    /// The name of the resource that answers to an alias.
    pub(super) fn resolve(&self, alias: &str) -> Option<&Arc<str>> {
        Some(&self.aliases.get(alias)?.best.name)
    }

    /// What a group brings.
    pub(super) fn members(&self, group: &Group) -> impl Iterator<Item = &Arc<str>> {
        self.groups.get(group).into_iter().flatten()
    }

    /// The group as it is known here, so that equal texts share memory.
    pub(super) fn share(&self, group: Group) -> Group {
        match self.groups.get_key_value(&group) {
            Some((known, _)) => known.clone(),
            None => group,
        }
    }

    pub(super) fn claim(&mut self, alias: &Arc<str>, name: &Arc<str>, precedence: Precedence) {
        self.claims += 1;
        let claim = Claim {
            name: name.clone(),
            precedence,
            number: self.claims,
        };
        if let Some(claims) = self.aliases.get_mut(alias) {
            claims.add(claim);
            return;
        }
        let claims = Claims {
            best: claim,
            others: Vec::new(),
        };
        self.aliases.insert(alias.clone(), claims);
    }

    pub(super) fn disclaim(&mut self, alias: &str, name: &str) {
        let last = match self.aliases.get_mut(alias) {
            Some(claims) => claims.remove(name),
            None => false,
        };
        if last {
            self.aliases.remove(alias);
        }
    }

    pub(super) fn join(&mut self, group: &Group, name: &Arc<str>) {
        if let Some(members) = self.groups.get_mut(group) {
            members.insert(name.clone());
            return;
        }
        let members = HashSet::from([name.clone()]);
        self.groups.insert(group.clone(), members);
    }

    pub(super) fn leave(&mut self, group: &Group, name: &str) {
        if let Some(members) = self.groups.get_mut(group) {
            members.remove(name);
            if members.is_empty() {
                self.groups.remove(group);
            }
        }
    }
}

// === impl Claims ===

impl Claims {
    fn add(&mut self, mut claim: Claim) {
        if claim.beats(&self.best) {
            std::mem::swap(&mut self.best, &mut claim);
        }
        self.others.push(claim);
    }

    /// Says whether that was the last one.
    fn remove(&mut self, name: &str) -> bool {
        self.others.retain(|claim| *claim.name != *name);
        if *self.best.name != *name {
            return false;
        }
        let next = (self.others.iter().enumerate())
            .reduce(|a, b| if b.1.beats(a.1) { b } else { a })
            .map(|(i, _)| i);
        match next {
            Some(i) => {
                self.best = self.others.swap_remove(i);
                false
            }
            None => true,
        }
    }
}

// === impl Claim ===

impl Claim {
    fn beats(&self, other: &Self) -> bool {
        (self.precedence, std::cmp::Reverse(self.number))
            < (other.precedence, std::cmp::Reverse(other.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_answers_before_a_service_and_the_latest_workload_before_older_ones() {
        let mut links = Links::default();
        let alias: Arc<str> = "/10.0.0.1".into();
        let mut claims = |name: &str, precedence| links.claim(&alias, &name.into(), precedence);
        claims("old", Precedence::Workload);
        claims("service", Precedence::Service);
        claims("new", Precedence::Workload);
        let mut answers = Vec::new();
        for name in ["new", "old", "service"] {
            answers.push(links.resolve(&alias).cloned().unwrap());
            links.disclaim(&alias, name);
        }
        assert_eq!(answers, ["new".into(), "old".into(), Arc::from("service")]);
        assert_eq!(links.resolve(&alias), None);
        assert!(links.aliases.is_empty());
    }

    #[test]
    fn a_group_without_members_is_forgotten() {
        let mut links = Links::default();
        let group = Group::Node("n".into());
        links.join(&group, &"a".into());
        links.join(&group, &"b".into());
        links.leave(&group, "a");
        assert_eq!(links.members(&group).collect::<Vec<_>>(), [&"b".into()]);
        links.leave(&group, "b");
        assert!(links.groups.is_empty());
    }
}

//! Policies, and for each workload of this node the set of those that concern it.
//!
//! Sets are made when something changes, for this node's workloads only: a verdict is one lookup and
//! the evaluation of one set, and a policy elsewhere in the mesh costs nothing here but its storage.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use mesh_core::{
    policy::{Authorization, PolicyScope},
    rbac::{CompiledPolicy, Connection, Decision, PolicySet},
    workload::Workload,
};

use crate::{
    persistent::{Map, Multimap, Set},
    workloads::Workloads,
};

/// All policies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Policies {
    by_key: Map<Arc<str>, Arc<CompiledPolicy>>,
    global: Set<Arc<str>>,
    by_namespace: Multimap<Arc<str>, Arc<str>>,
    /// The uids of this node's workloads that name a policy, known or not.
    users: Multimap<Arc<str>, Arc<str>>,
    sets: Map<Arc<str>, Arc<PolicySet>>,
}

/// What decides which policies concern a workload: its namespace and the names it lists. Workloads
/// that agree in both share one set.
type Profile = (Arc<str>, Vec<Arc<str>>);

/// The workloads whose sets must be made anew.
#[derive(Debug, Default)]
pub(crate) struct Stale {
    all: bool,
    namespaces: HashSet<Arc<str>>,
    uids: HashSet<Arc<str>>,
}

// === impl Policies ===

impl Policies {
    /// Adds or replaces a policy; `false` if it is known in these words.
    pub(crate) fn insert(&mut self, policy: &Authorization, stale: &mut Stale) -> bool {
        let key = policy.key();
        if self
            .by_key
            .get(&key)
            .is_some_and(|known| known.source() == policy)
        {
            return false;
        }
        self.remove(&key, stale);
        match policy.scope {
            PolicyScope::Global => self.global.insert_mut(key.clone()),
            PolicyScope::Namespace => {
                self.by_namespace
                    .insert(policy.namespace.clone(), key.clone());
            }
            PolicyScope::WorkloadSelector => {}
        }
        let compiled = Arc::new(CompiledPolicy::compile(policy));
        self.mark(&compiled, stale);
        self.by_key.insert_mut(key, compiled);
        true
    }

    /// Removes a policy; `false` if it is not known.
    pub(crate) fn remove(&mut self, key: &str, stale: &mut Stale) -> bool {
        let Some(policy) = self.by_key.get(key).cloned() else {
            return false;
        };
        self.global.remove_mut(key);
        self.by_namespace.remove(policy.namespace(), policy.key());
        self.mark(&policy, stale);
        self.by_key.remove_mut(key)
    }

    /// Notes which policies a workload of this node names.
    pub(crate) fn attach(&mut self, workload: &Workload, stale: &mut Stale) {
        for key in &workload.authorization_policies {
            self.users.insert(key.clone(), workload.uid.clone());
        }
        stale.uids.insert(workload.uid.clone());
    }

    /// Forgets a workload of this node.
    pub(crate) fn detach(&mut self, workload: &Workload, stale: &mut Stale) {
        for key in &workload.authorization_policies {
            self.users.remove(key, &workload.uid);
        }
        stale.uids.insert(workload.uid.clone());
    }

    /// Makes the stale sets anew; `true` if a verdict about a workload of this node may have changed.
    pub(crate) fn refresh(&mut self, stale: &Stale, workloads: &Workloads) -> bool {
        let mut made: HashMap<Profile, Arc<PolicySet>> = HashMap::new();
        let mut changed = false;
        for uid in stale.of(workloads) {
            let local = workloads.by_uid(&uid).filter(|known| known.local);
            let Some(workload) = local.map(|known| &known.workload) else {
                self.sets.remove_mut(&uid);
                continue;
            };
            let names = workload.authorization_policies.clone();
            let profile = (workload.namespace.clone(), names);
            let set = made
                .entry(profile)
                .or_insert_with(|| Arc::new(self.assemble(workload)));
            let before = self.sets.get(&uid);
            if before.is_some_and(|before| before == set) {
                continue;
            }
            changed |= before.is_some() || !set.is_empty();
            self.sets.insert_mut(uid, Arc::clone(set));
        }
        changed
    }

    /// The set of a workload as it is known now. Only for one that is not of this node, or no longer
    /// known, a set is made on the spot.
    pub(crate) fn of(&self, workload: &Workload) -> Arc<PolicySet> {
        let made = self.sets.get(&workload.uid).cloned();
        made.unwrap_or_else(|| Arc::new(self.assemble(workload)))
    }

    /// The verdict on a connection to a workload, as `of` without a reference taken.
    pub(crate) fn decide(&self, workload: &Workload, connection: &Connection) -> Decision {
        match self.sets.get(&workload.uid) {
            Some(set) => set.decide(connection),
            None => self.assemble(workload).decide(connection),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<CompiledPolicy>> {
        self.by_key.values()
    }

    /// Global policies, those of the namespace, and those the workload names.
    fn assemble(&self, workload: &Workload) -> PolicySet {
        let named = &workload.authorization_policies;
        let in_namespace = self.by_namespace.values(&workload.namespace);
        let keys = self.global.iter().chain(in_namespace).chain(named);
        let unknown = named.iter().filter(|key| !self.by_key.contains_key(*key));
        PolicySet::new(keys.filter_map(|key| self.by_key.get(key).cloned()))
            .with_unknown(unknown.cloned())
    }

    fn mark(&self, policy: &CompiledPolicy, stale: &mut Stale) {
        match policy.scope() {
            PolicyScope::Global => stale.all = true,
            PolicyScope::Namespace => {
                stale.namespaces.insert(policy.namespace().clone());
            }
            PolicyScope::WorkloadSelector => {}
        }
        stale.uids.extend(self.users.values(policy.key()).cloned());
    }
}

// === impl Stale ===

impl Stale {
    fn of(&self, workloads: &Workloads) -> HashSet<Arc<str>> {
        let mut uids = self.uids.clone();
        if self.all {
            uids.extend(workloads.local().cloned());
        }
        for namespace in &self.namespaces {
            uids.extend(workloads.local_in(namespace).cloned());
        }
        uids
    }
}

//! What has been said: enough to tell what differs, and who depends on which Gateway.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
};

use mesh_core::change::Change;

use crate::{
    object::Key,
    output::{Output, StatusUpdate},
    unit::Unit,
};

/// What has been said of each unit. The values themselves are not kept, only a hash of each: 64 bits,
/// with a key that nobody outside knows, so that no two values can be made to look the same.
#[derive(Debug, Default)]
pub(crate) struct Published {
    units: HashMap<Unit, Said>,
    statuses: HashMap<Unit, u64>,
    /// Units by the Gateways that were looked at for them, whether they exist or not.
    dependents: HashMap<Key, HashSet<Unit>>,
    hasher: RandomState,
}

/// What a unit has come to.
#[derive(Debug, Default)]
pub(crate) struct Built {
    /// Workloads, services and policies.
    pub(crate) changes: Vec<Change>,
    /// The Gateways that were looked at.
    pub(crate) gateways: Vec<Key>,
}

/// What a status unit has come to.
#[derive(Debug, Default)]
pub(crate) struct BuiltStatus {
    /// What the object's status should be; nothing if the object is gone or none of our business.
    pub(crate) update: Option<StatusUpdate>,
    /// Whether the object's status holds something of ours already.
    pub(crate) reported: bool,
    /// The Gateways that were looked at.
    pub(crate) gateways: Vec<Key>,
}

#[derive(Debug, Default)]
struct Said {
    /// Name and hash of each value.
    values: Box<[(Arc<str>, u64)]>,
    gateways: Box<[Key]>,
}

// === impl Published ===

impl Published {
    /// Takes in what a unit has come to and says what differs.
    pub(crate) fn settle(&mut self, unit: &Unit, built: Built, output: &mut Output) {
        let before = self.units.remove(unit).unwrap_or_default();
        let mut values = Vec::with_capacity(built.changes.len());
        for change in built.changes {
            let name = name(&change);
            let hash = self.hash(&change);
            let known = before.values.iter().find(|(known, _)| *known == name);
            match known {
                Some((name, old)) if *old == hash => values.push((name.clone(), hash)),
                _ => {
                    values.push((name, hash));
                    output.changes.push(change);
                }
            }
        }
        let gone = |(name, _): &&(Arc<str>, u64)| values.iter().all(|(kept, _)| kept != name);
        for (name, _) in before.values.iter().filter(gone) {
            output.changes.push(removal(unit, name.clone()));
        }
        let gateways = self.depend(unit, before.gateways, built.gateways);
        if !values.is_empty() || !gateways.is_empty() {
            let said = Said {
                values: values.into(),
                gateways,
            };
            self.units.insert(unit.clone(), said);
        }
    }

    /// The same for a status. What was never said need not be withdrawn.
    pub(crate) fn settle_status(&mut self, unit: &Unit, built: BuiltStatus, output: &mut Output) {
        let before = self.units.remove(unit).unwrap_or_default();
        let gateways = self.depend(unit, before.gateways, built.gateways);
        if !gateways.is_empty() {
            let said = Said {
                values: Box::default(),
                gateways,
            };
            self.units.insert(unit.clone(), said);
        }
        let known = self.statuses.remove(unit);
        let Some(update) = built.update else {
            return;
        };
        let empty = update.conditions.is_empty() && update.addresses.is_empty();
        let hash = if empty {
            self.hasher.hash_one(())
        } else {
            self.hasher.hash_one(&update)
        };
        let said = known.is_some_and(|known| known != hash);
        if empty && !built.reported {
            output.statuses.extend(said.then_some(update));
            return;
        }
        self.statuses.insert(unit.clone(), hash);
        // What was said and is not there is said again: the object may be another one of that name.
        if known != Some(hash) || !built.reported {
            output.statuses.push(update);
        }
    }

    /// The units for which a Gateway was looked at.
    pub(crate) fn dependents(&self, gateway: &Key) -> impl Iterator<Item = &Unit> {
        self.dependents.get(gateway).into_iter().flatten()
    }

    /// All units of which something has been said.
    pub(crate) fn units(&self) -> impl Iterator<Item = &Unit> {
        self.units.keys().chain(self.statuses.keys())
    }

    /// Forgets what has been said to an object that is gone; one of the same name knows nothing of it.
    pub(crate) fn forget_status(&mut self, status: &Unit) {
        self.statuses.remove(status);
    }

    /// Forgets which statuses have been said.
    pub(crate) fn forget_statuses(&mut self) {
        self.statuses.clear();
    }

    /// Whether nothing has been said.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.units.is_empty() && self.statuses.is_empty() && self.dependents.is_empty()
    }

    /// Replaces the Gateways a unit depends on.
    fn depend(&mut self, unit: &Unit, before: Box<[Key]>, mut now: Vec<Key>) -> Box<[Key]> {
        now.sort_unstable();
        now.dedup();
        if *before == *now {
            return before;
        }
        for gateway in &before {
            if let Some(units) = self.dependents.get_mut(gateway) {
                units.remove(unit);
                if units.is_empty() {
                    self.dependents.remove(gateway);
                }
            }
        }
        for gateway in &now {
            let units = self.dependents.entry(gateway.clone()).or_default();
            units.insert(unit.clone());
        }
        now.into()
    }

    fn hash(&self, change: &Change) -> u64 {
        match change {
            Change::Workload(workload) => self.hasher.hash_one(workload),
            Change::Service(service) => self.hasher.hash_one(service),
            Change::Policy(policy) => self.hasher.hash_one(policy),
            Change::RemoveAddress(name) | Change::RemovePolicy(name) => self.hasher.hash_one(name),
        }
    }
}

/// The name under which discovery knows what has changed.
fn name(change: &Change) -> Arc<str> {
    match change {
        Change::Workload(workload) => workload.uid.clone(),
        Change::Service(service) => service.key().to_string().into(),
        Change::Policy(policy) => policy.key(),
        Change::RemoveAddress(name) | Change::RemovePolicy(name) => name.clone(),
    }
}

fn removal(unit: &Unit, name: Arc<str>) -> Change {
    match unit {
        Unit::Policy(_) => Change::RemovePolicy(name),
        _ => Change::RemoveAddress(name),
    }
}

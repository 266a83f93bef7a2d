//! Who is woken by what.

use std::collections::{BTreeMap, BTreeSet};

use super::Changes;
use crate::{
    key::Key,
    world::{Depends, Sight},
};

/// What each resource has asked about when it was last decided about, and the reverse.
#[derive(Debug, Default)]
pub(super) struct Wakes {
    sights: BTreeMap<Key, Sight>,
    keys: BTreeMap<Depends, BTreeSet<Key>>,
}

// === impl Wakes ===

impl Wakes {
    /// This is what the resource depends on now.
    pub(super) fn saw(&mut self, key: &Key, sight: Sight) {
        let before = self.sights.remove(key).unwrap_or_default();
        for thing in before.difference(&sight) {
            if let Some(keys) = self.keys.get_mut(thing) {
                keys.remove(key);
                if keys.is_empty() {
                    self.keys.remove(thing);
                }
            }
        }
        for thing in sight.difference(&before) {
            let keys = self.keys.entry(thing.clone()).or_default();
            keys.insert(key.clone());
        }
        if !sight.is_empty() {
            self.sights.insert(key.clone(), sight);
        }
    }

    /// The resources that a change concerns.
    pub(super) fn woken_by(&self, changes: Changes) -> BTreeSet<Key> {
        let looking = changes
            .things
            .iter()
            .filter_map(|thing| self.keys.get(thing));
        let looking = looking.flatten().cloned().collect::<Vec<_>>();
        let mut woken = changes.keys;
        woken.extend(looking);
        woken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Managed;

    fn woken(wakes: &Wakes, thing: Depends) -> Vec<Key> {
        let mut changes = Changes::default();
        changes.thing(thing);
        wakes.woken_by(changes).into_iter().collect()
    }

    #[test]
    fn only_those_who_last_asked_about_it_are_woken() {
        let (cni, ztunnel) = (
            Managed::IstioCni.named("default"),
            Managed::ZTunnel.named("default"),
        );
        let namespace = |name: &str| Depends::Namespace(name.to_owned());
        let mut wakes = Wakes::default();
        wakes.saw(&cni, [namespace("a"), Depends::Platform].into());
        wakes.saw(&ztunnel, [namespace("b"), Depends::Platform].into());
        assert_eq!(woken(&wakes, namespace("a")), std::slice::from_ref(&cni));
        assert_eq!(
            woken(&wakes, Depends::Platform),
            [cni.clone(), ztunnel.clone()]
        );
        assert_eq!(woken(&wakes, Depends::Enrolment), []);
        wakes.saw(&cni, [namespace("b")].into());
        assert_eq!(woken(&wakes, namespace("a")), []);
        assert_eq!(
            woken(&wakes, namespace("b")),
            [cni.clone(), ztunnel.clone()]
        );
        wakes.saw(&cni, Sight::new());
        wakes.saw(&ztunnel, Sight::new());
        assert!(wakes.keys.is_empty() && wakes.sights.is_empty());
    }
}

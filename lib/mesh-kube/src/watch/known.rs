//! Which objects an index has been told of.

use std::collections::HashMap;

use super::ObjectKey;

/// Keys by namespace, each with the number of the list that last held it.
///
/// A name costs its length and some thirty bytes; namespaces are held once.
#[derive(Debug, Default)]
pub(super) struct Known {
    list: u32,
    namespaces: HashMap<Box<str>, HashMap<Box<str>, u32>>,
}

// === impl Known ===

impl Known {
    /// Begins a list: what is not inserted from now on is gone at [`Known::take_missing`].
    pub(super) fn begin(&mut self) {
        self.list = self.list.wrapping_add(1);
    }

    pub(super) fn insert(&mut self, key: &ObjectKey) {
        if let Some(names) = self.namespaces.get_mut(key.namespace.as_str()) {
            names.insert(key.name.as_str().into(), self.list);
            return;
        }
        let names = HashMap::from([(key.name.as_str().into(), self.list)]);
        self.namespaces.insert(key.namespace.as_str().into(), names);
    }

    pub(super) fn remove(&mut self, key: &ObjectKey) {
        if let Some(names) = self.namespaces.get_mut(key.namespace.as_str()) {
            names.remove(key.name.as_str());
            if names.is_empty() {
                self.namespaces.remove(key.namespace.as_str());
            }
        }
    }

    /// Forgets and returns the objects that the list begun last did not hold.
    pub(super) fn take_missing(&mut self) -> Vec<ObjectKey> {
        let list = self.list;
        let mut missing = Vec::new();
        self.namespaces.retain(|namespace, names| {
            let gone = names.extract_if(|_, last| *last != list);
            missing.extend(gone.map(|(name, _)| ObjectKey {
                namespace: namespace.to_string(),
                name: name.into_string(),
            }));
            !names.is_empty()
        });
        missing
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn mk_key((namespace, name): (u8, u8)) -> ObjectKey {
        ObjectKey {
            namespace: if namespace == 0 {
                String::new()
            } else {
                format!("ns{namespace}")
            },
            name: format!("n{name}"),
        }
    }

    proptest! {
        #[test]
        fn what_a_list_does_not_hold_is_missing_once(
            before in prop::collection::vec((0u8..3, 0u8..9), 0..30),
            removed in prop::collection::vec((0u8..3, 0u8..9), 0..10),
            listed in prop::collection::vec((0u8..3, 0u8..9), 0..30),
        ) {
            let mut known = Known::default();
            let mut model = BTreeSet::new();
            known.begin();
            for key in before {
                known.insert(&mk_key(key));
                model.insert(mk_key(key));
            }
            for key in removed {
                known.remove(&mk_key(key));
                model.remove(&mk_key(key));
            }
            // A list that breaks off forgets nothing.
            known.begin();
            known.begin();
            for key in listed {
                known.insert(&mk_key(key));
                model.remove(&mk_key(key));
            }
            let missing: BTreeSet<_> = known.take_missing().into_iter().collect();
            prop_assert_eq!(missing, model);
            prop_assert!(known.take_missing().is_empty());
        }
    }
}

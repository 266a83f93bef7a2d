//! The published resources, shared between those who change them and the streams that tell of them.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{RwLock, RwLockReadGuard};
use tokio::sync::watch;

use super::Catalog;
use crate::{Change, convert};

/// What is published. A handle that is cheap to clone; all clones share one catalog.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Held for writing only while prepared changes are filed.
    catalog: RwLock<Catalog>,
    changed: watch::Sender<()>,
}

// === impl Resources ===

impl Resources {
    /// Resources over a catalog that may already hold some.
    pub fn new(catalog: Catalog) -> Self {
        let shared = Shared {
            catalog: RwLock::new(catalog),
            changed: watch::Sender::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Publishes a batch of changes; streams see all of it or nothing. What does not change the
    /// content of a resource is not pushed.
    pub fn apply(&self, changes: impl IntoIterator<Item = Change>) {
        let encoded = changes.into_iter();
        self.publish(encoded.map(|change| convert::change_to_proto(&change)));
    }

    /// Publishes resources of any type by type and name, already encoded; without content a resource
    /// is withdrawn.
    pub fn publish<'a>(
        &self,
        resources: impl IntoIterator<Item = (&'a str, Arc<str>, Option<Bytes>)>,
    ) {
        // Collected first, so that nothing is encoded under the lock.
        let resources: Vec<_> = resources.into_iter().collect();
        let mut changed = false;
        let mut catalog = self.shared.catalog.write();
        for (type_url, name, content) in resources {
            changed |= catalog.set(type_url, name, content);
        }
        drop(catalog);
        if changed {
            self.shared.changed.send_replace(());
        }
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Catalog> {
        self.shared.catalog.read()
    }

    pub(super) fn changed(&self) -> watch::Receiver<()> {
        self.shared.changed.subscribe()
    }
}

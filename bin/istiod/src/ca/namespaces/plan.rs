//! Which namespaces are to be told, and when. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use tokio::time::Instant;

use super::{EXCLUDED, Scope};

/// What is known of each namespace and its ConfigMap, and what follows.
pub(super) struct Plan {
    roots: Arc<str>,
    scope: Arc<dyn Scope>,
    namespaces: HashMap<String, Known>,
    due: BTreeSet<String>,
    /// Those whose last write failed.
    later: BTreeSet<(Instant, String)>,
}

/// One namespace. Also exists for a ConfigMap whose namespace is not heard of yet.
#[derive(Default)]
struct Known {
    /// The labels of a namespace that lives.
    labels: Option<BTreeMap<String, String>>,
    map: Map,
    writing: bool,
    /// Whether the watch has told something of the ConfigMap since the write began.
    heard: bool,
    failures: u32,
    retry: Option<Instant>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Map {
    #[default]
    Missing,
    Wrong,
    Right,
}

/// A ConfigMap to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Task {
    pub(super) namespace: String,
    pub(super) roots: Arc<str>,
    /// Whether there is one, as far as is known.
    pub(super) exists: bool,
}

/// The key under which the roots stand.
pub(super) const KEY: &str = "root-cert.pem";
/// The label of Istio's configuration objects.
pub(super) const LABEL: (&str, &str) = ("istio.io/config", "true");

/// First and last wait after a write that failed.
const RETRY: Duration = Duration::from_secs(2);
const MAX_RETRY: Duration = Duration::from_secs(300);

// === impl Plan ===

impl Plan {
    pub(super) fn new(roots: &str, scope: Arc<dyn Scope>) -> Self {
        Self {
            roots: roots.into(),
            scope,
            namespaces: HashMap::new(),
            due: BTreeSet::new(),
            later: BTreeSet::new(),
        }
    }

    /// A namespace is there, with these labels.
    pub(super) fn namespace(&mut self, namespace: Namespace) {
        let Some(name) = namespace.metadata.name else {
            return;
        };
        // Nothing can be made in a namespace that is being deleted.
        let lives = namespace.metadata.deletion_timestamp.is_none();
        let labels = namespace.metadata.labels.unwrap_or_default();
        let known = self.namespaces.entry(name.clone()).or_default();
        known.labels = lives.then_some(labels);
        self.decide(&name);
    }

    pub(super) fn no_namespace(&mut self, name: &str) {
        self.change(name, |known| known.labels = None);
    }

    /// A ConfigMap of our name is there.
    pub(super) fn map(&mut self, map: &ConfigMap) {
        let right = is_right(map, &self.roots);
        let namespace = map.metadata.namespace.as_deref().unwrap_or_default();
        self.hear(namespace, if right { Map::Right } else { Map::Wrong });
    }

    pub(super) fn bad_map(&mut self, namespace: &str) {
        self.hear(namespace, Map::Wrong);
    }

    pub(super) fn no_map(&mut self, namespace: &str) {
        self.hear(namespace, Map::Missing);
    }

    fn hear(&mut self, namespace: &str, map: Map) {
        self.change(namespace, |known| {
            known.map = map;
            known.heard = true;
        });
    }

    /// Other roots are to be told.
    pub(super) fn set_roots(&mut self, roots: &str) {
        if *self.roots == *roots {
            return;
        }
        self.roots = roots.into();
        for known in self.namespaces.values_mut() {
            if known.map == Map::Right {
                known.map = Map::Wrong;
            }
        }
        self.rescope();
    }

    /// The scope may answer otherwise.
    pub(super) fn rescope(&mut self) {
        let names: Vec<String> = self.namespaces.keys().cloned().collect();
        for name in names {
            self.decide(&name);
        }
    }

    /// The next write.
    pub(super) fn take(&mut self, now: Instant) -> Option<Task> {
        while let Some((at, _)) = self.later.first()
            && *at <= now
            && let Some((_, name)) = self.later.pop_first()
        {
            self.change(&name, |known| known.retry = None);
        }
        let namespace = self.due.pop_first()?;
        let known = self.namespaces.get_mut(&namespace)?;
        known.writing = true;
        known.heard = false;
        Some(Task {
            exists: known.map != Map::Missing,
            roots: Arc::clone(&self.roots),
            namespace,
        })
    }

    /// When a write that failed is to be tried anew.
    pub(super) fn next_retry(&self) -> Option<Instant> {
        self.later.first().map(|(at, _)| *at)
    }

    /// A write has ended. If it went well we know what stands there before the watch tells it. What the
    /// watch has told meanwhile may be later than the write, and counts.
    pub(super) fn done(&mut self, task: &Task, well: bool, now: Instant) {
        let current = task.roots == self.roots;
        let mut retry = None;
        self.change(&task.namespace, |known| {
            known.writing = false;
            if well {
                known.failures = 0;
                if current && !known.heard {
                    known.map = Map::Right;
                }
                return;
            }
            let wait = RETRY.saturating_mul(1 << known.failures.min(16));
            known.failures += 1;
            let at = now + wait.min(MAX_RETRY);
            known.retry = Some(at);
            retry = Some(at);
        });
        if let Some(at) = retry
            && self.namespaces.contains_key(&task.namespace)
        {
            self.later.insert((at, task.namespace.clone()));
        }
    }

    fn change(&mut self, name: &str, change: impl FnOnce(&mut Known)) {
        change(self.namespaces.entry(name.to_owned()).or_default());
        self.decide(name);
    }

    fn decide(&mut self, name: &str) {
        let Some(known) = self.namespaces.get(name) else {
            return;
        };
        if known.is_forgettable() {
            if let Some(at) = known.retry {
                self.later.remove(&(at, name.to_owned()));
            }
            self.namespaces.remove(name);
            self.due.remove(name);
            return;
        }
        let covered = |labels| !EXCLUDED.contains(&name) && self.scope.covers(name, labels);
        let wanted = known.labels.as_ref().is_some_and(covered);
        if wanted && known.map != Map::Right && !known.writing && known.retry.is_none() {
            self.due.insert(name.to_owned());
        } else {
            self.due.remove(name);
        }
    }
}

// === impl Known ===

impl Known {
    fn is_forgettable(&self) -> bool {
        self.labels.is_none() && self.map == Map::Missing && !self.writing
    }
}

/// Whether a ConfigMap says what it should. What else is in it is not ours.
pub(super) fn is_right(map: &ConfigMap, roots: &str) -> bool {
    let said = map.data.as_ref().and_then(|data| data.get(KEY));
    let labels = map.metadata.labels.as_ref();
    let label = labels.and_then(|labels| labels.get(LABEL.0));
    said.is_some_and(|said| said == roots) && label.is_some_and(|label| label == LABEL.1)
}

#[cfg(test)]
mod tests;

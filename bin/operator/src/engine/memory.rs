//! What the engine remembers of each resource beside what the cluster holds. Losing it costs nothing but
//! an attempt.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::{key::Key, outcome::Happening};

/// By resource.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<HashMap<Key, Remembered>>);

#[derive(Debug, Default)]
struct Remembered {
    /// Attempts that failed in a row.
    failures: u32,
    /// What was told last; nothing before the first time.
    told: Option<Vec<Happening>>,
}

// === impl Memory ===

impl Memory {
    /// There is no such resource any more.
    pub(super) fn forget(&self, key: &Key) {
        self.0.lock().remove(key);
    }

    /// One more attempt failed. Says how many did in a row.
    pub(super) fn failed(&self, key: &Key) -> u32 {
        let mut all = self.0.lock();
        let remembered = all.entry(key.clone()).or_default();
        remembered.failures = remembered.failures.saturating_add(1);
        remembered.failures
    }

    /// An attempt succeeded.
    pub(super) fn succeeded(&self, key: &Key) {
        if let Some(remembered) = self.0.lock().get_mut(key) {
            remembered.failures = 0;
        }
    }

    /// Which of these were not told last time. After a start, what goes with a status that has not
    /// changed was told by the process before.
    pub(super) fn news(
        &self,
        key: &Key,
        happenings: Vec<Happening>,
        changed: bool,
    ) -> Vec<Happening> {
        let mut all = self.0.lock();
        let told = &mut all.entry(key.clone()).or_default().told;
        let before = told.replace(happenings.clone());
        match before {
            None if !changed => Vec::new(),
            None => happenings,
            Some(before) => {
                let mut news = happenings;
                news.retain(|happening| !before.contains(happening));
                news
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Managed;

    fn mk(message: &str) -> Happening {
        Happening::warning("Because", message)
    }

    #[test]
    fn the_same_is_told_once() {
        let (memory, key) = (Memory::default(), Managed::Istio.named("default"));
        assert_eq!(memory.news(&key, vec![mk("a")], true), [mk("a")]);
        assert_eq!(memory.news(&key, vec![mk("a"), mk("b")], true), [mk("b")]);
        assert_eq!(memory.news(&key, vec![], false), []);
        assert_eq!(memory.news(&key, vec![mk("a")], false), [mk("a")]);
    }

    #[test]
    fn after_a_start_only_what_goes_with_a_change_is_told() {
        let (memory, key) = (Memory::default(), Managed::Istio.named("default"));
        assert_eq!(memory.news(&key, vec![mk("a")], false), []);
        assert_eq!(memory.news(&key, vec![mk("a")], false), []);
        assert_eq!(memory.news(&key, vec![mk("b")], false), [mk("b")]);
    }
}

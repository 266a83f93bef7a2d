//! Waiting for what a test expects, without asking the time.
//!
//! What the API server holds is waited for by its changes: [`Store::until`] and [`Store::until_all`]. A value
//! that somebody watches has a channel to wait on, and needs nothing from here. [`eventually`] is for the rest.

use std::{fmt, sync::Arc, time::Duration};

use kube::Resource;
use serde_json::Value;
use tokio::time::timeout;

use crate::store::{GroupResource, Store};

/// It did not come to this. Either what is tested is broken, or the limit is too tight for the machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it does not come to this within {within:?}: {what}")]
pub struct TimedOut {
    /// What was waited for; of objects, how they were in the end.
    pub what: String,
    /// For how long.
    pub within: Duration,
}

/// Waits until asking gives what is wanted, and returns that.
///
/// For what only those learn who ask: a page of a program's own port, a counter, whether a request succeeds.
/// Nobody announces that, so it is asked for again as soon as it has been answered. The answer takes the time
/// that a pause would, and a clock that stands still does not matter.
pub async fn eventually<T>(
    what: &str,
    within: Duration,
    ask: impl AsyncFn() -> T,
    wanted: impl Fn(&T) -> bool,
) -> Result<T, TimedOut> {
    let asking = async {
        loop {
            let answer = ask().await;
            if wanted(&answer) {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(within, asking).await.map_err(|_late| TimedOut {
        what: what.to_owned(),
        within,
    })
}

/// Objects of a kind as they were in the end.
struct Shown<'a>(&'a str, &'a [Arc<Value>]);

// === impl Store ===

impl Store {
    /// Waits until an object is as wanted, and returns it; `None` stands for no such object. The namespace is
    /// empty for cluster-scoped objects.
    pub async fn until<K: Resource<DynamicType = ()>>(
        &self,
        namespace: &str,
        name: &str,
        within: Duration,
        wanted: impl Fn(Option<&Value>) -> bool,
    ) -> Result<Option<Arc<Value>>, TimedOut> {
        let resource = GroupResource::of::<K>();
        let look = || self.get(&resource, namespace, name);
        let wanted = |object: &Option<Arc<Value>>| wanted(object.as_deref());
        let seen = timeout(within, self.changes(&resource, look, wanted)).await;
        seen.map_err(|_late| {
            let kind = format!("{} {namespace}/{name}", K::kind(&()));
            let objects: Vec<_> = look().into_iter().collect();
            TimedOut {
                what: Shown(&kind, &objects).to_string(),
                within,
            }
        })
    }

    /// Waits until all objects of a kind together are as wanted, and returns them.
    pub async fn until_all<K: Resource<DynamicType = ()>>(
        &self,
        within: Duration,
        wanted: impl Fn(&[Arc<Value>]) -> bool,
    ) -> Result<Vec<Arc<Value>>, TimedOut> {
        let resource = GroupResource::of::<K>();
        let look = || self.list(&resource, None);
        let wanted = |objects: &Vec<Arc<Value>>| wanted(objects);
        let seen = timeout(within, self.changes(&resource, look, wanted)).await;
        seen.map_err(|_late| TimedOut {
            what: Shown(&K::plural(&()), &look()).to_string(),
            within,
        })
    }

    /// Looks whenever something of the resource has changed.
    async fn changes<T>(
        &self,
        resource: &GroupResource,
        look: impl Fn() -> T,
        wanted: impl Fn(&T) -> bool,
    ) -> T {
        let mut news = self.subscribe(resource);
        loop {
            let seen = look();
            if wanted(&seen) {
                return seen;
            }
            if news.changed().await.is_err() {
                // There are no changes any more: this is never going to be.
                std::future::pending::<()>().await;
            }
        }
    }
}

// === impl Shown ===

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(kind, objects) = self;
        f.write_str(kind)?;
        if objects.is_empty() {
            f.write_str(", of which there is none")?;
        }
        for object in *objects {
            let mut object = Value::clone(object);
            if let Some(metadata) = object["metadata"].as_object_mut() {
                metadata.remove("managedFields");
            }
            write!(f, "\n{object:#}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn put(store: &Store, phase: &str) {
        let pod =
            json!({"metadata": {"name": "web", "namespace": "demo"}, "status": {"phase": phase}});
        store.put(&GroupResource::of::<Pod>(), pod);
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_is_looked_at_whenever_it_changes() {
        let store = Store::default();
        let looks = AtomicUsize::new(0);
        let runs = |pod: Option<&Value>| {
            looks.fetch_add(1, Ordering::Relaxed);
            pod.is_some_and(|pod| pod["status"]["phase"] == "Running")
        };
        let change = async {
            for phase in ["Pending", "Running"] {
                put(&store, phase);
                tokio::task::yield_now().await;
            }
        };
        let (pod, ()) =
            tokio::join!(biased; store.until::<Pod>("demo", "web", LIMIT, runs), change);
        assert!(pod.unwrap().is_some());
        assert_eq!(looks.into_inner(), 3, "before the first, and after each");
        let gone = store.until::<Pod>("demo", "db", LIMIT, |pod| pod.is_none());
        assert_eq!(gone.await, Ok(None));
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_come_is_named_with_how_it_is() {
        let store = Store::default();
        let late = store.until_all::<Pod>(LIMIT, |pods| !pods.is_empty()).await;
        let text = late.unwrap_err().to_string();
        assert_eq!(
            text,
            "it does not come to this within 60s: pods, of which there is none"
        );
        put(&store, "Pending");
        let late = store.until::<Pod>("demo", "web", LIMIT, |pod| pod.is_none());
        let text = late.await.unwrap_err().to_string();
        assert!(
            text.contains("Pod demo/web\n") && text.contains("Pending"),
            "{text}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_answer_that_is_wanted_is_returned() {
        let asked = AtomicUsize::new(0);
        let ask = async || asked.fetch_add(1, Ordering::Relaxed);
        assert_eq!(
            eventually("the third", LIMIT, ask, |n| *n == 2).await,
            Ok(2)
        );
    }
}

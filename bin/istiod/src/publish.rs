//! From the index to the proxies: drains what changed and publishes it.

use std::time::Instant;

use mesh_xds::server::Resources;

use crate::{metrics::Metrics, status::Outbox, world::World};

/// Carries changes from the world to discovery.
#[derive(Debug)]
pub(crate) struct Publisher {
    pub(crate) world: World,
    pub(crate) resources: Resources,
    pub(crate) statuses: Outbox,
    pub(crate) metrics: Metrics,
}

/// A drain did not come to its end: the index has panicked, and must not be used any more.
#[derive(Debug)]
pub(crate) struct Failed;

// === impl Publisher ===

impl Publisher {
    /// Publishes everything that is known, and says that it is complete. To be called when all watches
    /// are: proxies are never told that something is gone which has merely not been seen yet.
    pub(crate) async fn first(&self) -> Result<(), Failed> {
        self.publish().await?;
        self.resources.ready();
        Ok(())
    }

    /// Publishes what changes, for as long as the index works.
    pub(crate) async fn run(self) {
        loop {
            self.world.changed().await;
            if self.publish().await.is_err() {
                return;
            }
        }
    }

    async fn publish(&self) -> Result<(), Failed> {
        let begun = Instant::now();
        // A whole mesh, or a namespace that joins it, takes a while: not on a thread that serves streams.
        let (world, resources) = (self.world.clone(), self.resources.clone());
        let drained = tokio::task::spawn_blocking(move || {
            let output = world.drain();
            let changes = output.changes.len();
            resources.apply(output.changes);
            (changes, output.statuses, output.problems)
        });
        let (changes, statuses, problems) = drained.await.map_err(|error| {
            tracing::error!(%error, "the index failed");
            Failed
        })?;
        for problem in problems {
            self.metrics.rejected(problem.kind);
            tracing::warn!(%problem, "part of an object is not in force");
        }
        if changes > 0 {
            self.metrics.published(changes, begun.elapsed());
            tracing::debug!(changes, took = ?begun.elapsed(), "published");
        }
        if !statuses.is_empty() {
            self.statuses.put(statuses);
        }
        Ok(())
    }
}

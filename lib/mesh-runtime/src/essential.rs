//! Tasks without which the program must not go on: a proxy that hears of no new policy, or a control
//! plane that sees no new pod, looks healthy and is not. The kubelet knows what to do with one that ends.

use crate::task::Tracker;
use tokio::sync::mpsc;

/// Spawns such tasks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Essential {
    tasks: Tracker,
    ended: mpsc::UnboundedSender<&'static str>,
}

/// Tells of those that have ended.
pub type Ended = mpsc::UnboundedReceiver<&'static str>;

// === impl Essential ===

impl Essential {
    /// Spawns on `tasks`; what has ended is told to the receiver.
    pub fn new(tasks: Tracker) -> (Self, Ended) {
        let (ended, receiver) = mpsc::unbounded_channel();
        (Self { tasks, ended }, receiver)
    }

    /// Spawns `future` as a task called `name`. Its end is told, whether it returns or panics; once a
    /// drain has begun nobody listens any more.
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        let (task, ended) = (self.tasks.spawn(name, future), self.ended.clone());
        let watch = async move {
            drop(task.await);
            // Nobody listens while the program stops.
            ended.send(name).ok();
        };
        drop(self.tasks.spawn("watch", watch));
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn the_end_of_a_task_is_told_also_when_it_panics() {
        let (essential, mut ended) = Essential::new(Tracker::new());
        essential.spawn("endless", pending());
        essential.spawn("faulty", async { panic!("out of cheese") });
        assert_eq!(ended.recv().await, Some("faulty"));
        essential.spawn("brief", ready(()));
        assert_eq!(ended.recv().await, Some("brief"));
        assert!(ended.try_recv().is_err());
    }
}
